//! What a deletion says of the object's dependents, as finalizers that the garbage collector acts on
//! (upstream: `deletionFinalizersForGarbageCollection` in `registry/generic/registry/store.go`).

use super::metadata;
use crate::apiserver::options::PropagationPolicy;
use crate::registry::Kind;
use crate::registry::strategy::{Dependents, Object};
use serde_json::Value;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Gives `object` the finalizer that `asked` stands for, and takes the other one away. What is not asked for is as the
/// object has it already, else as its kind has it. True if the finalizers are others now.
pub fn apply(kind: &Kind, object: &mut Object, asked: Option<PropagationPolicy>) -> bool {
    let before = finalizers(object);
    let by_kind = kind.strategy.dependents();
    let wanted = match asked {
        _ if by_kind == Dependents::Ignored => None,
        Some(PropagationPolicy::Orphan) => Some(ORPHAN),
        Some(PropagationPolicy::Foreground) => Some(FOREGROUND),
        Some(PropagationPolicy::Background) => None,
        None => match before.iter().find(|name| is_ours(name)) {
            Some(name) if name == ORPHAN => Some(ORPHAN),
            Some(_) => Some(FOREGROUND),
            None => (by_kind == Dependents::Orphaned).then_some(ORPHAN),
        },
    };
    let had: Vec<&String> = before.iter().filter(|name| is_ours(name)).collect();
    let same = match (had.as_slice(), wanted) {
        ([], None) => true,
        (had, Some(wanted)) => !had.is_empty() && had.iter().all(|name| *name == wanted),
        _ => false,
    };
    if same {
        return false;
    }
    let others = before.iter().filter(|name| !is_ours(name)).cloned();
    let after: Vec<Value> = others.chain(wanted.map(str::to_owned)).map(Value::String).collect();
    let metadata = metadata::of_mut(object);
    if after.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), Value::Array(after));
    }
    true
}

fn is_ours(finalizer: &str) -> bool {
    finalizer == ORPHAN || finalizer == FOREGROUND
}

fn finalizers(object: &Object) -> Vec<String> {
    let list = metadata::of(object).get("finalizers").and_then(Value::as_array);
    let names = list.into_iter().flatten().filter_map(Value::as_str);
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use PropagationPolicy::{Background, Foreground, Orphan};
    use serde_json::json;

    #[test]
    fn the_request_then_the_object_then_the_kind() {
        // Group, version and resource; the object's finalizers, the request's wish, and the finalizers afterwards.
        type Case = (
            &'static str,
            &'static str,
            &'static str,
            Value,
            Option<PropagationPolicy>,
            Value,
        );
        let cases: [Case; 13] = [
            ("", "v1", "configmaps", json!([]), None, json!([])),
            ("", "v1", "configmaps", json!([]), Some(Orphan), json!(["orphan"])),
            (
                "",
                "v1",
                "configmaps",
                json!(["a/b"]),
                Some(Foreground),
                json!(["a/b", "foregroundDeletion"]),
            ),
            (
                "",
                "v1",
                "configmaps",
                json!(["orphan"]),
                Some(Foreground),
                json!(["foregroundDeletion"]),
            ),
            (
                "",
                "v1",
                "configmaps",
                json!(["orphan", "a/b"]),
                None,
                json!(["orphan", "a/b"]),
            ),
            (
                "",
                "v1",
                "configmaps",
                json!(["foregroundDeletion"]),
                None,
                json!(["foregroundDeletion"]),
            ),
            (
                "",
                "v1",
                "configmaps",
                json!(["foregroundDeletion", "a/b"]),
                Some(Background),
                json!(["a/b"]),
            ),
            ("", "v1", "replicationcontrollers", json!([]), None, json!(["orphan"])),
            (
                "",
                "v1",
                "replicationcontrollers",
                json!([]),
                Some(Background),
                json!([]),
            ),
            ("batch", "v1", "jobs", json!([]), None, json!(["orphan"])),
            ("apps", "v1", "deployments", json!([]), None, json!([])),
            ("", "v1", "events", json!([]), Some(Orphan), json!([])),
            ("", "v1", "namespaces", json!([]), Some(Foreground), json!([])),
        ];
        for (group, version, resource, before, asked, after) in cases {
            let kind = Registry::builtin().lookup(group, version, resource).unwrap();
            let mut object = json!({"metadata": {"finalizers": before}}).as_object().unwrap().clone();
            let changed = apply(&kind, &mut object, asked);
            let got = object["metadata"].get("finalizers").cloned().unwrap_or(json!([]));
            assert_eq!(got, after, "{resource} {before} {asked:?}");
            assert_eq!(changed, before != after, "{resource} {before} {asked:?}");
        }
    }
}
