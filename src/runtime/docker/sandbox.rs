//! Pod sandboxes: a pause container with the pod's network, IPC and, if shared, process namespace
//! (upstream: dockershim's `docker_sandbox.go`).

use super::{
    DockerRuntime, Engine, Features, Protocol, Result, RuntimeError, Sandbox, SandboxConfig, SandboxState, failed,
    files, is_conflict, is_not_found, labels, prepare, status,
};
use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, EndpointSettings,
    HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions, PortBinding,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptions,
    StartContainerOptions,
};
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Upstream's `defaultSandboxCPUshares`.
const SANDBOX_CPU_SHARES: i64 = 2;

impl DockerRuntime {
    /// Names of the engine's runtimes.
    async fn handlers(&self) -> Result<Vec<String>> {
        let info = self.engine.docker.info().await;
        let info = info.map_err(|error| self.engine.error("ask for", "engine", "runtimes", error))?;
        Ok(info.runtimes.unwrap_or_default().into_keys().collect())
    }

    pub(super) async fn what_it_can(&self) -> Result<Features> {
        // Since API 1.44 mounts can be recursively read-only, if the kernel and runc can.
        let version = self.engine.docker.client_version();
        Ok(Features {
            strict_groups: false,
            recursive_readonly_mounts: (version.major_version, version.minor_version) >= (1, 44),
            pod_limits: self.sees_groups(),
            handlers: self.handlers().await?,
            // Its users are the same for all containers.
            user_namespace_handlers: Vec::new(),
        })
    }

    pub(super) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        if config.user_namespace {
            return Err(RuntimeError::Unsupported("a user namespace of a pod"));
        }
        let handler = &config.runtime_handler;
        if !handler.is_empty() && !self.handlers().await?.contains(handler) {
            let message = format!("no runtime for {handler:?} is configured");
            return Err(failed("failed to get", "sandbox runtime", message));
        }
        let image = self.prepared.pause_image(&self.engine).await?;
        // Not worth waiting for: the pause program is small.
        let spared = self.prepared.negative_oom_scores_known() == Some(true);
        let group = self.pod_group(config).await?;
        let mut body = plan(config, &self.engine.cluster_id, image, spared);
        if let Some(host) = &mut body.host_config {
            host.cgroup_parent.clone_from(&group);
        }
        if let (Some(group), Some(labels)) = (&group, &mut body.labels) {
            labels.insert(labels::POD_GROUP.to_string(), group.clone());
        }
        let name = labels::sandbox_name(&config.pod);
        let id = match create_named(&self.engine, &name, body.clone()).await {
            Err(RuntimeError::NotFound { .. }) => {
                self.prepared.restore_pause_image(&self.engine).await?;
                create_named(&self.engine, &name, body).await?
            }
            created => created?,
        };
        let started = self
            .engine
            .docker
            .start_container(&id, None::<StartContainerOptions>)
            .await;
        if let Err(error) = started {
            let error = self.engine.error("start", "sandbox", &name, error);
            // It would only be in the way of the next attempt.
            if let Err(error) = remove(&self.engine, &id).await {
                tracing::warn!(%error, name, "a sandbox that did not start cannot be removed");
            }
            return Err(error);
        }
        self.limit_new_pod(&id, group, &config.resources).await;
        Ok(id)
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let running = self.containers_of(id).await?.into_iter().filter(|container| {
            !matches!(
                container.state,
                Some(ContainerSummaryStateEnum::EXITED | ContainerSummaryStateEnum::CREATED)
            )
        });
        let containers = try_join_all(running.filter_map(|container| container.id).map(|id| async move {
            let killed = kill(&self.engine, &id).await;
            self.statuses.forget(&id);
            killed
        }));
        tokio::try_join!(containers, kill(&self.engine, id)).map(drop)
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let containers = self.containers_of(id).await?;
        let ids = containers.into_iter().filter_map(|container| container.id);
        let removals = try_join_all(ids.map(|id| async move { self.remove(&id).await }));
        // The sandbox ends meanwhile, and goes last: as long as it is there, what could not be removed is found.
        tokio::try_join!(removals, kill(&self.engine, id))?;
        self.pod_files.forget(id);
        remove(&self.engine, id).await?;
        self.remove_pod_group(id).await;
        Ok(())
    }

    pub(super) async fn list_sandboxes(&self) -> Result<Vec<Sandbox>> {
        let summaries = status::list_by_type(&self.engine, labels::TYPE_SANDBOX).await?;
        for summary in &summaries {
            let group = summary.labels.as_ref().and_then(|labels| labels.get(labels::POD_GROUP));
            self.pod_groups
                .learn(summary.id.as_deref().unwrap_or_default(), group.map(String::as_str));
        }
        Ok(summaries.into_iter().map(summarise).collect())
    }

    pub(super) async fn sandbox_status(&self, id: &str) -> Result<Sandbox> {
        let found = inspect(&self.engine, id).await?;
        self.pod_files.learn(id, &found);
        let state = found.state.as_ref().and_then(|state| state.status);
        let identity = labels::read(&found.config.and_then(|config| config.labels).unwrap_or_default());
        Ok(Sandbox {
            id: found.id.unwrap_or_default(),
            pod: identity.pod,
            state: match state {
                Some(ContainerStateStatusEnum::RUNNING) => SandboxState::Ready,
                _ => SandboxState::NotReady,
            },
            created_at: status::time(found.created.as_deref()).unwrap_or(SystemTime::UNIX_EPOCH),
            labels: identity.labels,
            annotations: identity.annotations,
            ips: found
                .network_settings
                .and_then(|settings| settings.networks)
                .map(addresses)
                .unwrap_or_default(),
        })
    }

    /// The app containers of a sandbox.
    async fn containers_of(&self, sandbox_id: &str) -> Result<Vec<ContainerSummary>> {
        let filters = vec![
            labels::cluster_filter(&self.engine.cluster_id),
            format!("{}={sandbox_id}", labels::SANDBOX_ID),
        ];
        status::list_filtered(&self.engine, filters).await
    }
}

/// A sandbox of this krust's, inspected.
pub(super) async fn inspect(engine: &Engine, id: &str) -> Result<bollard::models::ContainerInspectResponse> {
    let found = engine
        .docker
        .inspect_container(id, None::<InspectContainerOptions>)
        .await
        .map_err(|error| engine.error("inspect", "sandbox", id, error))?;
    if status::is_own(engine, &found, labels::TYPE_SANDBOX) {
        return Ok(found);
    }
    Err(RuntimeError::NotFound {
        what: "sandbox",
        id: id.to_string(),
    })
}

/// Creates a container under a name. One that this krust left under the name before it started it is replaced.
pub(super) async fn create_named(engine: &Engine, name: &str, body: ContainerCreateBody) -> Result<String> {
    let image = body.image.clone().unwrap_or_default();
    let options = CreateContainerOptionsBuilder::default().name(name).build();
    let create = || engine.docker.create_container(Some(options.clone()), body.clone());
    let created = match create().await {
        Err(conflict) if is_conflict(&conflict) => {
            make_way(engine, name, &body).await?;
            create().await
        }
        created => created,
    };
    let created = created.map_err(|error| match engine.error("create", "image", &image, error) {
        // The error is about the container unless it is about its image.
        RuntimeError::Failed { operation, message, .. } => failed(operation, name, message),
        other => other,
    })?;
    for warning in created.warnings {
        tracing::debug!(name, warning, "Docker warns about a container");
    }
    Ok(created.id)
}

/// Removes the dead holder of a name, if it is this krust's.
async fn make_way(engine: &Engine, name: &str, body: &ContainerCreateBody) -> Result<()> {
    let object_type = body
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::TYPE))
        .cloned()
        .unwrap_or_default();
    let holder = match engine
        .docker
        .inspect_container(name, None::<InspectContainerOptions>)
        .await
    {
        Ok(holder) => holder,
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(engine.error("inspect", "container", name, error)),
    };
    let id = holder.id.clone().unwrap_or_default();
    let running = holder.state.as_ref().and_then(|state| state.running) == Some(true);
    if running || !status::is_own(engine, &holder, &object_type) {
        return Err(failed(
            "create",
            name,
            format!("the name is in use by the container {id}"),
        ));
    }
    tracing::info!(name, id, "removing a dead container that holds the name of a new one");
    remove(engine, &id).await
}

/// Kills and removes, with the volumes that Docker made for it. What is gone is fine.
pub(super) async fn remove(engine: &Engine, id: &str) -> Result<()> {
    let options = RemoveContainerOptions {
        force: true,
        v: true,
        ..Default::default()
    };
    match engine.docker.remove_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(engine.error("remove", "container", id, error)),
    }
}

/// Returns when it has ended. What has ended, or is gone, is fine.
async fn kill(engine: &Engine, id: &str) -> Result<()> {
    let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
    match engine.docker.kill_container(id, Some(options)).await {
        Ok(()) => Ok(()),
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        Err(error) => Err(engine.error("kill", "container", id, error)),
    }
}

/// What Docker is asked for.
fn plan(config: &SandboxConfig, cluster_id: &str, image: &str, spared: bool) -> ContainerCreateBody {
    let mut exposed_ports = Vec::new();
    let mut port_bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for mapping in config
        .port_mappings
        .iter()
        .filter(|mapping| mapping.host_port != 0 && !config.host_network)
    {
        let protocol = match mapping.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let port = format!("{}/{protocol}", mapping.container_port);
        let binding = PortBinding {
            host_ip: Some(mapping.host_ip.clone()).filter(|ip| !ip.is_empty()),
            host_port: Some(mapping.host_port.to_string()),
        };
        exposed_ports.push(port.clone());
        port_bindings
            .entry(port)
            .or_default()
            .get_or_insert_default()
            .push(binding);
    }
    let extra_hosts = config
        .host_aliases
        .iter()
        .flat_map(|(address, names)| names.iter().map(move |name| format!("{name}:{address}")))
        .collect();
    let host_config = HostConfig {
        network_mode: config.host_network.then(|| "host".to_string()),
        pid_mode: config.host_pid.then(|| "host".to_string()),
        ipc_mode: Some(if config.host_ipc { "host" } else { "shareable" }.to_string()),
        port_bindings: Some(port_bindings),
        extra_hosts: Some(extra_hosts),
        dns: Some(config.dns_servers.clone()),
        dns_search: Some(config.dns_searches.clone()),
        dns_options: Some(config.dns_options.clone()),
        runtime: Some(config.runtime_handler.clone()).filter(|handler| !handler.is_empty()),
        sysctls: Some(config.sysctls.clone().into_iter().collect()),
        cpu_shares: Some(SANDBOX_CPU_SHARES),
        oom_score_adj: spared.then_some(prepare::SANDBOX_OOM_SCORE_ADJ),
        cap_drop: Some(vec!["ALL".to_string()]),
        security_opt: Some(vec!["no-new-privileges".to_string()]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("none".to_string()),
            config: None,
        }),
        mounts: Some(vec![Mount {
            typ: Some(MountType::VOLUME),
            target: Some(files::DIRECTORY.to_string()),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        }]),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(image.to_string()),
        // With the host's network the pod has the host's name.
        hostname: Some(config.hostname.clone()).filter(|name| !config.host_network && !name.is_empty()),
        labels: Some(labels::of_sandbox(config, cluster_id)),
        exposed_ports: Some(exposed_ports),
        host_config: Some(host_config),
        ..Default::default()
    }
}

fn summarise(summary: ContainerSummary) -> Sandbox {
    let identity = labels::read(&summary.labels.unwrap_or_default());
    let created = Duration::from_secs(summary.created.unwrap_or(0).try_into().unwrap_or(0));
    Sandbox {
        id: summary.id.unwrap_or_default(),
        pod: identity.pod,
        state: match summary.state {
            Some(ContainerSummaryStateEnum::RUNNING) => SandboxState::Ready,
            _ => SandboxState::NotReady,
        },
        created_at: SystemTime::UNIX_EPOCH + created,
        labels: identity.labels,
        annotations: identity.annotations,
        ips: summary
            .network_settings
            .and_then(|settings| settings.networks)
            .map(addresses)
            .unwrap_or_default(),
    }
}

/// Addresses in the order of the networks' names, IPv4 before IPv6.
fn addresses(networks: HashMap<String, EndpointSettings>) -> Vec<String> {
    let mut networks: Vec<_> = networks.into_iter().collect();
    networks.sort_by(|left, right| left.0.cmp(&right.0));
    let (v4, v6): (Vec<_>, Vec<_>) = networks
        .into_iter()
        .map(|(_, endpoint)| (endpoint.ip_address, endpoint.global_ipv6_address))
        .unzip();
    v4.into_iter()
        .chain(v6)
        .flatten()
        .filter(|address| !address.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{PodIdentity, PortMapping};
    use super::*;

    fn config() -> SandboxConfig {
        SandboxConfig {
            pod: PodIdentity {
                name: "web".into(),
                namespace: "default".into(),
                uid: "u".into(),
                attempt: 0,
            },
            hostname: "web".into(),
            port_mappings: vec![
                PortMapping {
                    protocol: Protocol::Tcp,
                    container_port: 80,
                    host_port: 8080,
                    host_ip: "127.0.0.1".into(),
                },
                PortMapping {
                    protocol: Protocol::Udp,
                    container_port: 53,
                    host_port: 0,
                    host_ip: String::new(),
                },
            ],
            host_aliases: vec![("10.0.0.1".into(), vec!["a".into(), "b".into()])],
            ..Default::default()
        }
    }

    #[test]
    fn only_host_ports_are_published() {
        let body = plan(&config(), "c", "pause", false);
        let host = body.host_config.unwrap();
        let ports = host.port_bindings.unwrap();
        assert_eq!(ports.len(), 1);
        let binding = &ports["80/tcp"].as_ref().unwrap()[0];
        assert_eq!(
            (binding.host_ip.as_deref(), binding.host_port.as_deref()),
            (Some("127.0.0.1"), Some("8080"))
        );
        assert_eq!(host.extra_hosts.unwrap(), ["a:10.0.0.1", "b:10.0.0.1"]);
        assert_eq!(host.oom_score_adj, None);
        assert_eq!(host.ipc_mode.as_deref(), Some("shareable"));
        assert_eq!(body.hostname.as_deref(), Some("web"));
    }

    #[test]
    fn the_hosts_network_has_the_hosts_name_and_publishes_nothing() {
        let config = SandboxConfig {
            host_network: true,
            ..config()
        };
        let body = plan(&config, "c", "pause", true);
        let host = body.host_config.unwrap();
        assert_eq!(host.network_mode.as_deref(), Some("host"));
        assert!(host.port_bindings.unwrap().is_empty());
        assert_eq!(body.hostname, None);
        assert_eq!(host.oom_score_adj, Some(prepare::SANDBOX_OOM_SCORE_ADJ));
    }
}
