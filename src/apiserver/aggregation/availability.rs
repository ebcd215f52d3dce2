//! Whether the server of an APIService can be reached, from what is stored and from an attempt. Pure
//! (upstream: `kube-aggregator/pkg/controllers/status/{local,remote}`).

use super::services::Remote;
use crate::registry::json::{child_or_new, text};
use crate::registry::strategy::Object;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

const AVAILABLE: &str = "Available";

/// The condition `Available`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub is_true: bool,
    pub reason: &'static str,
    pub message: String,
}

/// This server itself.
pub fn local() -> Condition {
    Condition {
        is_true: true,
        reason: "Local",
        message: "Local APIServices are always available".to_owned(),
    }
}

/// What is stored is against it; None: it is to be tried.
pub fn objection(remote: &Remote, service: Option<&Service>, slices: &[EndpointSlice]) -> Option<Condition> {
    let Remote {
        namespace, name, port, ..
    } = remote;
    let objection = |reason: &'static str, message: String| {
        Some(Condition {
            is_true: false,
            reason,
            message,
        })
    };
    let Some(service) = service else {
        return objection(
            "ServiceNotFound",
            format!("service/{name} in {namespace:?} is not present"),
        );
    };
    let spec = service.spec.as_ref();
    let is_of_cluster = spec.is_some_and(|spec| matches!(spec.type_.as_deref(), None | Some("ClusterIP")));
    if !is_of_cluster {
        return None;
    }
    let mut ports = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let Some(found) = ports.find(|candidate| candidate.port == i32::from(*port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return objection("ServicePortError", message);
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return objection("EndpointsNotFound", message);
    }
    let port_name = found.name.as_deref().unwrap_or_default();
    if !slices.iter().any(|slice| has_endpoint(slice, port_name)) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return objection("MissingEndpoints", message);
    }
    None
}

fn has_endpoint(slice: &EndpointSlice, port_name: &str) -> bool {
    let is_ready = slice.endpoints.iter().flatten().any(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    });
    let mut ports = slice.ports.iter().flatten();
    is_ready && ports.any(|port| port.name.as_deref().unwrap_or_default() == port_name && port.port.is_some())
}

/// What came of the attempt.
pub fn tried(outcome: Result<(), String>) -> Condition {
    match outcome {
        Ok(()) => Condition {
            is_true: true,
            reason: "Passed",
            message: "all checks passed".to_owned(),
        },
        Err(message) => Condition {
            is_true: false,
            reason: "FailedDiscoveryCheck",
            message,
        },
    }
}

/// The object with the condition; None if it has it already. Its time is that of its last change of status.
pub fn with_condition(object: &Object, condition: &Condition, now: &str) -> Option<Object> {
    let mut object = object.clone();
    let status = child_or_new(&mut object, "status");
    let conditions = status.entry("conditions").or_insert(Value::Null);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut()?;
    let value = if condition.is_true { "True" } else { "False" };
    let mut wanted = json!({
        "type": AVAILABLE, "status": value, "lastTransitionTime": now,
        "reason": condition.reason, "message": condition.message,
    });
    match conditions.iter_mut().find(|known| known["type"] == AVAILABLE) {
        None => conditions.push(wanted),
        Some(known) => {
            if known["status"] == value {
                wanted["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            if *known == wanted {
                return None;
            }
            *known = wanted;
        }
    }
    Some(object)
}

/// The condition's status and reason as they are stored.
pub fn stored(object: &Object) -> Option<(&str, &str)> {
    let conditions = object.get("status")?.get("conditions")?.as_array()?;
    let condition = conditions
        .iter()
        .find(|known| known["type"] == AVAILABLE)?
        .as_object()?;
    Some((text(condition, &["status"]), text(condition, &["reason"])))
}

#[cfg(test)]
mod tests {
    use super::super::services::ApiService;
    use super::*;
    use std::sync::Arc;

    fn remote() -> Arc<Remote> {
        let object = json!({"spec": {"service": {"namespace": "ns", "name": "api", "port": 443}}});
        let service = ApiService::read(&Arc::from("v1.example.com"), object.as_object().unwrap());
        service.remote.unwrap()
    }

    fn service(kind: &str, port: u16, name: &str) -> Service {
        serde_json::from_value(json!({"spec": {"type": kind, "ports": [{"port": port, "name": name}]}})).unwrap()
    }

    fn slice(ready: Option<bool>, port_name: &str) -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4", "ports": [{"name": port_name, "port": 8443}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}],
        }))
        .unwrap()
    }

    #[test]
    fn objections_are_upstreams() {
        let web = || Some(service("ClusterIP", 443, "https"));
        let situations = [
            (None, vec![], "ServiceNotFound: service/api in \"ns\" is not present"),
            (
                Some(service("ClusterIP", 80, "http")),
                vec![],
                "ServicePortError: service/api in \"ns\" is not listening on port 443",
            ),
            (
                web(),
                vec![],
                "EndpointsNotFound: cannot find endpointslices for service/api in \"ns\"",
            ),
            (
                web(),
                vec![slice(Some(true), "http"), slice(Some(false), "https")],
                "MissingEndpoints: endpointslices for service/api in \"ns\" have no addresses with port name \"https\"",
            ),
            (web(), vec![slice(None, "https")], ""),
            (web(), vec![slice(Some(true), "https")], ""),
            (Some(service("ExternalName", 1, "")), vec![], ""),
        ];
        for (service, slices, expected) in situations {
            let told = objection(&remote(), service.as_ref(), &slices);
            let told = told.map(|told| {
                assert!(!told.is_true);
                format!("{}: {}", told.reason, told.message)
            });
            assert_eq!(told.unwrap_or_default(), expected);
        }
        assert!(tried(Ok(())).is_true);
        assert_eq!(tried(Err("why".to_owned())).reason, "FailedDiscoveryCheck");
    }

    #[test]
    fn a_condition_is_written_when_it_changes_and_leaves_others() {
        let other = json!({"type": "StatusUpdated", "status": "True"});
        let object = json!({"spec": {}, "status": {"conditions": [other]}});
        let object = object.as_object().unwrap();
        assert_eq!(stored(object), None);
        let failed = tried(Err("one".to_owned()));
        let first = with_condition(object, &failed, "then").unwrap();
        assert_eq!(first["status"]["conditions"][0], other);
        assert_eq!(stored(&first), Some(("False", "FailedDiscoveryCheck")));
        assert_eq!(with_condition(&first, &failed, "now"), None);
        let second = with_condition(&first, &tried(Err("two".to_owned())), "now").unwrap();
        let condition = &second["status"]["conditions"][1];
        assert_eq!(
            (&condition["message"], &condition["lastTransitionTime"]),
            (&json!("two"), &json!("then"))
        );
        let third = with_condition(&second, &tried(Ok(())), "now").unwrap();
        assert_eq!(third["status"]["conditions"][1]["lastTransitionTime"], "now");
    }
}
