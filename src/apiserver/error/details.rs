//! What a Status says besides its message, and the Status of a success (upstream: `metav1.StatusDetails`).

use crate::registry::Kind;
use serde_json::{Map, Value, json};
use std::fmt;

/// One entry of `details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// `details` of a Status: the subject of the error. `kind` is the resource's plural, except for Invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub name: String,
    pub group: String,
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    /// Above 0 it is sent as the `Retry-After` header, too.
    pub retry_after_seconds: u32,
}

/// The group and resource that an error speaks of, printed as `pods` or `deployments.apps`.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub group: &'a str,
    pub resource: &'a str,
}

impl<'a> From<&'a Kind> for Subject<'a> {
    fn from(kind: &'a Kind) -> Self {
        Self {
            group: kind.group,
            resource: kind.resource,
        }
    }
}

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.resource)?;
        if !self.group.is_empty() && !self.resource.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl Subject<'_> {
    pub(super) fn details(&self, name: &str) -> Details {
        Details {
            name: name.into(),
            group: self.group.into(),
            kind: self.resource.into(),
            ..Details::default()
        }
    }
}

impl Details {
    /// Of a Status that somebody else made.
    pub(super) fn read(object: &Map<String, Value>) -> Self {
        fn text(object: &Map<String, Value>, field: &str) -> String {
            object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        let causes = object.get("causes").and_then(Value::as_array).into_iter().flatten();
        let causes = causes.filter_map(Value::as_object).map(|cause| Cause {
            reason: text(cause, "reason"),
            message: text(cause, "message"),
            field: text(cause, "field"),
        });
        let seconds = object.get("retryAfterSeconds").and_then(Value::as_u64);
        Self {
            name: text(object, "name"),
            group: text(object, "group"),
            kind: text(object, "kind"),
            uid: text(object, "uid"),
            causes: causes.collect(),
            retry_after_seconds: seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(0),
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut object = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                object.insert(key.into(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut entry = Map::new();
                for (key, text) in [
                    ("reason", &cause.reason),
                    ("message", &cause.message),
                    ("field", &cause.field),
                ] {
                    if !text.is_empty() {
                        entry.insert(key.into(), json!(text));
                    }
                }
                Value::Object(entry)
            });
            object.insert("causes".into(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            object.insert("retryAfterSeconds".into(), json!(self.retry_after_seconds));
        }
        Value::Object(object)
    }
}

/// The Status that answers a successful deletion of a kind that does not return the object.
pub fn success_status(kind: &Kind, name: &str, uid: &str) -> Value {
    let details = Details {
        uid: uid.into(),
        ..Subject::from(kind).details(name)
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details.json(),
    })
}

/// The Status of an accepted binding or eviction: 201 and no details.
pub fn created_status() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}
