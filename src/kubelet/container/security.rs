//! Security contexts: the container's own over the pod's (upstream: `pkg/securitycontext`,
//! `kuberuntime/security_context.go`).

use super::ConfigError;
use crate::kubelet::pod;
use crate::runtime::{SecurityContext, SecurityProfile};
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile};
use std::path::{Path, PathBuf};

/// How the node sees to seccomp.
#[derive(Clone, Debug, Default)]
pub struct Seccomp {
    /// Profiles of the type Localhost are below it.
    pub directory: PathBuf,
    /// Who says nothing gets the engine's profile, instead of none.
    pub by_default: bool,
}

impl Seccomp {
    fn profile(&self, wanted: Option<&SeccompProfile>) -> SecurityProfile {
        match wanted.map(|profile| (profile.type_.as_str(), profile.localhost_profile.as_deref())) {
            Some(("RuntimeDefault", _)) => SecurityProfile::RuntimeDefault,
            Some(("Localhost", Some(name))) => {
                SecurityProfile::Localhost(inside(&self.directory, name).display().to_string())
            }
            None if self.by_default => SecurityProfile::RuntimeDefault,
            _ => SecurityProfile::Unconfined,
        }
    }
}

/// The API server takes only names that stay inside.
fn inside(directory: &Path, name: &str) -> PathBuf {
    directory.join(name.trim_start_matches('/'))
}

/// The profile that counts for a container: its own, else the pod's.
pub fn apparmor<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a AppArmorProfile> {
    let own = container.security_context.as_ref();
    let own = own.and_then(|context| context.app_armor_profile.as_ref());
    let of_pod = pod::spec(pod).security_context.as_ref();
    own.or_else(|| of_pod.and_then(|context| context.app_armor_profile.as_ref()))
}

fn apparmor_profile(wanted: &AppArmorProfile) -> SecurityProfile {
    match (wanted.type_.as_str(), &wanted.localhost_profile) {
        ("RuntimeDefault", _) => SecurityProfile::RuntimeDefault,
        ("Localhost", Some(name)) => SecurityProfile::Localhost(name.clone()),
        _ => SecurityProfile::Unconfined,
    }
}

pub fn context(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    seccomp: &Seccomp,
) -> Result<SecurityContext, ConfigError> {
    let of_pod = pod::spec(pod).security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        check_non_root(pod, container, run_as_user, image_user)?;
    }
    let mut groups = of_pod.supplemental_groups.unwrap_or_default();
    groups.extend(of_pod.fs_group);
    let capabilities = own.capabilities.unwrap_or_default();
    Ok(SecurityContext {
        run_as_user,
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        supplemental_groups: groups,
        privileged: own.privileged.unwrap_or(false),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        seccomp: seccomp.profile(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref())),
        apparmor: apparmor(pod, container).map(apparmor_profile),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        strict_groups: of_pod.supplemental_groups_policy.as_deref() == Some("Strict"),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
    })
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), ConfigError> {
    let (pod, container) = (pod::full_name(pod), container.name.clone());
    match run_as_user {
        Some(0) => return Err(ConfigError::RunAsRoot { pod, container }),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        Ok(uid) if uid != 0 => Ok(()),
        Err(_) if !user.is_empty() => Err(ConfigError::ImageUserUnknown {
            user: user.to_owned(),
            pod,
            container,
        }),
        _ => Err(ConfigError::ImageRunsAsRoot { pod, container }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(of_pod: Value, own: Value, image_user: &str) -> Result<SecurityContext, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"securityContext": of_pod, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap();
        let seccomp = Seccomp {
            directory: "/seccomp".into(),
            by_default: false,
        };
        context(&pod, &pod::app_containers(&pod)[0], image_user, &seccomp).map_err(|e| e.to_string())
    }

    #[test]
    fn the_containers_own_settings_win() {
        let context = check(json!({"runAsUser": 5, "fsGroup": 7}), json!({"runAsUser": 6}), "").unwrap();
        assert_eq!((context.run_as_user, context.supplemental_groups), (Some(6), vec![7]));
    }

    #[test]
    fn profiles_of_containers_come_before_those_of_pods() {
        let profile = |kind: &str| json!({"seccompProfile": {"type": kind}, "appArmorProfile": {"type": kind}});
        let local = json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}});
        for (of_pod, own, expected) in [
            (json!({}), json!({}), SecurityProfile::Unconfined),
            (profile("RuntimeDefault"), json!({}), SecurityProfile::RuntimeDefault),
            (
                profile("RuntimeDefault"),
                profile("Unconfined"),
                SecurityProfile::Unconfined,
            ),
            (json!({}), local, SecurityProfile::Localhost("/seccomp/a/b.json".into())),
        ] {
            assert_eq!(check(of_pod, own, "").unwrap().seccomp, expected);
        }
        assert_eq!(check(json!({}), json!({}), "").unwrap().apparmor, None);
        let of_pod = check(profile("RuntimeDefault"), json!({}), "").unwrap();
        assert_eq!(of_pod.apparmor, Some(SecurityProfile::RuntimeDefault));
        let by_default = Seccomp {
            by_default: true,
            ..Seccomp::default()
        };
        assert_eq!(by_default.profile(None), SecurityProfile::RuntimeDefault);
    }

    #[test]
    fn run_as_non_root() {
        let non_root = json!({"runAsNonRoot": true});
        let suffix = r#"(pod: "p_ns(u)", container: c)"#;
        for (own, image_user, expected) in [
            (json!({}), "1000:1000", Ok(())),
            (json!({"runAsUser": 1}), "", Ok(())),
            (json!({"runAsNonRoot": false}), "", Ok(())),
            (
                json!({"runAsUser": 0}),
                "1",
                Err("container's runAsUser breaks non-root policy"),
            ),
            (
                json!({}),
                "",
                Err("container has runAsNonRoot and image will run as root"),
            ),
            (
                json!({}),
                "0",
                Err("container has runAsNonRoot and image will run as root"),
            ),
            (
                json!({}),
                "nginx",
                Err(
                    "container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root",
                ),
            ),
        ] {
            let result = check(non_root.clone(), own, image_user).map(|_| ());
            assert_eq!(result, expected.map_err(|text| format!("{text} {suffix}")));
        }
    }
}
