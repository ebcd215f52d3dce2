//! This machine as a node: the container engine, and the kubelet on it (upstream: `cmd/kubelet/app`).

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use tokio_util::task::TaskTracker;

use super::{AppError, Core, Parts, namespaces, service_network};
use crate::config::{RuntimeKind, Settings};
use crate::kubelet::eviction::{EvictionPolicy, threshold};
use crate::kubelet::images::{ImagePolicy, garbage_plan};
use crate::kubelet::node_shutdown::{self, NodeShutdown};
use crate::kubelet::static_pods::StaticPodOptions;
use crate::kubelet::{self, FileSharing, Kubelet, KubeletOptions, PodPolicy};
use crate::registry;
use crate::registry::strategies::pod::PodStrategy;
use crate::registry::strategy::Strategy;
use crate::runtime::LogLimits;
use crate::runtime::choose::{Chosen, RuntimeChoice, RuntimeOptions, choose};
use crate::transport::listen::listen_or_any_port;
use crate::transport::pki::{in_container, write_private};
use crate::transport::serve::{PlainHttp, ServeOptions, serve};

/// Connects to the engine that the settings name; `None` where they name none.
pub(super) async fn choose_runtime(settings: &Settings, core: &Core) -> Result<Option<Chosen>, AppError> {
    if settings.runtime.kind == RuntimeKind::None {
        return Ok(None);
    }
    let cluster_id = namespaces::cluster_id(&core.client("system:apiserver", &["system:masters"])).await?;
    let options = runtime_options(settings, cluster_id, core.data_dir.path().join("runtime"));
    choose(&options)
        .await
        .map_err(|error| AppError::Runtime(Box::new(error)))
}

/// What the settings say of the engine.
pub(super) fn runtime_options(settings: &Settings, cluster_id: String, state_dir: PathBuf) -> RuntimeOptions {
    let choice = match settings.runtime.kind {
        RuntimeKind::Docker => RuntimeChoice::Docker,
        RuntimeKind::Containerd => RuntimeChoice::Containerd,
        RuntimeKind::Auto => RuntimeChoice::Auto,
        RuntimeKind::None => RuntimeChoice::None,
    };
    let set = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    RuntimeOptions {
        choice,
        cluster_id,
        docker_host: set(&settings.runtime.docker_host),
        containerd_address: set(&settings.runtime.containerd_address),
        containerd_namespace: set(&settings.runtime.containerd_namespace),
        containerd_image_namespaces: settings.runtime.containerd_image_namespaces.clone(),
        pod_range: set(&settings.runtime.pod_range),
        pod_bridge: set(&settings.runtime.pod_bridge),
        registries_dir: set(&settings.runtime.registries_dir).map(Into::into),
        state_dir,
    }
}

/// How images are got and removed.
fn image_policy(settings: &Settings, data_dir: &Path) -> Result<ImagePolicy, AppError> {
    let node = &settings.node;
    let wrong = |key: &'static str, reason: String| AppError::Setting { key, reason };
    let (high, low) = (node.image_gc_high_percent, node.image_gc_low_percent);
    if high > 100 {
        let reason = format!("{high} is not allowed: it must be between 0 and 100");
        return Err(wrong("node.image_gc_high_percent", reason));
    }
    if low >= high {
        let reason = format!("{low} is not allowed: it must be less than node.image_gc_high_percent, which is {high}");
        return Err(wrong("node.image_gc_low_percent", reason));
    }
    let (age_min, age_max) = (node.image_gc_age_min_seconds, node.image_gc_age_max_seconds);
    if age_max > 0 && age_max <= age_min {
        let reason = format!("{age_max} is not allowed: it must be more than node.image_gc_age_min_seconds");
        return Err(wrong("node.image_gc_age_max_seconds", reason));
    }
    let docker = std::env::var_os("DOCKER_CONFIG")
        .filter(|set| !set.is_empty())
        .map(PathBuf::from);
    let home = std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from);
    let directories = [
        Some(data_dir.to_owned()),
        Some(PathBuf::from("/var/lib/kubelet")),
        docker.or_else(|| home.map(|home| home.join(".docker"))),
        Some(PathBuf::from("/.docker")),
    ];
    Ok(ImagePolicy {
        pulls_max: node.image_pulls_max,
        credentials: directories
            .into_iter()
            .flatten()
            .map(|path| path.join("config.json"))
            .collect(),
        garbage: garbage_plan::Policy {
            high_percent: high,
            low_percent: low,
            age_min: Duration::from_secs(age_min),
            age_max: Duration::from_secs(age_max),
            ..garbage_plan::Policy::default()
        },
    })
}

/// Starts the kubelet; the answer ends its pods when the machine goes down.
pub(super) async fn start(
    settings: &Settings,
    core: &Core,
    chosen: &Chosen,
    parts: &mut Parts,
) -> Result<Arc<NodeShutdown>, AppError> {
    let name = node_name(&settings.node.name, core.data_dir.path())?;
    let node_ip = match settings.node.ip.as_str() {
        "" => None,
        ip => Some(ip.parse::<IpAddr>().map_err(|_| AppError::Setting {
            key: "node.ip",
            reason: format!("{ip:?} is not allowed: it must be an IP address"),
        })?),
    };
    let listener = listen_or_any_port(settings.node.kubelet_listen.0).map_err(AppError::KubeletListen)?;
    let listen = listener.local_addr().unwrap_or(settings.node.kubelet_listen.0);
    let cluster_dns = service_network::start(settings, core, chosen, &name, parts).await?;
    let options = KubeletOptions {
        cluster_dns,
        client: core.client(&format!("system:node:{name}"), &["system:nodes"]),
        node_name: name,
        node_ip,
        runtime: chosen.runtime.clone(),
        listen,
        data_dir: core.data_dir.path().to_owned(),
        files: file_sharing(chosen, core.data_dir.path()).await,
        version: super::KUBERNETES_VERSION.to_owned(),
        pods_max: settings.node.pods_max,
        eviction: eviction_policy(settings)?,
        shutdown_periods: node_shutdown::periods(
            settings.node.shutdown_grace_period_seconds,
            settings.node.shutdown_grace_period_critical_pods_seconds,
            &settings.node.shutdown_grace_period_by_pod_priority,
        )
        .map_err(|reason| AppError::Setting {
            key: "node.shutdown_grace_period_*",
            reason,
        })?,
        policy: PodPolicy {
            seccomp_default: settings.node.seccomp_default,
            allowed_unsafe_sysctls: settings.node.allowed_unsafe_sysctls.clone(),
            logs: LogLimits {
                file_bytes_max: settings.node.container_log_bytes_max,
                files_max: settings.node.container_log_files_max,
            },
            images: image_policy(settings, core.data_dir.path())?,
        },
        static_pods: (!settings.node.static_pod_path.as_os_str().is_empty()).then(|| StaticPodOptions {
            directory: settings.node.static_pod_path.clone(),
            complete: Arc::new(complete_static_pod),
        }),
    };
    let kubelet = Kubelet::new(options);
    let node_shutdown = kubelet.node_shutdown();
    let (sessions, stop) = (TaskTracker::new(), parts.stop.clone());
    let endpoint = kubelet::server::endpoint(
        kubelet.server_parts(),
        kubelet::server::ServerOptions::default(),
        stop.clone(),
        sessions.clone(),
    );
    let limits = ServeOptions::new("kubelet", PlainHttp::Refuse);
    let served = serve(
        listener,
        core.pki.kubelet_tls()?,
        Arc::new(endpoint),
        limits,
        stop.clone(),
    );
    parts.tasks.spawn("kubelet-server", async move {
        served.await;
        sessions.close();
        sessions.wait().await;
    });
    parts.tasks.spawn("kubelet", async move {
        if let Err(error) = kubelet.run(stop).await {
            tracing::error!(%error, "the kubelet failed");
        }
    });
    Ok(node_shutdown)
}

fn eviction_policy(settings: &Settings) -> Result<EvictionPolicy, AppError> {
    let node = &settings.node;
    let thresholds = threshold::parse(
        &node.eviction_hard,
        &node.eviction_soft,
        &node.eviction_soft_grace_period,
        &node.eviction_minimum_reclaim,
    );
    Ok(EvictionPolicy {
        thresholds: thresholds.map_err(|(key, reason)| AppError::Setting { key, reason })?,
        pod_grace_seconds_max: node.eviction_max_pod_grace_period_seconds,
        pressure_transition: Duration::from_secs(node.eviction_pressure_transition_period_seconds),
    })
}

/// What the API server does to a new pod: static pods run before it has seen them.
fn complete_static_pod(pod: serde_json::Value) -> Result<serde_json::Value, String> {
    let serde_json::Value::Object(mut pod) = pod else {
        return Err("it is no object".to_owned());
    };
    PodStrategy.default(&mut pod);
    let errors = PodStrategy.validate(&pod);
    match errors.is_empty() {
        true => Ok(pod.into()),
        false => {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Err(format!("invalid pod: [{}]", texts.join(", ")))
        }
    }
}

/// The configured name, else the one that this data directory's node had so far, else the host's. A node keeps its
/// name when the host gets another one, as every new container does: its pods are bound to it.
fn node_name(configured: &str, data_dir: &Path) -> Result<String, AppError> {
    let path = data_dir.join("node-name");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let name = match (configured, kept.trim()) {
        ("", "") => kubelet::default_node_name(),
        ("", kept) => kept.to_owned(),
        (configured, _) => configured.to_owned(),
    };
    let wrong = registry::validation::dns1123_subdomain(&name, false);
    if let Some(reason) = wrong.first() {
        return Err(AppError::Setting {
            key: "node.name",
            reason: format!("{name:?} is not allowed: {reason}"),
        });
    }
    if name != kept.trim() {
        let written = write_private(&path, format!("{name}\n").as_bytes());
        written.map_err(|source| AppError::Write { path, source })?;
    }
    Ok(name)
}

/// Whether the engine finds what krust writes, under the same path or one that the runtime knows.
async fn file_sharing(chosen: &Chosen, data_dir: &Path) -> FileSharing {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if has_same_mounts(&chosen.endpoint) {
        return FileSharing::Shared;
    }
    if !in_container() {
        // An engine with mounts of its own sees ours if the root passes them on, as init systems have it.
        return match is_shared_root(&mounts) {
            true => FileSharing::Shared,
            false => FileSharing::SamePaths,
        };
    }
    match chosen.runtime.share_directory(data_dir).await {
        Ok(true) => {
            return FileSharing::OwnFiles("krust runs in a container and does not see the host's files".to_owned());
        }
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "cannot find out whether pods can mount krust's files"),
    }
    if is_mounted_from_same_path(&mounts, data_dir) {
        return FileSharing::SamePaths;
    }
    FileSharing::Unavailable(format!(
        "krust runs in a container, and its container engine does not see {0}; start it with -v {0}:{0}",
        data_dir.display()
    ))
}

/// Whether the engine behind the socket lives in our mount namespace. The files that mark containers are no proof
/// of the contrary: they are also in machines made from container images, and an engine may run beside us.
fn has_same_mounts(endpoint: &str) -> bool {
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    let peer = std::os::unix::net::UnixStream::connect(path)
        .ok()
        .and_then(|socket| getsockopt(&socket, PeerCredentials).ok());
    // 0 stands for a process outside of our PID namespace.
    let theirs = peer
        .filter(|peer| peer.pid() > 0)
        .and_then(|peer| namespace(&peer.pid().to_string()));
    theirs.is_some() && theirs == namespace("self")
}

fn is_shared_root(mountinfo: &str) -> bool {
    let mut mounts = mountinfo.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    // The last one covers those before.
    let root = mounts.rfind(|fields| fields.get(4) == Some(&"/"));
    root.is_some_and(|fields| {
        fields
            .iter()
            .skip(6)
            .take_while(|field| **field != "-")
            .any(|f| f.starts_with("shared:"))
    })
}

/// Whether the mount that holds `path` has on the outside the path that it has here. Fields of mountinfo: id, parent,
/// device, root of the mount in its file system, mount point, … (proc_pid_mountinfo(5)).
fn is_mounted_from_same_path(mountinfo: &str, path: &Path) -> bool {
    let holding = mountinfo.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let (root, point) = (Path::new(*fields.get(3)?), Path::new(*fields.get(4)?));
        path.starts_with(point).then_some((root, point))
    });
    // The deepest mount is the one that counts; the container's own root always is another one's.
    let deepest = holding.max_by_key(|(_, point)| point.components().count());
    deepest.is_some_and(|(root, point)| root == point && point != Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_keeps_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let first = node_name("", directory.path()).unwrap();
        assert_eq!(first, kubelet::default_node_name());
        assert_eq!(node_name("other", directory.path()).unwrap(), "other");
        assert_eq!(node_name("", directory.path()).unwrap(), "other");
        let error = node_name("Not A Name", directory.path()).unwrap_err().to_string();
        assert!(error.contains("node.name") && error.contains("Not A Name"), "{error}");
    }

    #[test]
    fn a_socket_of_this_process_shares_its_mounts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("engine.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(has_same_mounts(&format!("unix://{}", path.display())));
        assert!(!has_same_mounts("unix:///nonexistent.sock"));
    }

    #[test]
    fn roots_pass_mounts_on_or_not() {
        let other = "30 22 8:1 /srv /srv rw shared:2 - ext4 /dev/sda1 rw\n";
        for (root, shared) in [
            ("22 1 0:20 / / rw shared:1 - ext4 /dev/a rw\n", true),
            ("22 1 0:20 / / rw master:1 - ext4 /dev/a rw\n", false),
            ("22 1 0:20 / / rw - ext4 /dev/a rw,shared:no\n", false),
        ] {
            assert_eq!(is_shared_root(&format!("{root}{other}")), shared, "{root}");
        }
    }

    #[test]
    fn a_directory_is_shared_when_it_is_mounted_under_its_own_path() {
        let mounts = "22 1 0:20 / / rw - overlay overlay rw\n\
            30 22 8:1 /var/lib/krust /var/lib/krust rw - ext4 /dev/sda1 rw\n\
            31 22 8:1 /srv/x /data rw - ext4 /dev/sda1 rw\n";
        assert!(is_mounted_from_same_path(mounts, Path::new("/var/lib/krust/pods")));
        assert!(!is_mounted_from_same_path(mounts, Path::new("/data")));
        assert!(!is_mounted_from_same_path(mounts, Path::new("/elsewhere")));
    }
}
