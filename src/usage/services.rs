//! What Services use (upstream: `pkg/quota/v1/evaluator/core/services.go`).

use super::{Amounts, Measured, count_name};
use k8s_openapi::api::core::v1::Service;

const SERVICES: &str = "services";
const NODE_PORTS: &str = "services.nodeports";
const LOAD_BALANCERS: &str = "services.loadbalancers";

pub(super) fn tracks(resource: &str) -> bool {
    [SERVICES, NODE_PORTS, LOAD_BALANCERS].contains(&resource)
}

impl Measured for Service {
    /// Node ports are counted as they will be: they may not be given out yet.
    fn usage(&self, _now: jiff::Timestamp) -> Amounts {
        let spec = self.spec.as_ref();
        let ports = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let (mut balancers, mut node_ports) = (0, 0);
        match spec.and_then(|spec| spec.type_.as_deref()) {
            Some("NodePort") => node_ports = ports.len(),
            Some("LoadBalancer") => {
                balancers = 1;
                let given = spec.and_then(|spec| spec.allocate_load_balancer_node_ports) != Some(false);
                let asked_for = ports.iter().filter(|port| port.node_port.is_some_and(|port| port != 0));
                node_ports = if given { ports.len() } else { asked_for.count() };
            }
            _ => {}
        }
        let mut usage = Amounts::default();
        usage.count(&count_name("", SERVICES), 1);
        usage.count(SERVICES, 1);
        usage.count(LOAD_BALANCERS, balancers);
        usage.count(NODE_PORTS, i64::try_from(node_ports).unwrap_or(i64::MAX));
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn node_ports_and_load_balancers() {
        for (spec, node_ports, balancers) in [
            (json!({"ports": [{"port": 1}, {"port": 2}]}), 0, 0),
            (json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}), 2, 0),
            (
                json!({"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}),
                2,
                1,
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                    "ports": [{"port": 1, "nodePort": 30000}, {"port": 2}]}),
                1,
                1,
            ),
        ] {
            let service: Service = serde_json::from_value(json!({ "spec": spec })).unwrap();
            let usage = service.usage(jiff::Timestamp::UNIX_EPOCH).to_string();
            let expected = format!(
                "count/services=1,services=1,services.loadbalancers={balancers},services.nodeports={node_ports}"
            );
            assert_eq!(usage, expected, "{service:?}");
        }
    }
}
