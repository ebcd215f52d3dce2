//! Hints on which zone or node an endpoint is for, by the Service's `trafficDistribution`
//! (upstream: `staging/src/k8s.io/endpointslice/trafficdist`). Pure.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, ForNode, ForZone};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Distribution {
    /// To any endpoint: no hints.
    Anywhere,
    SameZone,
    SameNode,
}

impl Distribution {
    pub fn of(service: &Service) -> Self {
        let spec = service.spec.as_ref();
        match spec.and_then(|spec| spec.traffic_distribution.as_deref()) {
            Some("PreferClose" | "PreferSameZone") => Self::SameZone,
            Some("PreferSameNode") => Self::SameNode,
            _ => Self::Anywhere,
        }
    }

    /// Whether the endpoints lack a hint, or have a wrong one. What an endpoint that is not ready has does not matter.
    pub fn is_missing(self, endpoints: &[Endpoint]) -> bool {
        endpoints.iter().any(|endpoint| match self {
            Self::Anywhere => endpoint.hints.is_some(),
            _ => is_ready(endpoint) && normal(endpoint.hints.clone()) != self.hints(endpoint),
        })
    }

    pub fn put(self, endpoints: &mut [Endpoint]) {
        for endpoint in endpoints {
            if self == Self::Anywhere || is_ready(endpoint) {
                endpoint.hints = self.hints(endpoint);
            }
        }
    }

    fn hints(self, endpoint: &Endpoint) -> Option<EndpointHints> {
        if self == Self::Anywhere {
            return None;
        }
        let node = endpoint.node_name.clone().filter(|_| self == Self::SameNode);
        normal(Some(EndpointHints {
            for_zones: endpoint.zone.clone().map(|name| vec![ForZone { name }]),
            for_nodes: node.map(|name| vec![ForNode { name }]),
        }))
    }
}

/// Without empty parts.
fn normal(hints: Option<EndpointHints>) -> Option<EndpointHints> {
    let mut hints = hints?;
    hints.for_zones = hints.for_zones.filter(|zones| !zones.is_empty());
    hints.for_nodes = hints.for_nodes.filter(|nodes| !nodes.is_empty());
    (hints.for_zones.is_some() || hints.for_nodes.is_some()).then_some(hints)
}

pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions.and_then(|conditions| conditions.ready) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoint(value: Value) -> Endpoint {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn hints_follow_zone_node_and_readiness() {
        let ready = json!({"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "zone": "z", "nodeName": "n"});
        let with = |hints: Value| {
            let mut with = ready.clone();
            with["hints"] = hints;
            endpoint(with)
        };
        let table = [
            (Distribution::Anywhere, Value::Null),
            (Distribution::SameZone, json!({"forZones": [{"name": "z"}]})),
            (
                Distribution::SameNode,
                json!({"forZones": [{"name": "z"}], "forNodes": [{"name": "n"}]}),
            ),
        ];
        for (distribution, expected) in table {
            for before in [Value::Null, json!({"forZones": [{"name": "old"}]}), expected.clone()] {
                let mut endpoints = [with(before.clone())];
                assert_eq!(
                    distribution.is_missing(&endpoints),
                    before != expected,
                    "{distribution:?} {before}"
                );
                distribution.put(&mut endpoints);
                assert_eq!(endpoints[0], with(expected.clone()), "{distribution:?} {before}");
                assert!(!distribution.is_missing(&endpoints));
            }
        }
        let mut unready = [endpoint(
            json!({"addresses": ["10.0.0.1"], "conditions": {"ready": false}, "zone": "z"}),
        )];
        assert!(!Distribution::SameZone.is_missing(&unready));
        Distribution::SameZone.put(&mut unready);
        assert_eq!(unready[0].hints, None);
    }

    #[test]
    fn distributions_are_read_from_the_service() {
        for (text, expected) in [
            (json!("PreferClose"), Distribution::SameZone),
            (json!("PreferSameZone"), Distribution::SameZone),
            (json!("PreferSameNode"), Distribution::SameNode),
            (json!("Other"), Distribution::Anywhere),
            (Value::Null, Distribution::Anywhere),
        ] {
            let service = serde_json::from_value(json!({"spec": {"trafficDistribution": text}})).unwrap();
            assert_eq!(Distribution::of(&service), expected);
        }
    }
}
