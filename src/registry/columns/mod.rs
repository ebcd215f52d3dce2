//! Columns of the server-side tables and the helpers that fill their cells
//! (upstream: `pkg/printers/internalversion/printers.go`, `apimachinery/pkg/util/duration`).

pub mod certificates;
pub mod core;
mod duration;
pub mod extension;
pub mod network;
pub mod node;
pub mod pod;
pub mod policy;
pub mod storage;
#[cfg(test)]
mod tests;
pub mod workloads;

pub use duration::{human_duration, seconds_of};

use super::json::text;
pub use super::strategy::Column;
use super::strategy::Object;
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

/// The text, or `otherwise` for an empty one.
pub fn or_text<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// The strings of a list, joined by commas.
pub fn join(items: &[Value]) -> String {
    let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
    texts.join(",")
}

/// `k=v,k=v` by key, or `<none>`.
pub fn map_text(map: Option<&Object>) -> String {
    let mut entries: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    entries.sort_unstable();
    or_text(&entries.join(","), "<none>").to_owned()
}

/// The first three, and how many more.
pub fn first_and_more(all: &[String], none: &str) -> String {
    const SHOWN_MAX: usize = 3;
    if all.is_empty() {
        return none.to_owned();
    }
    match all.get(..SHOWN_MAX) {
        Some(shown) if all.len() > SHOWN_MAX => {
            format!("{} + {} more...", shown.join(","), all.len() - SHOWN_MAX)
        }
        _ => all.join(","),
    }
}

/// `RWO,ROX,RWX,RWOP`, each once and in that order.
pub fn access_modes(modes: &[Value]) -> String {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |mode: &str| modes.iter().any(|value| value.as_str() == Some(mode));
    let short: Vec<&str> = SHORT
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| *short)
        .collect();
    short.join(",")
}

/// A label selector of an object as kubectl writes it: `a=b,c in (d,e),!f`; `<none>` if it is empty.
pub fn selector_text(selector: Option<&Value>) -> String {
    let empty = Object::new();
    let selector = selector.and_then(Value::as_object).unwrap_or(&empty);
    let mut parts: Vec<(String, String)> = super::json::texts(selector, &["matchLabels"])
        .map(|(key, value)| (key.to_owned(), format!("{key}={value}")))
        .collect();
    for (_, requirement) in super::json::objects(selector, &["matchExpressions"]) {
        let key = text(requirement, &["key"]);
        let mut values: Vec<&str> = super::json::items(requirement, &["values"])
            .iter()
            .filter_map(Value::as_str)
            .collect();
        values.sort_unstable();
        let part = match text(requirement, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return "<error>".to_owned(),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort_unstable();
    let parts: Vec<String> = parts.into_iter().map(|(_, part)| part).collect();
    or_text(&parts.join(","), "<none>").to_owned()
}

/// Texts joined by commas.
pub fn join_texts<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(",")
}
