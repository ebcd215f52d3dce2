//! Who owns the fields of what is written (upstream: `endpoints/handlers/fieldmanager` and the callers of
//! `FieldManager` in the handlers).

use super::metadata;
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::registry::managed::{self, ApplyError, OneVersion, Versions, Write};
use crate::registry::schema::{self, Definition};
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, Registry, reset_fields};
use poem::http::header;
use serde_json::Value;
use std::sync::Arc;

const MANAGER_BYTES_MAX: usize = 128;

/// Notes in `new` that this request made it of `live` (None: it is created).
pub fn update(ctx: &Context, kind: &Kind, target: Target, live: Option<&Object>, new: &mut Object) {
    let manager = manager(ctx);
    with_write(ctx, kind, target, &manager, |write| managed::update(write, live, new));
}

/// Notes in `new` that the server itself made it of `live`, past any endpoint.
pub fn by_server(kind: &Kind, live: Option<&Object>, new: &mut Object) {
    let now = metadata::timestamp(jiff::Timestamp::now());
    let write = Write {
        definition: &schema::definition(kind),
        group_version: &kind.group_version(),
        subresource: "",
        manager: "kube-apiserver",
        now: &now,
        reset: reset_fields::of(kind, Target::Main),
        versions: &OneVersion,
    };
    managed::update(&write, live, new);
}

/// Merges an apply configuration over `live` and notes its owners.
pub fn apply(
    ctx: &Context,
    kind: &Kind,
    target: Target,
    live: Option<&Object>,
    config: &Object,
    force: bool,
) -> Result<Object, ApiError> {
    let manager = manager(ctx);
    with_write(ctx, kind, target, &manager, |write| {
        managed::apply(write, live, config, force).map_err(|error| match error {
            ApplyError::BadRequest(message) => ApiError::bad_request(message),
            ApplyError::Conflicts(conflicts) => ApiError::apply_conflict(&conflicts),
            ApplyError::Other(message) => ApiError::unclassified(message),
        })
    })
}

/// Whether a write would change nothing but the times of managedFields, which is no reason to write.
pub fn only_times_differ(new: &Object, old: &Object) -> bool {
    let entries = |object| metadata::of(object).get("managedFields").and_then(Value::as_array);
    let (Some(after), Some(before)) = (entries(new), entries(old)) else {
        return false;
    };
    let same_entry = |(a, b): (&Value, &Value)| match (a, b) {
        (Value::Object(a), Value::Object(b)) => same_but_for(a, b, "time"),
        _ => false,
    };
    after.len() == before.len()
        && after.iter().zip(before).all(same_entry)
        && same_but_for(metadata::of(new), metadata::of(old), "managedFields")
        && same_but_for(new, old, "metadata")
}

/// Whether two objects are equal but for one field.
fn same_but_for(a: &Object, b: &Object, field: &str) -> bool {
    let others = |object: &Object| object.keys().filter(|key| *key != field).count();
    let same = |(key, value): (&String, &Value)| key == field || b.get(key) == Some(value);
    others(a) == others(b) && a.iter().all(same)
}

fn with_write<T>(ctx: &Context, kind: &Kind, target: Target, manager: &str, act: impl FnOnce(&Write<'_>) -> T) -> T {
    let definition = schema::definition(kind);
    let now = metadata::timestamp(jiff::Timestamp::now());
    let versions = ServedVersions {
        registry: &ctx.server.registry,
        kind,
    };
    act(&Write {
        definition: &definition,
        group_version: &kind.group_version(),
        subresource: target.subresource(),
        manager,
        now: &now,
        reset: reset_fields::of(kind, target),
        versions: &versions,
    })
}

/// Who writes: what the request says, or the program that sent it.
fn manager(ctx: &Context) -> String {
    match ctx.query.get("fieldManager") {
        None | Some("") => from_user_agent(ctx.header(header::USER_AGENT).unwrap_or_default()),
        Some(manager) => manager.to_owned(),
    }
}

/// The name in front of the version, as far as it can be printed and fits.
fn from_user_agent(agent: &str) -> String {
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars() {
        if c.is_control() {
            continue;
        }
        if name.len() + c.len_utf8() > MANAGER_BYTES_MAX {
            break;
        }
        name.push(c);
    }
    name
}

/// The versions in which the registry serves a kind.
struct ServedVersions<'a> {
    registry: &'a Registry,
    kind: &'a Kind,
}

impl ServedVersions<'_> {
    fn lookup(&self, group_version: &str) -> Option<Arc<Kind>> {
        let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
        self.registry
            .lookup_kind(group, version, self.kind.kind)
            .filter(|other| other.storage_resource == self.kind.storage_resource)
    }
}

impl Versions for ServedVersions<'_> {
    fn convert(&self, object: &Object, group_version: &str) -> Option<(Object, Arc<Definition>)> {
        let target = self.lookup(group_version)?;
        let definition = schema::definition(&target);
        let mut object = object.clone();
        let stated = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
        if stated != group_version {
            let source = self.lookup(stated)?;
            stored::to_storage(&source, &mut object);
            stored::from_storage(&target, &mut object);
        }
        Some((object, definition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_alone_are_no_reason_to_write() {
        let object = |manager: &str, time: &str, data: &str| {
            let entry = serde_json::json!({"manager": manager, "time": time, "fieldsV1": {"f:a": {}}});
            let value = serde_json::json!({"metadata": {"name": "n", "managedFields": [entry]}, "data": data});
            value.as_object().unwrap().clone()
        };
        let old = object("m", "1", "x");
        assert!(only_times_differ(&object("m", "2", "x"), &old));
        assert!(!only_times_differ(&object("other", "2", "x"), &old));
        assert!(!only_times_differ(&object("m", "2", "y"), &old));
    }

    #[test]
    fn programs_are_named_by_their_user_agent() {
        let rows = [
            ("kubectl/v1.32.0 (linux/amd64) kubernetes/abc", "kubectl"),
            ("", ""),
            ("curl", "curl"),
            ("a\u{7}b/1", "ab"),
        ];
        for (agent, name) in rows {
            assert_eq!(from_user_agent(agent), name, "{agent:?}");
        }
        assert_eq!(from_user_agent(&"ä".repeat(100)).len(), MANAGER_BYTES_MAX);
    }
}
