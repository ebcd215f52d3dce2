//! The Docker backend: pods as a pause container whose namespaces the app containers join (upstream: dockershim).
//!
//! State is the engine's: what belongs to this krust carries its cluster label and is found again after a restart.

mod companion;
mod container;
mod events;
mod exec;
mod files;
mod frames;
mod host_files;
mod images;
mod labels;
mod logs;
mod memory;
mod own_container;
mod pod_group;
mod port_forward;
mod prepare;
mod raw;
mod sandbox;
mod started;
mod status;
mod usage;

use super::*;
use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::ContainerInspectResponse;
use raw::{Address, RawClient};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::OnceCell;
use tokio_util::task::AbortOnDropHandle;

/// See the module's description.
pub struct DockerRuntime {
    engine: Arc<Engine>,
    statuses: Arc<status::Cache>,
    events: events::Hub,
    prepared: Arc<prepare::Prepared>,
    pod_files: files::PodFiles,
    pod_groups: pod_group::PodGroups,
    /// Set when the engine knows krust's directory by another path.
    shared_directory: parking_lot::RwLock<Option<own_container::SharedDirectory>>,
    /// Finds out in the background what the first pod needs to know.
    _preparing: AbortOnDropHandle<()>,
}

/// The connection that the parts of this backend share.
struct Engine {
    docker: Docker,
    raw: RawClient,
    endpoint: String,
    cluster_id: String,
    /// In Go's words.
    architecture: String,
    /// Where krust runs in one of this engine's, once it was asked.
    own_container: OnceCell<Option<ContainerInspectResponse>>,
}

/// Connects to the engine at `endpoint` (`unix:///path`, `tcp://host:port`). Objects are marked with `cluster_id`.
pub async fn connect(endpoint: &str, cluster_id: &str) -> Result<Arc<dyn Runtime>> {
    Ok(DockerRuntime::connect(endpoint, cluster_id).await?)
}

/// Connects to the engine for the sake of its images.
pub async fn connect_images(endpoint: &str, cluster_id: &str) -> Result<Arc<dyn ImageStore>> {
    Ok(Arc::new(images::Store(Engine::connect(endpoint, cluster_id).await?)))
}

impl Engine {
    async fn connect(endpoint: &str, cluster_id: &str) -> Result<Arc<Engine>> {
        let unavailable = |message: String| RuntimeError::Unavailable {
            engine: "Docker",
            endpoint: endpoint.to_string(),
            message,
        };
        let address = Address::parse(endpoint)
            .ok_or_else(|| unavailable("only unix:// and tcp:// (without TLS) are supported".to_string()))?;
        let docker = Docker::connect_with_host(endpoint).map_err(|error| unavailable(error.to_string()))?;
        let version = docker
            .version()
            .await
            .map_err(|error| unavailable(root_cause(&error)))?;
        let docker = docker
            .negotiate_version()
            .await
            .map_err(|error| unavailable(root_cause(&error)))?;
        Ok(Arc::new(Engine {
            raw: RawClient::new(address, endpoint, &docker.client_version().to_string()),
            docker,
            endpoint: endpoint.to_string(),
            cluster_id: cluster_id.to_string(),
            architecture: version.arch.unwrap_or_default(),
            own_container: OnceCell::new(),
        }))
    }
}

impl DockerRuntime {
    pub async fn connect(endpoint: &str, cluster_id: &str) -> Result<Arc<DockerRuntime>> {
        let engine = Engine::connect(endpoint, cluster_id).await?;
        let statuses = Arc::new(status::Cache::default());
        let events = events::Hub::start(Arc::clone(&engine), Arc::clone(&statuses)).await?;
        let prepared = Arc::new(prepare::Prepared::default());
        let preparing = tokio::spawn({
            let (engine, prepared) = (Arc::clone(&engine), Arc::clone(&prepared));
            async move { prepared.ahead(&engine).await }
        });
        Ok(Arc::new(DockerRuntime {
            engine,
            statuses,
            events,
            prepared,
            pod_files: files::PodFiles::default(),
            pod_groups: pod_group::PodGroups::default(),
            shared_directory: parking_lot::RwLock::default(),
            _preparing: AbortOnDropHandle::new(preparing),
        }))
    }
}

impl Engine {
    /// Translates what a call on `what` `id` failed with.
    fn error(&self, operation: &'static str, what: &'static str, id: &str, error: EngineError) -> RuntimeError {
        match error {
            EngineError::DockerResponseServerError { status_code: 404, .. } => RuntimeError::NotFound {
                what,
                id: id.to_string(),
            },
            EngineError::DockerResponseServerError { message, .. } => failed(operation, id, message),
            EngineError::DockerStreamError { error } => failed(operation, id, error),
            error @ (EngineError::HyperLegacyError { .. }
            | EngineError::HyperResponseError { .. }
            | EngineError::IOError { .. }
            | EngineError::RequestTimeoutError
            | EngineError::SocketNotFoundError(_)) => RuntimeError::Unavailable {
                engine: "Docker",
                endpoint: self.endpoint.clone(),
                message: root_cause(&error),
            },
            error => failed(operation, id, error.to_string()),
        }
    }
}

/// The innermost error says what happened; the outer ones say which library noticed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn failed(operation: &'static str, subject: &str, message: impl Into<String>) -> RuntimeError {
    RuntimeError::Failed {
        operation,
        subject: subject.to_string(),
        message: message.into(),
    }
}

/// Whether the engine says that there is no such object.
fn is_not_found(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 404, .. })
}

/// Whether the engine says that the object's state forbids the call: to remove what is being removed, to kill
/// what has ended, to take a name that is in use.
fn is_conflict(error: &EngineError) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code: 409, .. })
}

#[async_trait]
impl Runtime for DockerRuntime {
    /// Asks the engine every time, so it tells whether the engine answers, and its version after an upgrade.
    async fn version(&self) -> Result<RuntimeVersion> {
        let version = self.engine.docker.version().await;
        let version = version.map_err(|error| self.engine.error("ask for", "engine", "version", error))?;
        Ok(RuntimeVersion {
            name: "docker".to_string(),
            version: version.version.unwrap_or_default(),
        })
    }

    async fn features(&self) -> Result<Features> {
        self.what_it_can().await
    }

    async fn share_directory(&self, directory: &Path) -> Result<bool> {
        let found = own_container::SharedDirectory::find(&self.engine, directory).await?;
        let Some(mut found) = found else {
            return Ok(false);
        };
        memory::find(&self.engine, &mut found).await?;
        *self.shared_directory.write() = Some(found);
        Ok(true)
    }

    async fn start_companion(&self, companion: &Companion) -> Result<bool> {
        companion::start(&self.engine, companion).await
    }

    async fn stop_companion(&self, name: &str) -> Result<()> {
        companion::stop(&self.engine, name).await
    }

    async fn look_at(&self, path: &Path) -> Result<Option<FileKind>> {
        self.look_at_host(path).await
    }

    async fn make_at(&self, path: &Path, kind: FileKind) -> Result<()> {
        self.make_at_host(path, kind).await
    }

    async fn make_below(&self, root: &Path, path: &Path) -> Result<()> {
        self.make_below_host(root, path).await
    }

    async fn mount_memory(&self, path: &Path, memory: Memory) -> Result<()> {
        self.hold_memory(path, memory).await
    }

    async fn unmount_memory(&self, path: &Path) -> Result<()> {
        self.release_memory(path).await
    }

    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String> {
        self.run_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        self.stop_sandbox(id).await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        self.remove_sandbox(id).await
    }

    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.limit_pod(id, resources).await
    }

    fn bounds_together(&self, id: &str) -> bool {
        self.pod_groups.of(id).is_some()
    }

    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.list_sandboxes().await
    }

    async fn pod_sandbox_status(&self, id: &str) -> Result<Sandbox> {
        self.sandbox_status(id).await
    }

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String> {
        self.create(sandbox_id, config, sandbox).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.start(id).await
    }

    async fn stop_container(&self, id: &str, grace_seconds: u32) -> Result<()> {
        self.stop(id, grace_seconds).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        self.remove(id).await
    }

    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        self.update(id, resources).await
    }

    async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        usage::read(&self.engine, ids).await
    }

    async fn written(&self, id: &str) -> Result<Written> {
        usage::written(&self.engine, id).await
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>> {
        self.list().await
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus> {
        self.status(id).await
    }

    async fn read_termination_message(&self, id: &str) -> Result<Vec<u8>> {
        self.termination_message(id).await
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        exec::exec(&self.engine, &self.events, id, request).await
    }

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession> {
        let status = self.status(id).await?;
        if status.state != ContainerState::Running {
            // The engine would take it, and then be silent.
            return Err(failed("attach", id, "the container does not run"));
        }
        exec::attach(&self.engine, id, request, status.tty).await
    }

    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>> {
        port_forward::connect(&self.engine, sandbox_id, port).await
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<LogLine>>> {
        let tty = self.status(id).await?.tty;
        logs::open(Arc::clone(&self.engine), id, tty, options).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        images::status(&self.engine, image).await
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        images::list(&self.engine).await
    }

    async fn mount_image(&self, image: &str, directory: &Path) -> Result<()> {
        images::unpack(&self.engine, image, directory).await
    }

    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>, progress: &PullProgress) -> Result<String> {
        let id = images::pull(&self.engine, image, auth, progress).await?;
        self.statuses.forget_image_refs();
        Ok(id)
    }

    async fn remove_image(&self, id: &str) -> Result<()> {
        images::remove(&self.engine, id).await
    }

    async fn image_directory(&self) -> Result<PathBuf> {
        images::directory(&self.engine).await
    }

    fn events(&self) -> BoxStream<'static, RuntimeEvent> {
        self.events.runtime_events()
    }
}
