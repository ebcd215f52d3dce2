//! The priority classes that every cluster has (upstream: `pkg/registry/scheduling/rest`).

use futures_util::future::try_join_all;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, ObjectMeta, PostParams};

use super::AppError;

const CLASSES: [(&str, i32, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// Makes those that are missing.
pub(super) async fn create(client: &kube::Client) -> Result<(), AppError> {
    let api: Api<PriorityClass> = Api::all(client.clone());
    let create = |(name, value, description): (&'static str, i32, &str)| {
        let api = api.clone();
        let class = PriorityClass {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            value: Some(value),
            description: Some(description.to_owned()),
            ..PriorityClass::default()
        };
        async move {
            match api.create(&PostParams::default(), &class).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                Err(source) => Err(AppError::PriorityClass {
                    name,
                    source: Box::new(source),
                }),
            }
        }
    };
    try_join_all(CLASSES.map(create)).await?;
    Ok(())
}
