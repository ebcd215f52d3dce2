//! Where a service is served: its ready endpoints, so that nothing need know its cluster IP
//! (upstream: `pkg/registry/core/service/storage`, `kube-aggregator/pkg/apiserver/resolvers.go`, `apiserver/pkg/util/proxy`).

use crate::apiserver::error::ApiError;
use crate::storage::{Entry, Storage};
use crate::transport::dial::Address;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use rand::seq::IndexedRandom;

pub const SERVICES: &str = "services";
pub const ENDPOINT_SLICES: &str = "endpointslices.discovery.k8s.io";
/// Names the service of a slice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The endpoints of the port of this name that take requests.
pub fn ready(storage: &Storage, namespace: &str, service: &str, port: &str) -> Result<Vec<Address>, ApiError> {
    let slices = slices(storage, namespace, service)?;
    Ok(slices.iter().flat_map(|slice| ready_of(slice, port)).collect())
}

/// The service whose endpoints a slice has.
pub fn service_of(slice: &Entry) -> Option<&str> {
    let mut labels = slice.index.labels.iter();
    let (_, name) = labels.find(|(key, _)| key == SERVICE_NAME_LABEL)?;
    Some(name)
}

/// The slices of a service.
pub fn slices(storage: &Storage, namespace: &str, service: &str) -> Result<Vec<EndpointSlice>, ApiError> {
    let all = storage
        .list(ENDPOINT_SLICES, Some(namespace), None)
        .map_err(ApiError::internal)?;
    let mine = all.entries.iter().filter(|entry| service_of(entry) == Some(service));
    mine.map(|entry| serde_json::from_slice(&entry.bytes).map_err(ApiError::internal))
        .collect()
}

/// A stored service.
pub fn find(storage: &Storage, namespace: &str, name: &str) -> Option<Service> {
    let entry = storage.get(SERVICES, namespace, name)?;
    serde_json::from_slice(&entry.bytes).ok()
}

fn ready_of(slice: &EndpointSlice, port_name: &str) -> Vec<Address> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let port = ports
        .iter()
        .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .and_then(|port| u16::try_from(port.port?).ok());
    let Some(port) = port else {
        return Vec::new();
    };
    let is_ready = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        // Unknown counts as ready.
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let ready = slice.endpoints.iter().flatten().filter(is_ready);
    ready
        .filter_map(|endpoint| {
            Some(Address {
                host: endpoint.addresses.first()?.clone(),
                port,
            })
        })
        .collect()
}

/// One of the endpoints behind a service's port. Err is upstream's text.
pub fn resolve(storage: &Storage, namespace: &str, name: &str, port: u16) -> Result<Address, String> {
    let service = find(storage, namespace, name).ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = service.spec.unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        return Ok(Address {
            host: spec.external_name.unwrap_or_default(),
            port,
        });
    }
    let mut ports = spec.ports.iter().flatten();
    let found = ports
        .find(|candidate| candidate.port == i32::from(port))
        .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let endpoints = ready(storage, namespace, name, found.name.as_deref().unwrap_or_default());
    let endpoints = endpoints.map_err(|error| error.to_string())?;
    let chosen = endpoints.choose(&mut rand::rng()).cloned();
    chosen.ok_or_else(|| format!("no endpoints available for service {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_take_requests_unless_they_say_otherwise() {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4",
            "ports": [{"name": "web", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            ],
        }))
        .unwrap();
        let one = Address {
            host: "10.0.0.1".to_owned(),
            port: 8080,
        };
        assert_eq!(ready_of(&slice, "web"), [one]);
        assert_eq!(ready_of(&slice, "admin"), []);
    }
}
