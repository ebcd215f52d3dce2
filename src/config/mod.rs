//! Typed settings: defaults < files < `KRUST_*` environment < flags (upstream: the components' configuration APIs).
//! `config/default.toml` shows every key with its default; a test keeps the two equal.

mod load;
mod values;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{SettingsError, Sources, load};
pub use values::{ListenAddress, LogFormat, RuntimeKind};

/// Everything that can be set. An empty text means the default that its comment names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    pub server: ServerSettings,
    pub storage: StorageSettings,
    pub runtime: RuntimeSettings,
    pub node: NodeSettings,
    pub network: NetworkSettings,
    pub controllers: ControllerSettings,
    pub scheduler: SchedulerSettings,
    pub log: LogSettings,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerSettings {
    /// Address and port of the API.
    pub listen: ListenAddress,
    /// Where the database, the certificates and the administrator's kubeconfig are kept. Empty: see
    /// [`default_data_dir`].
    pub data_dir: PathBuf,
    /// Further DNS names and addresses for the server's certificate.
    pub tls_sans: Vec<String>,
    /// A file of fixed tokens, one a line: token, user name, user id, and groups in quotes. Empty: none.
    pub token_auth_file: PathBuf,
    /// Who may sign users in on the way to this server.
    pub request_header: RequestHeaderSettings,
    /// Admission plug-ins to turn on besides those that are always on: `OwnerReferencesPermissionEnforcement`.
    pub enable_admission_plugins: Vec<String>,
    /// How long events are kept after they were last written.
    pub event_ttl_seconds: u64,
    /// Connections served at once; more wait.
    pub connections_max: usize,
    /// Requests served at once, which priority levels divide among them; more wait, or are told to come back.
    pub requests_max: usize,
    /// How long requests and writes may take to end when the server is told to stop.
    pub shutdown_timeout_seconds: u64,
}

/// Front proxies: whom they have signed in is named in headers (upstream: the flags `--requestheader-…`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestHeaderSettings {
    /// Authorities of the proxies' certificates, in PEM, besides the one in the data directory. Empty: that one alone.
    pub client_ca_file: PathBuf,
    /// Common names of the proxies' certificates. Empty: all.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_headers_prefix: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageSettings {
    /// `sqlite://PATH` or `postgres://…`. Empty: a SQLite file in the data directory.
    pub url: String,
    /// For how long a watch can resume from, or a list can continue at, an older revision.
    pub history_age_seconds: u64,
    /// At most this many changes are kept for that.
    pub history_events_max: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimeSettings {
    /// Which container engine runs the pods.
    pub kind: RuntimeKind,
    /// `unix://PATH` or `tcp://HOST:PORT`. Empty: `DOCKER_HOST`, then Docker's usual socket.
    pub docker_host: String,
    /// Path of containerd's socket. Empty: containerd's usual socket.
    pub containerd_address: String,
    /// containerd's namespace for images and pods. Empty: `k8s.io`.
    pub containerd_namespace: String,
    /// Further namespaces of containerd whose images may be used, like `default` (nerdctl's) or `moby` (Docker's).
    pub containerd_image_namespaces: Vec<String>,
    /// IPv4 network of the pods that run on containerd. Empty: `10.42.0.0/24`.
    pub pod_range: String,
    /// Name of the network bridge of those pods. Empty: `krust0`.
    pub pod_bridge: String,
    /// Directory of `HOST/hosts.toml` for pulls on containerd. Empty: `/etc/containerd/certs.d`.
    pub registries_dir: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSettings {
    /// Name of this machine's Node object. Empty: the host name in lower case.
    pub name: String,
    /// InternalIP of the node. Empty: the address of the default route's interface.
    pub ip: String,
    /// Address and port of the kubelet's HTTPS API; another port is taken if this one is.
    pub kubelet_listen: ListenAddress,
    /// At most this many pods run here.
    pub pods_max: u32,
    /// When pods are evicted, as upstream's `--eviction-hard`: `memory.available<100Mi,nodefs.available<10%`. Empty: never.
    pub eviction_hard: String,
    /// The same as upstream's `--eviction-soft`: pods are evicted when it was so for a while.
    pub eviction_soft: String,
    /// For how long, as upstream's `--eviction-soft-grace-period`: `memory.available=1m30s`.
    pub eviction_soft_grace_period: String,
    /// So much more is made free, as upstream's `--eviction-minimum-reclaim`: `memory.available=500Mi`.
    pub eviction_minimum_reclaim: String,
    /// Pods that a soft threshold evicts get at most this long to end. 0: as long as they say themselves.
    pub eviction_max_pod_grace_period_seconds: u32,
    /// A condition of pressure is told for so long after it was last seen.
    pub eviction_pressure_transition_period_seconds: u64,
    /// When the machine shuts down its pods have so long to end. 0: they are left alone.
    pub shutdown_grace_period_seconds: u32,
    /// The last part of that time, for critical pods alone.
    pub shutdown_grace_period_critical_pods_seconds: u32,
    /// Instead of both: `PRIORITY=SECONDS,…`, a time for the pods from each priority to the next. Empty: none.
    pub shutdown_grace_period_by_pod_priority: String,
    /// Containers that name no seccomp profile get the engine's own instead of none.
    pub seccomp_default: bool,
    /// Sysctls that pods may set although they concern others; a name may end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// A container's log file is put aside when it is this long.
    pub container_log_bytes_max: u64,
    /// So many log files are kept of a container.
    pub container_log_files_max: u32,
    /// So many images are pulled at once; 0: as many as are asked for.
    pub image_pulls_max: usize,
    /// Unused images are removed when the disk is this full, in percent; 100: never.
    pub image_gc_high_percent: u8,
    /// Until it is this full.
    pub image_gc_low_percent: u8,
    /// Images that are younger stay.
    pub image_gc_age_min_seconds: u64,
    /// Images that nobody has used for longer are removed; 0: never.
    pub image_gc_age_max_seconds: u64,
    /// A directory of files with pods that run here whatever the API says. Empty: none.
    pub static_pod_path: PathBuf,
    /// Where the volumes of the class `local-path` are made. Empty: `volumes` in the data directory.
    pub volumes_dir: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkSettings {
    /// Where Services have their addresses from: a range, or one of each IP family with a comma between.
    pub service_range: String,
    /// Which ports of nodes Services may have.
    pub node_port_range: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControllerSettings {
    /// Upstream's names of those that run: `*` is all of them, `-NAME` all but that one. None at all: objects stay as they
    /// are written.
    pub enabled: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchedulerSettings {
    /// Whether pods are given nodes.
    pub enabled: bool,
    /// A KubeSchedulerConfiguration file (`kubescheduler.config.k8s.io/v1`). Empty: upstream's defaults.
    pub config: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// What is logged, in `RUST_LOG`'s syntax; `RUST_LOG` itself comes first.
    pub filter: String,
    pub format: LogFormat,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            listen: ListenAddress::any(6443),
            data_dir: PathBuf::new(),
            tls_sans: Vec::new(),
            token_auth_file: PathBuf::new(),
            request_header: RequestHeaderSettings::default(),
            enable_admission_plugins: Vec::new(),
            event_ttl_seconds: 3600,
            connections_max: 20_000,
            requests_max: 600,
            shutdown_timeout_seconds: 10,
        }
    }
}

impl Default for RequestHeaderSettings {
    fn default() -> RequestHeaderSettings {
        let list = |name: &str| vec![name.to_owned()];
        RequestHeaderSettings {
            client_ca_file: PathBuf::new(),
            allowed_names: list("front-proxy-client"),
            username_headers: list("X-Remote-User"),
            uid_headers: list("X-Remote-Uid"),
            group_headers: list("X-Remote-Group"),
            extra_headers_prefix: list("X-Remote-Extra-"),
        }
    }
}

impl Default for StorageSettings {
    fn default() -> StorageSettings {
        StorageSettings {
            url: String::new(),
            history_age_seconds: 300,
            history_events_max: 100_000,
        }
    }
}

impl Default for ControllerSettings {
    fn default() -> ControllerSettings {
        ControllerSettings {
            enabled: vec!["*".to_owned()],
        }
    }
}

impl Default for SchedulerSettings {
    fn default() -> SchedulerSettings {
        SchedulerSettings {
            enabled: true,
            config: PathBuf::new(),
        }
    }
}

impl Default for NodeSettings {
    fn default() -> NodeSettings {
        NodeSettings {
            name: String::new(),
            ip: String::new(),
            kubelet_listen: ListenAddress::any(10250),
            pods_max: 110,
            eviction_hard: String::new(),
            eviction_soft: String::new(),
            eviction_soft_grace_period: String::new(),
            eviction_minimum_reclaim: String::new(),
            eviction_max_pod_grace_period_seconds: 0,
            eviction_pressure_transition_period_seconds: 300,
            shutdown_grace_period_seconds: 0,
            shutdown_grace_period_critical_pods_seconds: 0,
            shutdown_grace_period_by_pod_priority: String::new(),
            seccomp_default: false,
            allowed_unsafe_sysctls: Vec::new(),
            container_log_bytes_max: 10 << 20,
            container_log_files_max: 5,
            image_pulls_max: 4,
            image_gc_high_percent: 100,
            image_gc_low_percent: 80,
            image_gc_age_min_seconds: 120,
            image_gc_age_max_seconds: 0,
            static_pod_path: PathBuf::new(),
            volumes_dir: PathBuf::new(),
        }
    }
}

impl Default for NetworkSettings {
    fn default() -> NetworkSettings {
        NetworkSettings {
            service_range: "10.43.0.0/16".to_owned(),
            node_port_range: "30000-32767".to_owned(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

impl Settings {
    /// The data directory, with the default filled in.
    pub fn data_dir(&self) -> PathBuf {
        if self.server.data_dir.as_os_str().is_empty() {
            default_data_dir()
        } else {
            self.server.data_dir.clone()
        }
    }
}

/// `/var/lib/krust` for root, else `krust` below `$XDG_DATA_HOME` (usually `~/.local/share`).
pub fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/krust");
    }
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    data.unwrap_or_else(std::env::temp_dir).join("krust")
}
