//! Security contexts (upstream: `validatePodSpecSecurityContext`, `ValidateSecurityContext`).

use super::windows;
use crate::registry::field::FieldError;
use crate::registry::formats::user_id;
use crate::registry::json::{boolean, integer, is_set, items, map, objects, text};
use crate::registry::strategies::volume_sources::descending_path;
use crate::registry::strategy::Object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SYSCTL_NAME_MAX: usize = 253;
const SYSCTL_REGEX: &str = r"^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const LOCALHOST_PROFILE_BYTES_MAX: usize = 4095;

fn id_errors(context: &Object, fields: &[&str], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in fields {
        let Some(id) = integer(context, &[field]) else { continue };
        let path = format!("{path}.{field}");
        errors.extend(
            user_id(id)
                .iter()
                .map(|problem| FieldError::invalid(path.as_str(), id, problem)),
        );
    }
    errors
}

/// The security context of the pod, and what of its spec contradicts it.
pub fn pod(spec: &Object, path: &str) -> Vec<FieldError> {
    let spec_path = path;
    let path = format!("{path}.securityContext");
    let mut errors = Vec::new();
    if boolean(spec, &["shareProcessNamespace"]) && boolean(spec, &["hostPID"]) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(
            format!("{spec_path}.shareProcessNamespace"),
            true,
            detail,
        ));
    }
    if spec.get("hostUsers") == Some(&Value::Bool(false)) {
        for (field, shown) in [
            ("hostNetwork", "hostNetwork"),
            ("hostPID", "HostPID"),
            ("hostIPC", "HostIPC"),
        ] {
            if boolean(spec, &[field]) {
                let detail = "when `hostUsers` is false";
                errors.push(FieldError::forbidden(format!("{spec_path}.{shown}"), detail));
            }
        }
        for (path, container) in super::containers_of(spec, spec_path) {
            if is_set(container, "volumeDevices") {
                errors.push(FieldError::forbidden(
                    format!("{path}.volumeDevices"),
                    "when `hostUsers` is false",
                ));
            }
        }
    }
    let Some(context) = map(spec, &["securityContext"]) else {
        return errors;
    };
    errors.extend(id_errors(context, &["fsGroup", "runAsUser", "runAsGroup"], &path));
    for (index, group) in items(context, &["supplementalGroups"]).iter().enumerate() {
        let id = group.as_i64().unwrap_or(-1);
        let path = format!("{path}.supplementalGroups[{index}]");
        errors.extend(
            user_id(id)
                .iter()
                .map(|problem| FieldError::invalid(path.as_str(), id, problem)),
        );
    }
    errors.extend(sysctls(spec, context, &format!("{path}.sysctls")));
    for (field, values) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if context.contains_key(field) {
            let value = text(context, &[field]);
            if !values.contains(&value) {
                errors.push(FieldError::not_supported(format!("{path}.{field}"), value, &values));
            }
        }
    }
    errors.extend(profiles(context, &path));
    errors.extend(windows::options(context, &path));
    errors
}

/// The security context of a container at `path`.
pub fn container(container: &Object, path: &str, host_users: bool) -> Vec<FieldError> {
    let Some(context) = map(container, &["securityContext"]) else {
        return Vec::new();
    };
    let mut errors = id_errors(context, &["runAsUser", "runAsGroup"], path);
    if context.contains_key("procMount") {
        let path = format!("{path}.procMount");
        match text(context, &["procMount"]) {
            "Unmasked" if host_users => {
                errors.push(FieldError::invalid(
                    path,
                    "Unmasked",
                    "`hostUsers` must be false to use `Unmasked`",
                ));
            }
            "Default" | "Unmasked" => {}
            other => errors.push(FieldError::not_supported(path, other, &["Default", "Unmasked"])),
        }
    }
    errors.extend(profiles(context, path));
    errors.extend(windows::options(context, path));
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        let shown = || Value::Object(context.clone());
        if boolean(context, &["privileged"]) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, shown(), detail));
        }
        let added = items(context, &["capabilities", "add"]);
        if added
            .iter()
            .any(|capability| capability.as_str() == Some("CAP_SYS_ADMIN"))
        {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, shown(), detail));
        }
    }
    errors
}

/// Seccomp and AppArmor profiles.
fn profiles(context: &Object, path: &str) -> Vec<FieldError> {
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    let mut errors = Vec::new();
    for (field, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = map(context, &[field]) else {
            continue;
        };
        let path = format!("{path}.{field}");
        let (kind, local) = (
            text(profile, &["type"]),
            profile.get("localhostProfile").and_then(Value::as_str),
        );
        let local_path = format!("{path}.localhostProfile");
        match kind {
            "" => errors.push(FieldError::required(
                format!("{path}.type"),
                &format!("type is required when {field} is set"),
            )),
            kind if !types.contains(&kind) => {
                errors.push(FieldError::not_supported(format!("{path}.type"), kind, &types));
            }
            _ => {}
        }
        match (kind, local) {
            ("Localhost", Some("")) if field == "seccompProfile" => {}
            ("Localhost", None | Some("")) => {
                let detail = format!("must be set when {name} type is Localhost");
                errors.push(FieldError::required(local_path, &detail));
            }
            ("Localhost", Some(local)) if field == "seccompProfile" => {
                errors.extend(descending_path(local, &local_path));
            }
            ("Localhost", Some(local)) => {
                if local.trim() != local {
                    let detail = "must not be padded with whitespace";
                    errors.push(FieldError::invalid(local_path.as_str(), local, detail));
                }
                if local.len() > LOCALHOST_PROFILE_BYTES_MAX {
                    errors.push(FieldError::too_long(local_path, LOCALHOST_PROFILE_BYTES_MAX));
                }
            }
            ("", Some(_)) if field == "appArmorProfile" => {}
            (_, Some(local)) => {
                let detail = format!("can only be set when {name} type is Localhost");
                // Upstream shows the whole profile for one of the two.
                let shown = match field {
                    "seccompProfile" => json!({"Type": kind, "LocalhostProfile": local}),
                    _ => json!(local),
                };
                errors.push(FieldError::invalid(local_path, shown, &detail));
            }
            (_, None) => {}
        }
    }
    errors
}

fn is_sysctl(name: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let segment = |segment: &str| {
        let bytes = segment.as_bytes();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|byte| alphanumeric(byte) || b"-_".contains(byte))
    };
    name.len() <= SYSCTL_NAME_MAX && name.split(['.', '/']).all(segment)
}

fn sysctls(spec: &Object, context: &Object, path: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, sysctl) in objects(context, &["sysctls"]) {
        let (name, path) = (text(sysctl, &["name"]), format!("{path}[{index}].name"));
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        if !is_sysctl(name) {
            let detail = format!("must have at most {SYSCTL_NAME_MAX} characters and match regex {SYSCTL_REGEX}");
            errors.push(FieldError::invalid(path.as_str(), name, &detail));
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(path.as_str(), name));
        }
        let dotted = name.replace('/', ".");
        let host = if dotted.starts_with("net.") && boolean(spec, &["hostNetwork"]) {
            Some("hostNetwork")
        } else if (dotted.starts_with("kernel.shm")
            || dotted.starts_with("kernel.msg")
            || dotted == "kernel.sem"
            || dotted.starts_with("fs.mqueue."))
            && boolean(spec, &["hostIPC"])
        {
            Some("hostIPC")
        } else {
            None
        };
        if let Some(host) = host {
            let detail = format!("may not be specified when '{host}' is true");
            errors.push(FieldError::invalid(path, name, &detail));
        }
    }
    errors
}
