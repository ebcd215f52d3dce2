//! Columns of certificates.k8s.io (upstream: `pkg/printers/internalversion/printers.go`).

use super::{age, column, human_duration, map_text, name_column, or_text};
use crate::registry::json::{integer, is_set, map, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

/// Whether the object has a condition of this type, true or not.
fn has_condition(object: &Object, kind: &str) -> bool {
    objects(object, &["status", "conditions"]).any(|(_, condition)| text(condition, &["type"]) == kind)
}

pub const SIGNING_REQUEST: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Age", "string"),
            column("SignerName", "string"),
            column("Requestor", "string"),
            column("RequestedDuration", "string"),
            column("Condition", "string"),
        ]
    },
    cells: |request, now| {
        let duration = integer(request, &["spec", "expirationSeconds"]).map(human_duration);
        vec![
            name(request),
            json!(age(request, now)),
            json!(or_text(text(request, &["spec", "signerName"]), "<none>")),
            json!(text(request, &["spec", "username"])),
            json!(duration.unwrap_or_else(|| "<none>".to_owned())),
            json!(signing_status(request)),
        ]
    },
};

fn signing_status(request: &Object) -> String {
    let mut status = match (has_condition(request, "Denied"), has_condition(request, "Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if has_condition(request, "Failed") {
        status.push_str(",Failed");
    }
    if map(request, &["status"]).is_some_and(|status| is_set(status, "certificate")) {
        status.push_str(",Issued");
    }
    status
}

pub const CLUSTER_TRUST_BUNDLE: Printer = Printer {
    columns: || vec![name_column(), column("SignerName", "string")],
    cells: |bundle, _now| {
        let signer = or_text(text(bundle, &["spec", "signerName"]), "<none>");
        vec![name(bundle), json!(signer)]
    },
};

pub const POD_CERTIFICATE_REQUEST: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("PodName", "string"),
            column("ServiceAccountName", "string"),
            column("NodeName", "string"),
            column("SignerName", "string"),
            column("State", "string"),
            column("UnverifiedUserAnnotations", "string"),
        ]
    },
    cells: |request, _now| {
        let spec = |field: &str| json!(text(request, &["spec", field]));
        let state = ["Issued", "Denied", "Failed"]
            .into_iter()
            .find(|kind| has_condition(request, kind))
            .unwrap_or("Pending");
        vec![
            name(request),
            spec("podName"),
            spec("serviceAccountName"),
            spec("nodeName"),
            spec("signerName"),
            json!(state),
            json!(map_text(map(request, &["spec", "unverifiedUserAnnotations"]))),
        ]
    },
};
