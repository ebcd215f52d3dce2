//! Where a service is served: its ready endpoints, so that nothing need know its cluster IP
//! (upstream: `pkg/registry/core/service/storage`, `kube-aggregator/pkg/apiserver/resolvers.go`, `apiserver/pkg/util/proxy`).

use crate::apiserver::error::ApiError;
use crate::storage::Storage;
use crate::transport::dial::Address;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use rand::seq::IndexedRandom;

const SERVICES: &str = "services";
const ENDPOINT_SLICES: &str = "endpointslices.discovery.k8s.io";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The endpoints of the port of this name that take requests.
pub fn ready(storage: &Storage, namespace: &str, service: &str, port: &str) -> Result<Vec<Address>, ApiError> {
    let slices = storage
        .list(ENDPOINT_SLICES, Some(namespace), None)
        .map_err(ApiError::internal)?;
    let mut addresses = Vec::new();
    for entry in &slices.entries {
        let mut labels = entry.index.labels.iter();
        if labels.any(|(key, value)| key == SERVICE_NAME_LABEL && value == service) {
            let slice: EndpointSlice = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
            addresses.extend(ready_of(&slice, port));
        }
    }
    Ok(addresses)
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
    let entry = storage
        .get(SERVICES, namespace, name)
        .ok_or_else(|| format!("service {name:?} not found"))?;
    let service: Service = serde_json::from_slice(&entry.bytes).map_err(|error| error.to_string())?;
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
