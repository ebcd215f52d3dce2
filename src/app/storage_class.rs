//! The storage class that claims get which name none: directories on the node of the pod that uses them first
//! (upstream has no built-in one; the name is the one that such classes commonly have).

use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, ObjectMeta, PostParams};
use std::collections::BTreeMap;

use super::AppError;
use crate::controllers::LOCAL_PATH;

const NAME: &str = "local-path";
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";

/// Makes it unless it is there, changed perhaps.
pub(super) async fn create(client: &kube::Client) -> Result<(), AppError> {
    let api: Api<StorageClass> = Api::all(client.clone());
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            annotations: Some(BTreeMap::from([(IS_DEFAULT.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        provisioner: LOCAL_PATH.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("WaitForFirstConsumer".to_owned()),
        allow_volume_expansion: Some(true),
        ..StorageClass::default()
    };
    match api.create(&PostParams::default(), &class).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(source) => Err(AppError::StorageClass {
            name: NAME,
            source: Box::new(source),
        }),
    }
}
