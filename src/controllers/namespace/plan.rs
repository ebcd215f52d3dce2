//! What a namespace needs next, and what its content says of its end. Pure.

use crate::client::discovery::Resource;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;

/// The finalizer that this controller takes away.
pub const FINALIZER: &str = "kubernetes";

/// It is being deleted, and waits for this controller.
pub fn is_ours(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

pub fn without_finalizer(namespace: &Namespace) -> Namespace {
    let mut namespace = namespace.clone();
    if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        finalizers.sort();
    }
    namespace
}

/// Objects of one resource that are still there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rest {
    pub count: usize,
    pub finalizers: BTreeMap<String, usize>,
    /// Something is known to end it: a finalizer, or a grace that has not passed yet.
    pub is_expected: bool,
}

/// What is left of a resource after it was deleted; `since` is when the namespace's deletion began.
pub fn rest<'a>(objects: impl IntoIterator<Item = &'a ObjectMeta>, since: Timestamp, now: Timestamp) -> Rest {
    let mut rest = Rest::default();
    for object in objects {
        rest.count += 1;
        for finalizer in object.finalizers.iter().flatten() {
            *rest.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let grace = object.deletion_grace_period_seconds.unwrap_or(0);
        rest.is_expected |= grace > now.duration_since(since).as_secs();
    }
    rest.is_expected |= !rest.finalizers.is_empty();
    rest
}

/// As upstream's messages name a resource in one version.
pub fn version_and_resource(resource: &Resource) -> String {
    let api = &resource.api;
    format!("{}/{}, Resource={}", api.group, api.version, api.plural)
}

/// As upstream's conditions count it.
pub fn resource_and_group(resource: &Resource) -> String {
    format!("{}.{}", resource.api.plural, resource.api.group)
}

/// What the condition says when some APIs do not tell what they serve.
pub fn discovery_failure(stale: &[String]) -> Option<String> {
    let mut stale: Vec<String> = stale
        .iter()
        .map(|version| format!("{version}: stale GroupVersion discovery: {version}"))
        .collect();
    stale.sort();
    let (count, all) = (stale.len(), stale.join(", "));
    (count > 0).then(|| {
        format!(
            "Discovery failed for some groups, {count} failing: unable to retrieve the complete list of server APIs: {all}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whose_turn_it_is() {
        let deleted = "2026-01-01T00:00:00Z";
        for (metadata, spec, ours) in [
            (json!({}), json!({"finalizers": ["kubernetes"]}), false),
            (
                json!({"deletionTimestamp": deleted}),
                json!({"finalizers": ["kubernetes"]}),
                true,
            ),
            (
                json!({"deletionTimestamp": deleted}),
                json!({"finalizers": ["example.com/other"]}),
                false,
            ),
            (json!({"deletionTimestamp": deleted}), json!({}), false),
        ] {
            let namespace: Namespace = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            assert_eq!(is_ours(&namespace), ours);
            assert!(!is_ours(&without_finalizer(&namespace)));
        }
    }

    #[test]
    fn what_is_left() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (since, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:10Z"));
        let object = |finalizers: &[&str], grace: Option<i64>| ObjectMeta {
            finalizers: Some(finalizers.iter().map(|name| (*name).to_owned()).collect()),
            deletion_grace_period_seconds: grace,
            ..ObjectMeta::default()
        };
        assert_eq!(rest([], since, now), Rest::default());
        let stuck = rest(&[object(&[], Some(5)), object(&[], None)], since, now);
        assert_eq!((stuck.count, stuck.is_expected), (2, false));
        assert!(rest(&[object(&[], Some(30))], since, now).is_expected);
        let held = rest(&[object(&["a/b"], Some(0)), object(&["a/b", "c/d"], None)], since, now);
        assert!(held.is_expected);
        assert_eq!(held.finalizers, [("a/b".to_owned(), 2), ("c/d".to_owned(), 1)].into());
    }

    #[test]
    fn apis_that_do_not_answer() {
        assert_eq!(discovery_failure(&[]), None);
        assert_eq!(
            discovery_failure(&["b.example.com/v1".into(), "a.example.com/v1".into()]).unwrap(),
            "Discovery failed for some groups, 2 failing: unable to retrieve the complete list of server APIs: \
             a.example.com/v1: stale GroupVersion discovery: a.example.com/v1, \
             b.example.com/v1: stale GroupVersion discovery: b.example.com/v1"
        );
    }
}
