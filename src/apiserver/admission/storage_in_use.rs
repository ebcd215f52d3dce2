//! StorageObjectInUseProtection (upstream: `plugin/pkg/admission/storage/storageobjectinuseprotection`): claims,
//! volumes and their attributes' classes are held until the protection controllers let them go.

use super::{Operation, Subject};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::json::child_or_new;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    (
        "storage.k8s.io",
        "volumeattributesclasses",
        "kubernetes.io/vac-protection",
    ),
];

pub fn admit(_ctx: &Context, subject: &Subject<'_>, object: &mut Object) -> Result<(), ApiError> {
    let kind = subject.kind;
    let finalizer = FINALIZERS
        .iter()
        .find(|(group, resource, _)| (*group, *resource) == (kind.group, kind.resource));
    if let Some((_, _, finalizer)) = finalizer
        && subject.operation == Operation::Create
        && subject.subresource.is_empty()
    {
        hold(object, finalizer);
    }
    Ok(())
}

fn hold(object: &mut Object, finalizer: &str) {
    let finalizers = child_or_new(object, "metadata")
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    match finalizers {
        Value::Array(finalizers) if finalizers.iter().any(|one| one == finalizer) => {}
        Value::Array(finalizers) => finalizers.push(json!(finalizer)),
        other => *other = json!([finalizer]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_finalizer_is_added_once() {
        let mut claim = Object::new();
        hold(&mut claim, "a/b");
        hold(&mut claim, "a/b");
        assert_eq!(Value::Object(claim), json!({"metadata": {"finalizers": ["a/b"]}}));
    }
}
