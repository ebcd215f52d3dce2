//! ControllerRevisions: the templates that a set had before, so that it can go back to one
//! (upstream: `pkg/controller/history`, and `getPatch` of the controllers of both kinds of sets).
//!
//! A revision's data is a strategic merge patch that puts the template back. Its keys are sorted: `kubectl rollout
//! undo` compares bytes. Everything here is pure; the calls are in [`super::revisions`].

use super::ownership::controller_ref;
use crate::client::informer::Watched;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::ResourceExt;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// On revisions: the hash in their name.
pub const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// On pods: the revision that they were made from. On revisions of DaemonSets: what their pods carry there.
pub const REVISION_LABEL: &str = "controller-revision-hash";

/// Of a longer name only this much goes into the name of a revision.
const PREFIX_BYTES_MAX: usize = 223;

/// The data of the revision that keeps `template`.
pub fn data_of(template: &PodTemplateSpec) -> serde_json::Result<Value> {
    let mut template = serde_json::to_value(template)?;
    if let Some(members) = template.as_object_mut() {
        members.insert("$patch".to_owned(), json!("replace"));
    }
    Ok(sorted(json!({"spec": {"template": template}})))
}

/// The template that `revision` keeps.
pub fn template_of(revision: &ControllerRevision) -> serde_json::Result<PodTemplateSpec> {
    let mut template = revision.data.0["spec"]["template"].clone();
    if let Some(members) = template.as_object_mut() {
        members.remove("$patch");
    }
    serde_json::from_value(template)
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members: BTreeMap<String, Value> = members.into_iter().map(|(k, v)| (k, sorted(v))).collect();
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// The hash in the name of a revision with this data. `collisions`: how often a name was taken by another one.
pub fn hash_of(data: &Value, collisions: i32) -> String {
    let text = data.to_string() + &collisions.to_string();
    safe_encoded(&fnv1(text.as_bytes()).to_string())
}

/// FNV-1 of 32 bits.
fn fnv1(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        hash.wrapping_mul(0x0100_0193) ^ u32::from(*byte)
    })
}

/// Digits as letters and digits that make no words (upstream: `rand.SafeEncodeString`).
pub fn safe_encoded(digits: &str) -> String {
    const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    digits
        .bytes()
        .map(|byte| SAFE[usize::from(byte) % SAFE.len()] as char)
        .collect()
}

pub fn revision_name(owner: &str, hash: &str) -> String {
    let mut end = owner.len().min(PREFIX_BYTES_MAX);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &owner[..end])
}

/// A revision as it is created; name and hash depend on the collisions so far.
pub struct Candidate {
    pub owner: OwnerReference,
    pub namespace: String,
    /// Of the template, by which a selector finds the revision.
    pub labels: BTreeMap<String, String>,
    /// Of the set.
    pub annotations: BTreeMap<String, String>,
    pub data: Value,
    pub number: i64,
    /// The label that holds the hash.
    pub hash_label: &'static str,
}

impl Candidate {
    /// That of `owner`'s `template`, which is `data` there; see [`Candidate::hash_label`].
    pub fn new<K: Watched>(
        owner: &K,
        template: &PodTemplateSpec,
        data: Value,
        number: i64,
        hash_label: &'static str,
    ) -> Self {
        let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone());
        Self {
            owner: controller_ref(owner),
            namespace: owner.namespace().unwrap_or_default(),
            labels: labels.unwrap_or_default(),
            annotations: owner.annotations().clone(),
            data,
            number,
            hash_label,
        }
    }

    pub fn revision(&self, collisions: i32) -> ControllerRevision {
        let hash = hash_of(&self.data, collisions);
        let mut labels = self.labels.clone();
        labels.insert(self.hash_label.to_owned(), hash.clone());
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(revision_name(&self.owner.name, &hash)),
                namespace: Some(self.namespace.clone()),
                labels: Some(labels),
                annotations: (!self.annotations.is_empty()).then(|| self.annotations.clone()),
                owner_references: Some(vec![self.owner.clone()]),
                ..ObjectMeta::default()
            },
            data: RawExtension(self.data.clone()),
            revision: Some(self.number),
        }
    }
}

pub fn number(revision: &ControllerRevision) -> i64 {
    revision.revision.unwrap_or_default()
}

/// By number, then age, then name.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_cached_key(|revision| {
        let created = revision.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (number(revision), created, revision.name_any())
    });
}

/// How the newest template gets its revision.
#[derive(Debug)]
pub enum Step {
    /// This one has it and is the newest.
    Keep(Arc<ControllerRevision>),
    /// An older one has it, and becomes the newest under this number.
    Renumber(Arc<ControllerRevision>, i64),
    /// None has it: a new one of this number.
    Create(i64),
}

/// `revisions` are sorted.
pub fn step(revisions: &[Arc<ControllerRevision>], data: &Value) -> Step {
    let equal = revisions.iter().rev().find(|revision| revision.data.0 == *data);
    let next = revisions.last().map_or(1, |newest| number(newest) + 1);
    match (equal, revisions.last()) {
        (Some(equal), Some(newest)) if equal.data.0 == newest.data.0 => Step::Keep(newest.clone()),
        (Some(equal), _) => Step::Renumber(equal.clone(), next),
        (None, _) => Step::Create(next),
    }
}

/// What is beyond the limit, the oldest first; those in `live` (by name) do not count. `revisions` are sorted.
pub fn surplus(
    revisions: &[Arc<ControllerRevision>],
    live: &BTreeSet<String>,
    limit: usize,
) -> Vec<Arc<ControllerRevision>> {
    let dead: Vec<_> = revisions
        .iter()
        .filter(|revision| !live.contains(&revision.name_any()))
        .collect();
    let count = dead.len().saturating_sub(limit);
    dead.into_iter().take(count).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(image: &str) -> PodTemplateSpec {
        serde_json::from_value(json!({
            "metadata": {"labels": {"app": "a"}},
            "spec": {"containers": [{"name": "main", "image": image}]},
        }))
        .unwrap()
    }

    fn revision(name: &str, number: i64, image: &str) -> Arc<ControllerRevision> {
        Arc::new(ControllerRevision {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            data: RawExtension(data_of(&template(image)).unwrap()),
            revision: Some(number),
        })
    }

    #[test]
    fn a_template_comes_back_from_its_data() {
        let kept = revision("r", 1, "a");
        assert_eq!(template_of(&kept).unwrap(), template("a"));
        assert_eq!(
            kept.data.0.to_string(),
            r#"{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"image":"a","name":"main"}]}}}}"#
        );
    }

    #[test]
    fn names_are_made_of_the_data_and_the_collisions() {
        // The published vectors of FNV-1 with 32 bits.
        assert_eq!(fnv1(b""), 0x811c_9dc5);
        assert_eq!(fnv1(b"foobar"), 0x31f0_b262);
        assert_eq!(safe_encoded("0123456789"), "456789bcdf");
        let (a, b) = (data_of(&template("a")).unwrap(), data_of(&template("b")).unwrap());
        assert_eq!(hash_of(&a, 0), hash_of(&a, 0));
        assert_ne!(hash_of(&a, 0), hash_of(&a, 1));
        assert_ne!(hash_of(&a, 0), hash_of(&b, 0));
        assert_eq!(revision_name("web", "x"), "web-x");
        assert_eq!(revision_name(&"n".repeat(240), "x").len(), 225);
    }

    #[test]
    fn the_newest_template_is_kept_renumbered_or_created() {
        let (one, two) = (revision("one", 1, "a"), revision("two", 2, "b"));
        let both = [one.clone(), two.clone()];
        let step_for = |revisions: &[Arc<ControllerRevision>], image: &str| match step(
            revisions,
            &data_of(&template(image)).unwrap(),
        ) {
            Step::Keep(revision) => format!("keep {}", revision.name_any()),
            Step::Renumber(revision, number) => format!("{} becomes {number}", revision.name_any()),
            Step::Create(number) => format!("create {number}"),
        };
        assert_eq!(step_for(&[], "a"), "create 1");
        assert_eq!(step_for(&both, "b"), "keep two");
        assert_eq!(step_for(&both, "a"), "one becomes 3");
        assert_eq!(step_for(&both, "c"), "create 3");
    }

    #[test]
    fn the_oldest_dead_ones_go() {
        let mut all: Vec<_> = [("d", 4), ("b", 2), ("a", 1), ("c", 3), ("aa", 1)]
            .map(|(name, number)| revision(name, number, name))
            .to_vec();
        sort(&mut all);
        let names = |revisions: &[Arc<ControllerRevision>]| {
            revisions.iter().map(|revision| revision.name_any()).collect::<Vec<_>>()
        };
        assert_eq!(names(&all), ["a", "aa", "b", "c", "d"]);
        let live = BTreeSet::from(["a".to_owned(), "d".to_owned()]);
        assert_eq!(names(&surplus(&all, &live, 1)), ["aa", "b"]);
        assert!(surplus(&all, &live, 3).is_empty());
        assert_eq!(names(&surplus(&all, &live, 0)), ["aa", "b", "c"]);
    }
}
