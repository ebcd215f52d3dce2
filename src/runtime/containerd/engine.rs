//! The connection to the daemon that the parts of this backend share (upstream: containerd's `client` package).

use super::super::cgroups::{self, Abilities};
use super::super::oci::{Limits, capabilities};
use super::{Options, Result, RuntimeError};
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::diff_client::DiffClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::introspection_client::IntrospectionClient;
use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Lists of containers hold their specifications.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const NAMESPACE_HEADER: &str = "containerd-namespace";
const LEASE_HEADER: &str = "containerd-lease";

pub(super) type Namespace = MetadataValue<Ascii>;

pub(super) struct Engine {
    channel: Channel,
    pub namespace: Namespace,
    /// Further ones whose images may be used.
    pub image_namespaces: Vec<Namespace>,
    pub options: Options,
    /// The program that writes logs.
    pub logger: PathBuf,
    pub version: String,
    pub limits: Limits,
    /// Where the daemon looks for shims, and they for runtimes.
    pub programs: OsString,
    /// Deletions of tasks under way, one at a time for each task.
    pub turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Engine {
    pub async fn connect(options: Options) -> Result<Engine> {
        let unavailable = |message: String| RuntimeError::Unavailable {
            engine: "containerd",
            endpoint: options.address.clone(),
            message,
        };
        let named = |name: &String| -> Result<Namespace> {
            let parsed = name.parse();
            parsed.map_err(|_| failed("use", name, "this is no name for a containerd namespace"))
        };
        let namespace = named(&options.namespace)?;
        let others = options
            .image_namespaces
            .iter()
            .filter(|name| **name != options.namespace);
        let image_namespaces = others.map(named).collect::<Result<Vec<_>>>()?;
        let logger = match &options.logger {
            Some(logger) => logger.clone(),
            None => std::env::current_exe().map_err(|error| failed("find", "krust's own program", error))?,
        };
        let channel = containerd_client::connect(&options.address).await;
        let channel = channel.map_err(|error| unavailable(root_cause(&error)))?;
        let version = VersionClient::new(channel.clone()).version(()).await;
        let version = version.map_err(|status| unavailable(status.message().to_string()))?;
        let pid = pid_of_daemon(Path::new(&options.address)).await?;
        Ok(Engine {
            channel,
            namespace,
            image_namespaces,
            logger,
            version: version.into_inner().version,
            limits: limits_of_daemon(&options.address, pid),
            programs: programs_of_daemon(pid),
            turns: Mutex::default(),
            options,
        })
    }

    /// A request in this krust's containerd namespace.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.request_in(&self.namespace, message)
    }

    pub fn request_in<T>(&self, namespace: &Namespace, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(NAMESPACE_HEADER, namespace.clone());
        request
    }

    /// A request whose results are kept as long as the lease.
    pub fn leased<T>(&self, lease: &str, message: T) -> Request<T> {
        let mut request = self.request(message);
        if let Ok(lease) = lease.parse() {
            request.metadata_mut().insert(LEASE_HEADER, lease);
        }
        request
    }

    pub fn containers(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn images(&self) -> ImagesClient<Channel> {
        ImagesClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    pub fn diff(&self) -> DiffClient<Channel> {
        DiffClient::new(self.channel.clone())
    }

    pub fn leases(&self) -> LeasesClient<Channel> {
        LeasesClient::new(self.channel.clone())
    }

    pub fn introspection(&self) -> IntrospectionClient<Channel> {
        IntrospectionClient::new(self.channel.clone())
    }

    pub fn events(&self) -> EventsClient<Channel> {
        EventsClient::new(self.channel.clone())
    }

    /// Translates what a call on `what` `id` failed with.
    pub fn error(&self, operation: &'static str, what: &'static str, id: &str, status: Status) -> RuntimeError {
        match status.code() {
            Code::NotFound => RuntimeError::NotFound {
                what,
                id: id.to_string(),
            },
            Code::Unavailable => RuntimeError::Unavailable {
                engine: "containerd",
                endpoint: self.options.address.clone(),
                message: status.message().to_string(),
            },
            _ => failed(operation, id, status.message()),
        }
    }

    /// Where a sandbox or container keeps its files.
    pub fn directory(&self, id: &str) -> PathBuf {
        self.options.state_dir.join("containerd").join(id)
    }

    /// Where its log is.
    pub fn log_directory(&self, id: &str) -> PathBuf {
        self.directory(id).join("log")
    }

    /// The cgroup of a pod.
    pub fn pod_cgroup(&self, pod_uid: &str) -> String {
        format!("/krust/{}/{pod_uid}", self.options.cluster_id)
    }
}

pub(super) fn failed(operation: &'static str, subject: &str, message: impl ToString) -> RuntimeError {
    RuntimeError::Failed {
        operation,
        subject: subject.to_string(),
        message: message.to_string(),
    }
}

/// What is gone is fine, for calls that take something away.
pub(super) fn gone_is_fine<T: Default>(result: Result<T>) -> Result<T> {
    match result {
        Err(RuntimeError::NotFound { .. }) => Ok(T::default()),
        other => other,
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

/// 0 where it cannot be seen.
async fn pid_of_daemon(socket: &Path) -> Result<i32> {
    let connected = tokio::net::UnixStream::connect(socket).await;
    let credentials = connected.and_then(|stream| stream.peer_cred());
    let credentials = credentials.map_err(|error| failed("look at", &socket.display().to_string(), error))?;
    Ok(credentials.pid().unwrap_or(0))
}

/// The daemon's PATH; if that cannot be seen, this process's.
fn programs_of_daemon(pid: i32) -> OsString {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut variables = environment.split(|byte| *byte == 0);
    let path = variables.find_map(|variable| variable.strip_prefix(b"PATH="));
    match path {
        Some(path) => OsStr::from_bytes(path).to_owned(),
        None => std::env::var_os("PATH").unwrap_or_default(),
    }
}

/// What the daemon's process may do, and so what containers can get from it.
fn limits_of_daemon(subject: &str, pid: i32) -> Limits {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let capabilities = read("status").ok().and_then(|status| {
        let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    let own_score = read("oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let cgroups = Abilities::read(Path::new(cgroups::ROOT));
    let Some(capabilities) = capabilities else {
        tracing::debug!(
            socket = subject,
            "the daemon's process cannot be seen; it is taken to have all rights"
        );
        return Limits {
            capabilities: u64::MAX,
            oom_score_adj_min: None,
            cgroups,
        };
    };
    let may_lower = capabilities & capabilities::SYS_RESOURCE != 0;
    if !may_lower {
        tracing::warn!(
            "containerd may not set negative oom scores (it lacks CAP_SYS_RESOURCE): they are raised to its own, \
             so guaranteed pods are not spared when memory runs out"
        );
    }
    Limits {
        capabilities,
        oom_score_adj_min: (!may_lower).then(|| own_score.unwrap_or(0)),
        cgroups,
    }
}

/// Reads the daemon's times.
pub(super) fn time(timestamp: Option<&prost_types::Timestamp>) -> Option<SystemTime> {
    let timestamp = timestamp?;
    // Go's zero time is long before 1970.
    let seconds = u64::try_from(timestamp.seconds).ok().filter(|seconds| *seconds > 0)?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, u32::try_from(timestamp.nanos).unwrap_or(0)))
}
