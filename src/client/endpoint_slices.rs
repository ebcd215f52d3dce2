//! Whose an EndpointSlice is (upstream: `endpointslice/util`).

use super::ObjectKey;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;

/// The label that names the Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The Service that a slice says it belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.labels().get(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(slice.namespace().unwrap_or_default(), name))
}
