//! Events of both groups, stored as core/v1 (upstream: `pkg/registry/core/event`,
//! `pkg/apis/core/validation/events.go`, `pkg/apis/events/v1/conversion.go`).

use crate::registry::columns::core::EVENT;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_subdomain, label_key, path_segment};
use crate::registry::json::{default_text, default_to, number, text};
use crate::registry::strategy::{Column, Dependents, Object, Strategy, Target};
use crate::registry::validation::immutable;
use serde_json::{Map, Value};

const NAME_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// Names of one field in events.k8s.io/v1 and in core/v1.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// What an update through events.k8s.io may not touch, with the name that messages give it.
const FIXED: [(&str, &str); 13] = [
    ("involvedObject", "involvedObject"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "firstTimestamp"),
    ("lastTimestamp", "lastTimestamp"),
    ("count", "count"),
    ("type", "type"),
    ("eventTime", "eventTime"),
    ("action", "action"),
    ("related", "related"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

/// The index names of selectable fields, with their path in a stored event.
const FIELDS: [(&str, &[&str]); 11] = [
    ("involvedObject.kind", &["involvedObject", "kind"]),
    ("involvedObject.namespace", &["involvedObject", "namespace"]),
    ("involvedObject.name", &["involvedObject", "name"]),
    ("involvedObject.uid", &["involvedObject", "uid"]),
    ("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    ("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    ("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    ("reason", &["reason"]),
    ("reportingComponent", &["reportingComponent"]),
    ("source", &["source", "component"]),
    ("type", &["type"]),
];

/// The strategy of events in core/v1.
pub struct CoreEvents;

/// The strategy of events in events.k8s.io/v1.
pub struct EventsV1;

/// The fields of an event in its storage version.
fn index(event: &Object) -> Vec<(&'static str, String)> {
    let value = |name: &str, path: &[&str]| match (name, text(event, path)) {
        ("source", "") => text(event, &["reportingComponent"]).to_owned(),
        (_, value) => value.to_owned(),
    };
    FIELDS.iter().map(|(name, path)| (*name, value(name, path))).collect()
}

impl Strategy for CoreEvents {
    fn dependents(&self) -> Dependents {
        Dependents::Ignored
    }

    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        path_segment(name, is_prefix)
    }

    fn default(&self, object: &mut Object) {
        default_to(object, "source", Map::new());
        default_to(object, "reportingComponent", "");
        default_to(object, "reportingInstance", "");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        validate(object, "reportingComponent")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        index(object)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        const NAMES: [&str; 11] = {
            let mut names = [""; 11];
            let mut i = 0;
            while i < names.len() {
                names[i] = FIELDS[i].0;
                i += 1;
            }
            names
        };
        &NAMES
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (EVENT.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        (EVENT.cells)(object, now)
    }
}

impl Strategy for EventsV1 {
    fn dependents(&self) -> Dependents {
        Dependents::Ignored
    }

    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        path_segment(name, is_prefix)
    }

    fn default(&self, object: &mut Object) {
        default_text(object, "reportingController", "");
        default_text(object, "reportingInstance", "");
    }

    fn validate(&self, object: &Object) -> Vec<FieldError> {
        let mut stored = object.clone();
        self.convert_to_storage(&mut stored);
        validate(&stored, "reportingController")
    }

    fn validate_create(&self, object: &Object) -> Vec<FieldError> {
        let name = text(object, &["metadata", "name"]);
        let mut errors: Vec<FieldError> = dns1123_subdomain(name, false)
            .iter()
            .map(|problem| FieldError::invalid("metadata.name", name, problem))
            .collect();
        errors.extend(validate_series(object));
        if text(object, &["eventTime"]).is_empty() {
            errors.push(FieldError::required("eventTime", ""));
        }
        let kind = text(object, &["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid("type", "", &format!("has invalid value: {kind}")));
        }
        for (field, shown) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
        ] {
            if !text(object, &[field]).is_empty() {
                errors.push(FieldError::invalid(shown, "", "needs to be unset"));
            }
        }
        if number(object, &["deprecatedCount"]) != 0 {
            errors.push(FieldError::invalid("count", "", "needs to be unset"));
        }
        let source = |part: &str| !text(object, &["deprecatedSource", part]).is_empty();
        if source("component") || source("host") {
            errors.push(FieldError::invalid("source", "", "needs to be unset"));
        }
        errors
    }

    /// Only the series of an event may go on.
    fn validate_update(&self, object: &Object, old: &Object, _target: Target) -> Vec<FieldError> {
        let stored = |event: &Object| {
            let mut event = event.clone();
            self.convert_to_storage(&mut event);
            event
        };
        let (object, old) = (stored(object), stored(old));
        let mut errors = Vec::new();
        if object.get("series") != old.get("series") {
            errors.extend(validate_series(&object));
        }
        let fixed = FIXED
            .iter()
            .filter_map(|(field, shown)| immutable(object.get(*field), old.get(*field), shown));
        errors.extend(fixed);
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn fields(&self, object: &Object) -> Vec<(&'static str, String)> {
        index(object)
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "regarding.apiVersion",
            "regarding.resourceVersion",
            "regarding.fieldPath",
            "reason",
            "reportingController",
            "type",
        ]
    }

    fn field_alias<'a>(&self, field: &'a str) -> &'a str {
        match field {
            "regarding.kind" => "involvedObject.kind",
            "regarding.namespace" => "involvedObject.namespace",
            "regarding.name" => "involvedObject.name",
            "regarding.uid" => "involvedObject.uid",
            "regarding.apiVersion" => "involvedObject.apiVersion",
            "regarding.resourceVersion" => "involvedObject.resourceVersion",
            "regarding.fieldPath" => "involvedObject.fieldPath",
            "reportingController" => "reportingComponent",
            field => field,
        }
    }

    fn unsupported_field(&self, field: &str) -> String {
        format!("field label not supported: {field}")
    }

    fn columns(&self) -> Vec<Column> {
        (EVENT.columns)()
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let mut stored = object.clone();
        self.convert_to_storage(&mut stored);
        (EVENT.cells)(&stored, now)
    }

    fn convert_to_storage(&self, object: &mut Object) {
        for (here, stored) in RENAMED {
            rename(object, here, stored);
        }
        // Core events always show these, set or not.
        CoreEvents.default(object);
    }

    fn convert_from_storage(&self, object: &mut Object) {
        for (here, stored) in RENAMED {
            rename(object, stored, here);
        }
    }
}

/// Gives a field its other name, in its place.
fn rename(object: &mut Object, from: &str, to: &str) {
    if !object.contains_key(from) {
        return;
    }
    let fields = std::mem::take(object);
    object.extend(fields.into_iter().map(|(key, value)| {
        if key == from {
            (to.to_owned(), value)
        } else {
            (key, value)
        }
    }));
}

/// Rules of an event in its storage version. Messages name fields as upstream's internal type does, in either group, but
/// for the reporter.
fn validate(event: &Object, reporter_path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let namespace = text(event, &["metadata", "namespace"]);
    let involved = text(event, &["involvedObject", "namespace"]);
    // Only events of the newer kind have an eventTime, and only they say who reports.
    let newer = !text(event, &["eventTime"]).is_empty();
    let agree = match (involved, newer) {
        ("", false) => matches!(namespace, "" | "default"),
        ("", true) => matches!(namespace, "default" | "kube-system"),
        (involved, false) => involved == namespace,
        (_, true) => true,
    };
    if !agree {
        let detail = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", involved, detail));
    }
    if !newer {
        return errors;
    }
    let reporter = text(event, &["reportingComponent"]);
    if reporter.is_empty() {
        errors.push(FieldError::required(reporter_path, ""));
    }
    errors.extend(
        label_key(reporter)
            .iter()
            .map(|problem| FieldError::invalid(reporter_path, reporter, problem)),
    );
    let too_long =
        |field: &str, most: usize| FieldError::invalid(field, "", &format!("can have at most {most} characters"));
    for field in ["reportingInstance", "action", "reason"] {
        match text(event, &[field]) {
            "" => errors.push(FieldError::required(field, "")),
            value if value.len() > NAME_BYTES_MAX => errors.push(too_long(field, NAME_BYTES_MAX)),
            _ => {}
        }
    }
    if text(event, &["message"]).len() > NOTE_BYTES_MAX {
        errors.push(too_long("message", NOTE_BYTES_MAX));
    }
    errors
}

/// A series has happened at least twice, the last time at some time.
fn validate_series(event: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if event.get("series").is_some_and(Value::is_object) {
        if number(event, &["series", "count"]) < 2 {
            errors.push(FieldError::invalid("series.count", "", "should be at least 2"));
        }
        if text(event, &["series", "lastObservedTime"]).is_empty() {
            errors.push(FieldError::required("series.lastObservedTime", ""));
        }
    }
    errors
}
