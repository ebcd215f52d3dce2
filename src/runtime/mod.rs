//! Container runtimes behind one trait, modelled on CRI (upstream: `k8s.io/cri-api`).
//!
//! The backends: [`docker`], [`containerd`], [`fake`] (in memory, for tests and benches).
//! A new backend is a folder, an arm in [`choose`], and passing the contract tests.

pub mod archive;
pub mod cgroups;
pub mod changes;
pub mod choose;
pub mod containerd;
pub mod cri_log;
pub mod docker;
pub mod fake;
pub mod netns;
pub mod oci;
pub mod pause;
pub mod reference;
pub mod registry;
pub mod usage;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite};
pub use usage::{Usage, Written};

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("{what} {id:?} not found")]
    NotFound { what: &'static str, id: String },
    /// The reference is not a valid image name (InvalidImageName).
    #[error("couldn't parse image name {0:?}")]
    InvalidImageName(String),
    #[error("{operation} {subject}: {message}")]
    Failed {
        operation: &'static str,
        subject: String,
        message: String,
    },
    #[error("{engine} does not answer at {endpoint}: {message}")]
    Unavailable {
        engine: &'static str,
        endpoint: String,
        message: String,
    },
    #[error("{0} is not supported by this runtime")]
    Unsupported(&'static str),
}
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

impl RuntimeError {
    /// What the engine said, without the call that it said it to.
    pub fn cause(&self) -> String {
        match self {
            RuntimeError::Failed { message, .. } => message.clone(),
            other => other.to_string(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `docker` or `containerd`; the scheme of container ids and of nodeInfo.containerRuntimeVersion.
    pub name: String,
    pub version: String,
}

/// Who a sandbox belongs to; kept in labels, so that it is found again after a restart of krust.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodIdentity {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    /// Counts sandboxes of one pod, from 0.
    pub attempt: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    /// 0: not published on the host.
    pub host_port: u16,
    pub host_ip: String,
}

#[derive(Clone, Debug, Default)]
pub struct SandboxConfig {
    pub pod: PodIdentity,
    pub hostname: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub port_mappings: Vec<PortMapping>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub share_process_namespace: bool,
    /// Empty: the node's own resolv.conf.
    pub dns_servers: Vec<String>,
    pub dns_searches: Vec<String>,
    pub dns_options: Vec<String>,
    /// Lines appended to /etc/hosts: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
    /// Sysctls of the sandbox.
    pub sysctls: BTreeMap<String, String>,
    /// Which of the engine's runtimes runs the pod; empty: its default.
    pub runtime_handler: String,
    /// The pod has users of its own, which are nobody on the host.
    pub user_namespace: bool,
    /// What its containers have together.
    pub resources: Resources,
    /// Its containers may use more by themselves than they may together.
    pub bounded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxState {
    Ready,
    NotReady,
}

#[derive(Clone, Debug)]
pub struct Sandbox {
    pub id: String,
    pub pod: PodIdentity,
    pub state: SandboxState,
    pub created_at: SystemTime,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// First is the primary address; empty with the host's network or while there is none.
    pub ips: Vec<String>,
}

/// Linux resources of a container or a pod; 0 means unset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_shares: u64,
    /// Microseconds in each period.
    pub cpu_quota: i64,
    pub cpu_period: u64,
    pub memory_limit_bytes: u64,
    pub oom_score_adj: i64,
    /// Limits of huge pages by the size of a page, both in bytes; what is not named is 0. They do not change.
    pub huge_pages: BTreeMap<u64, u64>,
}

impl Resources {
    /// Enough for whoever has the one or the other.
    #[must_use]
    pub fn most(&self, other: &Resources) -> Resources {
        let quota = match (self.cpu_quota, other.cpu_quota) {
            (0, _) | (_, 0) => 0,
            (one, other) => one.max(other),
        };
        let memory = match (self.memory_limit_bytes, other.memory_limit_bytes) {
            (0, _) | (_, 0) => 0,
            (one, other) => one.max(other),
        };
        Resources {
            cpu_shares: self.cpu_shares.max(other.cpu_shares),
            cpu_quota: quota,
            memory_limit_bytes: memory,
            ..self.clone()
        }
    }
}

/// Which mounts made later are seen on the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    #[default]
    None,
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Default)]
pub struct Mount {
    pub container_path: String,
    pub host_path: String,
    pub readonly: bool,
    /// What is mounted below is read-only, too; needs `readonly`.
    pub recursive_readonly: bool,
    pub propagation: Propagation,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Directory,
    File,
    Socket,
    CharDevice,
    BlockDevice,
    Other,
}

/// A process of this program in a container of its own, in the network of the engine's host, which it may change.
#[derive(Clone, Debug)]
pub struct Companion {
    /// There is at most one of a name.
    pub name: &'static str,
    pub arguments: Vec<String>,
    /// A file for its eyes only, by name in the root directory.
    pub file: (&'static str, Vec<u8>),
}

/// A file system that is lost when it is unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Half of the host's memory without.
    pub size_bytes: Option<u64>,
    /// Of the directory.
    pub mode: u32,
    pub group: Option<u32>,
}

/// A seccomp or AppArmor profile, as in CRI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecurityProfile {
    /// The engine's own.
    RuntimeDefault,
    #[default]
    Unconfined,
    /// Path of a file that this process reads (seccomp), or name of a profile that the kernel has (AppArmor).
    Localhost(String),
}

/// What an engine can do that another cannot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Containers can be without the groups that the image gives their user.
    pub strict_groups: bool,
    pub recursive_readonly_mounts: bool,
    /// What the containers of a pod have together can be limited, and changed while they run.
    pub pod_limits: bool,
    /// Names of runtimes that a sandbox can ask for, besides the empty one.
    pub handlers: Vec<String>,
    /// Those, the empty one among them, by which a pod can have users of its own.
    pub user_namespace_handlers: Vec<String>,
}

/// How much of a container's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    pub file_bytes_max: u64,
    /// Counts the file that is written to.
    pub files_max: u32,
}

impl Default for LogLimits {
    /// Upstream's `containerLogMaxSize` and `containerLogMaxFiles`.
    fn default() -> Self {
        Self {
            file_bytes_max: 10 << 20,
            files_max: 5,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct SecurityContext {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub readonly_rootfs: bool,
    pub no_new_privs: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub seccomp: SecurityProfile,
    /// None: as the engine does it.
    pub apparmor: Option<SecurityProfile>,
    /// Nothing of /proc is hidden or read-only.
    pub unmasked_proc: bool,
    /// Without the groups that the image gives the user.
    pub strict_groups: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerConfig {
    /// The container's name in the pod.
    pub name: String,
    /// Counts restarts, from 0.
    pub attempt: u32,
    /// Image reference or id, present on the node.
    pub image: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's cmd when not empty, or when `command` is not empty.
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: Resources,
    pub security: SecurityContext,
    /// Signal name (`SIGUSR1`); empty: the image's, else SIGTERM.
    pub stop_signal: String,
    /// Path inside the container of the termination message file; its content is read through `read_termination_message`.
    pub termination_message_path: String,
    /// Id of a running container of the sandbox whose processes this one sees.
    pub target: Option<String>,
    pub logs: LogLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Clone, Debug)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub pod_uid: String,
    pub state: ContainerState,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub reason: String,
    pub message: String,
    /// As the pod asked for it.
    pub image: String,
    /// `repo@sha256:…`, or `sha256:…` for an image without a repository digest.
    pub image_ref: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub tty: bool,
    /// Who its first process was started as; None where the engine does not say.
    pub user: Option<oci::user::ResolvedUser>,
}

#[derive(Clone, Debug, Default)]
pub struct Image {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub size_bytes: u64,
    /// User of the image's config; empty is root.
    pub user: String,
    /// It is not for krust to remove: somebody else's containers run it, or it is held elsewhere.
    pub pinned: bool,
}

/// How far a pull has come, for whoever watches it. What is there already counts as got.
#[derive(Debug, Default)]
pub struct PullProgress {
    got_bytes: AtomicU64,
    /// 0: not known yet.
    total_bytes: AtomicU64,
}

impl PullProgress {
    pub fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn set_got(&self, bytes: u64) {
        self.got_bytes.store(bytes, Ordering::Relaxed);
    }

    pub fn add(&self, bytes: u64) {
        self.got_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were got, and those of the whole.
    pub fn read(&self) -> (u64, u64) {
        let total = self.total_bytes.load(Ordering::Relaxed);
        (self.got_bytes.load(Ordering::Relaxed).min(total), total)
    }
}

/// The images of an engine by themselves, for commands that run no pods.
#[async_trait]
pub trait ImageStore: Send + Sync + 'static {
    async fn list(&self) -> Result<Vec<Image>>;
    /// Takes in the images of an archive; returns their names.
    async fn load(&self, archive: Arc<archive::Archive>) -> Result<Vec<String>>;
}

#[derive(Clone, Debug, Default)]
pub struct RegistryAuth {
    /// `TOKEN_USER` for an identity token.
    pub username: String,
    pub password: String,
    pub server: String,
}

impl RegistryAuth {
    /// What docker's helpers call the user whose password is a token to get others with.
    pub const TOKEN_USER: &str = "<token>";

    /// The token to get others with, where there is no password.
    pub fn identity_token(&self) -> Option<&str> {
        (self.username == Self::TOKEN_USER).then_some(&self.password)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// The longest termination message that is kept, as upstream's `MaxContainerTerminationMessageLength`.
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// One line (or the part of a line that the engine kept apart). `text` keeps its final newline if it had one.
#[derive(Clone, Debug)]
pub struct LogLine {
    pub time: SystemTime,
    pub stream: LogStream,
    pub text: bytes::Bytes,
}

#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    pub follow: bool,
    /// Last n lines; None is all.
    pub tail_lines: Option<u64>,
    pub since: Option<SystemTime>,
}

pub type Reader = Pin<Box<dyn AsyncRead + Send>>;
pub type Writer = Pin<Box<dyn AsyncWrite + Send>>;

#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub command: Vec<String>,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

/// A running exec or attach. Dropping it ends the session on the engine's side.
pub struct ExecSession {
    /// Shutting the writer down closes the process's stdin.
    pub stdin: Option<Writer>,
    pub stdout: Option<Reader>,
    pub stderr: Option<Reader>,
    pub control: Box<dyn ExecControl>,
}

#[async_trait]
pub trait ExecControl: Send + Sync {
    async fn resize(&self, width: u16, height: u16) -> Result<()>;
    /// Waits for the end; the exit code (attach: 0 when the stream ends).
    async fn wait(&self) -> Result<i32>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeEventKind {
    SandboxStarted,
    SandboxStopped,
    ContainerStarted,
    ContainerExited,
    ContainerRemoved,
    /// The stream was interrupted: list again.
    Resync,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeEvent {
    pub kind: RuntimeEventKind,
    pub pod_uid: String,
    pub container_id: String,
}

impl RuntimeEvent {
    /// Events were lost: list again.
    pub fn resync() -> Self {
        RuntimeEvent {
            kind: RuntimeEventKind::Resync,
            pod_uid: String::new(),
            container_id: String::new(),
        }
    }
}

/// A byte stream both ways (port-forward).
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What the kubelet needs of an engine. All calls are idempotent where CRI says so: stopping what is stopped
/// and removing what is gone succeed. Only objects that carry this krust's labels are listed or touched.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Asks the engine: an error means that it does not answer.
    async fn version(&self) -> Result<RuntimeVersion>;

    /// Asks the engine what it can do.
    async fn features(&self) -> Result<Features> {
        Ok(Features::default())
    }

    /// Lets containers mount what krust writes below `directory`, although the engine knows it by another path: krust
    /// runs in a container of that engine, and the directory is in one of its volumes. `create_container` takes mounts
    /// under krust's path from then on. False where this is not so, or not known to the backend.
    async fn share_directory(&self, directory: &Path) -> Result<bool> {
        let _ = directory;
        Ok(false)
    }

    /// What is at a path of the engine's host, links followed; for a krust that does not see that host's files.
    async fn look_at(&self, path: &Path) -> Result<Option<FileKind>> {
        let _ = path;
        Err(RuntimeError::Unsupported("looking at files of its host"))
    }
    /// Makes a directory of mode 0755 on the engine's host, with those above, or an empty file of mode 0644.
    async fn make_at(&self, path: &Path, kind: FileKind) -> Result<()> {
        let _ = (path, kind);
        Err(RuntimeError::Unsupported("making files on its host"))
    }
    /// Makes the directories of a path below `root` on the engine's host, as far as there are none, with the mode of
    /// `root`. Links on the way are refused.
    async fn make_below(&self, root: &Path, path: &Path) -> Result<()> {
        let _ = (root, path);
        Err(RuntimeError::Unsupported("making directories on its host"))
    }
    /// Lets mounts of a path of the shared directory be those of a file system in memory, until `unmount_memory`.
    async fn mount_memory(&self, path: &Path, memory: Memory) -> Result<()> {
        let _ = (path, memory);
        Err(RuntimeError::Unsupported("file systems in memory"))
    }
    /// What is not mounted is fine.
    async fn unmount_memory(&self, path: &Path) -> Result<()> {
        let _ = path;
        Ok(())
    }

    /// Starts a companion, in place of an older one of its name. False if krust runs in no container of this engine.
    async fn start_companion(&self, companion: &Companion) -> Result<bool> {
        let _ = companion;
        Ok(false)
    }
    /// What is gone is fine.
    async fn stop_companion(&self, name: &str) -> Result<()> {
        let _ = name;
        Ok(())
    }

    /// Creates and starts the sandbox that holds the pod's namespaces; returns its id.
    async fn run_pod_sandbox(&self, config: &SandboxConfig) -> Result<String>;
    /// Stops every container of the sandbox at once and gives its network back.
    async fn stop_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Removes the sandbox and all its containers.
    async fn remove_pod_sandbox(&self, id: &str) -> Result<()>;
    /// Gives the containers of a running sandbox other shares and limits together. What is zero has no limit. Nothing where
    /// they are in no control group of their own.
    async fn update_pod_sandbox_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        let _ = (id, resources);
        Ok(())
    }
    /// Whether [`Runtime::update_pod_sandbox_resources`] limits the containers of this running sandbox.
    fn bounds_together(&self, id: &str) -> bool {
        let _ = id;
        true
    }
    async fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>>;
    async fn pod_sandbox_status(&self, id: &str) -> Result<Sandbox>;

    async fn create_container(
        &self,
        sandbox_id: &str,
        config: &ContainerConfig,
        sandbox: &SandboxConfig,
    ) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// Stop signal, then SIGKILL after `grace_seconds`. Returns when it has ended.
    async fn stop_container(&self, id: &str, grace_seconds: u32) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    /// Gives a running container other shares and limits. What is zero stays as it is.
    async fn update_container_resources(&self, id: &str, resources: &Resources) -> Result<()> {
        let _ = (id, resources);
        Err(RuntimeError::Unsupported("changing the resources of a container"))
    }
    /// All containers, also dead ones.
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus>;
    /// Content of the termination message file of a stopped container, at most 4096 bytes; empty if there is none.
    async fn read_termination_message(&self, id: &str) -> Result<Vec<u8>>;

    /// What these containers and sandboxes have used so far; those that do not run are left out.
    async fn usage(&self, ids: &[String]) -> Result<Vec<Usage>> {
        let _ = ids;
        Err(RuntimeError::Unsupported("usage of containers"))
    }
    /// What a container wrote outside of its volumes. May take the engine long.
    async fn written(&self, id: &str) -> Result<Written> {
        let _ = id;
        Err(RuntimeError::Unsupported("the size of a container's files"))
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<ExecSession>;
    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<ExecSession>;
    /// Connects to 127.0.0.1:port in the sandbox's network namespace.
    async fn port_forward(&self, sandbox_id: &str, port: u16) -> Result<Box<dyn Duplex>>;
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<LogLine>>>;

    /// None when the image is not on the node.
    async fn image_status(&self, image: &str) -> Result<Option<Image>>;
    async fn list_images(&self) -> Result<Vec<Image>>;
    /// Shows the files of an image, which is on the node, in `directory`: it is made, and containers can mount it. Done
    /// already, it is fine.
    async fn mount_image(&self, image: &str, directory: &Path) -> Result<()> {
        let _ = (image, directory);
        Err(RuntimeError::Unsupported("an image volume"))
    }
    /// Gives back what `mount_image` took, but for the directory and what is in it. Nothing there is fine.
    async fn unmount_image(&self, directory: &Path) -> Result<()> {
        let _ = directory;
        Ok(())
    }
    /// Pulls and returns the image id.
    async fn pull_image(&self, image: &str, auth: Option<&RegistryAuth>, progress: &PullProgress) -> Result<String>;
    /// Removes an image by its id, with all its names. One that is gone is fine.
    async fn remove_image(&self, id: &str) -> Result<()> {
        let _ = id;
        Err(RuntimeError::Unsupported("removing an image"))
    }
    /// A directory on the file system that holds the images, as the engine sees it.
    async fn image_directory(&self) -> Result<PathBuf> {
        Err(RuntimeError::Unsupported("the file system of images"))
    }

    /// Changes as they happen, of this krust's sandboxes and containers. Ends never; breaks are a `Resync`.
    fn events(&self) -> BoxStream<'static, RuntimeEvent>;
}
