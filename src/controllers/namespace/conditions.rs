//! What a terminating namespace says of its end. Pure
//! (upstream: `pkg/controller/namespace/deletion/status_condition_utils.go`).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeMap;

/// What an attempt to empty a namespace has come to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Why it is not known what there may be.
    pub discovery: Option<String>,
    /// Why content could not be deleted.
    pub failures: Vec<String>,
    /// What is still there: by `resource.group`, of the core group with the dot.
    pub remaining: BTreeMap<String, usize>,
    /// How much of that each finalizer holds.
    pub finalizers: BTreeMap<String, usize>,
}

/// Type, and reason and message when all is well.
const KINDS: [(&str, &str, &str); 5] = [
    (
        "NamespaceDeletionDiscoveryFailure",
        "ResourcesDiscovered",
        "All resources successfully discovered",
    ),
    (
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    ),
    (
        "NamespaceDeletionContentFailure",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    (
        "NamespaceContentRemaining",
        "ContentRemoved",
        "All content successfully removed",
    ),
    (
        "NamespaceFinalizersRemaining",
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
    ),
];

/// Brings the status up to date; false if it was.
pub fn update(status: &mut NamespaceStatus, findings: &Findings, now: Timestamp) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    let mut changed = false;
    for (kind, good_reason, good_message) in KINDS {
        let bad = findings.bad(kind);
        let new = NamespaceCondition {
            type_: kind.to_owned(),
            status: if bad.is_some() { "True" } else { "False" }.to_owned(),
            reason: Some(bad.as_ref().map_or(good_reason, |(reason, _)| reason).to_owned()),
            message: Some(bad.map_or_else(|| good_message.to_owned(), |(_, message)| message)),
            last_transition_time: Some(Time(now)),
        };
        let Some(old) = conditions.iter_mut().find(|condition| condition.type_ == kind) else {
            conditions.push(new);
            changed = true;
            continue;
        };
        if (&old.status, &old.reason, &old.message) == (&new.status, &new.reason, &new.message) {
            continue;
        }
        let since = match old.status == new.status {
            true => old.last_transition_time.take(),
            false => new.last_transition_time,
        };
        *old = NamespaceCondition {
            last_transition_time: since,
            ..new
        };
        changed = true;
    }
    changed
}

impl Findings {
    /// Reason and message of a condition that is true.
    fn bad(&self, kind: &str) -> Option<(&'static str, String)> {
        let listed = |counts: &BTreeMap<String, usize>, word: &str| {
            let listed: Vec<String> = (counts.iter().filter(|(_, count)| **count > 0))
                .map(|(what, count)| format!("{what} {word} {count} resource instances"))
                .collect();
            (!listed.is_empty()).then(|| listed.join(", "))
        };
        match kind {
            "NamespaceDeletionDiscoveryFailure" => {
                let failure = self.discovery.clone()?;
                Some(("DiscoveryFailed", failure))
            }
            "NamespaceDeletionContentFailure" if !self.failures.is_empty() => {
                let mut failures = self.failures.clone();
                failures.sort();
                let (count, all) = (failures.len(), failures.join(", "));
                let message = format!("Failed to delete all resource types, {count} remaining: {all}");
                Some(("ContentDeletionFailed", message))
            }
            "NamespaceContentRemaining" => {
                let listed = listed(&self.remaining, "has")?;
                Some(("SomeResourcesRemain", format!("Some resources are remaining: {listed}")))
            }
            "NamespaceFinalizersRemaining" => {
                let listed = listed(&self.finalizers, "in")?;
                let message = format!("Some content in the namespace has finalizers remaining: {listed}");
                Some(("SomeFinalizersRemain", message))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(status: &NamespaceStatus) -> Vec<String> {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions
            .iter()
            .map(|condition| {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let (reason, message) = (text(&condition.reason), text(&condition.message));
                format!("{}={} {reason}: {message}", condition.type_, condition.status)
            })
            .collect()
    }

    #[test]
    fn conditions_come_and_go() {
        let early: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let late: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut status = NamespaceStatus::default();
        let findings = Findings {
            discovery: None,
            failures: vec!["b".into(), "a".into()],
            remaining: [("pods.".to_owned(), 2), ("deployments.apps".to_owned(), 1)].into(),
            finalizers: [("example.com/one".to_owned(), 2), ("none".to_owned(), 0)].into(),
        };
        assert!(update(&mut status, &findings, early));
        assert!(!update(&mut status, &findings, late), "the same once more is no change");
        assert_eq!(
            texts(&status),
            [
                "NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered",
                "NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types successfully parsed",
                "NamespaceDeletionContentFailure=True ContentDeletionFailed: Failed to delete all resource types, 2 remaining: a, b",
                "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: deployments.apps has 1 resource instances, pods. has 2 resource instances",
                "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/one in 2 resource instances",
            ]
        );
        let fewer = Findings {
            remaining: [("pods.".to_owned(), 1)].into(),
            ..Findings::default()
        };
        assert!(update(&mut status, &fewer, late));
        let since = |status: &NamespaceStatus, at: usize| {
            status.conditions.as_ref().unwrap()[at]
                .last_transition_time
                .clone()
                .unwrap()
                .0
        };
        assert_eq!(since(&status, 3), early, "it is as true as before");
        assert_eq!(since(&status, 4), late);
        assert!(update(&mut status, &Findings::default(), late));
        assert!(texts(&status).iter().all(|text| text.contains("=False")));
        let failed = Findings {
            discovery: Some("no answer".into()),
            ..Findings::default()
        };
        assert!(update(&mut status, &failed, late));
        assert_eq!(
            texts(&status)[0],
            "NamespaceDeletionDiscoveryFailure=True DiscoveryFailed: no answer"
        );
    }
}
