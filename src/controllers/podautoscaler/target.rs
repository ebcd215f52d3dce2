//! The scale sub-resource of any kind (upstream: `client-go/scale`).

use super::replicas::Problem;
use crate::controllers::pods::message_of;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::CrossVersionObjectReference;
use kube::Client;
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::discovery::oneshot::pinned_kind;

/// The resource of a kind.
pub async fn resource(client: &Client, api_version: &str, kind: &str) -> Result<ApiResource, Problem> {
    let (group, version) = match api_version.split_once('/') {
        Some((group, version)) => (group, version),
        None if api_version.is_empty() => ("", "v1"),
        None => ("", api_version),
    };
    let wanted = GroupVersionKind::gvk(group, version, kind);
    let found = pinned_kind(client, &wanted).await;
    let shown = if group.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}.{group}")
    };
    found.map(|(resource, _)| resource).map_err(|error| match error {
        kube::Error::Discovery(_) => Problem(format!("no matches for kind {kind:?} in group {group:?}")),
        kube::Error::Api(status) if status.code == 404 => {
            Problem(format!("no matches for kind {kind:?} in group {group:?}"))
        }
        other => Problem(format!("{shown}: {}", message_of(&other))),
    })
}

/// Where the scale of an object is.
pub struct Target {
    path: String,
}

impl Target {
    pub async fn of(
        client: &Client,
        namespace: &str,
        reference: &CrossVersionObjectReference,
    ) -> Result<Self, Problem> {
        let api_version = reference.api_version.as_deref().unwrap_or_default();
        if api_version.matches('/').count() > 1 {
            return Err(Problem(format!("unexpected GroupVersion string: {api_version}")));
        }
        let resource = resource(client, api_version, &reference.kind).await?;
        let root = match resource.group.as_str() {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        let (plural, name) = (&resource.plural, &reference.name);
        Ok(Self {
            path: format!("{root}/namespaces/{namespace}/{plural}/{name}/scale"),
        })
    }

    pub async fn get(&self, client: &Client) -> Result<Scale, Problem> {
        let request = http::Request::get(&self.path).body(Vec::new());
        let request = request.map_err(|error| Problem(error.to_string()))?;
        client
            .request(request)
            .await
            .map_err(|error| Problem(message_of(&error)))
    }

    pub async fn put(&self, client: &Client, scale: &Scale) -> Result<Scale, Problem> {
        let body = serde_json::to_vec(scale).map_err(|error| Problem(error.to_string()))?;
        let request = http::Request::put(&self.path).header("content-type", "application/json");
        let request = request.body(body).map_err(|error| Problem(error.to_string()))?;
        client
            .request(request)
            .await
            .map_err(|error| Problem(message_of(&error)))
    }
}
