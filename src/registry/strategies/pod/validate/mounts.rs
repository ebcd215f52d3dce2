//! Mounts and block devices of containers (upstream: `ValidateVolumeMounts`, `ValidateVolumeDevices`).

use super::volumes::Known;
use crate::registry::field::FieldError;
use crate::registry::json::{boolean, is_set, items, objects, text};
use crate::registry::strategies::volume_sources::{descending_path, no_backsteps};
use crate::registry::strategy::Object;
use serde_json::json;
use std::collections::BTreeSet;

const BIND_OPTIONS: [&str; 3] = ["nodev", "noexec", "nosuid"];

/// The mounts of a container at `path`.
pub fn mounts(container: &Object, path: &str, volumes: &Known<'_>) -> Vec<FieldError> {
    let list = format!("{path}.volumeMounts");
    let (mut errors, mut points) = (Vec::new(), BTreeSet::new());
    let devices: Vec<(&str, &str)> = objects(container, &["volumeDevices"])
        .map(|(_, device)| (text(device, &["name"]), text(device, &["devicePath"])))
        .collect();
    for (index, mount) in objects(container, &["volumeMounts"]) {
        let at = |field: &str| format!("{list}[{index}].{field}");
        let (name, point) = (text(mount, &["name"]), text(mount, &["mountPath"]));
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(at("name"), name));
        }
        if point.is_empty() {
            errors.push(FieldError::required(at("mountPath"), ""));
        }
        if !points.insert(point) {
            errors.push(FieldError::invalid(at("mountPath"), point, "must be unique"));
        }
        if devices.iter().any(|(device, _)| *device == name) {
            errors.push(FieldError::invalid(
                at("name"),
                name,
                "must not already exist in volumeDevices",
            ));
        }
        if devices.iter().any(|(_, device)| *device == point) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(at("mountPath"), point, detail));
        }
        let (sub_path, expression) = (text(mount, &["subPath"]), text(mount, &["subPathExpr"]));
        // Upstream blames the list here, not the mount.
        errors.extend(descending_path(sub_path, &format!("{list}.subPath")));
        if !expression.is_empty() && !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(at("subPathExpr"), expression, detail));
        }
        errors.extend(descending_path(expression, &format!("{list}.subPathExpr")));
        errors.extend(propagation(mount, container, &format!("{list}.mountPropagation")));
        errors.extend(recursive_read_only(mount, &format!("{list}.recursiveReadOnly")));
        errors.extend(bind_options(mount, volumes.get(name).copied(), &at("bindMountOptions")));
    }
    errors
}

fn bind_options(mount: &Object, volume: Option<&Object>, path: &str) -> Vec<FieldError> {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    let options = items(mount, &["bindMountOptions"]);
    for (index, option) in options.iter().enumerate() {
        let option = option.as_str().unwrap_or_default();
        if !BIND_OPTIONS.contains(&option) {
            errors.push(FieldError::not_supported(
                format!("{path}[{index}]"),
                option,
                &BIND_OPTIONS,
            ));
        }
        if !seen.insert(option) {
            errors.push(FieldError::duplicate(format!("{path}[{index}]"), option));
        }
    }
    if !options.is_empty() && volume.is_some_and(|volume| volume.contains_key("image")) {
        let detail = "bindMountOptions may not be used with image volumes";
        errors.push(FieldError::invalid(path, json!(options), detail));
    }
    errors
}

fn propagation(mount: &Object, container: &Object, path: &str) -> Option<FieldError> {
    let modes = ["Bidirectional", "HostToContainer", "None"];
    mount.get("mountPropagation")?;
    match text(mount, &["mountPropagation"]) {
        "Bidirectional" if !boolean(container, &["securityContext", "privileged"]) => {
            let detail = "Bidirectional mount propagation is available only to privileged containers";
            Some(FieldError::forbidden(path, detail))
        }
        mode if modes.contains(&mode) => None,
        mode => Some(FieldError::not_supported(path, mode, &modes)),
    }
}

fn recursive_read_only(mount: &Object, path: &str) -> Option<FieldError> {
    mount.get("recursiveReadOnly")?;
    let modes = ["Disabled", "Enabled", "IfPossible"];
    match text(mount, &["recursiveReadOnly"]) {
        "Disabled" => None,
        "Enabled" | "IfPossible" if !boolean(mount, &["readOnly"]) => Some(FieldError::forbidden(
            path,
            "may only be specified when readOnly is true",
        )),
        "Enabled" | "IfPossible" => {
            let propagates = !matches!(text(mount, &["mountPropagation"]), "" | "None");
            let detail = "may only be specified when mountPropagation is None or not specified";
            propagates.then(|| FieldError::forbidden(path, detail))
        }
        mode => Some(FieldError::not_supported(path, mode, &modes)),
    }
}

/// The block devices of a container at `path`.
pub fn devices(container: &Object, path: &str, volumes: &Known<'_>) -> Vec<FieldError> {
    let list = format!("{path}.volumeDevices");
    let (mut errors, mut names, mut paths) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let mounts: Vec<(&str, &str)> = objects(container, &["volumeMounts"])
        .map(|(_, mount)| (text(mount, &["name"]), text(mount, &["mountPath"])))
        .collect();
    for (index, device) in objects(container, &["volumeDevices"]) {
        let at = |field: &str| format!("{list}[{index}].{field}");
        let (name, target) = (text(device, &["name"]), text(device, &["devicePath"]));
        if name.is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        } else if !names.insert(name) {
            errors.push(FieldError::invalid(at("name"), name, "must be unique"));
        }
        match volumes.get(name) {
            None => errors.push(FieldError::not_found(at("name"), name)),
            Some(volume) if !is_set(volume, "persistentVolumeClaim") && !volume.contains_key("ephemeral") => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(at("name"), name, detail));
            }
            Some(_) => {}
        }
        if target.is_empty() {
            errors.push(FieldError::required(at("devicePath"), ""));
        } else if !paths.insert(target) {
            errors.push(FieldError::invalid(at("devicePath"), target, "must be unique"));
        }
        if no_backsteps(target, "").is_some() {
            errors.push(FieldError::invalid(
                at("devicePath"),
                target,
                "can not contain backsteps ('..')",
            ));
        }
        if mounts.iter().any(|(mount, _)| *mount == name) {
            let detail = "must not already exist in volumeMounts";
            errors.push(FieldError::invalid(at("name"), name, detail));
        }
        if mounts.iter().any(|(_, mount)| *mount == target) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(at("devicePath"), target, detail));
        }
    }
    errors
}
