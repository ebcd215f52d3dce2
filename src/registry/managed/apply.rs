//! Server-side apply (upstream: `merge/update.go`, Apply; `managedfields/internal/{structuredmerge,lastapplied*}.go`).

use super::Write;
use super::conflict::{Conflict, Conflicts};
use super::element::{Element, same_objects};
use super::entries::{self, Entry, Identity};
use super::last_applied;
use super::reconcile::reconcile;
use super::set::{Node, Set};
use super::typed::{field_set, merge, remove, validate};
use super::types::{Fields, Shape, Type};
use super::update::{Diffs, before_first_apply, of, put, strip, take};
use crate::registry::schema::Definition;
use crate::registry::strategy::Object;
use serde_json::Value;
use std::borrow::Cow;
use std::sync::Arc;

/// The manager that takes over what client-side apply owned.
const KUBECTL: &str = "kubectl";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{}", .0.message())]
    Conflicts(Conflicts),
    /// Upstream does not classify these: 500 without a reason.
    #[error("{0}")]
    Other(String),
}

/// Applies `config` over `live` (None: there is no such object), and writes the owners into the result.
pub fn apply(write: &Write<'_>, live: Option<&Object>, config: &Object, force: bool) -> Result<Object, ApplyError> {
    if of(config).is_some_and(|list| !list.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    validate(write.definition, config).map_err(|error| {
        let subject = subject(config);
        ApplyError::Other(format!("failed to create typed patch object ({subject}): {error}"))
    })?;
    let empty = Object::new();
    let old = live.unwrap_or(&empty);
    // The owners are no part of what is merged.
    let mut base = old.clone();
    let list = take(&mut base);
    let managed = entries::decode(list.as_ref())
        .ok_or_else(|| ApplyError::Other("failed to decode managed fields: malformed entry".into()))?;
    let managed = match managed {
        entries if entries.is_empty() => before_first_apply(write, &base),
        entries => entries,
    };
    let merged = merged(write, &base, config, &managed);
    let outcome = match owners(write, &base, &merged, config, managed.clone(), force) {
        Err(conflicts) if write.manager == KUBECTL => {
            let rest = last_applied::not_excused(write, &base, conflicts);
            match rest {
                Some(conflicts) => Err(conflicts),
                None => owners(write, &base, &merged, config, managed, true),
            }
        }
        outcome => outcome,
    };
    let mut entries = outcome.map_err(ApplyError::Conflicts)?;
    if !same_objects(&base, &merged) {
        let own = Identity::applier(write.manager, write.subresource);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.identity == own) {
            entry.time = Some(Cow::Borrowed(write.now));
            entry.original = None;
        }
    }
    let written = entries::encode(entries);
    let list = entries::assemble(list, written);
    let mut object = merged;
    if write.manager == KUBECTL {
        last_applied::refresh(&mut object, config);
    }
    put(&mut object, list);
    Ok(object)
}

/// `default/web; apps/v1, Kind=Deployment`
pub fn subject(object: &Object) -> String {
    let metadata = |key: &str| {
        let value = object.get("metadata").and_then(|metadata| metadata.get(key));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let (namespace, name) = (metadata("namespace"), metadata("name"));
    format!("{namespace}/{name}; {}", group_version_kind(object))
}

/// `apps/v1, Kind=Deployment`, `/v1, Kind=Pod`
pub fn group_version_kind(object: &Object) -> String {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

/// The live object with the configuration over it, without what the applier does not list any longer.
fn merged(write: &Write<'_>, live: &Object, config: &Object, managed: &[Entry<'_>]) -> Object {
    let mut object = live.clone();
    merge(write.definition, &mut object, config);
    let own = Identity::applier(write.manager, write.subresource);
    let Some(last) = managed.iter().find(|entry| entry.identity == own) else {
        return object;
    };
    let now = config_set(write, config);
    // Nothing is left out that was listed before: nothing can fall away.
    let mut dropped = last.fields.clone();
    dropped.subtract(&now);
    if last.api_version == write.group_version && dropped.is_empty() {
        return object;
    }
    let others = managed.iter().filter(|entry| entry.identity != own);
    let mut owned: Vec<(String, Set<'_>)> = vec![(write.group_version.to_owned(), now.clone())];
    for entry in others {
        match owned.iter_mut().find(|(version, _)| *version == entry.api_version) {
            Some((_, set)) => *set = std::mem::take(set).union(entry.fields.clone()),
            None => owned.push((entry.api_version.to_string(), entry.fields.clone())),
        }
    }
    prune(write, object, last, owned)
}

/// The fields that the configuration makes its applier own.
fn config_set<'a>(write: &'a Write<'_>, config: &'a Object) -> Set<'a> {
    let mut set = field_set(write.definition, config);
    set.reset(write.reset);
    set
}

/// Takes out what `last` owned and nobody owns now. Each version looks at its own owners.
fn prune(write: &Write<'_>, merged: Object, last: &Entry<'_>, mut owned: Vec<(String, Set<'_>)>) -> Object {
    let view = |object: &Object, version: &str| in_version(write, object, version);
    let Some((at_last, last_definition)) = view(&merged, &last.api_version) else {
        return merged;
    };
    let last_set = named_members(&last_definition, &last.fields);
    let mut pruned = at_last.clone();
    remove(&last_definition, &mut pruned, &last_set);
    // First in the version of the last apply, where no conversion can miss a field.
    owned.sort_by_key(|(version, _)| *version != last.api_version);
    let mut current = at_last.clone();
    for (version, set) in owned {
        let (Some((whole, definition)), Some((rest, _))) = (view(&current, &version), view(&pruned, &version)) else {
            continue;
        };
        let mut doomed = named_members(&definition, &field_set(&definition, &whole)).into_owned();
        doomed.subtract(&named_members(&definition, &field_set(&definition, &rest)));
        doomed.subtract(&named_members(&definition, &set));
        pruned = whole.clone();
        remove(&definition, &mut pruned, &doomed);
        current = whole;
    }
    // What went only because it hung on something that went is put back, unless it was the applier's.
    let Some((pruned, _)) = view(&pruned, &last.api_version) else {
        return merged;
    };
    let mut doomed = named_members(&last_definition, &field_set(&last_definition, &at_last)).into_owned();
    doomed.subtract(&named_members(&last_definition, &field_set(&last_definition, &pruned)));
    let doomed = doomed.intersection(&last_set.into_owned());
    let mut result = at_last;
    remove(&last_definition, &mut result, &doomed);
    match view(&result, write.group_version) {
        Some((object, _)) => object,
        None => merged,
    }
}

/// The object in a version, with that version's definition.
fn in_version(write: &Write<'_>, object: &Object, version: &str) -> Option<(Object, Arc<Definition>)> {
    let stated = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if stated == version && version == write.group_version {
        return Some((object.clone(), write.definition.clone()));
    }
    write.versions.convert(object, version)
}

/// The set with every declared field on the way to its paths.
fn named_members<'a>(definition: &Definition, set: &Set<'a>) -> Set<'a> {
    match Type::root(definition) {
        Shape::Map { fields, .. } => named_in_map(fields, set),
        _ => set.clone(),
    }
}

fn named_in_map<'a>(fields: Fields<'_>, set: &Set<'a>) -> Set<'a> {
    let nodes = set.nodes().iter().map(|node| {
        let Element::Field(name) = &node.element else {
            return node.clone();
        };
        let (kind, declared) = fields.get_or_deduce(name);
        Node {
            element: node.element.clone(),
            member: node.member || (declared && !node.children.nodes().is_empty()),
            children: named_below(kind, &node.children),
        }
    });
    Set::of(nodes.collect())
}

fn named_below<'a>(kind: Type<'_>, set: &Set<'a>) -> Set<'a> {
    if set.nodes().is_empty() {
        return Set::default();
    }
    // A value that is not known can only be a map where there are fields below it.
    let object = Value::Object(Object::new());
    match kind.shape(Some(&object)) {
        Shape::Map { fields, .. } => named_in_map(fields, set),
        Shape::List { element, .. } => {
            let nodes = set.nodes().iter().map(|node| Node {
                element: node.element.clone(),
                member: node.member,
                children: named_below(element, &node.children),
            });
            Set::of(nodes.collect())
        }
        Shape::Scalar(_) => set.clone(),
    }
}

/// The entries after the apply; Err if somebody else owns what it changes and it may not take that.
fn owners<'a>(
    write: &'a Write<'_>,
    live: &'a Object,
    merged: &'a Object,
    config: &'a Object,
    mut managed: Vec<Entry<'a>>,
    force: bool,
) -> Result<Vec<Entry<'a>>, Conflicts> {
    let own = Identity::applier(write.manager, write.subresource);
    let before = managed
        .iter()
        .position(|entry| entry.identity == own)
        .map(|at| managed.remove(at));
    let mut diffs = Diffs::new(write, live, merged);
    let mut conflicts = Vec::new();
    managed.retain_mut(|entry| {
        if entry.api_version == write.group_version && reconcile(write.definition, live, &mut entry.fields) {
            entry.original = None;
        }
        let Some(diff) = diffs.of(&entry.api_version) else {
            return false;
        };
        let taken = entry.fields.intersection(&diff.changed);
        if !taken.is_empty() {
            if !force {
                conflicts.push(Conflict::new(&entry.identity, taken));
                return true;
            }
            entry.fields.subtract(&taken);
            entry.original = None;
        }
        if entry.fields.subtract(&diff.removed) {
            entry.original = None;
        }
        !entry.fields.is_empty()
    });
    if !conflicts.is_empty() {
        return Err(Conflicts::new(conflicts));
    }
    let mut fields = config_set(write, config);
    strip(&mut fields);
    if !fields.is_empty() {
        let same = before
            .as_ref()
            .is_some_and(|before| before.fields == fields && before.api_version == write.group_version);
        managed.push(Entry {
            identity: own,
            api_version: Cow::Borrowed(write.group_version),
            time: before.as_ref().and_then(|before| before.time.clone()),
            fields,
            original: before.and_then(|before| before.original).filter(|_| same),
        });
    }
    Ok(managed)
}
