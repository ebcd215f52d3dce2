//! Ownership after a write that is no apply: whoever changes a field owns it
//! (upstream: `merge/update.go`, Update; `managedfields/internal/{fieldmanager,managedfieldsupdater,stripmeta}.go`).

use super::entries::{self, Entry, Identity, Operation};
use super::reconcile::reconcile;
use super::set::Set;
use super::typed::{Diff, compare};
use super::{Reset, Write};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashMap;

const FIELD: &str = "managedFields";
const UNKNOWN: &str = "unknown";

/// What nobody owns.
const NEVER: [&[&str]; 12] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Writes into `new` who owns its fields after it has replaced `live`; `live` is None when it is created.
///
/// `new` is as the client wants it, with defaults and before the kind's own rules and admission.
/// Its own managedFields, if they are sound, replace the live ones, but not through a subresource.
pub fn update(write: &Write<'_>, live: Option<&Object>, new: &mut Object) {
    let sent = take(new);
    let before = live.and_then(of);
    // Almost every client sends back what it was given.
    let kept = sent.is_some() && sent.as_ref() == before;
    let list = if kept { sent } else { choose(write, sent, before) };
    let empty = Object::new();
    let old = live.unwrap_or(&empty);
    let written = match entries::decode(list.as_ref()) {
        // An object whose owners are not known stays so until it is applied to.
        Some(entries) if entries.is_empty() && live.is_some() => Some(Vec::new()),
        Some(entries) => tracked(write, old, new, entries, kept).map(entries::encode),
        None => Some(Vec::new()),
    };
    let list = match written {
        Some(written) => entries::assemble(list, written),
        None => list,
    };
    put(new, list);
}

/// The list that counts: what was sent, or what is stored.
fn choose(write: &Write<'_>, sent: Option<Value>, before: Option<&Value>) -> Option<Value> {
    match sent.filter(|_| write.subresource.is_empty()) {
        Some(sent) if entries::is_reset(&sent) => None,
        Some(sent) if entries::decode(Some(&sent)).is_some_and(|entries| !entries.is_empty()) => Some(sent),
        _ => before.cloned(),
    }
}

/// The managedFields of an object.
pub fn of(object: &Object) -> Option<&Value> {
    object.get("metadata")?.get(FIELD)
}

pub fn take(object: &mut Object) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.shift_remove(FIELD)
}

pub fn put(object: &mut Object, list: Option<Value>) {
    if let (Some(list), Some(Value::Object(metadata))) = (list, object.get_mut("metadata")) {
        metadata.insert(FIELD.to_owned(), list);
    }
}

/// The entries after `new` has replaced `old`; None if they are what they were. `kept`: they are those that are
/// stored, so that they are in order.
fn tracked<'a>(
    write: &'a Write<'_>,
    old: &'a Object,
    new: &'a Object,
    mut entries: Vec<Entry<'a>>,
    kept: bool,
) -> Option<Vec<Entry<'a>>> {
    let mut diffs = Diffs::new(write, old, new);
    if kept && diffs.current.is_empty() {
        return None;
    }
    let mut touched = !kept;
    for entry in &mut entries {
        if entry.api_version == write.group_version && reconcile(write.definition, old, &mut entry.fields) {
            entry.original = None;
            touched = true;
        }
    }
    touched |= take_away(&mut entries, &mut diffs);
    let mut own = std::mem::take(&mut diffs.current.changed);
    strip(&mut own);
    if !own.is_empty() {
        touched = true;
        let manager = if write.manager.is_empty() {
            UNKNOWN
        } else {
            write.manager
        };
        let identity = Identity::updater(manager, write.group_version, write.subresource);
        let fields = match entries.iter().position(|entry| entry.identity == identity) {
            Some(at) => entries.remove(at).fields.union(own),
            None => own,
        };
        entries.push(Entry {
            identity,
            api_version: Cow::Borrowed(write.group_version),
            time: Some(Cow::Borrowed(write.now)),
            fields,
            original: None,
        });
        entries::cap(&mut entries);
    }
    touched.then_some(entries)
}

/// What changed, in every version that an entry speaks.
pub(super) struct Diffs<'w, 'a> {
    write: &'w Write<'w>,
    old: &'a Object,
    new: &'a Object,
    /// In the version of the write.
    pub current: Diff<'a>,
    /// In the others; None if a version is not served any longer.
    others: HashMap<String, Option<Diff<'static>>, ahash::RandomState>,
}

impl<'w, 'a> Diffs<'w, 'a> {
    pub fn new(write: &'w Write<'w>, old: &'a Object, new: &'a Object) -> Self
    where
        'w: 'a,
    {
        let mut current = compare(write.definition, old, new);
        reset(&mut current, write.reset);
        Self {
            write,
            old,
            new,
            current,
            others: HashMap::default(),
        }
    }

    /// None if the version is not served any longer.
    pub fn of(&mut self, version: &str) -> Option<&Diff<'a>> {
        let Self {
            write,
            old,
            new,
            current,
            others,
        } = self;
        if version == write.group_version {
            return Some(current);
        }
        let other = others.entry(version.to_owned()).or_insert_with(|| {
            // What is created has no version yet.
            let is_new = old.get("apiVersion").is_none();
            let (new, definition) = write.versions.convert(new, version)?;
            let old = if is_new {
                Object::new()
            } else {
                write.versions.convert(old, version)?.0
            };
            Some(owned_diff(&definition, &old, &new, write.reset))
        });
        other.as_ref()
    }
}

fn owned_diff(definition: &Definition, old: &Object, new: &Object, paths: Reset) -> Diff<'static> {
    let mut diff = compare(definition, old, new);
    reset(&mut diff, paths);
    diff.into_owned()
}

fn reset(diff: &mut Diff<'_>, paths: Reset) {
    diff.changed.reset(paths);
    diff.removed.reset(paths);
}

/// Takes what changed and what is gone from all entries, and drops those that own nothing any more.
fn take_away(entries: &mut Vec<Entry<'_>>, diffs: &mut Diffs<'_, '_>) -> bool {
    let mut touched = false;
    entries.retain_mut(|entry| {
        let kept = match diffs.of(&entry.api_version) {
            None => false,
            Some(diff) => {
                let changed = entry.fields.subtract(&diff.changed) | entry.fields.subtract(&diff.removed);
                if changed {
                    entry.original = None;
                    touched = true;
                }
                !entry.fields.is_empty()
            }
        };
        touched |= !kept;
        kept
    });
    touched
}

/// Takes out what nobody owns.
pub(super) fn strip(set: &mut Set<'_>) {
    for path in NEVER {
        set.remove(path);
    }
}

/// The entry that stands for everything written before anybody kept account.
pub(super) fn before_first_apply<'a>(write: &'a Write<'_>, live: &'a Object) -> Vec<Entry<'a>> {
    static EMPTY: std::sync::LazyLock<Object> = std::sync::LazyLock::new(Object::new);
    let mut fields = compare(write.definition, &EMPTY, live).changed;
    fields.reset(write.reset);
    strip(&mut fields);
    if fields.is_empty() {
        return Vec::new();
    }
    let identity = Identity {
        manager: Cow::Borrowed("before-first-apply"),
        operation: Operation::Update,
        api_version: Cow::Borrowed(write.group_version),
        subresource: Cow::Borrowed(write.subresource),
    };
    vec![Entry {
        identity,
        api_version: Cow::Borrowed(write.group_version),
        time: Some(Cow::Borrowed(write.now)),
        fields,
        original: None,
    }]
}
