//! When a pod has to leave its node because of a NoExecute taint. Pure.

use crate::client::placement::tolerates;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

/// A pod that will have to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Since when its taints are borne.
    pub since: Timestamp,
    pub at: Timestamp,
}

/// What becomes of a pod on its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays as long as nothing changes.
    Stay,
    Leave(Eviction),
}

/// The taints of a node that drive pods away.
pub fn driving(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// What a pod with these tolerations does on a node with these taints. `planned` is what was decided before: the time
/// that a pod is given runs from the first taint on.
pub fn decide(
    taints: &[Taint],
    tolerations: &[Toleration],
    planned: Option<Eviction>,
    now: Timestamp,
) -> Decision {
    if taints.is_empty() {
        return Decision::Stay;
    }
    let mut least: Option<i64> = None;
    for taint in taints {
        let mut bearing = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
        if bearing.peek().is_none() {
            return Decision::Leave(Eviction { since: now, at: now });
        }
        // As upstream, the first that fits speaks for the taint.
        if let Some(seconds) = bearing.next().and_then(|toleration| toleration.toleration_seconds) {
            least = Some(least.map_or(seconds, |least| least.min(seconds)));
        }
    }
    let Some(seconds) = least else {
        return Decision::Stay;
    };
    let since = planned.map_or(now, |planned| planned.since);
    let at = since
        .checked_add(SignedDuration::from_secs(seconds.max(0)))
        .unwrap_or(Timestamp::MAX);
    Decision::Leave(Eviction { since, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn taints(keys: &[&str]) -> Vec<Taint> {
        let taint = |key: &&str| serde_json::from_value(json!({"key": key, "value": "v", "effect": "NoExecute"})).unwrap();
        keys.iter().map(taint).collect()
    }

    fn tolerations(list: Value) -> Vec<Toleration> {
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn situations() {
        let leave = |since: i64, until: i64| {
            Decision::Leave(Eviction {
                since: at(since),
                at: at(until),
            })
        };
        let planned = |since: i64, until: i64| {
            Some(Eviction {
                since: at(since),
                at: at(until),
            })
        };
        let bears = |key: &str, seconds: Option<i64>| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (on_node, of_pod, before, expected) in [
            (&[][..], json!([]), None, Decision::Stay),
            (&[], json!([bears("a", Some(5))]), planned(90, 95), Decision::Stay),
            (&["a"], json!([]), None, leave(100, 100)),
            // What was given before does not help against a taint that is not borne.
            (&["a", "b"], json!([bears("a", Some(50))]), planned(90, 140), leave(100, 100)),
            (&["a"], json!([bears("a", None)]), None, Decision::Stay),
            (&["a"], json!([{"operator": "Exists"}]), None, Decision::Stay),
            (&["a"], json!([{"key": "a", "value": "v"}]), None, Decision::Stay),
            (&["a"], json!([{"key": "a", "value": "w"}]), None, leave(100, 100)),
            (&["a"], json!([{"key": "a", "value": "v", "effect": "NoSchedule"}]), None, leave(100, 100)),
            (&["a"], json!([bears("a", Some(5))]), None, leave(100, 105)),
            (&["a"], json!([bears("a", Some(5))]), planned(97, 102), leave(97, 102)),
            (&["a"], json!([bears("a", Some(0))]), None, leave(100, 100)),
            (&["a"], json!([bears("a", Some(-3))]), None, leave(100, 100)),
            (&["a", "b"], json!([bears("a", Some(9)), bears("b", Some(7))]), None, leave(100, 107)),
            (&["a", "b"], json!([bears("a", Some(9)), bears("b", None)]), None, leave(100, 109)),
        ] {
            let decision = decide(&taints(on_node), &tolerations(of_pod.clone()), before, at(100));
            assert_eq!(decision, expected, "{on_node:?} {of_pod}");
        }
    }
}
