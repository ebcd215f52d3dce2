//! Sources of volumes that pods and persistent volumes share (upstream: the `validate…VolumeSource` functions of
//! `pkg/apis/core/validation/validation.go`).

use super::pod::validate::{invalid, supported};
use super::storage::driver_name;
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, range_error};
use crate::registry::json::{at, boolean, integer, is_set, items, map, number, text};
use crate::registry::strategy::Object;
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

const ISCSI_NAME_MAX: usize = 64;
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

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok());
static EUI: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^eui.[[:alnum:]]{16}$").ok());
static NAA: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^naa.[[:alnum:]]{32}$").ok());

/// In which object a source stands: persistent volumes also name namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// With the name of the volume.
    Pod(&'a str),
    /// With the name of the object.
    PersistentVolume(&'a str),
}

/// How upstream's path of a source ends, where it is not the field's name.
pub fn path_name(name: &str) -> &str {
    match name {
        "gcePersistentDisk" => "persistentDisk",
        other => other,
    }
}

/// Rules of the source `name` at `path`; none for those that only pods have.
pub fn errors(name: &str, source: &Object, path: &str, owner: Owner<'_>) -> Vec<FieldError> {
    let persistent = matches!(owner, Owner::PersistentVolume(_));
    match name {
        "hostPath" => host_path(source, path),
        "gcePersistentDisk" => disk(source, "pdName", path),
        "awsElasticBlockStore" => disk(source, "volumeID", path),
        "glusterfs" => glusterfs(source, path, persistent),
        "nfs" => nfs(source, path),
        "iscsi" => iscsi(source, path, owner),
        "rbd" => lacking(source, &["monitors", "image"], path),
        "cephfs" => lacking(source, &["monitors"], path),
        "cinder" => {
            let mut errors = lacking(source, &["volumeID"], path);
            errors.extend(secret_ref(source, path, persistent));
            errors
        }
        "quobyte" => quobyte(source, path),
        "flocker" => flocker(source, path),
        "fc" => fibre_channel(source, path),
        "flexVolume" => flex(source, path),
        "azureFile" => azure_file(source, path, persistent),
        "azureDisk" => azure_disk(source, path),
        "vsphereVolume" => lacking(source, &["volumePath"], path),
        "photonPersistentDisk" => lacking(source, &["pdID"], path),
        "portworxVolume" => lacking(source, &["volumeID"], path),
        "scaleIO" => lacking(source, &["gateway", "system", "volumeName"], path),
        "storageos" => storage_os(source, path, persistent),
        "local" => match text(source, &["path"]) {
            "" => vec![FieldError::required(format!("{path}.path"), "")],
            target => Vec::from_iter(no_backsteps(target, &format!("{path}.path"))),
        },
        "csi" => csi(source, path, persistent),
        _ => Vec::new(),
    }
}

/// One error for each field that is absent or empty.
fn lacking(source: &Object, fields: &[&str], path: &str) -> Vec<FieldError> {
    let empty = fields.iter().filter(|field| !is_set(source, field));
    empty
        .map(|field| FieldError::required(format!("{path}.{field}"), ""))
        .collect()
}

fn secret_ref(source: &Object, path: &str, persistent: bool) -> Vec<FieldError> {
    let fields: &[&str] = if persistent { &["name", "namespace"] } else { &["name"] };
    map(source, &["secretRef"]).map_or_else(Vec::new, |reference| {
        lacking(reference, fields, &format!("{path}.secretRef"))
    })
}

pub fn no_backsteps(target: &str, path: &str) -> Option<FieldError> {
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

/// The same, and no file that volumes keep for themselves.
pub fn local_path(target: &str, path: &str) -> Vec<FieldError> {
    let mut errors = descending_path(target, path);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(FieldError::invalid(path, target, "must not start with '..'"));
    }
    errors
}

fn host_path(source: &Object, path: &str) -> Vec<FieldError> {
    let target = text(source, &["path"]);
    if target.is_empty() {
        return vec![FieldError::required(format!("{path}.path"), "")];
    }
    let mut errors = Vec::from_iter(no_backsteps(target, &format!("{path}.path")));
    errors.extend(supported(source, "type", &HOST_PATH_TYPES, path));
    errors
}

fn disk(source: &Object, id: &str, path: &str) -> Vec<FieldError> {
    let mut errors = lacking(source, &[id], path);
    let partition = number(source, &["partition"]);
    if !(0..=255).contains(&partition) {
        errors.push(FieldError::invalid(
            format!("{path}.partition"),
            partition,
            &range_error(1, 255),
        ));
    }
    errors
}

fn glusterfs(source: &Object, path: &str, persistent: bool) -> Vec<FieldError> {
    let mut errors = lacking(source, &["endpoints", "path"], path);
    if let Some(namespace) = at(source, &["endpointsNamespace"])
        .and_then(Value::as_str)
        .filter(|_| persistent)
    {
        let path = format!("{path}.endpointsNamespace");
        if namespace.is_empty() {
            let detail = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(path, namespace, detail));
        } else {
            errors.extend(invalid(&path, namespace, &dns1123_label(namespace, false)));
        }
    }
    errors
}

fn nfs(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = lacking(source, &["server", "path"], path);
    let target = text(source, &["path"]);
    if !target.starts_with('/') {
        errors.push(FieldError::invalid(
            format!("{path}.path"),
            target,
            "must be an absolute path",
        ));
    }
    errors
}

/// Whether a name of an initiator or target has the form that its prefix promises; None for another prefix.
fn iscsi_name(name: &str) -> Option<bool> {
    let form = [("iqn", &*IQN), ("eui", &*EUI), ("naa", &*NAA)];
    let (_, regex) = form.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
    Some(regex.as_ref().is_none_or(|regex| regex.is_match(name)))
}

fn iscsi(source: &Object, path: &str, owner: Owner<'_>) -> Vec<FieldError> {
    let mut errors = lacking(source, &["targetPortal"], path);
    let persistent = matches!(owner, Owner::PersistentVolume(_));
    let portal = text(source, &["targetPortal"]);
    let initiator = at(source, &["initiatorName"]).and_then(Value::as_str);
    let too_long = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
        iscsi.initiatorName is specified.";
    match owner {
        Owner::PersistentVolume(name) if initiator.is_some() && name.len() + 1 + portal.len() > ISCSI_NAME_MAX => {
            errors.push(FieldError::invalid(format!("{path}.targetportal"), portal, too_long));
        }
        _ => {}
    }
    let no_prefix = if persistent {
        "must be valid format"
    } else {
        "must be valid format starting with iqn, eui, or naa"
    };
    let mut name = |field: &str, value: &str| match iscsi_name(value) {
        None => errors.push(FieldError::invalid(format!("{path}.{field}"), value, no_prefix)),
        Some(false) => errors.push(FieldError::invalid(
            format!("{path}.{field}"),
            value,
            "must be valid format",
        )),
        Some(true) => {}
    };
    let iqn = text(source, &["iqn"]);
    if !iqn.is_empty() {
        name("iqn", iqn);
    }
    if let Some(initiator) = initiator {
        name("initiatorname", initiator);
    }
    if iqn.is_empty() {
        errors.push(FieldError::required(format!("{path}.iqn"), ""));
    }
    errors.extend(lun(source, path));
    let chap = ["chapAuthDiscovery", "chapAuthSession"]
        .iter()
        .any(|field| boolean(source, &[field]));
    match map(source, &["secretRef"]) {
        None if chap => errors.push(FieldError::required(format!("{path}.secretRef"), "")),
        Some(reference) if persistent => errors.extend(lacking(reference, &["name"], &format!("{path}.secretRef"))),
        _ => {}
    }
    match owner {
        Owner::Pod(volume) if initiator.is_some() && volume.len() + 1 + portal.len() > ISCSI_NAME_MAX => {
            let path = path.strip_suffix(".iscsi").unwrap_or(path);
            errors.push(FieldError::invalid(format!("{path}.name"), volume, too_long));
        }
        _ => {}
    }
    errors
}

fn lun(source: &Object, path: &str) -> Option<FieldError> {
    let lun = number(source, &["lun"]);
    let wrong = !(0..=255).contains(&lun);
    wrong.then(|| FieldError::invalid(format!("{path}.lun"), lun, &range_error(0, 255)))
}

fn fibre_channel(source: &Object, path: &str) -> Vec<FieldError> {
    let names = items(source, &["targetWWNs"]);
    let (targets, ids) = (!names.is_empty(), is_set(source, "wwids"));
    let field = format!("{path}.targetWWNs");
    let mut errors = Vec::new();
    match (targets, ids) {
        (false, false) => {
            let detail = "must specify either targetWWNs or wwids, but not both";
            errors.push(FieldError::required(field, detail));
        }
        (true, true) => {
            let detail = "targetWWNs and wwids can not be specified simultaneously";
            errors.push(FieldError::invalid(field, names.to_vec(), detail));
        }
        _ => {}
    }
    if targets && integer(source, &["lun"]).is_none() {
        let detail = "lun is required if targetWWNs is specified";
        errors.push(FieldError::required(format!("{path}.lun"), detail));
    } else if targets {
        errors.extend(lun(source, path));
    }
    errors
}

fn quobyte(source: &Object, path: &str) -> Vec<FieldError> {
    let registry = text(source, &["registry"]);
    let pairs = "must be a host:port pair or multiple pairs separated by commas";
    let mut errors = Vec::new();
    if registry.is_empty() {
        errors.push(FieldError::required(format!("{path}.registry"), pairs));
    } else if text(source, &["tenant"]).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(format!("{path}.tenant"), detail));
    } else {
        let is_pair = |pair: &&str| {
            pair.rsplit_once(':')
                .is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'))
        };
        for _ in registry.split(',').filter(|pair| !is_pair(pair)) {
            errors.push(FieldError::invalid(format!("{path}.registry"), registry, pairs));
        }
    }
    errors.extend(lacking(source, &["volume"], path));
    errors
}

fn flocker(source: &Object, path: &str) -> Vec<FieldError> {
    let name = text(source, &["datasetName"]);
    let mut errors = Vec::new();
    match (is_set(source, "datasetName"), is_set(source, "datasetUUID")) {
        (false, false) => {
            let detail = "one of datasetName and datasetUUID is required";
            errors.push(FieldError::required(path, detail));
        }
        (true, true) => {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(FieldError::invalid(path, "resource", detail));
        }
        _ => {}
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(
            format!("{path}.datasetName"),
            name,
            "must not contain '/'",
        ));
    }
    errors
}

fn flex(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = lacking(source, &["driver"], path);
    for key in map(source, &["options"]).into_iter().flat_map(Object::keys) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(
                format!("{path}.options[{key}]"),
                key.as_str(),
                detail,
            ));
        }
    }
    errors
}

fn azure_file(source: &Object, path: &str, persistent: bool) -> Vec<FieldError> {
    let mut errors = lacking(source, &["secretName", "shareName"], path);
    if persistent && at(source, &["secretNamespace"]).is_some_and(|namespace| namespace == "") {
        errors.push(FieldError::required(format!("{path}.secretNamespace"), ""));
    }
    errors
}

fn azure_disk(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = lacking(source, &["diskName", "diskURI"], path);
    errors.extend(supported(
        source,
        "cachingMode",
        &["None", "ReadOnly", "ReadWrite"],
        path,
    ));
    errors.extend(supported(source, "kind", &["Dedicated", "Managed", "Shared"], path));
    let uri = text(source, &["diskURI"]);
    let (prefix, form) = match text(source, &["kind"]) {
        "" => return errors,
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if !uri.starts_with(prefix) {
        errors.push(FieldError::not_supported(format!("{path}.diskURI"), uri, &[form]));
    }
    errors
}

fn storage_os(source: &Object, path: &str, persistent: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, required) in [("volumeName", true), ("volumeNamespace", false)] {
        let (path, name) = (format!("{path}.{field}"), text(source, &[field]));
        match name {
            "" if required => errors.push(FieldError::required(path, "")),
            "" => {}
            name => errors.extend(invalid(&path, name, &dns1123_label(name, false))),
        }
    }
    errors.extend(secret_ref(source, path, persistent));
    errors
}

fn csi(source: &Object, path: &str, persistent: bool) -> Vec<FieldError> {
    let mut errors = driver_name(text(source, &["driver"]), &format!("{path}.driver"));
    if !persistent {
        if let Some(reference) = map(source, &["nodePublishSecretRef"]) {
            match text(reference, &["name"]) {
                "" => errors.push(FieldError::required(format!("{path}.nodePublishSecretRef.name"), "")),
                name => errors.extend(invalid(&format!("{path}.name"), name, &dns1123_subdomain(name, false))),
            }
        }
        return errors;
    }
    errors.extend(lacking(source, &["volumeHandle"], path));
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let Some(reference) = map(source, &[field]) else {
            continue;
        };
        let path = format!("{path}.{field}");
        errors.extend(lacking(reference, &["name", "namespace"], &path));
        let (name, namespace) = (text(reference, &["name"]), text(reference, &["namespace"]));
        if !name.is_empty() {
            errors.extend(invalid(&format!("{path}.name"), name, &dns1123_subdomain(name, false)));
        }
        if !namespace.is_empty() {
            errors.extend(invalid(
                &format!("{path}.namespace"),
                namespace,
                &dns1123_label(namespace, false),
            ));
        }
    }
    errors
}
