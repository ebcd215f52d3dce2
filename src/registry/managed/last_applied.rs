//! The annotation of client-side apply, and how its owner becomes a server-side applier
//! (upstream: `managedfields/internal/lastapplied*.go`).

use super::Write;
use super::conflict::{Conflict, Conflicts};
use super::set::Set;
use super::typed::{compare, field_set, validate};
use crate::registry::strategy::Object;
use serde_json::Value;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// All annotations of an object together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

fn annotation(object: &Object) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    Some(text).filter(|text| !text.is_empty())
}

/// The conflicts that the annotation does not excuse: fields that are as client-side apply left them may be taken.
/// None: all may.
pub fn not_excused(write: &Write<'_>, live: &Object, conflicts: Conflicts) -> Option<Conflicts> {
    let Some(excused) = excused(write, live) else {
        return Some(conflicts);
    };
    let rest: Vec<Conflict> = conflicts
        .0
        .into_iter()
        .filter_map(|mut conflict| {
            conflict.fields.subtract(&excused);
            (!conflict.fields.is_empty()).then_some(conflict)
        })
        .collect();
    (!rest.is_empty()).then(|| Conflicts::new(rest))
}

/// The fields of the annotation that the live object still has with the same values.
fn excused(write: &Write<'_>, live: &Object) -> Option<Set<'static>> {
    let last: Object = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(write.group_version) {
        return None;
    }
    validate(write.definition, &last).ok()?;
    let mut set = field_set(write.definition, &last);
    let diff = compare(write.definition, &last, live);
    set.subtract(&diff.changed);
    set.subtract(&diff.removed);
    Some(set.into_owned())
}

/// Writes the applied configuration into the annotation if there is one.
pub fn refresh(object: &mut Object, config: &Object) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.shift_remove(ANNOTATION);
    }
    let text = sorted_json(&Value::Object(config));
    let annotations = object.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    if let Some(Value::Object(annotations)) = annotations {
        let others: usize = annotations
            .iter()
            .filter(|(key, _)| *key != ANNOTATION)
            .map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len())
            .sum();
        if others + ANNOTATION.len() + text.len() > ANNOTATIONS_BYTES_MAX {
            annotations.shift_remove(ANNOTATION);
        } else {
            annotations.insert(ANNOTATION.to_owned(), Value::String(text));
        }
    }
}

/// JSON with sorted keys and a line break at the end, as Go's encoder writes it.
fn sorted_json(value: &Value) -> String {
    let mut value = value.clone();
    value.sort_all_objects();
    let mut text = value.to_string();
    text.push('\n');
    text
}
