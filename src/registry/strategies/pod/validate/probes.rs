//! Probes and lifecycle handlers (upstream: `validateProbe`, `validateLifecycle`, `validateHandler`).

use super::containers::{Context, port_errors};
use super::invalid;
use crate::registry::field::FieldError;
use crate::registry::formats::{http_header_name, port_name};
use crate::registry::json::{at, integer, is_set, map, number, objects, text};
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

const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "RTMAX", "RTMIN", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];

/// Probes and lifecycle of one container.
pub fn validate(container: &Object, path: &str, context: &Context<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let grace_seconds = context.grace_seconds;
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
    if let Some(signal) = at(container, &["lifecycle", "stopSignal"]).and_then(Value::as_str) {
        errors.extend(stop_signal(signal, context.os, &format!("{path}.lifecycle.stopSignal")));
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

/// Which signal stops a container; the systems know different ones.
fn stop_signal(signal: &str, os: Option<&str>, path: &str) -> Option<FieldError> {
    let known: Vec<String> = match os {
        None => {
            let detail = "may not be set for containers with empty `spec.os.name`";
            return Some(FieldError::forbidden(path, detail));
        }
        Some("windows") => vec!["SIGKILL".to_owned(), "SIGTERM".to_owned()],
        Some("linux") => {
            let real_time = (1..=15).map(|number| format!("SIGRTMIN+{number}"));
            let from_above = (1..=14).map(|number| format!("SIGRTMAX-{number}"));
            let named = SIGNALS.iter().map(|name| format!("SIG{name}"));
            let mut all: Vec<String> = named.chain(real_time).chain(from_above).collect();
            all.sort_unstable();
            all
        }
        Some(_) => return None,
    };
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    (!names.contains(&signal)).then(|| FieldError::not_supported(path, signal, &names))
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
