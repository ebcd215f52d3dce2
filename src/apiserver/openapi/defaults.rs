//! `default` in the v3 documents: what Go's zero values are, and what types say with `+default`
//! (upstream: `kube-openapi/pkg/generators`).

use super::schemas::reference;
use crate::registry::schema::facts;
use serde_json::{Map, Value, json};

/// What types say of their fields.
const SAID: [(&str, &str, &str); 20] = [
    (
        "io.k8s.api.certificates.v1.PodCertificateRequestSpec",
        "maxExpirationSeconds",
        "86400",
    ),
    (
        "io.k8s.api.core.v1.AzureDiskVolumeSource",
        "cachingMode",
        "\"ReadWrite\"",
    ),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "fsType", "\"ext4\""),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "kind", "\"Shared\""),
    ("io.k8s.api.core.v1.AzureDiskVolumeSource", "readOnly", "false"),
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "\"TCP\""),
    ("io.k8s.api.core.v1.GRPCAction", "service", "\"\""),
    (
        "io.k8s.api.core.v1.ISCSIPersistentVolumeSource",
        "iscsiInterface",
        "\"default\"",
    ),
    ("io.k8s.api.core.v1.ISCSIVolumeSource", "iscsiInterface", "\"default\""),
    (
        "io.k8s.api.core.v1.RBDPersistentVolumeSource",
        "keyring",
        "\"/etc/ceph/keyring\"",
    ),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "pool", "\"rbd\""),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", "user", "\"admin\""),
    ("io.k8s.api.core.v1.RBDVolumeSource", "keyring", "\"/etc/ceph/keyring\""),
    ("io.k8s.api.core.v1.RBDVolumeSource", "pool", "\"rbd\""),
    ("io.k8s.api.core.v1.RBDVolumeSource", "user", "\"admin\""),
    ("io.k8s.api.core.v1.ScaleIOPersistentVolumeSource", "fsType", "\"xfs\""),
    (
        "io.k8s.api.core.v1.ScaleIOPersistentVolumeSource",
        "storageMode",
        "\"ThinProvisioned\"",
    ),
    ("io.k8s.api.core.v1.ScaleIOVolumeSource", "fsType", "\"xfs\""),
    (
        "io.k8s.api.core.v1.ScaleIOVolumeSource",
        "storageMode",
        "\"ThinProvisioned\"",
    ),
    // The keys of a list must have values before two elements can be compared.
    ("io.k8s.api.core.v1.ServicePort", "protocol", "\"TCP\""),
];

/// Adds to the property what its value is where nothing is said; `all` has the schemas that it may refer to.
pub fn add(
    definition: &str,
    name: &str,
    property: &mut Map<String, Value>,
    row: Option<&facts::Row>,
    all: &Map<String, Value>,
) {
    for key in ["items", "additionalProperties"] {
        if let Some(element) = property.get_mut(key).and_then(Value::as_object_mut) {
            add_to_element(element, all);
        }
    }
    let said = SAID
        .iter()
        .find(|(of, field, _)| *of == definition && *field == name)
        .and_then(|(_, _, value)| serde_json::from_str(value).ok());
    let is_pointer = row.is_some_and(|row| row.go_type.starts_with('*'));
    let value = match said {
        Some(value) => value,
        None if is_pointer => return,
        None if is_struct(property, all) => json!({}),
        None if row.is_some_and(|row| row.keep_empty) => match zero(property) {
            Some(zero) => zero,
            None => return,
        },
        None => return,
    };
    property.insert("default".to_owned(), value);
}

/// An element of a list or a map is there or is not: Go has no pointers for it.
fn add_to_element(element: &mut Map<String, Value>, all: &Map<String, Value>) {
    if is_struct(element, all) {
        if let Some(reference) = element.shift_remove("$ref") {
            element.insert("allOf".to_owned(), json!([{"$ref": reference}]));
        }
        element.insert("default".to_owned(), json!({}));
    } else if let Some(zero) = zero(element) {
        element.insert("default".to_owned(), zero);
    } else {
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = element.get_mut(key).and_then(Value::as_object_mut) {
                add_to_element(inner, all);
            }
        }
    }
}

/// The schema refers to a type with properties.
fn is_struct(schema: &Map<String, Value>, all: &Map<String, Value>) -> bool {
    let referred = schema.get("allOf").and_then(|list| list.get(0));
    let name = schema
        .get("$ref")
        .and_then(|path| path.as_str()?.rsplit('/').next())
        .or_else(|| referred.and_then(reference));
    name.and_then(|name| all.get(name))
        .is_some_and(|schema| schema.get("properties").is_some())
}

/// The zero value of a type that is no reference, list or map. Bytes are a list to Go.
fn zero(schema: &Map<String, Value>) -> Option<Value> {
    let text = |key| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("format")) {
        ("string", "byte") => None,
        ("string", _) => Some("".into()),
        ("integer" | "number", _) => Some(0.into()),
        ("boolean", _) => Some(false.into()),
        _ => None,
    }
}
