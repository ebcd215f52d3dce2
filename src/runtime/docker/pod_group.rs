//! The control group of a pod whose containers may use less together than by themselves. Docker has none for some
//! containers of many, so they are put below one that is limited here (upstream: `pkg/kubelet/cm`,
//! `pod_container_manager_linux.go`).

use super::super::cgroups;
use super::{DockerRuntime, Engine, Resources, Result, SandboxConfig, failed};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Longer than systemd takes to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Groups by sandbox, as they are found at the engine.
#[derive(Default)]
pub(super) struct PodGroups {
    by_sandbox: Mutex<HashMap<String, String>>,
    /// Whether systemd makes the engine's groups.
    of_systemd: OnceCell<bool>,
}

impl PodGroups {
    pub fn learn(&self, sandbox: &str, group: Option<&str>) {
        if let Some(group) = group.filter(|group| is_own(group)) {
            self.by_sandbox.lock().insert(sandbox.to_owned(), group.to_owned());
        }
    }

    pub fn of(&self, sandbox: &str) -> Option<String> {
        self.by_sandbox.lock().get(sandbox).cloned()
    }
}

impl DockerRuntime {
    /// Whether the groups of the engine's host are this program's to write.
    pub(super) fn sees_groups(&self) -> bool {
        self.shared_directory.read().is_none()
    }

    /// The group below which the pod's containers are made; None: the engine's own. A krust that does not see the engine's
    /// host could not limit one, nor take it away.
    pub(super) async fn pod_group(&self, config: &SandboxConfig) -> Result<Option<String>> {
        if !config.bounded || !self.sees_groups() {
            return Ok(None);
        }
        let asked = self.pod_groups.of_systemd.get_or_try_init(|| of_systemd(&self.engine));
        let group = name(&self.engine.cluster_id, &config.pod.uid, *asked.await?);
        Ok(Some(group))
    }

    /// Every container has its own limits all the same.
    pub(super) async fn limit_new_pod(&self, sandbox: &str, group: Option<String>, wanted: &Resources) {
        self.pod_groups.learn(sandbox, group.as_deref());
        if let Err(error) = self.limit_pod(sandbox, wanted).await {
            tracing::warn!(sandbox, %error, "the containers of a pod are not limited together");
        }
    }

    pub(super) async fn limit_pod(&self, sandbox: &str, wanted: &Resources) -> Result<()> {
        let Some(group) = self.pod_groups.of(sandbox) else {
            return Ok(());
        };
        let limited = match is_slice(&group) {
            false => cgroups::limit(Path::new(cgroups::ROOT), &group, wanted),
            // It would write its own idea of the group's files over ours.
            true => {
                let mut arguments = vec!["set-property".to_owned(), "--runtime".to_owned(), group.clone()];
                arguments.extend(properties(wanted));
                systemctl(&arguments).await
            }
        };
        limited.map_err(|error| failed("limit", &group, error))
    }

    /// What is left of it when its containers are gone.
    pub(super) async fn remove_pod_group(&self, sandbox: &str) {
        let Some(group) = self.pod_groups.by_sandbox.lock().remove(sandbox) else {
            return;
        };
        if !is_slice(&group) {
            cgroups::remove(Path::new(cgroups::ROOT), &format!("{group}/{sandbox}"));
            return;
        }
        for verb in ["stop", "revert"] {
            if let Err(error) = systemctl(&[verb.to_owned(), group.clone()]).await {
                tracing::debug!(group, error, "the control group of a pod stays");
            }
        }
    }
}

async fn of_systemd(engine: &Engine) -> Result<bool> {
    let info = engine.docker.info().await;
    let info = info.map_err(|error| engine.error("ask for", "engine", "its control groups", error))?;
    Ok(info.cgroup_driver.is_some_and(|driver| driver.to_string() == "systemd"))
}

/// In systemd's names each dash is a level.
fn name(cluster_id: &str, uid: &str, of_systemd: bool) -> String {
    match of_systemd {
        true => format!("krust-{}-{}.slice", cluster_id.replace('-', "_"), uid.replace('-', "_")),
        false => format!("/krust/{cluster_id}/{uid}"),
    }
}

fn is_slice(group: &str) -> bool {
    group.ends_with(".slice")
}

fn is_own(group: &str) -> bool {
    group.starts_with("/krust/") || (is_slice(group) && group.starts_with("krust-"))
}

fn properties(wanted: &Resources) -> [String; 3] {
    let quota = u64::try_from(wanted.cpu_quota).unwrap_or(0);
    // Not less than what a container may have (upstream: `opencontainers/cgroups`, `addCPUQuota`).
    let quota = match (quota * 100).div_ceil(wanted.cpu_period.max(1)) {
        0 => String::new(),
        percent => format!("{percent}%"),
    };
    let memory = match wanted.memory_limit_bytes {
        0 => "infinity".to_owned(),
        bytes => bytes.to_string(),
    };
    [
        format!("CPUWeight={}", cgroups::weight(wanted.cpu_shares)),
        format!("CPUQuota={quota}"),
        format!("MemoryMax={memory}"),
    ]
}

async fn systemctl(arguments: &[String]) -> Result<(), String> {
    let mut asked = Command::new("systemctl");
    asked.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match timeout(ANSWER_MAX, asked.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(format!("systemctl: {error}")),
        Err(_) => Err("systemd does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups() {
        let of = |of_systemd| name("a-b", "1-2", of_systemd);
        assert_eq!(
            (of(true), of(false)),
            ("krust-a_b-1_2.slice".into(), "/krust/a-b/1-2".into())
        );
        let groups = PodGroups::default();
        for (sandbox, group) in [
            ("s", Some("krust-a-b.slice")),
            ("f", Some("/krust/a/b")),
            ("theirs", Some("system.slice")),
            ("none", None),
        ] {
            groups.learn(sandbox, group);
            let expected = group.filter(|group| group.contains("krust"));
            assert_eq!(groups.of(sandbox).as_deref(), expected, "{sandbox}");
        }
    }

    #[test]
    fn what_systemd_is_told() {
        let limited = Resources {
            cpu_shares: 1024,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory_limit_bytes: 4096,
            ..Default::default()
        };
        assert_eq!(
            properties(&limited),
            ["CPUWeight=100", "CPUQuota=50%", "MemoryMax=4096"]
        );
        let not_a_hundredth = Resources {
            cpu_quota: 50_500,
            ..limited
        };
        assert_eq!(properties(&not_a_hundredth)[1], "CPUQuota=51%");
        let unlimited = Resources::default();
        assert_eq!(
            properties(&unlimited),
            ["CPUWeight=1", "CPUQuota=", "MemoryMax=infinity"]
        );
    }
}
