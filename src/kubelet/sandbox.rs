//! From a pod's spec to its sandbox (upstream: `kuberuntime_sandbox.go` `generatePodSandboxConfig`,
//! `network/dns`).

use crate::kubelet::dns::Dns;
use crate::kubelet::{admission, container, pod, resources};
use crate::runtime::{Features, PodIdentity, PortMapping, Protocol, RuntimeError, SandboxConfig};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use std::collections::BTreeMap;

const HOSTNAME_MAX: usize = 63;
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// Longest name that the kernel takes.
const KERNEL_HOSTNAME_MAX: usize = 64;
/// Annotation of a sandbox that says by which of the engine's runtimes it runs.
pub const HANDLER: &str = "krust.dev/runtime-handler";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("failed to get RuntimeClass {name:?}: {source}")]
    RuntimeClass {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error(
        "can't set `spec.hostUsers: false`, {} does not support user namespaces",
        named(handler)
    )]
    UserNamespaces { handler: String },
    #[error(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({KERNEL_HOSTNAME_MAX} \
         characters is the max, {} characters requested)",
        name.len()
    )]
    NameTooLong { name: String },
}

fn named(handler: &str) -> String {
    match handler {
        "" => "runtime".to_owned(),
        handler => format!("RuntimeClass handler {handler:?}"),
    }
}

/// The engine's runtime that the pod's RuntimeClass names; empty without one.
pub async fn handler(pod: &Pod, client: &kube::Client) -> Result<String, SandboxError> {
    let name = pod::spec(pod).runtime_class_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(String::new());
    }
    let classes: kube::Api<RuntimeClass> = kube::Api::all(client.clone());
    match classes.get(name).await {
        Ok(class) => Ok(class.handler),
        Err(source) => Err(SandboxError::RuntimeClass {
            name: name.to_owned(),
            source: Box::new(source),
        }),
    }
}

/// `node_name` is the hostname of pods in the host's network.
pub fn config(
    pod: &Pod,
    attempt: u32,
    node_name: &str,
    handler: &str,
    dns: Dns,
    features: &Features,
) -> Result<SandboxConfig, SandboxError> {
    let user_namespace = pod::spec(pod).host_users == Some(false);
    if user_namespace && !features.user_namespace_handlers.iter().any(|name| name == handler) {
        return Err(SandboxError::UserNamespaces {
            handler: handler.to_owned(),
        });
    }
    let spec = pod::spec(pod);
    let host_network = pod::host_network(pod);
    let sysctls = spec.security_context.as_ref().and_then(|s| s.sysctls.clone());
    let host_aliases = spec.host_aliases.iter().flatten();
    let mut annotations = BTreeMap::new();
    if !handler.is_empty() {
        annotations.insert(HANDLER.to_owned(), handler.to_owned());
    }
    Ok(SandboxConfig {
        pod: PodIdentity {
            name: pod::name(pod).to_owned(),
            namespace: pod::namespace(pod).to_owned(),
            uid: pod::uid(pod).to_owned(),
            attempt,
        },
        hostname: if host_network {
            node_name.to_owned()
        } else {
            kernel_hostname(pod)?
        },
        labels: container::labels(pod, None),
        annotations,
        port_mappings: port_mappings(pod),
        host_network,
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_process_namespace: spec.share_process_namespace.unwrap_or(false),
        dns_servers: dns.servers,
        dns_searches: dns.searches,
        dns_options: dns.options,
        host_aliases: host_aliases
            .map(|alias| (alias.ip.clone(), alias.hostnames.clone().unwrap_or_default()))
            .collect(),
        sysctls: sysctls
            .into_iter()
            .flatten()
            .map(|sysctl| (admission::dotted(&sysctl.name), sysctl.value))
            .collect(),
        runtime_handler: handler.to_owned(),
        user_namespace,
        resources: resources::for_pod(pod),
        bounded: resources::is_bounded(pod),
    })
}

/// What `hostname` prints in the pod: with setHostnameAsFQDN the whole name.
fn kernel_hostname(pod: &Pod) -> Result<String, SandboxError> {
    let (name, domain) = (hostname(pod), domain(pod));
    if pod::spec(pod).set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(name);
    }
    let whole = format!("{name}.{domain}");
    match whole.len() > KERNEL_HOSTNAME_MAX {
        true => Err(SandboxError::NameTooLong { name: whole }),
        false => Ok(whole),
    }
}

/// What the pod's hostname is in, where it has a subdomain; else empty.
pub fn domain(pod: &Pod) -> String {
    if pod::spec(pod)
        .hostname_override
        .as_deref()
        .is_some_and(|name| !name.is_empty())
    {
        return String::new();
    }
    match pod::spec(pod).subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{CLUSTER_DOMAIN}", pod::namespace(pod)),
        None => String::new(),
    }
}

pub fn hostname(pod: &Pod) -> String {
    // Over everything else, and without a domain.
    if let Some(name) = pod::spec(pod)
        .hostname_override
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        return name.to_owned();
    }
    let own = pod::spec(pod).hostname.as_deref().filter(|name| !name.is_empty());
    let name: String = own.unwrap_or(pod::name(pod)).chars().take(HOSTNAME_MAX).collect();
    // A name that was cut does not end in a hyphen or a dot.
    name.trim_end_matches(['-', '.']).to_owned()
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let sidecars = pod::init_containers(pod).filter(|(role, _)| *role == pod::Role::Sidecar);
    let containers = sidecars.map(|(_, c)| c).chain(pod::app_containers(pod));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(PortMapping {
                protocol: match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                },
                container_port: u16::try_from(port.container_port).ok()?,
                host_port: u16::try_from(port.host_port.unwrap_or(0)).ok()?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": spec}))
            .unwrap()
    }

    fn config(pod: &Pod, attempt: u32, node_name: &str) -> SandboxConfig {
        super::config(pod, attempt, node_name, "", Dns::default(), &Features::default()).unwrap()
    }

    #[test]
    fn what_the_kernel_is_told() {
        let fqdn = json!({"containers": [], "subdomain": "sub", "setHostnameAsFQDN": true});
        assert_eq!(
            config(&pod("p", fqdn.clone()), 0, "n").hostname,
            "p.sub.ns.svc.cluster.local"
        );
        let long = super::config(
            &pod(&"p".repeat(40), fqdn),
            0,
            "n",
            "",
            Dns::default(),
            &Features::default(),
        )
        .unwrap_err()
        .to_string();
        assert!(
            long.contains("is too long (64 characters is the max, 65 characters requested)"),
            "{long}"
        );
        let own = json!({"containers": [], "subdomain": "sub", "hostnameOverride": "any.name"});
        assert_eq!(config(&pod("p", own), 0, "n").hostname, "any.name");
    }

    #[test]
    fn runtimes_and_user_namespaces() {
        let features = Features {
            user_namespace_handlers: vec![String::new()],
            ..Features::default()
        };
        let of = |pod: &Pod, handler: &str| super::config(pod, 0, "n", handler, Dns::default(), &features);
        let plain = of(&pod("p", json!({"containers": []})), "kata").unwrap();
        assert_eq!(
            (plain.runtime_handler.as_str(), plain.annotations[HANDLER].as_str()),
            ("kata", "kata")
        );
        assert!(!plain.user_namespace);
        let users = pod("p", json!({"containers": [], "hostUsers": false}));
        assert!(of(&users, "").unwrap().user_namespace);
        assert_eq!(
            of(&users, "kata").unwrap_err().to_string(),
            "can't set `spec.hostUsers: false`, RuntimeClass handler \"kata\" does not support user namespaces"
        );
        assert_eq!(
            super::config(&users, 0, "n", "", Dns::default(), &Features::default())
                .unwrap_err()
                .to_string(),
            "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
        );
    }

    #[test]
    fn hostnames() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(
            config(&pod("web-0", json!({"containers": []})), 0, "n").hostname,
            "web-0"
        );
        assert_eq!(
            config(&pod(&long, json!({"containers": []})), 0, "n").hostname,
            "a".repeat(62)
        );
        let own = json!({"containers": [], "hostname": "db"});
        assert_eq!(config(&pod("web-0", own), 0, "n").hostname, "db");
        let host = json!({"containers": [], "hostNetwork": true});
        assert_eq!(config(&pod("web-0", host), 0, "n").hostname, "n");
    }

    #[test]
    fn ports() {
        let spec = json!({
            "containers": [{"name": "c", "ports": [{"containerPort": 53, "protocol": "UDP", "hostPort": 5353}]}],
        });
        let config = config(&pod("p", spec), 2, "n");
        assert_eq!(config.pod.attempt, 2);
        let port = &config.port_mappings[0];
        assert_eq!(
            (port.protocol, port.container_port, port.host_port),
            (Protocol::Udp, 53, 5353)
        );
    }
}
