//! Pod templates by what they say: when two are the same, and a short name for one (upstream: `EqualIgnoreHash` in
//! `pkg/controller/deployment/util`, `ComputeHash` in `pkg/controller`).

use super::history::safe_encoded;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

/// Which template a pod, or a replica set, was made from.
pub const HASH_LABEL: &str = "pod-template-hash";

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// Whether pods of both templates would be alike, whatever hash label they carry.
pub fn same(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    one == other || essence(one) == essence(other)
}

/// A name for the template that is the same for ever: made of what the template says, not of how it is spelt.
/// `collisions` says how often the name was found taken by another template.
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut bytes = essence(template).to_string().into_bytes();
    if let Some(collisions) = collisions.filter(|count| *count != 0) {
        bytes.extend(collisions.to_le_bytes());
    }
    let sum = bytes
        .iter()
        .fold(FNV_OFFSET, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(FNV_PRIME));
    safe_encoded(&sum.to_string())
}

/// The template without the hash label and without fields that say nothing, in one order.
fn essence(template: &PodTemplateSpec) -> Value {
    // A template is plain data: it always has a JSON form.
    let mut value = serde_json::to_value(template).unwrap_or_default();
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH_LABEL);
    }
    canonical(value).unwrap_or_default()
}

/// Maps, which say nothing when they are empty; an empty object elsewhere is a choice (`emptyDir: {}`).
const MAPS: [&str; 6] = [
    "annotations",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
];

/// None for what is as good as absent.
fn canonical(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(items) => {
            // Items count by their position, so an empty one stays.
            let items: Vec<Value> = items
                .into_iter()
                .map(|item| canonical(item).unwrap_or_default())
                .collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(members) => {
            let mut members: Vec<(String, Value)> = members
                .into_iter()
                .filter_map(|(key, value)| {
                    let chosen = value.is_object() && !MAPS.contains(&key.as_str());
                    let value = canonical(value).or_else(|| chosen.then(|| Value::Object(Map::new())));
                    Some((key, value?))
                })
                .collect();
            members.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            (!members.is_empty()).then(|| Value::Object(Map::from_iter(members)))
        }
        plain => Some(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template(value: Value) -> PodTemplateSpec {
        serde_json::from_value(value).unwrap()
    }

    fn plain() -> Value {
        json!({
            "metadata": {"labels": {"app": "a", "tier": "b"}},
            "spec": {"containers": [{"name": "main", "image": "one"}], "volumes": [{"name": "v", "emptyDir": {}}]},
        })
    }

    #[test]
    fn the_same_said_otherwise_is_the_same() {
        let one = template(plain());
        for change in [
            json!({"metadata": {"labels": {"pod-template-hash": "x"}}}),
            json!({"metadata": {"annotations": {}}}),
            json!({"spec": {"tolerations": [], "nodeSelector": null}}),
        ] {
            let mut value = plain();
            merge(&mut value, change.clone());
            let other = template(value);
            assert!(same(&one, &other), "{change}");
            assert_eq!(hash(&one, None), hash(&other, None), "{change}");
        }
    }

    #[test]
    fn what_pods_would_show_is_a_difference() {
        let one = template(plain());
        for change in [
            json!({"metadata": {"labels": {"app": "b"}}}),
            json!({"metadata": {"annotations": {"a": ""}}}),
            json!({"spec": {"containers": [{"name": "main", "image": "two"}]}}),
            json!({"spec": {"containers": [{"name": "main", "image": "one"}, {"name": "more", "image": "one"}]}}),
            json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}}),
            json!({"spec": {"hostNetwork": true}}),
            json!({"spec": {"securityContext": {}}}),
        ] {
            let mut value = plain();
            merge(&mut value, change.clone());
            let other = template(value);
            assert!(!same(&one, &other), "{change}");
            assert_ne!(hash(&one, None), hash(&other, None), "{change}");
        }
    }

    #[test]
    fn names_are_stable_and_can_be_told_apart() {
        let one = template(plain());
        // This very text stands in stored replica sets: it may never change.
        assert_eq!(hash(&one, None), "7b777f8497");
        assert_eq!(hash(&one, Some(0)), hash(&one, None));
        let names: std::collections::BTreeSet<String> = (0..100).map(|count| hash(&one, Some(count))).collect();
        assert_eq!(names.len(), 100);
        let safe = |name: &String| name.bytes().all(|byte| !b"aeiouy013".contains(&byte)) && name.len() <= 10;
        assert!(names.iter().all(safe), "{names:?}");
    }

    fn merge(object: &mut Value, more: Value) {
        match (object, more) {
            (Value::Object(object), Value::Object(more)) => {
                for (key, value) in more {
                    merge(object.entry(key).or_insert(Value::Null), value);
                }
            }
            (object, more) => *object = more,
        }
    }
}
