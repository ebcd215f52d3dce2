//! The replica sets of a deployment: as they are, what is to become of them, and what is written on them
//! (upstream: `pkg/controller/deployment/util`).

use crate::controllers::pod_template;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use std::cmp::Reverse;
use std::collections::BTreeMap;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
/// What clients of old API versions asked a rollback with.
pub const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Annotations that say something of the one object only.
const OWN: [&str; 6] = [
    LAST_APPLIED,
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    ROLLBACK_TO,
];

/// About a hundred revisions.
const HISTORY_BYTES_MAX: usize = 2000;

/// A replica set, and what is to become of it.
#[derive(Clone)]
pub struct Set<'a> {
    pub is: &'a ReplicaSet,
    pub replicas: i32,
    pub annotations: BTreeMap<String, String>,
    pub min_ready_seconds: i32,
}

impl<'a> Set<'a> {
    pub fn new(is: &'a ReplicaSet) -> Self {
        Self {
            is,
            replicas: replicas(is),
            annotations: is.annotations().clone(),
            min_ready_seconds: min_ready_seconds(is),
        }
    }

    pub fn is_active(&self) -> bool {
        self.replicas > 0
    }

    /// How many pods of it serve, of those that are to stay.
    pub fn available(&self) -> i32 {
        available(self.is).min(self.replicas)
    }

    /// Whether its controller has seen what is asked of it now.
    pub fn is_seen(&self) -> bool {
        let status = self.is.status.as_ref();
        let seen = status.and_then(|status| status.observed_generation).unwrap_or(0);
        self.is.metadata.generation.unwrap_or(0) <= seen
    }

    /// Whether it may have more pods than it is to have: it was not counted since it was last changed, or more were
    /// counted. As long as it does not come to how many there are in all, as where sets shrink, that does not matter.
    pub fn may_exceed(&self) -> bool {
        let changed = self.is.metadata.generation.unwrap_or(1) > 1;
        (changed && !self.is_seen()) || counted(self.is) > replicas(self.is)
    }

    pub fn revision(&self) -> Option<i64> {
        revision(&self.annotations)
    }

    /// Notes for how many pods in all this one's size was chosen.
    pub fn note_sizes(&mut self, desired: i32, max: i32) {
        self.annotations
            .insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
        self.annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
    }

    pub fn noted(&self, annotation: &str) -> Option<i32> {
        let value = self.annotations.get(annotation)?.parse::<i32>().ok()?;
        (value >= 0).then_some(value)
    }

    /// The object to be written; None if it stays as it is.
    pub fn changed(&self) -> Option<ReplicaSet> {
        let same = self.replicas == replicas(self.is)
            && self.min_ready_seconds == min_ready_seconds(self.is)
            && self.annotations == *self.is.annotations();
        if same {
            return None;
        }
        let mut set = self.is.clone();
        set.metadata.annotations = Some(self.annotations.clone());
        set.spec.replicas = Some(self.replicas);
        set.spec.min_ready_seconds = (self.min_ready_seconds != 0).then_some(self.min_ready_seconds);
        Some(set)
    }
}

pub fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.replicas.unwrap_or(1)
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn available(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status.and_then(|status| status.available_replicas).unwrap_or(0)
}

/// How many pods its controller has last counted.
pub fn counted(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

fn revision(annotations: &BTreeMap<String, String>) -> Option<i64> {
    match annotations.get(REVISION) {
        None => Some(0),
        Some(text) => text.parse().ok(),
    }
}

fn age_key(set: &ReplicaSet) -> impl Ord + use<> {
    (set.creation_timestamp(), set.name_any())
}

pub fn oldest_first(sets: &mut [Set<'_>]) {
    sets.sort_by_cached_key(|set| age_key(set.is));
}

/// The largest first; of the same size, the youngest first or the oldest first.
pub fn largest_first(sets: &mut [Set<'_>], youngest: bool) {
    if youngest {
        sets.sort_by_cached_key(|set| (Reverse(set.replicas), Reverse(age_key(set.is))));
    } else {
        sets.sort_by_cached_key(|set| (Reverse(set.replicas), age_key(set.is)));
    }
}

/// The lowest revision first; what has none is told apart by age.
pub fn earliest_revision_first(sets: &mut [&Set<'_>]) {
    sets.sort_by_cached_key(|set| (set.revision(), age_key(set.is)));
}

/// Which of the sets, oldest first, has the deployment's template: the oldest that does.
pub fn current(deployment: &Deployment, sets: &[Set<'_>]) -> Option<usize> {
    let template = &deployment.spec.template;
    sets.iter().position(|set| {
        let own = set.is.spec.template.as_ref();
        own.is_some_and(|own| pod_template::same(own, template))
    })
}

pub fn max_revision<'a>(sets: impl IntoIterator<Item = &'a Set<'a>>) -> i64 {
    sets.into_iter().filter_map(Set::revision).max().unwrap_or(0)
}

/// The second highest revision.
pub fn last_revision<'a>(sets: impl IntoIterator<Item = &'a Set<'a>>) -> i64 {
    let mut revisions: Vec<i64> = sets.into_iter().filter_map(Set::revision).collect();
    revisions.sort_unstable();
    revisions.iter().rev().nth(1).copied().unwrap_or(0)
}

/// What the current set's annotations are to be: the deployment's, and a revision that is at least `revision`.
/// A set that comes to a new revision remembers the one that it had.
pub fn annotate(annotations: &mut BTreeMap<String, String>, deployment: &BTreeMap<String, String>, revision: i64) {
    let had = annotations.get(REVISION).cloned();
    let number = match had.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody else's writing: it is left alone.
            Err(_) => return,
        },
    };
    for (key, value) in shared(deployment) {
        annotations.insert(key.clone(), value.clone());
    }
    if number >= revision {
        return;
    }
    annotations.insert(REVISION.to_owned(), revision.to_string());
    if let Some(had) = had {
        let history = annotations.entry(REVISION_HISTORY.to_owned()).or_default();
        *history = longer(history, &had);
    }
}

/// The annotations that go from a deployment to its set, and back at a rollback.
pub fn shared(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    annotations.iter().filter(|(key, _)| !OWN.contains(&key.as_str()))
}

/// A deployment's annotations when it goes back to a set.
pub fn rolled_back(deployment: &BTreeMap<String, String>, set: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = deployment.iter().filter(|(key, _)| OWN.contains(&key.as_str()));
    let all = own.chain(shared(set));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A history with one more revision; the oldest go when it becomes too long.
fn longer(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history.split(',').filter(|text| !text.is_empty()).collect();
    revisions.push(revision);
    let mut text = revisions.join(",");
    while text.len() > HISTORY_BYTES_MAX && revisions.len() > 1 {
        revisions.remove(0);
        text = revisions.join(",");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn annotations_of_the_current_set() {
        let deployment = map(&[
            ("team", "a"),
            (LAST_APPLIED, "{}"),
            (REVISION, "7"),
            (DESIRED_REPLICAS, "3"),
        ]);
        for (name, before, revision, after) in [
            ("a new one", map(&[]), 1, map(&[("team", "a"), (REVISION, "1")])),
            (
                "one that is up to date",
                map(&[("team", "a"), (REVISION, "3")]),
                3,
                map(&[("team", "a"), (REVISION, "3")]),
            ),
            (
                "older sets are gone, the number stays",
                map(&[(REVISION, "5")]),
                1,
                map(&[("team", "a"), (REVISION, "5")]),
            ),
            (
                "gone back to",
                map(&[("team", "b"), (REVISION, "2")]),
                4,
                map(&[("team", "a"), (REVISION, "4"), (REVISION_HISTORY, "2")]),
            ),
            (
                "gone back to again",
                map(&[(REVISION, "4"), (REVISION_HISTORY, "2")]),
                6,
                map(&[("team", "a"), (REVISION, "6"), (REVISION_HISTORY, "2,4")]),
            ),
            ("not a number", map(&[(REVISION, "x")]), 6, map(&[(REVISION, "x")])),
        ] {
            let mut annotations = before;
            annotate(&mut annotations, &deployment, revision);
            assert_eq!(annotations, after, "{name}");
        }
    }

    #[test]
    fn a_history_forgets_its_oldest() {
        let mut history = String::new();
        for revision in 1..2000 {
            history = longer(&history, &revision.to_string());
            assert!(history.len() <= HISTORY_BYTES_MAX);
        }
        assert!(history.ends_with(",1998,1999"), "{history}");
        assert_eq!(longer("", "1"), "1");
    }

    #[test]
    fn a_rollback_takes_the_annotations_of_the_set() {
        let deployment = map(&[
            ("cause", "edit"),
            ("only", "here"),
            (LAST_APPLIED, "x"),
            (REVISION, "2"),
        ]);
        let set = map(&[("cause", "create"), (REVISION, "1"), (DESIRED_REPLICAS, "3")]);
        let expected = map(&[("cause", "create"), (LAST_APPLIED, "x"), (REVISION, "2")]);
        assert_eq!(rolled_back(&deployment, &set), expected);
    }

    #[test]
    fn orders() {
        let set = |name: &str, second: u8, replicas: i32, revision: &str| -> ReplicaSet {
            serde_json::from_value(json!({
                "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:0{second}Z"),
                             "annotations": {REVISION: revision}},
                "spec": {"replicas": replicas, "selector": {}},
            }))
            .unwrap()
        };
        let all = [
            set("c", 1, 2, "3"),
            set("a", 2, 2, "1"),
            set("b", 2, 5, "x"),
            set("d", 0, 0, "2"),
        ];
        let mut sets: Vec<Set> = all.iter().map(Set::new).collect();
        let names = |sets: &[Set]| sets.iter().map(|set| set.is.name_any()).collect::<String>();
        oldest_first(&mut sets);
        assert_eq!(names(&sets), "dcab");
        largest_first(&mut sets, true);
        assert_eq!(names(&sets), "bacd");
        largest_first(&mut sets, false);
        assert_eq!(names(&sets), "bcad");
        let mut revisions: Vec<&Set> = sets.iter().collect();
        earliest_revision_first(&mut revisions);
        let names: String = revisions.iter().map(|set| set.is.name_any()).collect();
        assert_eq!(names, "badc", "what is no revision counts as the earliest");
        assert_eq!(max_revision(&sets), 3);
        assert_eq!(last_revision(&sets), 2);
    }
}
