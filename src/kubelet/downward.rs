//! What a pod may learn about itself: fieldRef and resourceFieldRef (upstream: `pkg/fieldpath`, `pkg/api/v1/resource`).

use crate::kubelet::container::ConfigError;
use crate::kubelet::{pod, resources};
use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The node's allocatable figures: what a container without a limit may use.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFigures {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub ephemeral_storage_bytes: i64,
}

/// Addresses, known once the sandbox is there.
pub struct Addresses<'a> {
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
}

/// The value of a fieldRef. Addresses are not to be had in volumes.
pub fn field(pod: &Pod, path: &str, addresses: Option<&Addresses<'_>>) -> Result<String, ConfigError> {
    let unsupported = || ConfigError::UnsupportedField { path: path.to_owned() };
    let metadata = &pod.metadata;
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(get(metadata.labels.as_ref(), key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(get(metadata.annotations.as_ref(), key));
    }
    if let Some(addresses) = addresses {
        match path {
            "spec.nodeName" => return Ok(pod::spec(pod).node_name.clone().unwrap_or_default()),
            "spec.serviceAccountName" => return Ok(pod::spec(pod).service_account_name.clone().unwrap_or_default()),
            "status.podIP" => return Ok(addresses.pod_ips.first().cloned().unwrap_or_default()),
            "status.podIPs" => return Ok(addresses.pod_ips.join(",")),
            "status.hostIP" => return Ok(addresses.host_ips.first().cloned().unwrap_or_default()),
            "status.hostIPs" => return Ok(addresses.host_ips.join(",")),
            _ => {}
        }
    }
    match path {
        "metadata.name" => Ok(pod::name(pod).to_owned()),
        "metadata.namespace" => Ok(pod::namespace(pod).to_owned()),
        "metadata.uid" => Ok(pod::uid(pod).to_owned()),
        "metadata.labels" => Ok(lines(metadata.labels.as_ref())),
        "metadata.annotations" => Ok(lines(metadata.annotations.as_ref())),
        _ => Err(unsupported()),
    }
}

fn subscript<'a>(path: &'a str, list: &str) -> Option<&'a str> {
    path.strip_prefix(list)?.strip_prefix("['")?.strip_suffix("']")
}

fn get(map: Option<&BTreeMap<String, String>>, key: &str) -> String {
    map.and_then(|map| map.get(key)).cloned().unwrap_or_default()
}

/// `key="value"` lines in key order, values quoted as Go quotes them.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let quoted = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", go_quote(value)));
    quoted.collect::<Vec<_>>().join("\n")
}

fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a resourceFieldRef, divided by its divisor and rounded up.
pub fn resource(
    container: &Container,
    selector: &ResourceFieldSelector,
    node: NodeFigures,
) -> Result<String, ConfigError> {
    let unsupported = || ConfigError::UnsupportedResource {
        resource: selector.resource.clone(),
    };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let quantity = match kind {
        "limits" => resources::limit(container, name),
        "requests" => resources::request(container, name),
        _ => return Err(unsupported()),
    };
    let divisor = selector.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok());
    let divisor = divisor.filter(|d| !d.is_zero());
    let (value, divisor) = match name {
        "cpu" => {
            let fallback = if kind == "limits" { node.cpu_milli } else { 0 };
            (
                quantity.map_or(fallback, Quantity::milli_value),
                divisor.map_or(1000, Quantity::milli_value),
            )
        }
        "memory" | "ephemeral-storage" => {
            let allocatable = if name == "memory" {
                node.memory_bytes
            } else {
                node.ephemeral_storage_bytes
            };
            let fallback = if kind == "limits" { allocatable } else { 0 };
            (
                quantity.map_or(fallback, Quantity::value),
                divisor.map_or(1, Quantity::value),
            )
        }
        _ if name.starts_with("hugepages-") => {
            (quantity.map_or(0, Quantity::value), divisor.map_or(1, Quantity::value))
        }
        _ => return Err(unsupported()),
    };
    let divisor = divisor.max(1);
    Ok((value / divisor + i64::from(value % divisor != 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_maps_are_sorted_and_quoted() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"labels": {"b": "x\"y", "a": "1\n2"}}})).unwrap();
        assert_eq!(
            field(&pod, "metadata.labels", None).unwrap(),
            "a=\"1\\n2\"\nb=\"x\\\"y\""
        );
        assert_eq!(field(&pod, "metadata.labels['a']", None).unwrap(), "1\n2");
        assert!(field(&pod, "status.podIP", None).is_err(), "volumes have no addresses");
    }

    #[test]
    fn resources_divide_and_round_up() {
        let container: Container = serde_json::from_value(json!({"name": "c", "resources": {
            "limits": {"cpu": "1500m"}, "requests": {"memory": "100Mi"}}}))
        .unwrap();
        let node = NodeFigures {
            cpu_milli: 2000,
            memory_bytes: 4 << 30,
            ephemeral_storage_bytes: 0,
        };
        for (resource_name, divisor, value) in [
            ("limits.cpu", None, "2"),
            ("limits.cpu", Some("1m"), "1500"),
            ("requests.memory", Some("1Mi"), "100"),
            ("limits.memory", Some("1Gi"), "4"),
            ("requests.ephemeral-storage", None, "0"),
        ] {
            let selector = json!({"resource": resource_name, "divisor": divisor});
            let selector = serde_json::from_value(selector).unwrap();
            assert_eq!(resource(&container, &selector, node).unwrap(), value, "{resource_name}");
        }
    }
}
