//! What a namespace needs next. Pure.

use k8s_openapi::api::core::v1::Namespace;

/// The finalizer that this controller takes away.
pub const FINALIZER: &str = "kubernetes";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// Delete the content, then finalize.
    Empty,
}

pub fn next_step(namespace: &Namespace) -> Step {
    let ours = namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_ref())
        .into_iter()
        .flatten();
    let held = ours.into_iter().any(|finalizer| finalizer == FINALIZER);
    if namespace.metadata.deletion_timestamp.is_some() && held {
        Step::Empty
    } else {
        Step::Nothing
    }
}

/// Pods go first: what they use must outlive them (upstream: ordered namespace deletion).
pub fn deletion_rank(resource: &str) -> u8 {
    match resource {
        "pods" => 0,
        // Events tell what happened meanwhile.
        "events" => 2,
        _ => 1,
    }
}

pub fn without_finalizer(namespace: &Namespace) -> Namespace {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn situations() {
        let deleted = "2026-01-01T00:00:00Z";
        for (metadata, spec, step) in [
            (json!({}), json!({"finalizers": ["kubernetes"]}), Step::Nothing),
            (
                json!({"deletionTimestamp": deleted}),
                json!({"finalizers": ["kubernetes"]}),
                Step::Empty,
            ),
            (
                json!({"deletionTimestamp": deleted}),
                json!({"finalizers": ["example.com/other"]}),
                Step::Nothing,
            ),
            (json!({"deletionTimestamp": deleted}), json!({}), Step::Nothing),
        ] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            assert_eq!(next_step(&namespace), step);
            assert_eq!(next_step(&without_finalizer(&namespace)), Step::Nothing);
        }
    }
}
