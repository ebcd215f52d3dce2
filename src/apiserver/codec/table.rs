//! Server-side tables (upstream: `meta/v1.Table` and `printers/internalversion`). Columns and cells come from
//! the kind's strategy.

use super::accept::Transform;
use super::{partial, stored};
use crate::apiserver::error::ApiError;
use crate::apiserver::options::Query;
use crate::registry::Kind;
use crate::registry::field::FieldError;
use crate::registry::strategy::Object;
use crate::storage::Entry;
use serde_json::{Map, Value, json};

/// How much of the object a row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

impl IncludeObject {
    /// Only who wants a Table has this option.
    pub fn from_query(query: &Query, transform: Transform) -> Result<Self, ApiError> {
        if !matches!(transform, Transform::Table(_)) {
            return Ok(Self::Metadata);
        }
        match query.get("includeObject").unwrap_or("") {
            "" | "Metadata" => Ok(Self::Metadata),
            "None" => Ok(Self::None),
            "Object" => Ok(Self::Object),
            other => {
                let why = "must be 'Metadata', 'Object', 'None', or empty";
                let error = FieldError::invalid("includeObject", other, why);
                Err(ApiError::bad_request(format!(
                    "Unable to convert to Table as requested: {error}"
                )))
            }
        }
    }
}

/// Renders `objects` as one Table. `columns`: whether the column definitions are sent (not in later watch events).
pub fn render(
    kind: &Kind,
    version: &str,
    objects: Vec<Object>,
    metadata: Value,
    include: IncludeObject,
    columns: bool,
) -> Value {
    let now_seconds = jiff::Timestamp::now().as_second();
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| row(kind, version, object, include, now_seconds))
        .collect();
    let definitions = if columns { definitions(kind) } else { Value::Null };
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// The same of stored objects, as JSON. Little of each is read.
pub fn of_entries<'a>(
    kind: &Kind,
    version: &str,
    entries: impl Iterator<Item = &'a Entry>,
    metadata: &Value,
    include: IncludeObject,
    columns: bool,
) -> Result<Vec<u8>, ApiError> {
    let now_seconds = jiff::Timestamp::now().as_second();
    let definitions = if columns { definitions(kind) } else { Value::Null };
    let head = format!(
        r#"{{"kind":"Table","apiVersion":"meta.k8s.io/{version}","metadata":{metadata},"columnDefinitions":{definitions},"rows":["#
    );
    let mut json = head.into_bytes();
    for (position, entry) in entries.enumerate() {
        if position > 0 {
            json.push(b',');
        }
        push_row(&mut json, kind, version, entry, include, now_seconds)?;
    }
    json.extend_from_slice(b"]}");
    Ok(json)
}

fn push_row(
    json: &mut Vec<u8>,
    kind: &Kind,
    version: &str,
    entry: &Entry,
    include: IncludeObject,
    now_seconds: i64,
) -> Result<(), ApiError> {
    let object = stored::parts(kind, entry, kind.strategy.cells_read())?;
    json.extend_from_slice(br#"{"cells":"#);
    serde_json::to_writer(&mut *json, &kind.strategy.cells(&object, now_seconds)).map_err(ApiError::internal)?;
    if let Some(conditions) = kind.strategy.row_conditions(&object) {
        json.extend_from_slice(br#","conditions":"#);
        serde_json::to_writer(&mut *json, &conditions).map_err(ApiError::internal)?;
    }
    json.extend_from_slice(br#","object":"#);
    match include {
        IncludeObject::None => json.extend_from_slice(b"null"),
        IncludeObject::Metadata => json.extend_from_slice(partial::of_entry(kind, entry, version)?.as_bytes()),
        IncludeObject::Object => json.extend_from_slice(&stored::bytes(kind, entry)?),
    }
    json.push(b'}');
    Ok(())
}

fn definitions(kind: &Kind) -> Value {
    let columns = kind.strategy.columns();
    columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect()
}

fn row(kind: &Kind, version: &str, object: Object, include: IncludeObject, now_seconds: i64) -> Value {
    let mut row = Map::new();
    row.insert("cells".into(), Value::Array(kind.strategy.cells(&object, now_seconds)));
    if let Some(conditions) = kind.strategy.row_conditions(&object) {
        row.insert("conditions".into(), conditions);
    }
    let shown = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial::object(&object, version),
        IncludeObject::Object => Value::Object(object),
    };
    row.insert("object".into(), shown);
    Value::Object(row)
}
