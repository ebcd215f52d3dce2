//! Columns of the core group besides pods and nodes (upstream: `pkg/printers/internalversion/printers.go`).

use super::{access_modes, age, column, first_and_more, join, map_text, name_column, or_text, since, wide};
use crate::registry::json::{at, items, map, number, objects, text, texts};
use crate::registry::strategies::Printer;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

fn name(object: &Object) -> Value {
    json!(text(object, &["metadata", "name"]))
}

fn length(object: &Object, key: &str) -> usize {
    match object.get(key) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

pub const NAMESPACE: Printer = Printer {
    columns: || vec![name_column(), column("Status", "string"), column("Age", "string")],
    cells: |namespace, now| {
        vec![
            name(namespace),
            json!(text(namespace, &["status", "phase"])),
            json!(age(namespace, now)),
        ]
    },
};

pub const CONFIG_MAP: Printer = Printer {
    columns: || vec![name_column(), column("Data", "string"), column("Age", "string")],
    cells: |map, now| {
        let count = length(map, "data") + length(map, "binaryData");
        vec![name(map), json!(count), json!(age(map, now))]
    },
};

pub const SECRET: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Type", "string"),
            column("Data", "string"),
            column("Age", "string"),
        ]
    },
    cells: |secret, now| {
        vec![
            name(secret),
            json!(text(secret, &["type"])),
            json!(length(secret, "data")),
            json!(age(secret, now)),
        ]
    },
};

pub const SERVICE_ACCOUNT: Printer = Printer {
    columns: || vec![name_column(), column("Age", "string")],
    cells: |account, now| vec![name(account), json!(age(account, now))],
};

pub const SERVICE: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Type", "string"),
            column("Cluster-IP", "string"),
            column("External-IP", "string"),
            column("Port(s)", "string"),
            column("Age", "string"),
            wide("Selector", "string"),
        ]
    },
    cells: |service, now| {
        let cluster_ip = items(service, &["spec", "clusterIPs"])
            .first()
            .and_then(Value::as_str)
            .unwrap_or_default();
        vec![
            name(service),
            json!(text(service, &["spec", "type"])),
            json!(or_text(cluster_ip, "<none>")),
            json!(external_ip(service)),
            json!(or_text(&service_ports(service), "<none>")),
            json!(age(service, now)),
            json!(map_text(map(service, &["spec", "selector"]))),
        ]
    },
};

fn external_ip(service: &Object) -> String {
    let external = join(items(service, &["spec", "externalIPs"]));
    match text(service, &["spec", "type"]) {
        "ClusterIP" | "NodePort" => or_text(&external, "<none>").to_owned(),
        "LoadBalancer" => {
            let ingress = load_balancer(service);
            match (ingress.as_str(), external.as_str()) {
                ("", "") => "<pending>".to_owned(),
                ("", external) => external.to_owned(),
                (ingress, "") => ingress.to_owned(),
                (ingress, external) => format!("{ingress},{external}"),
            }
        }
        "ExternalName" => text(service, &["spec", "externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

/// Addresses of the load balancer, sorted.
pub fn load_balancer(object: &Object) -> String {
    let mut addresses: Vec<&str> = objects(object, &["status", "loadBalancer", "ingress"])
        .map(|(_, ingress)| match text(ingress, &["ip"]) {
            "" => text(ingress, &["hostname"]),
            ip => ip,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.join(",")
}

fn service_ports(service: &Object) -> String {
    let ports: Vec<String> = objects(service, &["spec", "ports"])
        .map(|(_, port)| {
            let (number_of, protocol) = (number(port, &["port"]), text(port, &["protocol"]));
            match number(port, &["nodePort"]) {
                0 => format!("{number_of}/{protocol}"),
                node_port => format!("{number_of}:{node_port}/{protocol}"),
            }
        })
        .collect();
    ports.join(",")
}

pub const ENDPOINTS: Printer = Printer {
    columns: || vec![name_column(), column("Endpoints", "string"), column("Age", "string")],
    cells: |endpoints, now| {
        vec![
            name(endpoints),
            json!(endpoint_list(endpoints)),
            json!(age(endpoints, now)),
        ]
    },
};

fn endpoint_list(endpoints: &Object) -> String {
    let mut all = Vec::new();
    for (_, subset) in objects(endpoints, &["subsets"]) {
        let addresses = || objects(subset, &["addresses"]).map(|(_, address)| text(address, &["ip"]));
        if items(subset, &["ports"]).is_empty() {
            all.extend(addresses().map(str::to_owned));
            continue;
        }
        for (_, port) in objects(subset, &["ports"]) {
            let number = number(port, &["port"]);
            all.extend(addresses().map(|ip| match ip.contains(':') {
                true => format!("[{ip}]:{number}"),
                false => format!("{ip}:{number}"),
            }));
        }
    }
    first_and_more(&all, "<none>")
}

pub const EVENT: Printer = Printer {
    columns: || {
        vec![
            column("Last Seen", "string"),
            column("Type", "string"),
            column("Reason", "string"),
            column("Object", "string"),
            wide("Subobject", "string"),
            wide("Source", "string"),
            column("Message", "string"),
            wide("First Seen", "string"),
            wide("Count", "string"),
            wide("Name", "string"),
        ]
    },
    cells: event_cells,
};

/// Cells of an event in its storage version, core/v1.
fn event_cells(event: &Object, now: i64) -> Vec<Value> {
    let first_time = match text(event, &["firstTimestamp"]) {
        "" => text(event, &["eventTime"]),
        time => time,
    };
    let first_seen = since(first_time, now);
    let last_seen = match (
        text(event, &["series", "lastObservedTime"]),
        text(event, &["lastTimestamp"]),
    ) {
        ("", "") => first_seen.clone(),
        ("", last) => since(last, now),
        (observed, _) => since(observed, now),
    };
    let involved = |field: &str| text(event, &["involvedObject", field]);
    let target = match involved("name") {
        "" => involved("kind").to_lowercase(),
        name => format!("{}/{name}", involved("kind").to_lowercase()),
    };
    let source = match text(event, &["source", "component"]) {
        "" => text(event, &["reportingComponent"]),
        component => component,
    };
    let host = match text(event, &["source", "host"]) {
        "" => text(event, &["reportingInstance"]),
        host => host,
    };
    let source = if host.is_empty() {
        source.to_owned()
    } else {
        format!("{source}, {host}")
    };
    let count = match at(event, &["series", "count"]).and_then(Value::as_i64) {
        Some(count) => count,
        None => number(event, &["count"]).max(1),
    };
    vec![
        json!(last_seen),
        json!(text(event, &["type"])),
        json!(text(event, &["reason"])),
        json!(target),
        json!(involved("fieldPath")),
        json!(source),
        json!(text(event, &["message"]).trim()),
        json!(first_seen),
        json!(count),
        name(event),
    ]
}

pub const PERSISTENT_VOLUME: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Capacity", "string"),
            column("Access Modes", "string"),
            column("Reclaim Policy", "string"),
            column("Status", "string"),
            column("Claim", "string"),
            column("StorageClass", "string"),
            column("VolumeAttributesClass", "string"),
            column("Reason", "string"),
            column("Age", "string"),
            wide("VolumeMode", "string"),
        ]
    },
    cells: |volume, now| {
        let claim = map(volume, &["spec", "claimRef"]);
        let claim = claim
            .map(|claim| format!("{}/{}", text(claim, &["namespace"]), text(claim, &["name"])))
            .unwrap_or_default();
        vec![
            name(volume),
            json!(text(volume, &["spec", "capacity", "storage"])),
            json!(access_modes(items(volume, &["spec", "accessModes"]))),
            json!(text(volume, &["spec", "persistentVolumeReclaimPolicy"])),
            json!(phase(volume)),
            json!(claim),
            json!(storage_class(volume)),
            json!(or_text(text(volume, &["spec", "volumeAttributesClassName"]), "<unset>")),
            json!(text(volume, &["status", "reason"])),
            json!(age(volume, now)),
            json!(or_text(text(volume, &["spec", "volumeMode"]), "<unset>")),
        ]
    },
};

pub const PERSISTENT_VOLUME_CLAIM: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Status", "string"),
            column("Volume", "string"),
            column("Capacity", "string"),
            column("Access Modes", "string"),
            column("StorageClass", "string"),
            column("VolumeAttributesClass", "string"),
            column("Age", "string"),
            wide("VolumeMode", "string"),
        ]
    },
    cells: |claim, now| {
        let volume = text(claim, &["spec", "volumeName"]);
        let (capacity, modes) = match volume {
            "" => ("", String::new()),
            _ => (
                text(claim, &["status", "capacity", "storage"]),
                access_modes(items(claim, &["status", "accessModes"])),
            ),
        };
        vec![
            name(claim),
            json!(phase(claim)),
            json!(volume),
            json!(capacity),
            json!(modes),
            json!(storage_class(claim)),
            json!(or_text(text(claim, &["spec", "volumeAttributesClassName"]), "<unset>")),
            json!(age(claim, now)),
            json!(or_text(text(claim, &["spec", "volumeMode"]), "<unset>")),
        ]
    },
};

fn phase(object: &Object) -> &str {
    if text(object, &["metadata", "deletionTimestamp"]).is_empty() {
        text(object, &["status", "phase"])
    } else {
        "Terminating"
    }
}

/// The annotation of old, else the field.
fn storage_class(object: &Object) -> &str {
    match text(
        object,
        &["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"],
    ) {
        "" => text(object, &["spec", "storageClassName"]),
        class => class,
    }
}

pub const RESOURCE_QUOTA: Printer = Printer {
    columns: || {
        vec![
            name_column(),
            column("Request", "string"),
            column("Limit", "string"),
            column("Age", "string"),
        ]
    },
    cells: |quota, now| {
        let part = |limits: bool| {
            let mut entries: Vec<String> = texts(quota, &["status", "hard"])
                .filter(|(resource, _)| resource.starts_with("limits.") == limits)
                .map(|(resource, hard)| {
                    let used = or_text(text(quota, &["status", "used", resource]), "0");
                    format!("{resource}: {used}/{hard}")
                })
                .collect();
            entries.sort_unstable();
            entries.join(", ")
        };
        vec![
            name(quota),
            json!(part(false)),
            json!(part(true)),
            json!(age(quota, now)),
        ]
    },
};
