//! Where a node's kubelet listens, as its Node object says (upstream: `pkg/kubelet/client/kubelet_client.go`,
//! `pkg/util/node`).

use crate::apiserver::error::{ApiError, Subject};
use crate::storage::Storage;
use crate::transport::dial::Address;
use k8s_openapi::api::core::v1::Node;

pub const NODES: Subject<'static> = Subject {
    group: "",
    resource: "nodes",
};

/// kubeadm's order of `--kubelet-preferred-address-types` (a node's name need not resolve here), and the rest.
const PREFERRED_ADDRESS_TYPES: [&str; 5] = ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"];
const DEFAULT_KUBELET_PORT: u16 = 10250;

/// Looks up the node and picks an address.
pub fn address(storage: &Storage, name: &str) -> Result<Address, ApiError> {
    let entry = storage
        .get(NODES.resource, "", name)
        .ok_or_else(|| ApiError::not_found(NODES, name))?;
    let node: Node = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    pick(&node).ok_or_else(|| {
        ApiError::service_unavailable(format!("node {name:?} has not reported an address of its kubelet"))
    })
}

fn pick(node: &Node) -> Option<Address> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let host = PREFERRED_ADDRESS_TYPES
        .iter()
        .find_map(|wanted| addresses.iter().find(|address| address.type_ == *wanted))?
        .address
        .clone();
    let reported = status
        .daemon_endpoints
        .as_ref()
        .and_then(|endpoints| endpoints.kubelet_endpoint.as_ref())
        .and_then(|endpoint| u16::try_from(endpoint.port).ok());
    Some(Address {
        host,
        port: reported.filter(|port| *port > 0).unwrap_or(DEFAULT_KUBELET_PORT),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn picked(status: serde_json::Value) -> Option<String> {
        let node: Node = serde_json::from_value(json!({"status": status})).unwrap();
        pick(&node).map(|address| address.to_string())
    }

    #[test]
    fn an_internal_address_is_preferred_and_the_reported_port_taken() {
        let addresses = json!([
            {"type": "Hostname", "address": "n"},
            {"type": "InternalIP", "address": "fd00::1"},
        ]);
        let status = json!({"addresses": addresses, "daemonEndpoints": {"kubeletEndpoint": {"Port": 4711}}});
        assert_eq!(picked(status).as_deref(), Some("[fd00::1]:4711"));
        let status = json!({"addresses": [{"type": "Hostname", "address": "n"}]});
        assert_eq!(picked(status).as_deref(), Some("n:10250"));
        assert_eq!(picked(json!({"addresses": []})), None);
    }
}
