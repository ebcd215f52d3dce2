//! The owners of an object's replicas as its scale subresource shows them, and back
//! (upstream: `managedfields/scalehandler.go`).

use super::element::Element;
use super::entries::{self, Entry, Operation};
use super::set::Set;
use serde_json::Value;
use std::borrow::Cow;

const SCALE_VERSION: &str = "autoscaling/v1";
const SCALE_REPLICAS: [&str; 2] = ["spec", "replicas"];

/// Where the replicas stand in each version of the object (`apps/v1` → `spec`, `replicas`); None where the version
/// is not known, or has no replicas.
pub type ReplicasPath<'p> = dyn Fn(&str) -> Option<Vec<String>> + 'p;

fn elements<'p>(path: impl IntoIterator<Item = &'p String>) -> Vec<Element<'static>> {
    path.into_iter()
        .map(|name| Element::Field(Cow::Owned(name.clone())))
        .collect()
}

fn scale_elements() -> Vec<Element<'static>> {
    SCALE_REPLICAS.iter().map(|name| Element::field(name)).collect()
}

/// The managedFields of the Scale of an object.
pub fn to_scale(parent: Option<&Value>, path: &ReplicasPath<'_>) -> Option<Value> {
    let mut entries = entries::decode(parent)?;
    entries.retain_mut(|entry| {
        let owns = path(&entry.api_version).is_some_and(|path| entry.fields.has(&elements(&path)));
        if owns {
            entry.fields = Set::path(&scale_elements());
            entry.api_version = Cow::Borrowed(SCALE_VERSION);
            entry.original = None;
        }
        owns
    });
    entries::assemble(parent.cloned(), entries::encode(entries))
}

/// The managedFields of the object after a write of its Scale, which has `scale` now.
pub fn to_parent(
    parent: Option<&Value>,
    scale: Option<&Value>,
    group_version: &str,
    path: &ReplicasPath<'_>,
) -> Option<Value> {
    let (Some(parents), Some(mut scales)) = (entries::decode(parent), entries::decode(scale)) else {
        return parent.cloned();
    };
    let mut kept: Vec<Entry<'_>> = Vec::with_capacity(parents.len() + 1);
    for mut entry in parents {
        let replicas = path(&entry.api_version).map(|path| elements(&path));
        if let Some(replicas) = replicas.filter(|replicas| entry.fields.has(replicas)) {
            let same = |other: &Entry<'_>| {
                let (a, b) = (&other.identity, &entry.identity);
                (&a.manager, a.operation, &a.subresource) == (&b.manager, b.operation, &b.subresource)
            };
            match scales.iter().position(same) {
                // Still its own.
                Some(at) => {
                    scales.remove(at);
                }
                None => {
                    entry.fields.subtract(&Set::path(&replicas));
                    entry.original = None;
                }
            }
        }
        if !entry.fields.is_empty() {
            kept.push(entry);
        }
    }
    let Some(replicas) = path(group_version).map(|path| elements(&path)) else {
        return entries::assemble(parent.cloned(), entries::encode(kept));
    };
    for mut entry in scales {
        if !entry.fields.has(&scale_elements()) {
            continue;
        }
        entry.fields = Set::path(&replicas);
        entry.api_version = Cow::Owned(group_version.to_owned());
        if entry.identity.operation == Operation::Update {
            entry.identity.api_version = entry.api_version.clone();
        }
        entry.original = None;
        match kept.iter_mut().find(|other| other.identity == entry.identity) {
            Some(other) => {
                let before = std::mem::take(&mut other.fields);
                other.fields = before.union(entry.fields);
                other.time = entry.time;
                other.original = None;
            }
            None => kept.push(entry),
        }
    }
    entries::assemble(parent.cloned(), entries::encode(kept))
}
