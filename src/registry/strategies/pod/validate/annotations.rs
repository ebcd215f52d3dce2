//! Annotations of pods that say what fields say now, or that mark what the kubelet made
//! (upstream: `ValidatePodSpecificAnnotations`, `validateSeccompAnnotationsAndFields`).

use super::containers_of;
use crate::registry::field::FieldError;
use crate::registry::json::{at, map, text};
use crate::registry::strategies::volume_sources::descending_path;
use crate::registry::strategy::Object;
use serde_json::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The pod shows one that the kubelet has from elsewhere.
pub fn is_mirror(pod: &Object) -> bool {
    at(pod, &["metadata", "annotations", MIRROR]).is_some()
}

fn entries(annotations: Option<&Object>) -> impl Iterator<Item = (&str, &str)> {
    let found = annotations.into_iter().flatten();
    found.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// Rules of the annotations of a pod or a template.
pub fn of_pod(annotations: Option<&Object>, spec: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in entries(annotations) {
        let field = format!("{path}[{key}]");
        if key == MIRROR && text(spec, &["nodeName"]).is_empty() {
            let detail = "must set spec.nodeName if mirror pod annotation is set";
            errors.push(FieldError::invalid(field, value, detail));
        } else if key == DELETION_COST && !is_cost(value) {
            errors.push(FieldError::invalid(field, value, "must be a 32bit integer"));
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            errors.extend(seccomp(value, &format!("{path}.{key}")));
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            if !containers_of(spec, "")
                .iter()
                .any(|(_, container)| text(container, &["name"]) == name)
            {
                errors.push(FieldError::invalid(field.as_str(), name, "container not found"));
            }
            let known = matches!(value, "" | "runtime/default" | "unconfined") || value.starts_with("localhost/");
            if !known {
                let detail = format!("invalid AppArmor profile name: {value:?}");
                errors.push(FieldError::invalid(field, value, &detail));
            }
        }
    }
    errors
}

/// No plus sign and no leading zeros.
fn is_cost(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    value == "0" || (!digits.starts_with(['+', '0']) && value.parse::<i32>().is_ok())
}

fn seccomp(profile: &str, path: &str) -> Vec<FieldError> {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => Vec::new(),
        _ => match profile.strip_prefix("localhost/") {
            Some(local) => descending_path(local, path),
            None => vec![FieldError::invalid(path, profile, "must be a valid seccomp profile")],
        },
    }
}

/// What an update may not do to them.
pub fn update(pod: &Object, old: &Object) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let of = |object| map(object, &["metadata", "annotations"]);
    let value = |object, key: &str| of(object).and_then(|found| found.get(key));
    for (key, _) in entries(of(old)).filter(|(key, _)| value(pod, key) != value(old, key)) {
        let path = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.push(FieldError::forbidden(
                path,
                "may not remove or update AppArmor annotations",
            ));
        } else if key == MIRROR {
            errors.push(FieldError::forbidden(
                path,
                "may not remove or update mirror pod annotation",
            ));
        }
    }
    for (key, _) in entries(of(pod)).filter(|(key, _)| value(old, key).is_none()) {
        let path = format!("metadata.annotations[{key}]");
        if key.starts_with(APP_ARMOR) {
            errors.push(FieldError::forbidden(path, "may not add AppArmor annotations"));
        } else if key == MIRROR {
            errors.push(FieldError::forbidden(path, "may not add mirror pod annotation"));
        }
    }
    errors
}

/// Annotation and field must say the same where both are there.
pub fn match_fields(annotations: Option<&Object>, spec: &Object, path: &str) -> Vec<FieldError> {
    let annotation = |key: &str| annotations.and_then(|found| found.get(key)).and_then(Value::as_str);
    let mut errors = Vec::new();
    let own = ["securityContext", "seccompProfile"];
    if let (Some(profile), Some(value)) = (map(spec, &own), annotation(SECCOMP_POD)) {
        errors.extend(mismatch(
            profile,
            value,
            "seccomp",
            &format!("{path}.securityContext.seccompProfile"),
        ));
    }
    for (path, container) in containers_of(spec, path) {
        let name = text(container, &["name"]);
        let value = annotation(&format!("{SECCOMP_CONTAINER}{name}"));
        if let (Some(profile), Some(value)) = (map(container, &own), value) {
            errors.extend(mismatch(
                profile,
                value,
                "seccomp",
                &format!("{path}.securityContext.seccompProfile"),
            ));
        }
        let armor = ["securityContext", "appArmorProfile"];
        let profile = map(container, &armor).or_else(|| map(spec, &armor));
        let value = annotation(&format!("{APP_ARMOR}{name}")).filter(|_| text(spec, &["os", "name"]) != "windows");
        if let (Some(profile), Some(value)) = (profile, value) {
            errors.extend(mismatch(
                profile,
                value,
                "apparmor",
                &format!("{path}.securityContext.appArmorProfile"),
            ));
        }
    }
    errors
}

fn mismatch(profile: &Object, annotation: &str, what: &str, path: &str) -> Option<FieldError> {
    let same = match text(profile, &["type"]) {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => match annotation.strip_prefix("localhost/") {
            Some(local) if local != text(profile, &["localhostProfile"]) => {
                let detail = format!("{what} profile in annotation and field must match");
                return Some(FieldError::forbidden(format!("{path}.localhostProfile"), &detail));
            }
            found => found.is_some(),
        },
        _ => true,
    };
    let detail = format!("{what} type in annotation and field must match");
    (!same).then(|| FieldError::forbidden(format!("{path}.type"), &detail))
}
