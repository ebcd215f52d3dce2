//! Deletes what is in a namespace: pods first, then everything else
//! (upstream: `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`).

use super::conditions::Findings;
use super::plan::{self, Rest};
use crate::client::discovery::{Metadata, Resource, Resources};
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::api::{Api, DeleteParams, ListParams};
use kube::core::Request;
use kube::{Client, ResourceExt};
use std::sync::Arc;

/// Resources that are emptied at once.
const AT_ONCE: usize = 8;
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=\
                        PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// What remains, and from where on its end can be watched.
pub struct Remaining {
    pub resource: Arc<Resource>,
    pub resource_version: String,
}

/// What was found, and what remains of it.
pub struct Emptied {
    pub findings: Findings,
    pub remaining: Vec<Remaining>,
}

pub struct Namespace<'a> {
    pub client: &'a Client,
    pub name: &'a str,
    /// When its deletion began.
    pub since: Timestamp,
}

impl Namespace<'_> {
    /// Deletes all content, and says what is left for now.
    pub async fn empty(&self, resources: &Resources, discovery_failure: Option<String>) -> Emptied {
        let deletable = resources
            .preferred()
            .filter(|resource| resource.namespaced && resource.has_verbs(&["delete"]));
        let (pods, others): (Vec<&Arc<Resource>>, Vec<_>) =
            deletable.partition(|resource| resource.api.group.is_empty() && resource.api.plural == "pods");
        let mut emptied = Emptied {
            findings: Findings {
                discovery: discovery_failure,
                ..Findings::default()
            },
            remaining: Vec::new(),
        };
        // What pods use outlives them.
        self.empty_all(&pods, &mut emptied).await;
        if emptied.remaining.is_empty() {
            self.empty_all(&others, &mut emptied).await;
        }
        emptied
    }

    async fn empty_all(&self, resources: &[&Arc<Resource>], emptied: &mut Emptied) {
        // Boxed, since the compiler cannot follow the lifetimes of so many closures.
        let work: Vec<BoxFuture<'_, _>> = resources
            .iter()
            .map(|resource| async { ((*resource).clone(), self.empty_one(resource).await) }.boxed())
            .collect();
        let mut results = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((resource, result)) = results.next().await {
            match result {
                Ok((Rest { count: 0, .. }, _)) => {}
                Ok((rest, resource_version)) => {
                    let findings = &mut emptied.findings;
                    if !rest.is_expected {
                        let (name, resource) = (self.name, plan::version_and_resource(&resource));
                        let failure = format!("unexpected items still remain in namespace: {name} for gvr: {resource}");
                        findings.failures.push(failure);
                    }
                    findings
                        .remaining
                        .insert(plan::resource_and_group(&resource), rest.count);
                    for (finalizer, count) in rest.finalizers {
                        *findings.finalizers.entry(finalizer).or_default() += count;
                    }
                    emptied.remaining.push(Remaining {
                        resource,
                        resource_version,
                    });
                }
                // It was served a moment ago, and is no longer.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
                Err(kube::Error::Api(status)) => emptied.findings.failures.push(status.message.clone()),
                Err(error) => emptied.findings.failures.push(error.to_string()),
            }
        }
    }

    async fn empty_one(&self, resource: &Arc<Resource>) -> kube::Result<(Rest, String)> {
        let api: Api<Metadata> = resource.api_in(self.client.clone(), self.name);
        if resource.has_verbs(&["deletecollection"]) {
            self.delete_collection(&api).await?;
        }
        if !resource.has_verbs(&["list"]) {
            return Ok((Rest::default(), String::new()));
        }
        let mut list = api.list(&ListParams::default()).await?;
        if !resource.has_verbs(&["deletecollection"]) && !list.items.is_empty() {
            let waiting = list
                .items
                .iter()
                .filter(|object| object.metadata.deletion_timestamp.is_none());
            let names: Vec<String> = waiting.map(ResourceExt::name_any).collect();
            let work: Vec<BoxFuture<'_, kube::Result<()>>> =
                names.iter().map(|name| delete_one(&api, name).boxed()).collect();
            stream::iter(work).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            list = api.list(&ListParams::default()).await?;
        }
        let objects = list.items.iter().map(|object| &object.metadata);
        let rest = plan::rest(objects, self.since, Timestamp::now());
        Ok((rest, list.metadata.resource_version.unwrap_or_default()))
    }

    /// The answer names all that was deleted: the less of each the better.
    async fn delete_collection(&self, api: &Api<Metadata>) -> kube::Result<()> {
        let request = Request::new(api.resource_url());
        let mut request = request
            .delete_collection(&DeleteParams::background(), &ListParams::default())
            .map_err(kube::Error::BuildRequest)?;
        let accept = http::HeaderValue::from_static(METADATA);
        request.headers_mut().insert(http::header::ACCEPT, accept);
        self.client.request_text(request).await.map(|_| ())
    }
}

async fn delete_one(api: &Api<Metadata>, name: &str) -> kube::Result<()> {
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}
