//! Leases (upstream: `pkg/apis/coordination/validation`).

use super::Stored;
use crate::registry::columns::{self, Column};
use crate::registry::field::FieldError;
use crate::registry::json::{child, integer, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;
use serde_json::json;

const PRINTER: Printer = Printer {
    columns: || -> Vec<Column> {
        vec![
            columns::name_column(),
            columns::column("Holder", "string"),
            columns::column("Age", "string"),
        ]
    },
    cells: |lease, now| {
        vec![
            json!(text(lease, &["metadata", "name"])),
            json!(text(lease, &["spec", "holderIdentity"])),
            json!(columns::age(lease, now)),
        ]
    },
};

/// The strategy of Leases.
pub fn strategy() -> Stored {
    Stored::new(PRINTER)
        .defaults(|lease| {
            // Leader election by the server is off by default, which leaves these out.
            if let Some(spec) = child(lease, "spec") {
                spec.remove("strategy");
                spec.remove("preferredHolder");
            }
        })
        .rules(validate)
        .conditional()
        .upsert()
}

fn validate(lease: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(seconds) = integer(lease, &["spec", "leaseDurationSeconds"]).filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(
            "spec.leaseDurationSeconds",
            seconds,
            "must be greater than 0",
        ));
    }
    let transitions = lease.get("spec").and_then(|spec| spec.get("leaseTransitions"));
    errors.extend(non_negative(transitions, "spec.leaseTransitions"));
    errors
}
