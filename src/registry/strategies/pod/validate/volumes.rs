//! Volumes, mounts and devices (upstream: `ValidateVolumes`, `ValidateVolumeMounts`, `ValidateVolumeDevices`).

use super::super::defaults::VOLUME_SOURCES;
use super::{env, invalid};
use crate::registry::field::FieldError;
use crate::registry::formats::{config_map_key, dns1123_label};
use crate::registry::json::{boolean, integer, is_set, map, number, objects, quantity, text};
use crate::registry::strategy::Object;
use std::collections::{BTreeMap, BTreeSet};

/// The volumes without errors, by name.
pub type Known<'a> = BTreeMap<&'a str, &'a Object>;

const FILE_MODE_MAX: i64 = 0o777;
const HOST_PATH_TYPES: [&str; 8] = [
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];
/// Fields of the pod that a file can take.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Collects the good volumes; errors of the others go to `errors`.
pub fn validate<'a>(spec: &'a Object, path: &str, errors: &mut Vec<FieldError>) -> Known<'a> {
    let mut known = Known::new();
    for (index, volume) in objects(spec, &["volumes"]) {
        let path = format!("{path}[{index}]");
        let name = text(volume, &["name"]);
        let mut found = sources(volume, &path);
        if name.is_empty() {
            found.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            found.extend(invalid(&format!("{path}.name"), name, &dns1123_label(name, false)));
        }
        if known.contains_key(name) {
            found.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        if found.is_empty() {
            known.insert(name, volume);
        }
        errors.append(&mut found);
    }
    known
}

fn sources(volume: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = false;
    for name in VOLUME_SOURCES {
        let Some(source) = map(volume, &[name]) else { continue };
        let path = format!("{path}.{name}");
        if found {
            errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
            continue;
        }
        found = true;
        errors.extend(source_errors(name, source, &path));
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    errors
}

fn source_errors(name: &str, source: &Object, path: &str) -> Vec<FieldError> {
    let required = |field: &str| {
        let missing = text(source, &[field]).is_empty();
        missing.then(|| FieldError::required(format!("{path}.{field}"), ""))
    };
    let mut errors = Vec::new();
    match name {
        "emptyDir" => errors.extend(size_limit(source, path)),
        "hostPath" => errors.extend(host_path(source, path)),
        "secret" => {
            errors.extend(required("secretName"));
            errors.extend(files(source, path));
        }
        "configMap" => {
            errors.extend(required("name"));
            errors.extend(files(source, path));
        }
        "downwardAPI" => {
            errors.extend(mode(source, "defaultMode", path));
            errors.extend(downward(source, path));
        }
        "projected" => errors.extend(projected(source, path)),
        "persistentVolumeClaim" => errors.extend(required("claimName")),
        "nfs" => {
            errors.extend(required("server"));
            errors.extend(required("path"));
            let mount = text(source, &["path"]);
            if !mount.is_empty() && !mount.starts_with('/') {
                let detail = "must be an absolute path";
                errors.push(FieldError::invalid(format!("{path}.path"), mount, detail));
            }
        }
        "csi" => errors.extend(required("driver")),
        "image" => errors.extend(required("reference")),
        "ephemeral" if !source.contains_key("volumeClaimTemplate") => {
            errors.push(FieldError::required(format!("{path}.volumeClaimTemplate"), ""));
        }
        _ => {}
    }
    errors
}

fn size_limit(source: &Object, path: &str) -> Option<FieldError> {
    let limit = source.get("sizeLimit").and_then(quantity)?;
    let detail = "SizeLimit field must be a valid resource quantity";
    limit
        .is_negative()
        .then(|| FieldError::forbidden(format!("{path}.sizeLimit"), detail))
}

fn host_path(source: &Object, path: &str) -> Vec<FieldError> {
    let target = text(source, &["path"]);
    if target.is_empty() {
        return vec![FieldError::required(format!("{path}.path"), "")];
    }
    let mut errors = Vec::from_iter(no_backsteps(target, &format!("{path}.path")));
    let kind = text(source, &["type"]);
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(
            format!("{path}.type"),
            kind,
            &HOST_PATH_TYPES,
        ));
    }
    errors
}

fn mode(source: &Object, field: &str, path: &str) -> Option<FieldError> {
    let mode = integer(source, &[field])?;
    let detail = "must be a number between 0 and 0777 (octal), both inclusive";
    let wrong = !(0..=FILE_MODE_MAX).contains(&mode);
    wrong.then(|| FieldError::invalid(format!("{path}.{field}"), mode, detail))
}

/// Mode and items of a Secret or ConfigMap.
fn files(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(mode(source, "defaultMode", path));
    for (index, item) in objects(source, &["items"]) {
        let item_path = format!("{path}.items[{index}]");
        match text(item, &["key"]) {
            "" => errors.push(FieldError::required(format!("{item_path}.key"), "")),
            key => errors.extend(invalid(&format!("{item_path}.key"), key, &config_map_key(key))),
        }
        errors.extend(file(item, &item_path));
    }
    errors
}

/// Path and mode of one file.
fn file(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = format!("{path}.path");
    match text(item, &["path"]) {
        "" => errors.push(FieldError::required(field, "")),
        target => {
            errors.extend(descending_path(target, &field));
            if target.starts_with("..") && target != ".." && !target.starts_with("../") {
                errors.push(FieldError::invalid(field, target, "must not start with '..'"));
            }
        }
    }
    errors.extend(mode(item, "mode", path));
    errors
}

fn downward(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, item) in objects(source, &["items"]) {
        let path = format!("{path}.items[{index}]");
        errors.extend(file(item, &path));
        match (map(item, &["fieldRef"]), map(item, &["resourceFieldRef"])) {
            (Some(_), Some(_)) => {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", detail));
            }
            (Some(field), None) => {
                errors.extend(env::field_selector(field, &FILE_FIELDS, &format!("{path}.fieldRef")));
            }
            (None, Some(resource)) => {
                errors.extend(env::resource_selector(
                    resource,
                    true,
                    &format!("{path}.resourceFieldRef"),
                ));
            }
            (None, None) => {
                let detail = "one of fieldRef and resourceFieldRef is required";
                errors.push(FieldError::required(path, detail));
            }
        }
    }
    errors
}

fn projected(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(mode(source, "defaultMode", path));
    let kinds = [
        "secret",
        "configMap",
        "downwardAPI",
        "serviceAccountToken",
        "clusterTrustBundle",
        "podCertificate",
    ];
    for (index, entry) in objects(source, &["sources"]) {
        let path = format!("{path}.sources[{index}]");
        let mut found = 0;
        for kind in kinds {
            let Some(item) = map(entry, &[kind]) else { continue };
            let path = format!("{path}.{kind}");
            found += 1;
            if found > 1 {
                errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type"));
                continue;
            }
            match kind {
                "secret" | "configMap" => {
                    if text(item, &["name"]).is_empty() {
                        errors.push(FieldError::required(format!("{path}.name"), ""));
                    }
                    errors.extend(files(item, &path));
                }
                "downwardAPI" => errors.extend(downward(item, &path)),
                "serviceAccountToken" => errors.extend(token(item, &path)),
                _ => {}
            }
        }
        if found == 0 {
            errors.push(FieldError::required(path, "must specify a volume source"));
        }
    }
    errors
}

fn token(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let seconds = number(item, &["expirationSeconds"]);
    let field = format!("{path}.expirationSeconds");
    if seconds < 600 {
        errors.push(FieldError::invalid(
            field,
            seconds,
            "may not specify a duration less than 10 minutes",
        ));
    } else if seconds > 1 << 32 {
        errors.push(FieldError::invalid(
            field,
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        ));
    }
    match text(item, &["path"]) {
        "" => errors.push(FieldError::required(format!("{path}.path"), "")),
        target => errors.extend(descending_path(target, &format!("{path}.path"))),
    }
    errors
}

fn no_backsteps(target: &str, path: &str) -> Option<FieldError> {
    let steps_back = target.split('/').any(|part| part == "..");
    steps_back.then(|| FieldError::invalid(path, target, "must not contain '..'"))
}

/// A relative path that stays below where it starts.
pub fn descending_path(target: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if target.starts_with('/') {
        errors.push(FieldError::invalid(path, target, "must be a relative path"));
    }
    errors.extend(no_backsteps(target, path));
    errors
}

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
    }
    errors
}
