//! What a `/proxy` request is for: the address behind `pod`, `pod:port`, `service:port`, `node:port`, each
//! optionally with a scheme before it (upstream: `ResourceLocation` of pods, services and nodes,
//! `apimachinery/pkg/util/net/port_split.go`).

use super::node;
use super::target::PodTarget;
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::service_endpoints;
use crate::storage::Storage;
use crate::transport::dial::Address;
use k8s_openapi::api::core::v1::Service;
use rand::seq::IndexedRandom;
use std::net::IpAddr;

const SERVICES: Subject<'static> = Subject {
    group: "",
    resource: "services",
};

/// Where the request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Plain HTTP.
    Plain(Address),
    /// TLS, with a certificate of whomever.
    Unverified(Address),
    /// A kubelet's own API, with our client certificate.
    Kubelet(Address),
}

/// Finds the backend of `resource/name`.
pub fn find(storage: &Storage, resource: &str, namespace: &str, name: &str) -> Result<Backend, ApiError> {
    let name = Name::parse(resource, name)?;
    match resource {
        "pods" => {
            let pod = PodTarget::find(storage, namespace, name.name)?;
            pod_backend(&pod, &name)
        }
        "services" => service_backend(storage, namespace, &name),
        _ => node_backend(storage, &name),
    }
}

/// `name`, `name:port` or `scheme:name:port`; the port may be empty in the last one.
#[derive(Debug, PartialEq, Eq)]
struct Name<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Name<'a> {
    fn parse(resource: &str, text: &'a str) -> Result<Name<'a>, ApiError> {
        let (scheme, name, port) = match *text.split(':').collect::<Vec<_>>() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => ("invalid", "", ""),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(ApiError::bad_request(format!("invalid {resource} request {text:?}")));
        }
        Ok(Name {
            https: scheme == "https",
            name,
            port,
        })
    }

    /// The place that the name stands for.
    fn at(&self, host: &str, port: u16) -> Result<Backend, ApiError> {
        let address = proxyable(host, port)?;
        Ok(match self.https {
            true => Backend::Unverified(address),
            false => Backend::Plain(address),
        })
    }

    fn port_number(&self) -> Result<u16, ApiError> {
        let port = self.port.parse().ok().filter(|port: &u16| *port > 0);
        port.ok_or_else(|| ApiError::bad_request(format!("invalid port {:?}", self.port)))
    }
}

/// The server's own host and what is local to it are not for proxying to (upstream: `IsProxyableIP`).
fn proxyable(host: &str, port: u16) -> Result<Address, ApiError> {
    let refused = match host.parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_unspecified() || ip.is_link_local() || ip.is_multicast(),
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast()
        }
        Err(_) => true,
    };
    if refused {
        return Err(ApiError::bad_request("address not allowed"));
    }
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

fn pod_backend(pod: &PodTarget, name: &Name<'_>) -> Result<Backend, ApiError> {
    let port = if name.port.is_empty() {
        let spec = pod.pod.spec.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        containers
            .iter()
            .find_map(|container| container.ports.as_ref()?.first())
            .and_then(|port| u16::try_from(port.container_port).ok())
            .unwrap_or(80)
    } else {
        name.port_number()?
    };
    let ip = pod.pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    name.at(ip.unwrap_or_default(), port)
}

fn node_backend(storage: &Storage, name: &Name<'_>) -> Result<Backend, ApiError> {
    let kubelet = node::address(storage, name.name)?;
    if name.port.is_empty() || name.port_number()? == kubelet.port {
        return Ok(Backend::Kubelet(kubelet));
    }
    name.at(&kubelet.host, name.port_number()?)
}

fn service_backend(storage: &Storage, namespace: &str, name: &Name<'_>) -> Result<Backend, ApiError> {
    let entry = storage
        .get(SERVICES.resource, namespace, name.name)
        .ok_or_else(|| ApiError::not_found(SERVICES, name.name))?;
    let service: Service = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
    let none = || ApiError::service_unavailable(format!("no endpoints available for service {:?}", name.name));
    let port_name = service_port_name(&service, name.port).ok_or_else(none)?;
    let addresses = service_endpoints::ready(storage, namespace, name.name, &port_name)?;
    let address = addresses.choose(&mut rand::rng()).ok_or_else(none)?;
    name.at(&address.host, address.port)
}

/// The name of the service's port that is asked for by number, by name, or, without a name, by nothing.
fn service_port_name(service: &Service, wanted: &str) -> Option<String> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let name = |port: &k8s_openapi::api::core::v1::ServicePort| port.name.clone().unwrap_or_default();
    match wanted.parse::<i32>() {
        Ok(number) => ports.iter().find(|port| port.port == number).map(name),
        Err(_) => ports.iter().map(name).find(|name| name == wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> PodTarget {
        PodTarget::new(serde_json::from_value(value).unwrap())
    }

    fn address(host: &str, port: u16) -> Backend {
        Backend::Plain(Address {
            host: host.to_owned(),
            port,
        })
    }

    #[test]
    fn names_carry_scheme_and_port() {
        let parse = |text| {
            Name::parse("pods", text)
                .map(|name| (name.https, name.name, name.port))
                .ok()
        };
        assert_eq!(parse("p"), Some((false, "p", "")));
        assert_eq!(parse("p:80"), Some((false, "p", "80")));
        assert_eq!(parse("https:p:"), Some((true, "p", "")));
        assert_eq!(parse("http:p:web"), Some((false, "p", "web")));
        for bad in ["", ":80", "ftp:p:1", "a:b:c:d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pods_first_port_is_the_default() {
        let target = pod(json!({
            "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
            "status": {"podIP": "10.1.2.3"},
        }));
        let find = |text| pod_backend(&target, &Name::parse("pods", text).unwrap()).map_err(|error| error.code());
        assert_eq!(find("p").unwrap(), address("10.1.2.3", 8080));
        assert_eq!(find("p:99").unwrap(), address("10.1.2.3", 99));
        assert_eq!(find("p:web").unwrap_err().as_u16(), 400);
        let tls = Backend::Unverified(Address {
            host: "10.1.2.3".to_owned(),
            port: 1,
        });
        assert_eq!(find("https:p:1").unwrap(), tls);
    }

    #[test]
    fn what_is_local_to_the_server_is_not_proxied_to() {
        for host in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "",
            "example.org",
        ] {
            assert!(proxyable(host, 80).is_err(), "{host}");
        }
        assert!(proxyable("10.0.0.1", 80).is_ok());
    }

    #[test]
    fn a_port_of_a_service_is_named_or_numbered() {
        let service: Service = serde_json::from_value(json!({
            "spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]},
        }))
        .unwrap();
        assert_eq!(service_port_name(&service, "81").as_deref(), Some("admin"));
        assert_eq!(service_port_name(&service, "web").as_deref(), Some("web"));
        assert_eq!(service_port_name(&service, ""), None);
    }
}
