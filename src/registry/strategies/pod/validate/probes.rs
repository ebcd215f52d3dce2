//! Probes and lifecycle handlers (upstream: `validateProbe`, `validateLifecycle`, `validateHandler`).

use super::containers::port_errors;
use super::invalid;
use crate::registry::field::FieldError;
use crate::registry::formats::{http_header_name, port_name};
use crate::registry::json::{integer, is_set, map, number, objects, text};
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;
use serde_json::Value;

const NUMBERS: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];

/// Probes and lifecycle of one container.
pub fn validate(container: &Object, path: &str, grace_seconds: Option<i64>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(lifecycle) = map(container, &["lifecycle"]) {
        for name in ["postStart", "preStop"] {
            if let Some(action) = map(lifecycle, &[name]) {
                let handlers = ["exec", "httpGet", "tcpSocket", "sleep"];
                errors.extend(handler(
                    action,
                    &handlers,
                    grace_seconds,
                    &format!("{path}.lifecycle.{name}"),
                ));
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(item) = map(container, &[name]) else { continue };
        let path = format!("{path}.{name}");
        errors.extend(probe(item, grace_seconds, &path));
        if name == "readinessProbe" {
            if let Some(grace) = integer(item, &["terminationGracePeriodSeconds"]) {
                let path = format!("{path}.terminationGracePeriodSeconds");
                errors.push(FieldError::invalid(path, grace, "must not be set for readinessProbes"));
            }
        } else if number(item, &["successThreshold"]) != 1 {
            let threshold = number(item, &["successThreshold"]);
            errors.push(FieldError::invalid(
                format!("{path}.successThreshold"),
                threshold,
                "must be 1",
            ));
        }
    }
    errors
}

fn probe(probe: &Object, grace_seconds: Option<i64>, path: &str) -> Vec<FieldError> {
    let mut errors = handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], grace_seconds, path);
    for field in NUMBERS {
        errors.extend(non_negative(probe.get(field), &format!("{path}.{field}")));
    }
    if let Some(grace) = integer(probe, &["terminationGracePeriodSeconds"]).filter(|grace| *grace <= 0) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(path, grace, "must be greater than 0"));
    }
    errors
}

/// Exactly one of `handlers` must be there.
fn handler(action: &Object, handlers: &[&str], grace_seconds: Option<i64>, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = false;
    for name in handlers {
        let Some(item) = map(action, &[name]) else { continue };
        let path = format!("{path}.{name}");
        if found {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 handler type"));
            continue;
        }
        found = true;
        match *name {
            "exec" if !is_set(item, "command") => errors.push(FieldError::required(format!("{path}.command"), "")),
            "httpGet" => errors.extend(http_get(item, &path)),
            "tcpSocket" | "grpc" => errors.extend(port(item.get("port"), &format!("{path}.port"))),
            "sleep" => errors.extend(sleep(item, grace_seconds, &path)),
            _ => {}
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    errors
}

fn http_get(get: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(get, &["path"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.path"), ""));
    }
    errors.extend(port(get.get("port"), &format!("{path}.port")));
    let scheme = text(get, &["scheme"]);
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(FieldError::not_supported(
            format!("{path}.scheme"),
            scheme,
            &["HTTP", "HTTPS"],
        ));
    }
    for (_, header) in objects(get, &["httpHeaders"]) {
        let name = text(header, &["name"]);
        errors.extend(invalid(&format!("{path}.httpHeaders"), name, &http_header_name(name)));
    }
    errors
}

/// A port by number or by name.
pub fn port(port: Option<&Value>, path: &str) -> Vec<FieldError> {
    match port {
        Some(Value::String(name)) => invalid(path, name, &port_name(name)),
        port => port_errors(path, port.and_then(Value::as_i64).unwrap_or_default()),
    }
}

fn sleep(sleep: &Object, grace_seconds: Option<i64>, path: &str) -> Option<FieldError> {
    let (seconds, grace) = (number(sleep, &["seconds"]), grace_seconds?);
    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    (seconds < 0 || seconds > grace).then(|| FieldError::invalid(path, seconds, &detail))
}
