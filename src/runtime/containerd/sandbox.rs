//! Pod sandboxes: a pause process that holds the pod's namespaces (upstream: the CRI plugin's `sandbox_*.go`).

use super::super::cgroups;
use super::super::netns;
use super::super::oci::SandboxSpec;
use super::super::pause;
use super::record::{self, SandboxRecord, TYPE_CONTAINER, TYPE_SANDBOX};
use super::tasks::{is_alive, pid};
use super::{
    Duplex, Parts, Resources, Result, Sandbox, SandboxConfig, SandboxState, container, engine, failed, files,
    gone_is_fine, network_failed,
};
use containerd_client::services::v1::{Container, CreateContainerRequest, CreateTaskRequest};
use containerd_client::types::Mount;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio::net::TcpStream;

/// Addresses on their way to a label of the daemon's, where all others are found.
#[derive(Default)]
pub(super) struct Addresses(Mutex<Handed>);

#[derive(Default)]
struct Handed {
    pending: HashSet<Ipv4Addr>,
    last: Option<Ipv4Addr>,
}

impl Parts {
    pub(super) async fn run_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        let id = container::new_id();
        let user_ids = match config.user_namespace {
            true => Some(self.take_user_ids().await?),
            false => None,
        };
        let address = match config.host_network {
            true => Ok(None),
            false => self.take_address().await.map(Some),
        };
        let created = match address {
            Ok(address) => self.create_sandbox(&id, config, address, user_ids).await,
            Err(_) => Ok(()),
        };
        if let Some(first) = user_ids {
            self.user_ids_are_kept(first);
        }
        let address = address?;
        if let Some(address) = address {
            self.addresses.0.lock().pending.remove(&address);
        }
        let started = match created {
            Ok(()) => self.start_sandbox(&id, config, address, user_ids).await,
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => Ok(id),
            Err(error) => {
                // Nobody knows its id, so nobody else would.
                if let Err(error) = self.remove_sandbox(&id).await {
                    tracing::warn!(%error, id, "a sandbox that did not start cannot be removed");
                }
                Err(error)
            }
        }
    }

    async fn take_address(&self) -> Result<Ipv4Addr> {
        let addressed = self.engine.addressed().await?;
        let mut taken: HashSet<Ipv4Addr> = addressed.into_iter().map(|(address, _)| address).collect();
        let range = self.network.range();
        let mut handed = self.addresses.0.lock();
        taken.extend(handed.pending.iter());
        let address = range.next_free(&taken, handed.last).ok_or_else(|| {
            failed(
                "take an address from",
                &range.to_string(),
                "all addresses of the pod range are in use",
            )
        })?;
        handed.pending.insert(address);
        handed.last = Some(address);
        Ok(address)
    }

    async fn create_sandbox(
        &self,
        id: &str,
        config: &SandboxConfig,
        address: Option<Ipv4Addr>,
        user_ids: Option<u32>,
    ) -> Result<()> {
        let engine = &self.engine;
        let rootfs = files::pause_rootfs(engine)?;
        files::create_shared(
            engine,
            id,
            config,
            address.map(|address| address.to_string()).as_deref(),
        )?;
        if let Some(owner) = user_ids {
            files::give_shared(engine, id, owner)?;
        }
        let spec = SandboxSpec {
            config,
            // The pod's users may not be able to reach the directory: then the daemon mounts it.
            rootfs: user_ids.map_or(&rootfs, |_| Path::new("rootfs")),
            program: pause::PATH,
            cgroup: format!("{}/{id}", engine.pod_cgroup(&config.pod.uid)),
            limits: engine.limits,
            user_ids,
        };
        let spec = spec
            .build()
            .map_err(|error| failed("create", &config.pod.name, error))?;
        let request = engine.request(CreateContainerRequest {
            container: Some(Container {
                id: id.to_string(),
                labels: record::sandbox_labels(&engine.options.cluster_id, &config.pod, address, user_ids),
                runtime: Some(container::runtime(engine, &config.runtime_handler)?),
                spec: Some(container::spec_any(&spec)?),
                extensions: record::extensions(&SandboxRecord::of(config)),
                ..Default::default()
            }),
        });
        let created = engine.containers().create(request).await;
        created.map_err(|status| engine.error("create", "sandbox", &config.pod.name, status))?;
        self.events.learn(id, TYPE_SANDBOX, &config.pod.uid);
        Ok(())
    }

    async fn start_sandbox(
        &self,
        id: &str,
        config: &SandboxConfig,
        address: Option<Ipv4Addr>,
        user_ids: Option<u32>,
    ) -> Result<()> {
        let mut task = CreateTaskRequest {
            container_id: id.to_string(),
            ..Default::default()
        };
        if user_ids.is_some() {
            task.rootfs.push(Mount {
                r#type: "bind".to_string(),
                source: files::pause_rootfs(&self.engine)?.display().to_string(),
                options: ["rbind", "ro"].map(str::to_string).into(),
                ..Default::default()
            });
        }
        let pid = self.engine.create_task(task).await?;
        self.strays.told(id);
        // It was made with the task.
        self.limit_pod(&config.pod.uid, &config.resources);
        if let Some(address) = address {
            self.make_network().await?;
            let attached = self.network.attach(&namespace(pid), &interface(id), address).await;
            attached.map_err(|error| network_failed(&config.pod.name, &error))?;
            let record = SandboxRecord::of(config);
            if !record.host_ports.is_empty() {
                self.publish(Some((id, &record.host_ports))).await?;
            }
        }
        self.engine.start_task(id).await
    }

    /// What a pod's containers share. Where the groups are another's to write, each container still has its own limits.
    fn limit_pod(&self, uid: &str, wanted: &Resources) {
        if let Err(error) = cgroups::limit(Path::new(cgroups::ROOT), &self.engine.pod_cgroup(uid), wanted) {
            tracing::warn!(uid, error, "the containers of a pod are not limited together");
        }
    }

    pub(super) async fn update_sandbox(&self, id: &str, resources: &Resources) -> Result<()> {
        let found = self.engine.container(id, TYPE_SANDBOX).await?;
        let group = self.engine.pod_cgroup(record::label(&found, record::POD_UID));
        let limited = cgroups::limit(Path::new(cgroups::ROOT), &group, resources);
        limited.map_err(|error| failed("update", id, error))
    }

    pub(super) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let containers = self.containers_of(id).await?;
        try_join_all(containers.iter().map(|container| self.stop_now(&container.id))).await?;
        let Some(found) = gone_is_fine(self.engine.container(id, TYPE_SANDBOX).await.map(Some))? else {
            return Ok(());
        };
        self.engine.kill(id).await?;
        self.engine.delete_task(id).await?;
        if !record::label(&found, record::ADDRESS).is_empty() {
            let detached = self.network.detach(&interface(id)).await;
            detached.map_err(|error| network_failed(id, &error))?;
            // Only now may somebody else have it.
            gone_is_fine(self.engine.change(id, record::Change::NoAddress).await)?;
            if !record::record::<SandboxRecord>(&found).host_ports.is_empty() {
                self.publish(None).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let found = gone_is_fine(self.engine.container(id, TYPE_SANDBOX).await.map(Some))?;
        self.stop_sandbox(id).await?;
        let containers = self.containers_of(id).await?;
        let removals = containers.iter().map(|container| async {
            let removed = self.remove(&container.id).await;
            gone_is_fine(removed)
        });
        try_join_all(removals).await?;
        // Ids are ours, but come from outside.
        if !container::is_id(id) {
            return Ok(());
        }
        files::remove(&self.engine, id)?;
        self.strays.expect(id);
        if let Some(found) = found {
            files::remove_cgroups(&self.engine, record::label(&found, record::POD_UID), id);
            // Last: as long as it is there, what could not be removed is found.
            self.engine.delete_container(id).await?;
        }
        Ok(())
    }

    pub(super) async fn list_sandboxes(&self) -> Result<Vec<Sandbox>> {
        let listed = tokio::try_join!(self.engine.list(TYPE_SANDBOX, None), self.engine.all_tasks());
        let (containers, tasks) = listed?;
        let running = |container: &Container| tasks.get(&container.id).is_some_and(is_alive);
        Ok(containers.iter().map(|found| describe(found, running(found))).collect())
    }

    pub(super) async fn sandbox_status(&self, id: &str) -> Result<Sandbox> {
        let found = self.engine.container(id, TYPE_SANDBOX).await?;
        let task = self.engine.task(id).await?;
        Ok(describe(&found, task.as_ref().is_some_and(is_alive)))
    }

    /// The process that holds the namespaces of a sandbox.
    pub(super) async fn sandbox_pid(&self, id: &str) -> Result<u32> {
        self.engine.container(id, TYPE_SANDBOX).await?;
        match self.engine.task(id).await? {
            Some(task) if is_alive(&task) => {
                let silent = || {
                    failed(
                        "use",
                        id,
                        "containerd does not know the state of the sandbox at the moment",
                    )
                };
                pid(&task).ok_or_else(silent)
            }
            _ => Err(failed("use", id, "the sandbox does not run")),
        }
    }

    pub(super) async fn port_forward(&self, id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        let pid = self.sandbox_pid(id).await?;
        let failed = |message: String| failed("connect to", &format!("port {port} in the sandbox {id}"), message);
        let namespace = netns::open(&namespace(pid)).map_err(|error| failed(error.to_string()))?;
        // A socket stays in the namespace in which it was made.
        let connected = netns::within(namespace, move || async move {
            let stream = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(stream) => Ok(stream),
                Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error),
            };
            stream.and_then(TcpStream::into_std).map_err(PortError::Connect)
        });
        let stream = connected.await.map_err(|error: PortError| failed(error.to_string()))?;
        let stream = TcpStream::from_std(stream).map_err(|error| failed(error.to_string()))?;
        Ok(Box::new(stream))
    }

    /// The containers of a sandbox.
    async fn containers_of(&self, sandbox_id: &str) -> Result<Vec<Container>> {
        let condition = (record::SANDBOX_ID, sandbox_id);
        self.engine.list(TYPE_CONTAINER, Some(condition)).await
    }
}

#[derive(Debug, thiserror::Error)]
enum PortError {
    #[error(transparent)]
    Network(#[from] netns::NetworkError),
    #[error("{0}")]
    Connect(std::io::Error),
}

fn namespace(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/net"))
}

/// The host's end of the sandbox's interface. Names have at most 15 bytes, and the other end's is one longer.
fn interface(id: &str) -> String {
    format!("kr{}", id.get(..12).unwrap_or(id))
}

fn describe(found: &Container, running: bool) -> Sandbox {
    let record: SandboxRecord = record::record(found);
    let address = record::label(found, record::ADDRESS);
    Sandbox {
        id: found.id.clone(),
        pod: record.pod(),
        state: match running {
            true => SandboxState::Ready,
            false => SandboxState::NotReady,
        },
        created_at: engine::time(found.created_at.as_ref()).unwrap_or(SystemTime::UNIX_EPOCH),
        labels: record.labels,
        annotations: record.annotations,
        ips: Some(address.to_string())
            .filter(|address| !address.is_empty())
            .into_iter()
            .collect(),
    }
}
