//! When a pod has to leave its node because of a NoExecute taint. Pure.

use crate::client::placement::tolerates;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use std::collections::BTreeMap;

/// Since when each taint is borne, by its key.
pub type Since = BTreeMap<String, Timestamp>;

/// The taints of a node that drive pods away.
pub fn driving(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").cloned().collect()
}

/// When a pod with these tolerations has to leave a node with these taints; None: it stays as long as nothing changes.
/// `planned` is what was decided before: the time that a pod is given with a taint runs from when that taint was first seen.
pub fn decide(
    taints: &[Taint],
    tolerations: &[Toleration],
    planned: Option<&Since>,
    now: Timestamp,
) -> Option<(Timestamp, Since)> {
    let mut since = BTreeMap::new();
    let mut first: Option<Timestamp> = None;
    for taint in taints {
        let before = planned.and_then(|since| since.get(&taint.key));
        let begin = before.copied().unwrap_or(now);
        since.insert(taint.key.clone(), begin);
        // As upstream, the first that fits speaks for the taint.
        let end = match tolerations.iter().find(|toleration| tolerates(toleration, taint)) {
            None => now,
            Some(toleration) => match toleration.toleration_seconds {
                None => continue,
                Some(seconds) => begin
                    .checked_add(SignedDuration::from_secs(seconds.max(0)))
                    .unwrap_or(Timestamp::MAX),
            },
        };
        first = Some(first.map_or(end, |first| first.min(end)));
    }
    first.map(|at| (at, since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn taints(keys: &[&str]) -> Vec<Taint> {
        let taint =
            |key: &&str| serde_json::from_value(json!({"key": key, "value": "v", "effect": "NoExecute"})).unwrap();
        keys.iter().map(taint).collect()
    }

    fn tolerations(list: Value) -> Vec<Toleration> {
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn situations() {
        let leave = |since: &[(&str, i64)], until: i64| {
            let since = since.iter().map(|(key, begin)| ((*key).to_owned(), at(*begin)));
            Some((at(until), since.collect::<Since>()))
        };
        let planned = |key: &str, since: i64| Some(Since::from([(key.to_owned(), at(since))]));
        let bears = |key: &str, seconds: Option<i64>| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        for (on_node, of_pod, before, expected) in [
            (&[][..], json!([]), None, None),
            (&[], json!([bears("a", Some(5))]), planned("a", 90), None),
            (&["a"], json!([]), None, leave(&[("a", 100)], 100)),
            // What was given before does not help against a taint that is not borne.
            (
                &["a", "b"],
                json!([bears("a", Some(50))]),
                planned("a", 90),
                leave(&[("a", 90), ("b", 100)], 100),
            ),
            (&["a"], json!([bears("a", None)]), None, None),
            (&["a"], json!([{"operator": "Exists"}]), None, None),
            (&["a"], json!([{"key": "a", "value": "v"}]), None, None),
            (
                &["a"],
                json!([{"key": "a", "value": "w"}]),
                None,
                leave(&[("a", 100)], 100),
            ),
            (
                &["a"],
                json!([{"key": "a", "value": "v", "effect": "NoSchedule"}]),
                None,
                leave(&[("a", 100)], 100),
            ),
            (&["a"], json!([bears("a", Some(5))]), None, leave(&[("a", 100)], 105)),
            (
                &["a"],
                json!([bears("a", Some(5))]),
                planned("a", 97),
                leave(&[("a", 97)], 102),
            ),
            // Another taint has a time of its own.
            (
                &["b"],
                json!([bears("b", Some(5))]),
                planned("a", 90),
                leave(&[("b", 100)], 105),
            ),
            (
                &["a", "b"],
                json!([bears("a", Some(50)), bears("b", Some(5))]),
                planned("a", 90),
                leave(&[("a", 90), ("b", 100)], 105),
            ),
            (&["a"], json!([bears("a", Some(0))]), None, leave(&[("a", 100)], 100)),
            (&["a"], json!([bears("a", Some(-3))]), None, leave(&[("a", 100)], 100)),
            (
                &["a", "b"],
                json!([bears("a", Some(9)), bears("b", None)]),
                None,
                leave(&[("a", 100), ("b", 100)], 109),
            ),
        ] {
            let decision = decide(&taints(on_node), &tolerations(of_pod.clone()), before.as_ref(), at(100));
            assert_eq!(decision, expected, "{on_node:?} {of_pod}");
        }
    }
}
