//! Cells of custom resources (upstream: `pkg/registry/customresource/tableconvertor`).

use super::path::JsonPath;
use crate::registry::columns::{human_duration, name_column, seconds_of};
use crate::registry::intern::intern;
use crate::registry::strategy::{Column, Object};
use serde_json::{Value, json};

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It \
                       is not guaranteed to be set in happens-before order across separate operations. Clients may \
                       not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the \
                       system. Read-only. Null for lists. More info: \
                       https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

#[derive(Debug)]
pub struct PrinterColumn {
    column: Column,
    path: JsonPath,
}

impl PrinterColumn {
    pub fn new(
        name: &str,
        kind: &str,
        format: &str,
        description: &str,
        priority: i32,
        json_path: &str,
        path: JsonPath,
    ) -> Self {
        let description = match description {
            "" => format!("Custom resource definition column (in JSONPath format): {json_path}"),
            given => given.to_owned(),
        };
        let column = Column {
            name: intern(name),
            kind: intern(kind),
            format: intern(format),
            description: intern(&description),
            priority,
        };
        Self { column, path }
    }

    /// What is shown where nothing is asked for.
    pub fn age() -> Self {
        let column = Column {
            name: "Age",
            kind: "date",
            format: "",
            description: CREATED,
            priority: 0,
        };
        let path = JsonPath::fields(&["metadata", "creationTimestamp"]);
        Self { column, path }
    }

    fn cell(&self, object: &Object, now: i64) -> Value {
        let Some(value) = self.path.first(object) else {
            return Value::Null;
        };
        match self.column.kind {
            "string" => json!(printed(value)),
            "integer" => match value.as_i64() {
                Some(number) => json!(number),
                None => value.as_f64().map_or(Value::Null, |number| json!(number as i64)),
            },
            "number" => value
                .as_f64()
                .map_or(Value::Null, |number| match number.fract() == 0.0 {
                    // Go writes whole floats without a point.
                    true => json!(number as i64),
                    false => json!(number),
                }),
            "boolean" => value.as_bool().map_or(Value::Null, Value::Bool),
            "date" => match value.as_str().map(seconds_of) {
                Some(Some(then)) => json!(human_duration(now - then)),
                Some(None) => json!("<invalid>"),
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }
}

/// A value as Go's templates print it; what has structure as JSON.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "<no value>".to_owned(),
        other => other.to_string(),
    }
}

pub fn columns(columns: &[PrinterColumn]) -> Vec<Column> {
    let own = columns.iter().map(|column| column.column.clone());
    std::iter::once(name_column()).chain(own).collect()
}

pub fn cells(columns: &[PrinterColumn], object: &Object, now: i64) -> Vec<Value> {
    let name = object.get("metadata").and_then(|metadata| metadata.get("name"));
    let own = columns.iter().map(|column| column.cell(object, now));
    std::iter::once(name.cloned().unwrap_or_default()).chain(own).collect()
}
