//! Variables that tell containers where Services are (upstream: `pkg/kubelet/envvars`).

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Of this one every pod knows, wherever it is.
const SERVER: (&str, &str) = ("default", "kubernetes");

/// The variables for pods of a namespace, by name. Without links only those of the server itself.
pub fn variables(namespace: &str, links: bool, services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &ServiceSpec> = BTreeMap::new();
    for service in services {
        let metadata = &service.metadata;
        let key = (
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
        let Some(spec) = service.spec.as_ref().filter(|spec| address(spec).is_some()) else {
            continue;
        };
        if key.0 == namespace && links {
            chosen.insert(key.1, spec);
        } else if key == SERVER {
            // One of the same name in the pod's namespace stands before it.
            chosen.entry(key.1).or_insert(spec);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, spec) in chosen {
        add(name, spec, &mut variables);
    }
    variables
}

/// Headless and external Services have none.
fn address(spec: &ServiceSpec) -> Option<&str> {
    spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn add(name: &str, spec: &ServiceSpec, variables: &mut BTreeMap<String, String>) {
    let Some(ip) = address(spec) else {
        return;
    };
    let upper = |text: &str| text.to_ascii_uppercase().replace('-', "_");
    let name = upper(name);
    variables.insert(format!("{name}_SERVICE_HOST"), ip.to_owned());
    let host = match ip.parse() {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => ip.to_owned(),
    };
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let number = port.port;
        let protocol = port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_ascii_lowercase());
        if index == 0 {
            variables.insert(format!("{name}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(format!("{name}_SERVICE_PORT_{}", upper(port_name)), number.to_string());
        }
        let prefix = format!("{name}_PORT_{number}_{}", protocol.to_ascii_uppercase());
        variables.insert(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
        variables.insert(format!("{prefix}_PORT"), number.to_string());
        variables.insert(format!("{prefix}_ADDR"), ip.to_owned());
        variables.insert(prefix, url);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(namespace: &str, name: &str, spec: Value) -> Arc<Service> {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn names_and_values() {
        let services = [
            service(
                "default",
                "kubernetes",
                json!({"clusterIP": "10.0.0.1", "ports": [{"name": "https", "port": 443}]}),
            ),
            service(
                "ns",
                "my-db",
                json!({"clusterIP": "10.0.0.2", "ports": [
                    {"port": 1}, {"name": "b-c", "port": 2, "protocol": "UDP"},
                ]}),
            ),
            service("ns", "six", json!({"clusterIP": "fd00::1", "ports": [{"port": 3}]})),
            service("ns", "headless", json!({"clusterIP": "None", "ports": [{"port": 4}]})),
            service(
                "other",
                "elsewhere",
                json!({"clusterIP": "10.0.0.3", "ports": [{"port": 5}]}),
            ),
        ];
        let all = variables("ns", true, &services);
        for (name, value) in [
            ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
            ("MY_DB_SERVICE_HOST", "10.0.0.2"),
            ("MY_DB_SERVICE_PORT", "1"),
            ("MY_DB_SERVICE_PORT_B_C", "2"),
            ("MY_DB_PORT", "tcp://10.0.0.2:1"),
            ("MY_DB_PORT_1_TCP", "tcp://10.0.0.2:1"),
            ("MY_DB_PORT_2_UDP", "udp://10.0.0.2:2"),
            ("MY_DB_PORT_2_UDP_PROTO", "udp"),
            ("MY_DB_PORT_2_UDP_ADDR", "10.0.0.2"),
            ("SIX_PORT", "tcp://[fd00::1]:3"),
            ("SIX_PORT_3_TCP_ADDR", "fd00::1"),
        ] {
            assert_eq!(all.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(
            !all.keys()
                .any(|name| name.starts_with("HEADLESS") || name.starts_with("ELSEWHERE"))
        );
        let without = variables("ns", false, &services);
        assert!(without.keys().all(|name| name.starts_with("KUBERNETES_")) && !without.is_empty());
    }

    #[test]
    fn the_pods_own_namespace_comes_first() {
        let spec = |ip: &str| json!({"clusterIP": ip, "ports": [{"port": 1}]});
        let services = [
            service("ns", "kubernetes", spec("10.0.0.9")),
            service("default", "kubernetes", spec("10.0.0.1")),
        ];
        assert_eq!(variables("ns", true, &services)["KUBERNETES_SERVICE_HOST"], "10.0.0.9");
        assert_eq!(variables("ns", false, &services)["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
    }
}
