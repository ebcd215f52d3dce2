//! App containers, which join the namespaces of their sandbox (upstream: dockershim's `docker_container.go`).

use super::super::oci::seccomp;
use super::{
    ContainerConfig, DockerRuntime, Propagation, Resources, Result, SandboxConfig, SecurityContext, SecurityProfile,
    failed, images, is_not_found, labels, sandbox, started,
};
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountType,
};
use bollard::query_parameters::{StartContainerOptions, StopContainerOptionsBuilder};
use std::collections::HashMap;
use std::time::Duration;

/// What a stop may take beyond the grace period before the engine counts as unresponsive.
const STOP_MARGIN: Duration = Duration::from_secs(60);

impl DockerRuntime {
    pub(super) async fn create(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String> {
        let mut config = config.clone();
        if config.resources.oom_score_adj < 0 && !self.prepared.negative_oom_scores(&self.engine).await? {
            config.resources.oom_score_adj = 0;
        }
        for mount in &mut config.mounts {
            mount.host_path = self.on_engine(&mount.host_path);
        }
        let message_path = config.termination_message_path.clone();
        if !message_path.is_empty() && config.mounts.iter().all(|mount| mount.container_path != message_path) {
            let file = message_file(&config.name, config.attempt);
            let host_path = self.pod_files.create(&self.engine, sandbox_id, &file).await?;
            config.mounts.push(super::Mount {
                container_path: message_path,
                host_path,
                ..Default::default()
            });
        }
        let user = self.user(&config).await?;
        let mut body = plan(&config, sandbox_id, sandbox, user, &self.engine.cluster_id);
        let options = security_options(&config.security).map_err(|message| failed("create", &config.name, message))?;
        let group = self.pod_group(sandbox).await?;
        if let Some(host) = &mut body.host_config {
            host.security_opt = Some(options).filter(|options| !options.is_empty());
            host.cgroup_parent = group;
        }
        let name = labels::container_name(&config.name, &sandbox.pod, config.attempt);
        sandbox::create_named(&self.engine, &name, body).await
    }

    /// `uid[:gid]`, or empty for the image's own.
    async fn user(&self, config: &ContainerConfig) -> Result<String> {
        let security = &config.security;
        Ok(match (security.run_as_user, security.run_as_group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user.to_string(),
            (None, None) => String::new(),
            // Docker takes a group only beside a user.
            (None, Some(group)) => {
                let image = images::status(&self.engine, &config.image).await?.unwrap_or_default();
                let user = image.user.split(':').next().unwrap_or_default();
                format!("{}:{group}", if user.is_empty() { "0" } else { user })
            }
        })
    }

    pub(super) async fn start(&self, id: &str) -> Result<()> {
        let started = self
            .engine
            .docker
            .start_container(id, None::<StartContainerOptions>)
            .await;
        // A failed start changes the container without an event.
        self.statuses.forget(id);
        started.map_err(|error| self.engine.error("start", "container", id, error))?;
        started::complete(&self.engine, id).await;
        Ok(())
    }

    pub(super) async fn stop(&self, id: &str, grace_seconds: u32) -> Result<()> {
        let grace = i32::try_from(grace_seconds).unwrap_or(i32::MAX);
        let docker = self
            .engine
            .docker
            .clone()
            .with_timeout(Duration::from_secs(u64::from(grace_seconds)) + STOP_MARGIN);
        let options = StopContainerOptionsBuilder::default().t(grace).build();
        let stopped = docker.stop_container(id, Some(options)).await;
        self.statuses.forget(id);
        match stopped {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(self.engine.error("stop", "container", id, error)),
        }
    }

    pub(super) async fn update(&self, id: &str, resources: &Resources) -> Result<()> {
        // Zero stays as it is, for the engine as well.
        let unsigned = |value: u64| i64::try_from(value).ok().filter(|value| *value != 0);
        let memory = unsigned(resources.memory_limit_bytes);
        let body = ContainerUpdateBody {
            cpu_shares: unsigned(resources.cpu_shares),
            cpu_period: unsigned(resources.cpu_period),
            cpu_quota: Some(resources.cpu_quota).filter(|quota| *quota != 0),
            memory,
            memory_swap: memory,
            ..Default::default()
        };
        let updated = self.engine.docker.update_container(id, body).await;
        updated.map_err(|error| self.engine.error("update", "container", id, error))?;
        // systemd writes what the engine does not tell it of anew.
        started::complete(&self.engine, id).await;
        Ok(())
    }

    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let removed = sandbox::remove(&self.engine, id).await;
        self.statuses.forget(id);
        removed
    }

    pub(super) async fn termination_message(&self, id: &str) -> Result<Vec<u8>> {
        let status = self.status(id).await?;
        let file = message_file(&status.name, status.attempt);
        self.pod_files.tail(&self.engine, &status.sandbox_id, &file).await
    }
}

/// Name of a container's termination message among its pod's files. Container names are DNS labels.
fn message_file(container: &str, attempt: u32) -> String {
    format!("{container}_{attempt}_termination-message")
}

/// What Docker is asked for.
fn plan(
    config: &ContainerConfig,
    sandbox_id: &str,
    sandbox: &SandboxConfig,
    user: String,
    cluster_id: &str,
) -> ContainerCreateBody {
    let joined = format!("container:{sandbox_id}");
    let host = || "host".to_string();
    let security = &config.security;
    let resources = &config.resources;
    // Zero is unset.
    let unsigned = |value: u64| i64::try_from(value).ok().filter(|value| *value != 0);
    let memory = unsigned(resources.memory_limit_bytes);
    let mounts = config.mounts.iter().map(|mount| Mount {
        // Unlike `binds`, this fails when the source is missing instead of making a directory there.
        typ: Some(MountType::BIND),
        source: Some(mount.host_path.clone()),
        target: Some(mount.container_path.clone()),
        read_only: Some(mount.readonly),
        bind_options: bind_options(mount),
        ..Default::default()
    });
    let host_config = HostConfig {
        network_mode: Some(if sandbox.host_network { host() } else { joined.clone() }),
        uts_mode: sandbox.host_network.then(host),
        ipc_mode: Some(if sandbox.host_ipc { host() } else { joined.clone() }),
        pid_mode: match (sandbox.host_pid, sandbox.share_process_namespace) {
            (true, _) => Some(host()),
            (false, true) => Some(joined),
            (false, false) => config.target.as_ref().map(|target| format!("container:{target}")),
        },
        runtime: Some(sandbox.runtime_handler.clone()).filter(|handler| !handler.is_empty()),
        // Empty lists hide nothing; without lists the engine has its own.
        masked_paths: security.unmasked_proc.then(Vec::new),
        readonly_paths: security.unmasked_proc.then(Vec::new),
        mounts: Some(mounts.collect()),
        cpu_shares: unsigned(resources.cpu_shares),
        cpu_period: unsigned(resources.cpu_period),
        cpu_quota: Some(resources.cpu_quota).filter(|quota| *quota != 0),
        memory,
        // No swap on top of the memory.
        memory_swap: memory,
        oom_score_adj: Some(resources.oom_score_adj),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.readonly_rootfs),
        cap_add: Some(security.add_capabilities.clone()),
        cap_drop: Some(security.drop_capabilities.clone()),
        group_add: Some(security.supplemental_groups.iter().map(i64::to_string).collect()),
        // Readable through the engine's API whatever its default is, and bounded.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_string()),
            config: Some(HashMap::from([
                ("max-size".to_string(), config.logs.file_bytes_max.to_string()),
                ("max-file".to_string(), config.logs.files_max.to_string()),
            ])),
        }),
        ..Default::default()
    };
    let some = |list: &[String]| Some(list.to_vec()).filter(|list| !list.is_empty());
    ContainerCreateBody {
        image: Some(config.image.clone()),
        user: Some(user).filter(|user| !user.is_empty()),
        // With an entrypoint of ours Docker leaves the image's cmd out, as Kubernetes wants it.
        entrypoint: some(&config.command),
        cmd: some(&config.args),
        working_dir: Some(config.working_dir.clone()).filter(|path| !path.is_empty()),
        env: Some(
            config
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        ),
        labels: Some(labels::of_container(config, sandbox_id, &sandbox.pod, cluster_id)),
        open_stdin: Some(config.stdin),
        attach_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        tty: Some(config.tty),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        // Kubernetes has probes of its own and ignores the image's.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_string()]),
            ..Default::default()
        }),
        host_config: Some(host_config),
        ..Default::default()
    }
}

/// Propagation and recursion where the mount is not the usual one.
fn bind_options(mount: &super::Mount) -> Option<MountBindOptions> {
    use bollard::models::MountBindOptionsPropagationEnum::{RSHARED, RSLAVE};
    let propagation = match mount.propagation {
        Propagation::None => None,
        Propagation::HostToContainer => Some(RSLAVE),
        Propagation::Bidirectional => Some(RSHARED),
    };
    let (recursive, flat) = (mount.recursive_readonly, mount.readonly && !mount.recursive_readonly);
    if propagation.is_none() && !mount.readonly {
        return None;
    }
    Some(MountBindOptions {
        propagation,
        // Newer engines are recursive unless they are told; older ones ignore both.
        read_only_non_recursive: flat.then_some(true),
        read_only_force_recursive: recursive.then_some(true),
        ..Default::default()
    })
}

/// `--security-opt` of the command line. The engine's own seccomp profile is what it takes where none is named.
fn security_options(security: &SecurityContext) -> Result<Vec<String>, String> {
    let mut options = Vec::new();
    if security.no_new_privs {
        options.push("no-new-privileges".to_string());
    }
    if security.privileged {
        // The engine runs it without profiles, whichever are named (moby: `saveAppArmorConfig`).
        return Ok(options);
    }
    match &security.seccomp {
        SecurityProfile::RuntimeDefault => {}
        SecurityProfile::Unconfined => options.push("seccomp=unconfined".to_string()),
        SecurityProfile::Localhost(path) => {
            let wrong = |error: String| format!("cannot load seccomp profile {path:?}: {error}");
            let text = seccomp::read(path).map_err(wrong)?;
            // Its own parser has the last word; a file that is no JSON at all is told from here.
            let value: serde_json::Value = serde_json::from_str(&text)
                .map_err(|error| wrong(format!("decoding seccomp profile failed: {error}")))?;
            options.push(format!("seccomp={value}"));
        }
    }
    match &security.apparmor {
        None | Some(SecurityProfile::RuntimeDefault) => {}
        Some(SecurityProfile::Unconfined) => options.push("apparmor=unconfined".to_string()),
        Some(SecurityProfile::Localhost(name)) => options.push(format!("apparmor={name}")),
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_the_sandboxes_or_the_hosts() {
        let config = ContainerConfig::default();
        let plan = |sandbox: SandboxConfig| plan(&config, "s1", &sandbox, String::new(), "c").host_config.unwrap();
        let own = plan(SandboxConfig::default());
        assert_eq!(own.network_mode.as_deref(), Some("container:s1"));
        assert_eq!(own.ipc_mode.as_deref(), Some("container:s1"));
        assert_eq!((own.pid_mode, own.uts_mode), (None, None));
        let shared = plan(SandboxConfig {
            share_process_namespace: true,
            ..Default::default()
        });
        assert_eq!(shared.pid_mode.as_deref(), Some("container:s1"));
        let hosts = plan(SandboxConfig {
            host_network: true,
            host_pid: true,
            host_ipc: true,
            ..Default::default()
        });
        for mode in [hosts.network_mode, hosts.pid_mode, hosts.ipc_mode, hosts.uts_mode] {
            assert_eq!(mode.as_deref(), Some("host"));
        }
    }

    #[test]
    fn unset_is_left_to_the_image_and_the_engine() {
        let body = plan(
            &ContainerConfig::default(),
            "s1",
            &SandboxConfig::default(),
            String::new(),
            "c",
        );
        assert_eq!(
            (body.user, body.entrypoint, body.cmd, body.working_dir),
            (None, None, None, None)
        );
        let host = body.host_config.unwrap();
        assert_eq!(
            (host.memory, host.memory_swap, host.cpu_quota, host.cpu_shares),
            (None, None, None, None)
        );
    }

    #[test]
    fn limits_and_identity() {
        let config = ContainerConfig {
            command: vec!["/bin/app".into()],
            env: vec![("A".into(), "b=c".into())],
            resources: Resources {
                memory_limit_bytes: 64 << 20,
                cpu_quota: 50_000,
                cpu_period: 100_000,
                oom_score_adj: 900,
                ..Default::default()
            },
            security: SecurityContext {
                no_new_privs: true,
                supplemental_groups: vec![5],
                ..Default::default()
            },
            ..Default::default()
        };
        let body = plan(&config, "s1", &SandboxConfig::default(), "1000:2000".into(), "c");
        assert_eq!(body.user.as_deref(), Some("1000:2000"));
        assert_eq!(body.env.unwrap(), ["A=b=c"]);
        assert_eq!(
            (body.entrypoint.unwrap(), body.cmd),
            (vec!["/bin/app".to_string()], None)
        );
        let host = body.host_config.unwrap();
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.cpu_quota, host.oom_score_adj), (Some(50_000), Some(900)));
        assert_eq!(host.group_add.unwrap(), ["5"]);
        let options = security_options(&config.security).unwrap();
        assert_eq!(options, ["no-new-privileges", "seccomp=unconfined"]);
        let default = SecurityContext {
            seccomp: SecurityProfile::RuntimeDefault,
            apparmor: Some(SecurityProfile::Localhost("own".into())),
            ..Default::default()
        };
        assert_eq!(security_options(&default).unwrap(), ["apparmor=own"]);
        let absent = SecurityContext {
            seccomp: SecurityProfile::Localhost("/nonexistent/p.json".into()),
            ..Default::default()
        };
        assert_eq!(
            security_options(&absent).unwrap_err(),
            "cannot load seccomp profile \"/nonexistent/p.json\": open /nonexistent/p.json: no such file or directory"
        );
    }
}
