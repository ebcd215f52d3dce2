//! What a node refuses to run (upstream: `pkg/kubelet/lifecycle`, `sysctl/allowlist.go`, `pkg/security/apparmor`).

use crate::kubelet::container::security;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pod;
use crate::runtime::Features;
use k8s_openapi::api::core::v1::Pod;

/// Sysctls that concern the pod alone.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// What the kernel has of AppArmor: its profiles, or why there is none.
pub struct AppArmor(Result<String, &'static str>);

impl AppArmor {
    pub fn host() -> Self {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|text| text.starts_with('Y')) {
            return Self(Err("AppArmor is not enabled on the host"));
        }
        // Without securityfs the engine has to say which profiles there are.
        Self(Ok(
            std::fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default()
        ))
    }
}

/// Why the node cannot take the pod as its spec is. `apparmor` is asked only where a pod needs it.
pub fn refusal(
    pod: &Pod,
    features: &Features,
    unsafe_sysctls: &[String],
    apparmor: impl FnOnce() -> AppArmor,
) -> Option<PodFailure> {
    let spec = pod::spec(pod);
    let refuse = |reason, message: &str| {
        Some(PodFailure {
            reason,
            message: format!("Pod was rejected: {message}"),
            ..PodFailure::default()
        })
    };
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return refuse(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        );
    }
    let context = spec.security_context.as_ref();
    let strict = context.and_then(|context| context.supplemental_groups_policy.as_deref()) == Some("Strict");
    if strict && !features.strict_groups {
        return refuse(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    let sysctls = context.and_then(|context| context.sysctls.as_ref());
    let host_ipc = spec.host_ipc.unwrap_or(false);
    for sysctl in sysctls.into_iter().flatten() {
        let allowed = sysctl_allowed(&sysctl.name, pod::host_network(pod), host_ipc, unsafe_sysctls);
        if let Err(reason) = allowed {
            return refuse("SysctlForbidden", &format!("forbidden sysctl: {reason}"));
        }
    }
    let containers = pod::all_containers(pod);
    let profiles = containers
        .iter()
        .filter_map(|(_, container)| security::apparmor(pod, container));
    let profiles: Vec<_> = profiles.filter(|profile| profile.type_ != "Unconfined").collect();
    if profiles.is_empty() {
        return None;
    }
    match apparmor().0 {
        Err(reason) => refuse("AppArmor", &format!("Cannot enforce AppArmor: {reason}")),
        Ok(_) => None,
    }
}

/// Sysctls may be written with slashes, as paths below /proc/sys.
pub fn dotted(name: &str) -> String {
    let slash_first = name.find(['.', '/']).is_some_and(|at| name[at..].starts_with('/'));
    match slash_first {
        false => name.to_owned(),
        true => name
            .chars()
            .map(|char| match char {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
    }
}

fn sysctl_allowed(name: &str, host_network: bool, host_ipc: bool, more: &[String]) -> Result<(), String> {
    let name = dotted(name);
    let more = more.iter().map(|pattern| dotted(pattern));
    let allowed = SAFE_SYSCTLS.contains(&name.as_str())
        || more.into_iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        });
    if !allowed {
        return Err(format!("{name:?} not allowlisted"));
    }
    let of_network = name.starts_with("net.");
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."];
    let of_ipc = name == "kernel.sem" || of_ipc.iter().any(|prefix| name.starts_with(prefix));
    if of_ipc && host_ipc {
        return Err(format!("{name:?} not allowed with host ipc enabled"));
    }
    if of_network && host_network {
        return Err(format!("{name:?} not allowed with host net enabled"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn refused(spec: Value, features: &Features) -> Option<(&'static str, String)> {
        let mut spec = spec;
        spec["containers"] = json!([{"name": "c"}]);
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        let host = || AppArmor(Err("AppArmor is not enabled on the host"));
        let more = ["kernel.msg*".to_owned(), "net.core.somaxconn".to_owned()];
        refusal(&pod, features, &more, host).map(|failure| (failure.reason, failure.message))
    }

    #[test]
    fn what_is_refused_and_why() {
        let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        let with = |mut spec: Value, key: &str| {
            spec[key] = json!(true);
            spec
        };
        let strict = json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}});
        let apparmor = |kind: &str| json!({"securityContext": {"appArmorProfile": {"type": kind}}});
        let none = Features::default();
        for (spec, expected) in [
            (json!({}), None),
            (json!({"os": {"name": "linux"}}), None),
            (
                json!({"os": {"name": "windows"}}),
                Some((
                    "PodOSNotSupported",
                    "Failed to admit pod as the OS field doesn't match node OS",
                )),
            ),
            (sysctl("kernel.shm_rmid_forced"), None),
            (sysctl("net/ipv4/tcp_rmem"), None),
            (sysctl("kernel.msgmax"), None),
            (sysctl("net.core.somaxconn"), None),
            (
                sysctl("kernel.sem"),
                Some(("SysctlForbidden", "forbidden sysctl: \"kernel.sem\" not allowlisted")),
            ),
            (
                with(sysctl("kernel.shm_rmid_forced"), "hostIPC"),
                Some((
                    "SysctlForbidden",
                    "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host ipc enabled",
                )),
            ),
            (
                with(sysctl("net.ipv4.tcp_syncookies"), "hostNetwork"),
                Some((
                    "SysctlForbidden",
                    "forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled",
                )),
            ),
            (
                strict.clone(),
                Some((
                    "SupplementalGroupsPolicyNotSupported",
                    "SupplementalGroupsPolicy=Strict is not supported in this node",
                )),
            ),
            (apparmor("Unconfined"), None),
            (
                apparmor("RuntimeDefault"),
                Some((
                    "AppArmor",
                    "Cannot enforce AppArmor: AppArmor is not enabled on the host",
                )),
            ),
        ] {
            let expected = expected.map(|(reason, message)| (reason, format!("Pod was rejected: {message}")));
            assert_eq!(refused(spec.clone(), &none), expected, "{spec}");
        }
        let able = Features {
            strict_groups: true,
            ..Features::default()
        };
        assert_eq!(refused(strict, &able), None);
    }

    #[test]
    fn names_with_slashes() {
        for (name, expected) in [
            ("net.ipv4.conf.eth0", "net.ipv4.conf.eth0"),
            ("net/ipv4/conf/eth0.100/x", "net.ipv4.conf.eth0/100.x"),
            ("plain", "plain"),
        ] {
            assert_eq!(dotted(name), expected);
        }
    }
}
