//! Volumes of pods and the files that come from the API (upstream: `ValidateVolumes`, `validateProjectionSources`).
//! Sources that persistent volumes have, too, are in `volume_sources.rs`.

use super::super::defaults::VOLUME_SOURCES;
use super::{claim_template, env, invalid, label_selector, one_of, user};
use crate::registry::field::FieldError;
use crate::registry::formats::{dns1123_label, dns1123_subdomain, label_key};
use crate::registry::json::{at, integer, is_set, map, number, objects, quantity, text};
use crate::registry::strategies::certificates::signer_name;
use crate::registry::strategies::volume_sources::{self, Owner, local_path};
use crate::registry::strategy::Object;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The volumes without errors, by name.
pub type Known<'a> = BTreeMap<&'a str, &'a Object>;

const FILE_MODE_MAX: i64 = 0o777;
const DIRECTORY_MODE_MAX: i64 = 0o1777;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
/// Fields of the pod that a file can take.
const FILE_FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Collects the good volumes; errors of the others go to `errors`. `pod_name` is empty in templates.
pub fn validate<'a>(spec: &'a Object, pod_name: &str, path: &str, errors: &mut Vec<FieldError>) -> Known<'a> {
    let mut known = Known::new();
    let claims: BTreeSet<String> = objects(spec, &["volumes"])
        .filter(|(_, volume)| !pod_name.is_empty() && volume.contains_key("ephemeral"))
        .map(|(_, volume)| format!("{pod_name}-{}", text(volume, &["name"])))
        .collect();
    for (index, volume) in objects(spec, &["volumes"]) {
        let path = format!("{path}[{index}]");
        let name = text(volume, &["name"]);
        let mut found = sources(volume, pod_name, &path);
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
        let claim = text(volume, &["persistentVolumeClaim", "claimName"]);
        if claims.contains(claim) {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.push(FieldError::invalid(
                format!("{path}.persistentVolumeClaim.claimName"),
                claim,
                detail,
            ));
        }
    }
    known
}

fn sources(volume: &Object, pod_name: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = false;
    for name in VOLUME_SOURCES {
        let Some(source) = map(volume, &[name]) else { continue };
        if found {
            // Upstream's spelling of two of them, here only.
            let shown = match name {
                "cephfs" => "cephFS",
                "downwardAPI" => "downwarAPI",
                other => other,
            };
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{path}.{shown}"), detail));
            continue;
        }
        found = true;
        let path = format!("{path}.{}", volume_sources::path_name(name));
        let volume_name = text(volume, &["name"]);
        errors.extend(volume_sources::errors(name, source, &path, Owner::Pod(volume_name)));
        errors.extend(source_errors(name, source, &path));
        if name == "ephemeral" && !pod_name.is_empty() && !volume_name.is_empty() {
            let claim = format!("{pod_name}-{volume_name}");
            for problem in dns1123_subdomain(&claim, false) {
                let path = path.strip_suffix(".ephemeral").unwrap_or(&path);
                let detail = format!("PVC name {claim:?}: {problem}");
                errors.push(FieldError::invalid(format!("{path}.name"), volume_name, &detail));
            }
        }
    }
    if !found {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    errors
}

/// Sources that only pods have.
fn source_errors(name: &str, source: &Object, path: &str) -> Vec<FieldError> {
    let required = |field: &str| {
        let missing = text(source, &[field]).is_empty();
        missing.then(|| FieldError::required(format!("{path}.{field}"), ""))
    };
    let mut errors = Vec::new();
    match name {
        "emptyDir" => {
            if source
                .get("sizeLimit")
                .and_then(quantity)
                .is_some_and(|limit| limit.is_negative())
            {
                let detail = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(format!("{path}.sizeLimit"), detail));
            }
            if let Some(mode) = integer(source, &["mode"]).filter(|mode| !(0..=DIRECTORY_MODE_MAX).contains(mode)) {
                let detail = "must be a number between 0 and 01777 (octal), both inclusive";
                errors.push(FieldError::invalid(format!("{path}.mode"), mode, detail));
            }
        }
        "gitRepo" => {
            errors.extend(required("repository"));
            let directory = text(source, &["directory"]);
            errors.extend(volume_sources::descending_path(directory, &format!("{path}.directory")));
        }
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
            errors.extend(user(source, "defaultUser", path));
            for (_, item) in objects(source, &["items"]) {
                errors.extend(downward_file(item, path));
            }
        }
        "projected" => errors.extend(projected(source, path)),
        "persistentVolumeClaim" => errors.extend(required("claimName")),
        "image" => {
            errors.extend(required("reference"));
            errors.extend(one_of(source, "pullPolicy", &["Always", "IfNotPresent", "Never"], path));
        }
        "ephemeral" => match map(source, &["volumeClaimTemplate"]) {
            None => errors.push(FieldError::required(format!("{path}.volumeClaimTemplate"), "")),
            Some(template) => errors.extend(claim_template(template, &format!("{path}.volumeClaimTemplate"))),
        },
        _ => {}
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
    errors.extend(user(source, "defaultUser", path));
    for (index, item) in objects(source, &["items"]) {
        errors.extend(key_to_path(item, &format!("{path}.items[{index}]")));
    }
    errors
}

fn key_to_path(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(item, &["key"]).is_empty() {
        errors.push(FieldError::required(format!("{path}.key"), ""));
    }
    errors.extend(file(item, path));
    errors
}

/// Path, mode and owner of one file.
fn file(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (field, target) = (format!("{path}.path"), text(item, &["path"]));
    if target.is_empty() {
        errors.push(FieldError::required(field.as_str(), ""));
    }
    errors.extend(local_path(target, &field));
    errors.extend(mode(item, "mode", path));
    errors.extend(user(item, "user", path));
    errors
}

/// Upstream blames the list, not the item.
fn downward_file(item: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    match (map(item, &["fieldRef"]), map(item, &["resourceFieldRef"])) {
        (Some(field), resource) => {
            errors.extend(env::field_selector(field, &FILE_FIELDS, &format!("{path}.fieldRef")));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", detail));
            }
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
    errors.extend(file(item, path));
    errors
}

fn projected(source: &Object, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::from_iter(mode(source, "defaultMode", path));
    errors.extend(user(source, "defaultUser", path));
    let mut paths = BTreeSet::new();
    for (index, entry) in objects(source, &["sources"]) {
        let entry_path = format!("{path}.sources[{index}]");
        let mut found = 0;
        for kind in [
            "secret",
            "configMap",
            "downwardAPI",
            "serviceAccountToken",
            "clusterTrustBundle",
            "podCertificate",
        ] {
            let Some(item) = map(entry, &[kind]) else { continue };
            found += 1;
            let item_path = format!("{entry_path}.{kind}");
            let mut targets: Vec<(&str, &str)> = Vec::new();
            match kind {
                "secret" | "configMap" => {
                    let name = text(item, &["name"]);
                    if name.is_empty() {
                        errors.push(FieldError::required(format!("{item_path}.name"), ""));
                    }
                    for (index, file) in objects(item, &["items"]) {
                        errors.extend(key_to_path(file, &format!("{item_path}.items[{index}]")));
                        targets.push((text(file, &["path"]), name));
                    }
                }
                "downwardAPI" => {
                    for (_, file) in objects(item, &["items"]) {
                        errors.extend(downward_file(file, &item_path));
                        targets.push((text(file, &["path"]), text(file, &["path"])));
                    }
                }
                "serviceAccountToken" => errors.extend(token(item, path, &item_path)),
                "clusterTrustBundle" => {
                    errors.extend(trust_bundle(item, &item_path));
                    targets.push((text(item, &["path"]), text(item, &["path"])));
                }
                _ => {
                    errors.extend(pod_certificate(item, &item_path));
                    for field in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
                        targets.push((text(item, &[field]), text(item, &[field])));
                    }
                }
            }
            for (target, shown) in targets.into_iter().filter(|(target, _)| !target.is_empty()) {
                if !paths.insert(target) {
                    errors.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
                }
            }
        }
        if found > 1 {
            let detail = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(entry_path, detail));
        }
    }
    errors
}

/// The path's errors stand at the volume, not at the source.
fn token(item: &Object, volume_path: &str, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let seconds = number(item, &["expirationSeconds"]);
    let field = format!("{path}.expirationSeconds");
    if seconds < 600 {
        let detail = "may not specify a duration less than 10 minutes";
        errors.push(FieldError::invalid(field, seconds, detail));
    } else if seconds > 1 << 32 {
        let detail = "may not specify a duration larger than 2^32 seconds";
        errors.push(FieldError::invalid(field, seconds, detail));
    }
    match text(item, &["path"]) {
        "" => errors.push(FieldError::required(format!("{volume_path}.path"), "")),
        target => errors.extend(local_path(target, &format!("{volume_path}.path"))),
    }
    errors.extend(user(item, "user", path));
    errors
}

fn trust_bundle(item: &Object, path: &str) -> Vec<FieldError> {
    let named = |field: &str| at(item, &[field]).and_then(Value::as_str);
    let mut errors = Vec::new();
    match (named("name"), named("signerName")) {
        (Some(_), Some(_)) => {
            let detail = "only one of name and signerName may be used";
            errors.push(FieldError::invalid(path, item.clone(), detail));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.name"),
                    "must be a valid object name",
                ));
            }
            for problem in dns1123_subdomain(&name.replace(':', "."), false) {
                let detail = format!("not a valid clustertrustbundlename: {problem}");
                errors.push(FieldError::invalid(format!("{path}.name"), name, &detail));
            }
            if let Some(selector) = map(item, &["labelSelector"]) {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(
                    format!("{path}.labelSelector"),
                    selector.clone(),
                    detail,
                ));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(
                    format!("{path}.signerName"),
                    "must be a valid signer name",
                ));
            }
            errors.extend(signer_name(signer, &format!("{path}.signerName")));
            if let Some(selector) = map(item, &["labelSelector"]) {
                errors.extend(label_selector(selector, &format!("{path}.labelSelector")));
            }
        }
        (None, None) => {
            errors.push(FieldError::required(
                path,
                "either name or signerName must be specified",
            ));
        }
    }
    if !is_set(item, "path") {
        errors.push(FieldError::required(format!("{path}.path"), ""));
    }
    errors.extend(user(item, "user", path));
    errors.extend(local_path(text(item, &["path"]), &format!("{path}.path")));
    errors
}

fn pod_certificate(item: &Object, path: &str) -> Vec<FieldError> {
    let signer = text(item, &["signerName"]);
    let mut errors = signer_name(signer, &format!("{path}.signerName"));
    for key in map(item, &["userAnnotations"]).into_iter().flat_map(Object::keys) {
        errors.extend(invalid(
            &format!("{path}.userAnnotations"),
            key,
            &label_key(&key.to_lowercase()),
        ));
    }
    errors.extend(user(item, "user", path));
    let key_type = text(item, &["keyType"]);
    if !KEY_TYPES.contains(&key_type) {
        errors.push(FieldError::not_supported(
            format!("{path}.keyType"),
            key_type,
            &KEY_TYPES,
        ));
    }
    if let Some(seconds) = integer(item, &["maxExpirationSeconds"]) {
        let field = format!("{path}.maxExpirationSeconds");
        let max = if signer.starts_with("kubernetes.io/") {
            86_400
        } else {
            7_862_400
        };
        if seconds < 3600 {
            let detail = "if provided, maxExpirationSeconds must be >= 3600";
            errors.push(FieldError::invalid(field.as_str(), seconds, detail));
        }
        if seconds > max {
            let detail = format!("if provided, maxExpirationSeconds must be <= {max}");
            errors.push(FieldError::invalid(field, seconds, &detail));
        }
    }
    let fields = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    for field in fields.iter().filter(|field| is_set(item, field)) {
        errors.extend(local_path(text(item, &[field]), &format!("{path}.{field}")));
    }
    if !fields.iter().any(|field| is_set(item, field)) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, detail));
    }
    errors
}
