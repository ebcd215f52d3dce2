//! The namespaces that every cluster has (upstream: `pkg/controlplane/controller/systemnamespaces`).

use futures_util::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};

use super::AppError;

const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Where the cluster's identity comes from: the uid of this namespace.
pub(super) const KUBE_SYSTEM: &str = "kube-system";

/// Makes those that are missing.
pub(super) async fn create(client: &kube::Client) -> Result<(), AppError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let create = |name: &'static str| {
        let api = api.clone();
        async move {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            };
            let namespace = Namespace {
                metadata,
                ..Namespace::default()
            };
            match api.create(&PostParams::default(), &namespace).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                Err(source) => Err(AppError::Namespace {
                    name,
                    source: Box::new(source),
                }),
            }
        }
    };
    // At once, so that they are one transaction.
    try_join_all(SYSTEM_NAMESPACES.map(create)).await?;
    Ok(())
}

/// What tells this cluster from others, for as long as its database lives.
pub(super) async fn cluster_id(client: &kube::Client) -> Result<String, AppError> {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = api.get(KUBE_SYSTEM).await;
    let namespace = namespace.map_err(|source| AppError::Namespace {
        name: KUBE_SYSTEM,
        source: Box::new(source),
    })?;
    Ok(namespace.metadata.uid.unwrap_or_default())
}
