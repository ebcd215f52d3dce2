//! The containerd backend: pods by the daemon's own services, without its CRI plug-in (upstream: that plug-in).
//!
//! State is the daemon's: what belongs to this krust carries its cluster label and is found again after a restart.
//! Networks, log files and specifications are krust's: see [`super::netns`], [`super::cri_log`], [`super::oci`].

mod container;
mod content;
mod engine;
mod events;
mod exec;
mod files;
mod host_ports;
mod image_mounts;
mod images;
mod pull;
mod record;
mod sandbox;
mod snapshots;
mod sources;
mod status;
mod strays;
mod tasks;
mod usage;
mod user_namespace;

use super::cri_log;
use super::netns::{NetworkError, PodNetwork, PodRange};
use super::*;
use engine::{Engine, failed, gone_is_fine};
use futures_util::StreamExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::task::AbortOnDropHandle;

pub const DEFAULT_NAMESPACE: &str = "k8s.io";
pub const DEFAULT_POD_RANGE: &str = "10.42.0.0/24";
pub const DEFAULT_POD_BRIDGE: &str = "krust0";
pub const DEFAULT_REGISTRIES_DIR: &str = "/etc/containerd/certs.d";

/// Where the daemon is, and what is krust's own on it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the daemon's socket.
    pub address: String,
    /// The daemon's namespace.
    pub namespace: String,
    /// Further namespaces whose images may be used.
    pub image_namespaces: Vec<String>,
    /// Marks this krust's objects.
    pub cluster_id: String,
    /// Where logs and other files of pods are kept. The daemon must see it under the same path.
    pub state_dir: PathBuf,
    /// IPv4 network of the pods.
    pub pod_range: String,
    /// Name of their bridge.
    pub pod_bridge: String,
    /// Settings of registries, as containerd has them.
    pub registries_dir: PathBuf,
    /// The krust program, which the shims start to write logs; None: this process's.
    pub logger: Option<PathBuf>,
}

/// See the module's description.
pub struct ContainerdRuntime {
    parts: Arc<Parts>,
    /// Reads the daemon's events.
    _events: AbortOnDropHandle<()>,
}

/// What calls and the reader of events share.
struct Parts {
    engine: Engine,
    images: images::Cache,
    pulls: pull::Pulls,
    network: PodNetwork,
    addresses: sandbox::Addresses,
    user_ids: user_namespace::Ranges,
    events: events::Hub,
    strays: Arc<strays::Strays>,
}

/// Connects to a daemon.
pub async fn connect(options: Options) -> Result<Arc<dyn Runtime>> {
    Ok(ContainerdRuntime::connect(options).await?)
}

/// Connects to a daemon for the sake of its images.
pub async fn connect_images(options: Options) -> Result<Arc<dyn ImageStore>> {
    Ok(Arc::new(pull::Store {
        engine: Engine::connect(options).await?,
        images: images::Cache::default(),
        pulls: pull::Pulls::default(),
    }))
}

impl ContainerdRuntime {
    pub async fn connect(mut options: Options) -> Result<Arc<ContainerdRuntime>> {
        let range: PodRange = options
            .pod_range
            .parse()
            .map_err(|error| failed("use", "runtime.pod_range", error))?;
        // The daemon resolves paths from its own working directory.
        options.state_dir =
            std::path::absolute(&options.state_dir).map_err(|error| failed("find", "the state directory", error))?;
        let strays = strays::Strays::new(options.state_dir.join("containerd-shims"));
        let parts = Arc::new(Parts {
            strays,
            network: PodNetwork::new(&options.pod_bridge, range),
            engine: Engine::connect(options).await?,
            images: images::Cache::default(),
            pulls: pull::Pulls::default(),
            addresses: sandbox::Addresses::default(),
            user_ids: user_namespace::Ranges::default(),
            events: events::Hub::default(),
        });
        snapshots::delete_abandoned_leases(&parts.engine).await?;
        parts.recover_network().await?;
        let reader = events::start(Arc::clone(&parts)).await?;
        Ok(Arc::new(ContainerdRuntime { parts, _events: reader }))
    }
}

/// Whether the kernel has mount_setattr: 5.12 and later.
fn has_mount_attributes() -> bool {
    // SAFETY: with these arguments the call does nothing but fail.
    let result = unsafe { libc::syscall(libc::SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<u8>(), 0) };
    result == -1 && nix::errno::Errno::last() != nix::errno::Errno::ENOSYS
}

fn network_failed(subject: &str, error: &NetworkError) -> RuntimeError {
    failed("set up the network of", subject, error)
}

#[async_trait]
impl Runtime for ContainerdRuntime {
    async fn version(&self) -> Result<RuntimeVersion> {
        Ok(RuntimeVersion {
            name: "containerd".to_string(),
            version: self.parts.engine.version.clone(),
        })
    }

    async fn features(&self) -> Result<Features> {
        let engine = &self.parts.engine;
        let user_namespaces = self.parts.user_namespaces_are_possible().await;
        let own = ["", container::RUNC].map(str::to_string);
        Ok(Features {
            strict_groups: true,
            // mount_setattr(2); runc can since 1.1, which is older than it.
            recursive_readonly_mounts: has_mount_attributes(),
            pod_limits: true,
            handlers: container::handlers(engine),
            user_namespace_handlers: own.into_iter().filter(|_| user_namespaces).collect(),
        })
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.parts.run_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.parts.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.parts.remove_sandbox(id).await
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.parts.update_sandbox(id, resources).await
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.parts.list_sandboxes().await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<Sandbox> {
        self.parts.sandbox_status(id).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String> {
        self.parts.create(sandbox_id, config, sandbox).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.parts.start(id).await
    }

    async fn stop_container(&self, id: &str, grace_seconds: u32) -> Result<()> {
        gone_is_fine(self.parts.stop(id, grace_seconds).await)
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        gone_is_fine(self.parts.remove(id).await)
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.parts.update(id, resources).await
    }

    async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        self.parts.usage(ids).await
    }

    async fn written(&self, id: &str) -> Result<Written> {
        self.parts.written(id).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        self.parts.list().await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.parts.status(id).await
    }

    async fn read_termination_message(&self, id: &str) -> Result<Vec<u8>> {
        self.parts.status(id).await?;
        files::termination_message(&self.parts.engine, id)
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        exec::exec(&self.parts, id, request).await
    }

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        exec::attach(&self.parts, id, request).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        self.parts.port_forward(sandbox_id, port).await
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let status = self.parts.status(id).await?;
        let directory = self.parts.engine.log_directory(id);
        // Of what has just ended the last lines may still be on their way.
        let options = LogOptions {
            follow: options.follow || status.state == ContainerState::Exited,
            ..options.clone()
        };
        let unreadable = {
            let id = id.to_string();
            move |error: std::io::Error| failed("read the log of", &id, error)
        };
        let lines = cri_log::reader::read(&directory, &options).map_err(&unreadable)?;
        Ok(lines.map(move |line| line.map_err(&unreadable)).boxed())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        images::status(&self.parts.engine, &self.parts.images, image).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        images::list(&self.parts.engine, &self.parts.images).await
    }

    async fn mount_image(&self, image: &str, directory: &Path) -> Result<()> {
        self.parts.mount_image(image, directory).await
    }

    async fn unmount_image(&self, directory: &Path) -> Result<()> {
        self.parts.unmount_image(directory).await
    }

    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>, progress: &PullProgress) -> Result<String> {
        self.parts.pull(image, auth, progress).await
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        images::remove(&self.parts.engine, &self.parts.images, id).await
    }

    async fn image_directory(&self) -> Result<PathBuf> {
        images::directory(&self.parts.engine).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.parts.events.runtime_events()
    }
}
