//! The difference of two statuses as a strategic merge patch (upstream: `pkg/util/pod` `PatchPodStatus`).

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

/// Lists that the server merges by key: replaced as a whole where one of them changed.
const MERGED_LISTS: [&str; 2] = ["podIPs", "hostIPs"];

/// None when nothing changed. The uid makes the server refuse the patch for a namesake.
pub fn difference(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (old, new) = (object(old), object(new));
    let mut status = Map::new();
    for (key, value) in &new {
        let before = old.get(key);
        if before == Some(value) {
            continue;
        }
        let value = match (key.as_str(), before) {
            ("conditions", Some(before)) => changed_conditions(before, value),
            (key, Some(_)) if MERGED_LISTS.contains(&key) => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                Value::Array(list)
            }
            _ => value.clone(),
        };
        status.insert(key.clone(), value);
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        status.insert(key.clone(), Value::Null);
    }
    (!status.is_empty()).then(|| json!({"metadata": {"uid": uid}, "status": status}))
}

fn object(status: &PodStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Conditions merge by type: only those that differ are sent, with null for fields they no longer have; those that are
/// gone are deleted.
fn changed_conditions(old: &Value, new: &Value) -> Value {
    let find = |kind: &Value| {
        old.as_array()
            .into_iter()
            .flatten()
            .find(|c| c.get("type") == Some(kind))
    };
    let changed = new.as_array().into_iter().flatten().filter_map(|condition| {
        let before = find(condition.get("type")?);
        if before == Some(condition) {
            return None;
        }
        let mut sent = condition.clone();
        let fields = sent.as_object_mut()?;
        for key in before.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            if !fields.contains_key(key) {
                fields.insert(key.clone(), Value::Null);
            }
        }
        Some(sent)
    });
    let kinds: Vec<&Value> = new
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c.get("type"))
        .collect();
    let gone = old.as_array().into_iter().flatten().filter_map(|c| c.get("type"));
    let gone = gone.filter(|kind| !kinds.contains(kind));
    let gone = gone.map(|kind| json!({"$patch": "delete", "type": kind}));
    changed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn equal_is_no_patch() {
        let one = status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert_eq!(difference("u", &one, &one.clone()), None);
    }

    #[test]
    fn only_what_changed_is_sent() {
        let old = status(
            json!({"phase": "Pending", "reason": "x", "podIPs": [{"ip": "1.1.1.1"}], "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "PodScheduled", "status": "True"}]}),
        );
        let new = status(
            json!({"phase": "Running", "podIPs": [{"ip": "2.2.2.2"}], "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "PodScheduled", "status": "True"}]}),
        );
        let expected = json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running",
            "reason": null,
            "podIPs": [{"$patch": "replace"}, {"ip": "2.2.2.2"}],
            "conditions": [{"type": "Ready", "status": "True", "reason": null}],
        }});
        assert_eq!(difference("u", &old, &new), Some(expected));
    }
}
