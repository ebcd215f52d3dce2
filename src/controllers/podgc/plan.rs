//! Which pods nobody will ever end (upstream: `pkg/controller/podgc`). Pure.

use crate::controllers::pods::{is_finished, is_terminating};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::sync::Arc;

const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Why a pod is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its node is gone.
    Orphaned,
    /// It goes, and was on no node yet.
    Unscheduled,
    /// It goes, on a node that was declared out of service.
    OutOfService,
}

/// What the node of a pod is like.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    None,
    /// Certainly gone: the API server does not know it either.
    Gone,
    /// Not in the cache; nothing more is known.
    Unknown,
    There(&'a Node),
}

pub fn why(pod: &Pod, place: Place<'_>) -> Option<Why> {
    match place {
        Place::Gone => Some(Why::Orphaned),
        Place::None if is_terminating(pod) => Some(Why::Unscheduled),
        Place::There(node) if is_terminating(pod) && is_out_of_service(node) => Some(Why::OutOfService),
        _ => None,
    }
}

/// Not ready, and somebody said that it will not come back by itself.
fn is_out_of_service(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    !ready && taints.into_iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Of more than `threshold` finished pods those that go: evicted ones first, then the oldest.
pub fn surplus(mut finished: Vec<Arc<Pod>>, threshold: usize) -> Vec<Arc<Pod>> {
    finished.retain(|pod| is_finished(pod));
    let surplus = finished.len().saturating_sub(threshold);
    if surplus == 0 {
        return Vec::new();
    }
    finished.sort_by_cached_key(|pod| {
        let status = pod.status.as_ref();
        let evicted = status.is_some_and(|status| {
            status.phase.as_deref() == Some("Failed") && status.reason.as_deref() == Some("Evicted")
        });
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!evicted, created, pod.metadata.name.clone())
    });
    finished.truncate(surplus);
    finished
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(going: bool, more: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p"}});
        if going {
            pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
        }
        pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn situations() {
        let node = |ready: &str, taint: &str| -> Node {
            serde_json::from_value(json!({"metadata": {},
                "spec": {"taints": [{"key": taint, "effect": "NoExecute"}]},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap()
        };
        let (down, up, other) = (
            node("Unknown", OUT_OF_SERVICE),
            node("True", OUT_OF_SERVICE),
            node("False", "x"),
        );
        for (going, place, expected) in [
            (false, Place::Gone, Some(Why::Orphaned)),
            (true, Place::Gone, Some(Why::Orphaned)),
            (true, Place::Unknown, None),
            (true, Place::None, Some(Why::Unscheduled)),
            (false, Place::None, None),
            (true, Place::There(&down), Some(Why::OutOfService)),
            (false, Place::There(&down), None),
            (true, Place::There(&up), None),
            (true, Place::There(&other), None),
        ] {
            assert_eq!(why(&pod(going, json!({})), place), expected);
        }
    }

    #[test]
    fn the_oldest_of_too_many_go() {
        let one = |name: &str, created: &str, status: Value| {
            let meta = json!({"name": name, "creationTimestamp": format!("2024-01-01T00:00:0{created}Z")});
            Arc::new(pod(false, json!({"metadata": meta, "status": status})))
        };
        let pods = vec![
            one("new", "9", json!({"phase": "Succeeded"})),
            one("runs", "0", json!({"phase": "Running"})),
            one("b", "1", json!({"phase": "Failed"})),
            one("a", "1", json!({"phase": "Succeeded"})),
            one("evicted", "8", json!({"phase": "Failed", "reason": "Evicted"})),
        ];
        let names = |threshold| -> Vec<String> {
            let gone = surplus(pods.clone(), threshold);
            gone.iter().filter_map(|pod| pod.metadata.name.clone()).collect()
        };
        assert_eq!(names(4), [""; 0]);
        assert_eq!(names(1), ["evicted", "a", "b"]);
    }
}
