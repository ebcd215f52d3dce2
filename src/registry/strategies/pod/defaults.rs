//! Defaults of pods and of pod templates (upstream: `SetDefaults_*` in `pkg/apis/core/v1/defaults.go` and the
//! declared defaults of the types).

use super::aggregate;
use crate::registry::json::{
    at, boolean, child, child_or_new, children, default_number, default_text, default_to, number, quantity, text,
};
use crate::registry::strategy::Object;
use serde_json::{Map, Value, json};

/// The lists of containers that a pod spec can have.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// Sources of a volume; one of them must be there.
pub const VOLUME_SOURCES: [&str; 30] = [
    "hostPath",
    "emptyDir",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "persistentVolumeClaim",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "downwardAPI",
    "fc",
    "azureFile",
    "configMap",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "projected",
    "portworxVolume",
    "scaleIO",
    "storageos",
    "csi",
    "ephemeral",
    "image",
];

/// Files that come from the API: rw-r--r--.
const FILE_MODE: i64 = 0o644;
const SERVICE_ACCOUNT_TOKEN_SECONDS: i64 = 3600;
const TERMINATION_GRACE_SECONDS: i64 = 30;

/// Defaults of a pod: those of its spec, and some that templates do not get.
pub fn pod(object: &mut Object) {
    let Some(spec) = child(object, "spec") else { return };
    pod_spec(spec);
    let host_network = boolean(spec, &["hostNetwork"]);
    for list in ["containers", "initContainers"] {
        for container in children(spec, list) {
            requests_from_limits(container);
            for port in children(container, "ports").filter(|_| host_network) {
                let container_port = number(port, &["containerPort"]);
                default_number(port, "hostPort", container_port);
            }
        }
    }
    pod_level_resources(spec);
    default_to(spec, "enableServiceLinks", true);
}

/// What the pod as a whole asks for, where it does: at least what its containers do, or as much as it may have.
fn pod_level_resources(spec: &mut Object) {
    if !spec.contains_key("resources") {
        return;
    }
    let huge = |name: &str| name.starts_with("hugepages-");
    let (requests, limits) = (aggregate::requests(spec), aggregate::limits(spec));
    let Some(resources) = child(spec, "resources") else {
        return;
    };
    if at(resources, &["requests"]).is_none() && at(resources, &["limits"]).is_none() {
        return;
    }
    let of_pod = |resources: &Object, list: &str| match resources.get(list) {
        Some(Value::Object(amounts)) => amounts.clone(),
        _ => Map::new(),
    };
    let (mut own_requests, mut own_limits) = (of_pod(resources, "requests"), of_pod(resources, "limits"));
    for (name, amount) in limits.iter().filter(|(name, _)| huge(name)) {
        own_limits
            .entry(name.as_str())
            .or_insert_with(|| json!(amount.to_string()));
    }
    for (name, amount) in &requests {
        if matches!(name.as_str(), "cpu" | "memory") {
            own_requests
                .entry(name.as_str())
                .or_insert_with(|| json!(amount.to_string()));
        }
    }
    for (name, amount) in &own_limits {
        if matches!(name.as_str(), "cpu" | "memory") || huge(name) {
            own_requests.entry(name.as_str()).or_insert_with(|| amount.clone());
        }
    }
    for (list, amounts) in [("requests", own_requests), ("limits", own_limits)] {
        if !amounts.is_empty() {
            resources.insert(list.into(), Value::Object(amounts));
        }
    }
}

/// Defaults of a pod spec, also in the template of a workload.
pub fn pod_spec(spec: &mut Object) {
    default_text(spec, "restartPolicy", "Always");
    // Zero is a value here, unlike in probes: upstream's field is a pointer.
    default_to(spec, "terminationGracePeriodSeconds", TERMINATION_GRACE_SECONDS);
    default_text(spec, "dnsPolicy", "ClusterFirst");
    service_account_alias(spec);
    default_to(spec, "securityContext", Map::new());
    default_text(spec, "schedulerName", "default-scheduler");
    for list in CONTAINER_LISTS {
        for item in children(spec, list) {
            container(item);
        }
    }
    for item in children(spec, "volumes") {
        volume(item);
    }
    if let Some(overhead) = child(spec, "overhead") {
        resource_list(overhead);
    }
    if let Some(resources) = child(spec, "resources") {
        resource_requirements(resources);
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; the new one wins.
fn service_account_alias(spec: &mut Object) {
    let name = match text(spec, &["serviceAccountName"]) {
        "" => text(spec, &["serviceAccount"]),
        name => name,
    }
    .to_owned();
    if !name.is_empty() {
        spec.insert("serviceAccountName".into(), json!(name));
        spec.insert("serviceAccount".into(), json!(name));
    }
}

fn container(container: &mut Object) {
    for port in children(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in children(container, "env") {
        let Some(from) = child(variable, "valueFrom") else {
            continue;
        };
        if let Some(field) = child(from, "fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = child(from, "resourceFieldRef") {
            divisor(resource);
        }
        if let Some(file) = child(from, "fileKeyRef") {
            default_to(file, "optional", false);
        }
    }
    resource_requirements(child_or_new(container, "resources"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(item) = child(container, name) {
            probe(item);
        }
    }
    if let Some(lifecycle) = child(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(get) = child(lifecycle, name).and_then(|handler| child(handler, "httpGet")) {
                http_get(get);
            }
        }
    }
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    let policy = pull_policy(text(container, &["image"]));
    default_text(container, "imagePullPolicy", policy);
}

/// Always for the tag `latest`, also if it is not spelt out; IfNotPresent for other tags and digests.
pub fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to the port of the registry.
    let tag = name
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .split_once(':')
        .map(|(_, tag)| tag);
    match tag {
        Some("latest") => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Object) {
    default_number(probe, "timeoutSeconds", 1);
    default_number(probe, "periodSeconds", 10);
    default_number(probe, "successThreshold", 1);
    default_number(probe, "failureThreshold", 3);
    if let Some(get) = child(probe, "httpGet") {
        http_get(get);
    }
    if let Some(grpc) = child(probe, "grpc") {
        default_to(grpc, "service", "");
    }
}

fn http_get(get: &mut Object) {
    default_text(get, "path", "/");
    default_text(get, "scheme", "HTTP");
}

fn divisor(selector: &mut Object) {
    default_to(selector, "divisor", "0");
}

fn resource_requirements(resources: &mut Object) {
    for list in ["limits", "requests"] {
        if let Some(list) = child(resources, list) {
            resource_list(list);
        }
    }
}

/// Resource amounts are kept in thousandths.
pub fn resource_list(list: &mut Object) {
    for value in list.values_mut() {
        if let Some(amount) = quantity(value) {
            *value = json!(amount.rounded_to_milli().to_string());
        }
    }
}

/// A limit without a request is also the request. Only in pods: a template's copy would outlive an edit of the limit.
fn requests_from_limits(container: &mut Object) {
    let Some(resources) = child(container, "resources") else {
        return;
    };
    let limits = match at(resources, &["limits"]) {
        Some(Value::Object(limits)) if !limits.is_empty() => limits.clone(),
        _ => return,
    };
    let requests = child_or_new(resources, "requests");
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

/// Defaults of one volume.
fn volume(volume: &mut Object) {
    if !VOLUME_SOURCES.iter().any(|source| volume.contains_key(*source)) {
        volume.insert("emptyDir".into(), json!({}));
    }
    if let Some(host_path) = child(volume, "hostPath") {
        default_to(host_path, "type", "");
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = child(volume, source) {
            default_to(source, "defaultMode", FILE_MODE);
            downward_items(source);
        }
    }
    if let Some(projected) = child(volume, "projected") {
        for source in children(projected, "sources") {
            if let Some(token) = child(source, "serviceAccountToken") {
                default_to(token, "expirationSeconds", SERVICE_ACCOUNT_TOKEN_SECONDS);
            }
            if let Some(downward) = child(source, "downwardAPI") {
                downward_items(downward);
            }
        }
    }
    if let Some(image) = child(volume, "image") {
        let policy = pull_policy(text(image, &["reference"]));
        default_text(image, "pullPolicy", policy);
    }
    let claim = child(volume, "ephemeral").and_then(|source| child(source, "volumeClaimTemplate"));
    if let Some(spec) = claim.and_then(|claim| child(claim, "spec")) {
        default_to(spec, "volumeMode", "Filesystem");
    }
    legacy_source(volume);
}

fn downward_items(source: &mut Object) {
    for item in children(source, "items") {
        if let Some(field) = child(item, "fieldRef") {
            default_text(field, "apiVersion", "v1");
        }
        if let Some(resource) = child(item, "resourceFieldRef") {
            divisor(resource);
        }
    }
}

/// Sources that only remain for compatibility.
fn legacy_source(volume: &mut Object) {
    if let Some(iscsi) = child(volume, "iscsi") {
        default_text(iscsi, "iscsiInterface", "default");
    }
    if let Some(rbd) = child(volume, "rbd") {
        default_text(rbd, "pool", "rbd");
        default_text(rbd, "user", "admin");
        default_text(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(disk) = child(volume, "azureDisk") {
        default_text(disk, "cachingMode", "ReadWrite");
        default_text(disk, "kind", "Shared");
        default_text(disk, "fsType", "ext4");
        default_to(disk, "readOnly", false);
    }
    if let Some(scale) = child(volume, "scaleIO") {
        default_text(scale, "storageMode", "ThinProvisioned");
        default_text(scale, "fsType", "xfs");
    }
}
