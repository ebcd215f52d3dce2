//! What depends on the operating system of a pod (upstream: `validateOS`, `validateLinux`, `validateWindows`,
//! `validateWindowsSecurityContextOptions`, `validateWindowsHostProcessPod`).

use super::{containers_of, invalid};
use crate::registry::field::FieldError;
use crate::registry::formats::dns1123_subdomain;
use crate::registry::json::{at, boolean, is_set, map, text};
use crate::registry::strategy::Object;
use serde_json::Value;

const CREDENTIAL_SPEC_BYTES_MAX: usize = 64 * 1024;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;
/// Fields of the pod's and of a container's security context that only Linux has.
const OF_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const OF_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// `spec.os`, and what contradicts it.
pub fn os(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(os) = map(spec, &["os"]) else {
        return Vec::new();
    };
    match text(os, &["name"]) {
        "" => vec![FieldError::required(format!("{path}.os.name"), "")],
        "linux" => linux(spec, path),
        "windows" => windows(spec, path),
        other => vec![FieldError::not_supported(
            format!("{path}.os"),
            other,
            &["linux", "windows"],
        )],
    }
}

fn linux(spec: &Object, path: &str) -> Vec<FieldError> {
    let contexts = std::iter::once((path.to_owned(), spec)).chain(containers_of(spec, path));
    contexts
        .filter(|(_, owner)| at(owner, &["securityContext", "windowsOptions"]).is_some())
        .map(|(path, _)| {
            let detail = "windows options cannot be set for a linux pod";
            FieldError::forbidden(format!("{path}.securityContext.windowsOptions"), detail)
        })
        .collect()
}

fn windows(spec: &Object, path: &str) -> Vec<FieldError> {
    let detail = "cannot be set for a windows pod";
    let mut errors = Vec::new();
    let mut forbid = |owner: &Object, fields: &[&str], path: &str| {
        let found = fields.iter().filter(|field| owner.contains_key(**field));
        errors.extend(found.map(|field| FieldError::forbidden(format!("{path}.{field}"), detail)));
    };
    if let Some(context) = map(spec, &["securityContext"]) {
        forbid(context, &OF_POD, &format!("{path}.securityContext"));
    }
    forbid(spec, &["hostUsers"], path);
    for field in ["hostPID", "hostIPC"].iter().filter(|field| boolean(spec, &[field])) {
        forbid(spec, &[field], path);
    }
    forbid(spec, &["shareProcessNamespace"], path);
    for (path, container) in containers_of(spec, path) {
        if let Some(context) = map(container, &["securityContext"]) {
            forbid(context, &OF_CONTAINER, &format!("{path}.securityContext"));
        }
    }
    errors
}

/// `windowsOptions` of the security context at `path`.
pub fn options(context: &Object, path: &str) -> Vec<FieldError> {
    let Some(options) = map(context, &["windowsOptions"]) else {
        return Vec::new();
    };
    let path = format!("{path}.windowsOptions");
    let mut errors = Vec::new();
    let value = |field: &str| at(options, &[field]).and_then(Value::as_str);
    if let Some(name) = value("gmsaCredentialSpecName") {
        errors.extend(invalid(
            &format!("{path}.gmsaCredentialSpecName"),
            name,
            &dns1123_subdomain(name, false),
        ));
    }
    if let Some(spec) = value("gmsaCredentialSpec") {
        let detail = match spec.len() {
            0 => Some("gmsaCredentialSpec cannot be an empty string"),
            length if length > CREDENTIAL_SPEC_BYTES_MAX => Some("gmsaCredentialSpec size must be under 64 KiB"),
            _ => None,
        };
        let field = format!("{path}.gmsaCredentialSpec");
        errors.extend(detail.map(|detail| FieldError::invalid(field, spec, detail)));
    }
    if let Some(name) = value("runAsUserName") {
        errors.extend(invalid(&format!("{path}.runAsUserName"), name, &user_name(name)));
    }
    errors
}

fn user_name(name: &str) -> Vec<String> {
    let only = |text: &str| vec![text.to_owned()];
    if name.is_empty() {
        return only("runAsUserName cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return only("runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return only("runAsUserName cannot contain more than one backslash"),
    };
    let mut problems = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_MAX {
            problems.push(format!(
                "runAsUserName's Domain length must be under {DOMAIN_MAX} characters"
            ));
        }
        let net_bios = (1..=15).contains(&domain.chars().count())
            && !domain.starts_with('.')
            && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let dns = dns1123_subdomain(&domain.to_lowercase(), false).is_empty();
        if !net_bios && !dns {
            problems.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        problems.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_MAX {
        problems.push(format!(
            "runAsUserName's User length must not be longer than {USER_MAX} characters"
        ));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        problems.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains([
        '"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']',
    ]) {
        problems.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
    problems
}

/// Containers that run as processes of a Windows host: all of a pod's or none.
pub fn host_process(spec: &Object, path: &str) -> Vec<FieldError> {
    let flag =
        |owner: &Object| at(owner, &["securityContext", "windowsOptions", "hostProcess"]).and_then(Value::as_bool);
    let of_pod = flag(spec);
    let (mut errors, mut count, mut host) = (Vec::new(), 0, 0);
    for (path, container) in containers_of(spec, path) {
        count += 1;
        let own = flag(container);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let path = format!("{path}.securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(path, own, &detail));
        }
        host += usize::from(own.or(of_pod).unwrap_or(false));
    }
    if host > 0 && host != count {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, "", detail));
    }
    if host > 0 && !is_set(spec, "hostNetwork") {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(format!("{path}.hostNetwork"), false, detail));
    }
    errors
}
