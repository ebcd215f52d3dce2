//! ComponentStatus, which is answered and not stored (upstream: `pkg/registry/core/componentstatus`).

use super::stored::{Printer, Stored};
use crate::registry::columns::{column, name_column, or_text};
use crate::registry::json::{objects, text};
use serde_json::json;

pub fn strategy() -> Stored {
    Stored::new(Printer {
        columns: || {
            vec![
                name_column(),
                column("Status", "string"),
                column("Message", "string"),
                column("Error", "string"),
            ]
        },
        cells: |component, _now| {
            let health = objects(component, &["conditions"])
                .map(|(_, condition)| condition)
                .find(|condition| text(condition, &["type"]) == "Healthy");
            let field = |name: &str| health.map_or("", |condition| text(condition, &[name]));
            let status = match field("status") {
                "True" => "Healthy",
                "False" => "Unhealthy",
                _ => "Unknown",
            };
            vec![
                json!(text(component, &["metadata", "name"])),
                json!(or_text(status, "Unknown")),
                json!(field("message")),
                json!(field("error")),
            ]
        },
    })
}
