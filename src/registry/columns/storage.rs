//! Columns of storage.k8s.io (upstream: `pkg/printers/internalversion/printers.go`).

use super::{age, column, join, name_column, or_text};
use crate::registry::json::{at, boolean, items, objects, text};
use crate::registry::strategies::Printer;
use crate::registry::strategy::{Column, Object};
use serde_json::{Value, json};

const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

pub const STORAGE_CLASS: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Provisioner", "string"),
            column("ReclaimPolicy", "string"),
            column("VolumeBindingMode", "string"),
            column("AllowVolumeExpansion", "string"),
            column("Age", "string"),
        ]
    },
    cells: |class, now| {
        let is_default = DEFAULT_CLASS
            .iter()
            .any(|key| text(class, &["metadata", "annotations", key]) == "true");
        let mark = if is_default { " (default)" } else { "" };
        vec![
            json!(format!("{}{mark}", text(class, &["metadata", "name"]))),
            json!(text(class, &["provisioner"])),
            json!(or_text(text(class, &["reclaimPolicy"]), "Delete")),
            json!(or_text(text(class, &["volumeBindingMode"]), "Immediate")),
            json!(boolean(class, &["allowVolumeExpansion"])),
            json!(age(class, now)),
        ]
    },
};

pub const VOLUME_ATTRIBUTES_CLASS: Printer = Printer {
    columns: || vec![name_column(), column("DriverName", "string"), column("Age", "string")],
    cells: |class, now| vec![name(class), json!(text(class, &["driverName"])), json!(age(class, now))],
};

pub const VOLUME_ATTACHMENT: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            Column {
                format: "name",
                ..column("Attacher", "string")
            },
            column("PV", "string"),
            column("Node", "string"),
            column("Attached", "boolean"),
            column("Age", "string"),
        ]
    },
    cells: |attachment, now| {
        vec![
            name(attachment),
            json!(text(attachment, &["spec", "attacher"])),
            json!(text(attachment, &["spec", "source", "persistentVolumeName"])),
            json!(text(attachment, &["spec", "nodeName"])),
            json!(boolean(attachment, &["status", "attached"])),
            json!(age(attachment, now)),
        ]
    },
};

pub const CSI_NODE: Printer = Printer {
    columns: || vec![name_column(), column("Drivers", "integer"), column("Age", "string")],
    cells: |node, now| {
        vec![
            name(node),
            json!(items(node, &["spec", "drivers"]).len()),
            json!(age(node, now)),
        ]
    },
};

pub const CSI_DRIVER: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("AttachRequired", "boolean"),
            column("PodInfoOnMount", "boolean"),
            column("StorageCapacity", "boolean"),
            column("TokenRequests", "string"),
            column("RequiresRepublish", "boolean"),
            column("Modes", "string"),
            column("Age", "string"),
        ]
    },
    cells: |driver, now| {
        let flag = |field: &str| json!(boolean(driver, &["spec", field]));
        let attach = at(driver, &["spec", "attachRequired"])
            .and_then(Value::as_bool)
            .unwrap_or(true);
        let tokens = match at(driver, &["spec", "tokenRequests"]) {
            None => "<unset>".to_owned(),
            Some(_) => {
                let requests = objects(driver, &["spec", "tokenRequests"]);
                super::join_texts(requests.map(|(_, request)| text(request, &["audience"])))
            }
        };
        vec![
            name(driver),
            json!(attach),
            flag("podInfoOnMount"),
            flag("storageCapacity"),
            json!(tokens),
            flag("requiresRepublish"),
            json!(or_text(
                &join(items(driver, &["spec", "volumeLifecycleModes"])),
                "<none>"
            )),
            json!(age(driver, now)),
        ]
    },
};

pub const CSI_STORAGE_CAPACITY: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("StorageClassName", "string"),
            column("Capacity", "string"),
        ]
    },
    cells: |capacity, _now| {
        vec![
            name(capacity),
            json!(text(capacity, &["storageClassName"])),
            json!(or_text(text(capacity, &["capacity"]), "<unset>")),
        ]
    },
};
