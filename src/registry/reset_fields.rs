//! Fields that a write through some endpoint does not touch, so that its writer does not come to own them
//! (upstream: `GetResetFields` and `GetResetFieldsFilter` of the strategies in `pkg/registry`).

use super::Kind;
use super::managed::Reset;
use super::strategy::Target;

const NOTHING: Reset = Reset::Without(&[]);
const STATUS: Reset = Reset::Without(&[&["status"]]);
const SPEC: Reset = Reset::Without(&[&["spec"]]);
const SPEC_AND_METADATA: Reset = Reset::Without(&[&["metadata"], &["spec"]]);

/// What a write of `kind` through `target` leaves alone.
pub fn of(kind: &Kind, target: Target) -> Reset {
    match (target, kind.group, kind.resource) {
        (Target::Main, "certificates.k8s.io", "certificatesigningrequests") => {
            Reset::Without(&[&["spec"], &["status"]])
        }
        (Target::Main, ..) if kind.subresource("status").is_some() => STATUS,
        (Target::Main, ..) => NOTHING,
        (Target::Status, group, resource) => of_status(kind, group, resource),
        (Target::Subresource(name), ..) => of_subresource(name),
    }
}

fn of_status(kind: &Kind, group: &str, resource: &str) -> Reset {
    match (group, resource) {
        ("", "pods") => Reset::Without(&[
            &["spec"],
            &["metadata", "deletionTimestamp"],
            &["metadata", "ownerReferences"],
        ]),
        ("apps", "deployments") => Reset::Without(&[&["spec"], &["metadata", "labels"]]),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            Reset::Without(&[&["spec"], &["status", "conditions"]])
        }
        (
            "apiextensions.k8s.io"
            | "apiregistration.k8s.io"
            | "flowcontrol.apiserver.k8s.io"
            | "storagemigration.k8s.io",
            _,
        )
        | ("storage.k8s.io", "volumeattachments") => SPEC_AND_METADATA,
        _ if kind.is_custom() => SPEC_AND_METADATA,
        _ => SPEC,
    }
}

fn of_subresource(name: &str) -> Reset {
    match name {
        "approval" => Reset::Without(&[&["spec"], &["status", "certificate"]]),
        "finalize" => STATUS,
        "ephemeralcontainers" => Reset::Only(&[&["spec", "ephemeralContainers"]]),
        "resize" => Reset::Only(&[
            &["spec", "containers", "*", "resources"],
            &["spec", "containers", "*", "resizePolicy"],
            &["spec", "initContainers", "*", "resources"],
            &["spec", "initContainers", "*", "resizePolicy"],
        ]),
        _ => NOTHING,
    }
}
