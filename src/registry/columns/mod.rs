//! Columns of the server-side tables and the helpers that fill their cells
//! (upstream: `pkg/printers/internalversion/printers.go`, `apimachinery/pkg/util/duration`).

mod duration;
pub mod pod;

pub use duration::{human_duration, seconds_of};

use super::json::text;
use super::strategy::{Column, Object};
use serde_json::{Value, json};

/// A column that is always shown.
pub const fn column(name: &'static str, kind: &'static str) -> Column {
    Column {
        name,
        kind,
        format: "",
        description: "",
        priority: 0,
    }
}

/// The column that clients take the object's name from.
pub const fn name_column() -> Column {
    Column {
        format: "name",
        description: "Name must be unique within a namespace.",
        ..column("Name", "string")
    }
}

/// A column that is shown with `-o wide` only.
pub const fn wide(name: &'static str, kind: &'static str) -> Column {
    Column {
        priority: 1,
        ..column(name, kind)
    }
}

/// Name and creation time: what a kind without a printer shows.
pub fn default_columns() -> Vec<Column> {
    vec![name_column(), column("Created At", "date")]
}

pub fn default_cells(object: &Object, _now: i64) -> Vec<Value> {
    vec![
        json!(text(object, &["metadata", "name"])),
        json!(text(object, &["metadata", "creationTimestamp"])),
    ]
}

/// Time since the RFC 3339 time `at`, `<unknown>` if there is none.
pub fn since(at: &str, now: i64) -> String {
    match seconds_of(at) {
        Some(then) => human_duration(now - then),
        None => "<unknown>".to_owned(),
    }
}

/// Time since the object was created.
pub fn age(object: &Object, now: i64) -> String {
    since(text(object, &["metadata", "creationTimestamp"]), now)
}
