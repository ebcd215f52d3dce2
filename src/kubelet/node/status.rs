//! The Node object from the machine's figures (upstream: `pkg/kubelet/nodestatus/setters.go`,
//! `kubelet_node_status.go`).

use super::figures::{Machine, Usage};
use crate::declared_features::{INIT_CONTAINER_RESIZE, POD_RESIZE, RESTART_ALL_CONTAINERS, WEB_SOCKETS};
use crate::kubelet::downward::NodeFigures;
use crate::kubelet::eviction::threshold::{Signal, Threshold};
use crate::kubelet::node_shutdown;
use crate::kubelet::pod::api_time;
use crate::quantity::{Format, Quantity};
use crate::runtime::{Features, Image, RuntimeVersion};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

/// Upstream's `nodeStatusMaxImages` and `MaxNamesPerImageInNodeStatus`.
const IMAGES_MAX: usize = 50;
const IMAGE_NAMES_MAX: usize = 5;
/// Upstream's hard eviction thresholds: pods cannot count on the rest.
const MEMORY_RESERVE_BYTES: u64 = 100 << 20;
const DISK_RESERVE_PERCENT: u64 = 10;

/// What the node's status is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub name: String,
    pub address: IpAddr,
    pub machine: Machine,
    pub usage: Usage,
    /// None with the reason why the runtime does not answer.
    pub runtime: Result<RuntimeVersion, String>,
    pub images: Vec<Image>,
    pub kubelet_version: String,
    pub kubelet_port: u16,
    pub pods_max: u32,
    /// When pods are evicted.
    pub thresholds: Vec<Threshold>,
    /// The conditions of pressure that are true.
    pub pressures: Vec<&'static str>,
    pub shutting_down: bool,
    /// What the engine can do.
    pub features: Features,
}

/// Labels that say what the node is; `kubernetes.io/hostname` is its name.
pub fn labels(facts: &Facts) -> BTreeMap<String, String> {
    let arch = facts.machine.architecture.as_str();
    let pairs = [
        ("beta.kubernetes.io/arch", arch),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", arch),
        ("kubernetes.io/hostname", &facts.name),
        ("kubernetes.io/os", "linux"),
    ];
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

pub fn annotations() -> BTreeMap<String, String> {
    let key = "volumes.kubernetes.io/controller-managed-attach-detach";
    BTreeMap::from([(key.to_owned(), "true".to_owned())])
}

/// A Node to be created.
pub fn node(facts: &Facts, now: SystemTime) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(facts.name.clone()),
            labels: Some(labels(facts)),
            annotations: Some(annotations()),
            ..ObjectMeta::default()
        },
        spec: None,
        status: Some(status(facts, None, now)),
    }
}

/// The status as it should be; transition times go on from `old`.
pub fn status(facts: &Facts, old: Option<&NodeStatus>, now: SystemTime) -> NodeStatus {
    let mut status = old.cloned().unwrap_or_default();
    let mut capacity = BTreeMap::from([
        (
            "cpu".to_owned(),
            Quantity::from_units(signed(facts.machine.cpus), Format::DecimalSi),
        ),
        ("memory".to_owned(), binary(facts.machine.memory_bytes)),
        (
            "pods".to_owned(),
            Quantity::from_units(i64::from(facts.pods_max), Format::DecimalSi),
        ),
    ]);
    let mut allocatable = capacity.clone();
    allocatable.insert("memory".to_owned(), binary(allocatable_memory(facts)));
    if let Some(disk) = facts.usage.disk {
        capacity.insert("ephemeral-storage".to_owned(), binary(disk.size_bytes));
        let usable = Quantity::from_units(signed(allocatable_disk(facts, disk.size_bytes)), Format::DecimalSi);
        allocatable.insert("ephemeral-storage".to_owned(), usable);
    }
    for (size, bytes) in &facts.machine.hugepages {
        let pages = Quantity::from_units(signed(*bytes), Format::BinarySi);
        capacity.insert(format!("hugepages-{size}"), pages);
        allocatable.insert(format!("hugepages-{size}"), pages);
    }
    // Resources that others advertise on the node (extended resources) stay.
    merge(&mut status.capacity, capacity);
    merge(&mut status.allocatable, allocatable);
    status.addresses = Some(vec![
        address("InternalIP", facts.address.to_string()),
        address("Hostname", facts.name.clone()),
    ]);
    status.daemon_endpoints = Some(NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint {
            port: i32::from(facts.kubelet_port),
        }),
    });
    status.node_info = Some(node_info(facts));
    status.images = Some(images(&facts.images));
    status.features = Some(NodeFeatures {
        supplemental_groups_policy: Some(facts.features.strict_groups),
    });
    status.runtime_handlers = Some(handlers(&facts.features));
    status.declared_features = Some(declared_features(&facts.features));
    let old = old.and_then(|old| old.conditions.clone()).unwrap_or_default();
    status.conditions = Some(conditions(facts, old, now));
    status
}

/// What pods may count on, in upstream's order.
fn declared_features(features: &Features) -> Vec<String> {
    let declared = [
        (WEB_SOCKETS, true),
        (POD_RESIZE, features.pod_limits),
        (INIT_CONTAINER_RESIZE, true),
        (RESTART_ALL_CONTAINERS, true),
    ];
    let declared = declared.into_iter().filter(|(_, declares)| *declares);
    declared.map(|(name, _)| name.to_owned()).collect()
}

/// What is set aside as huge pages is nobody's memory otherwise.
fn allocatable_memory(facts: &Facts) -> u64 {
    let pages: u64 = facts.machine.hugepages.values().sum();
    let memory = facts.machine.memory_bytes;
    let reserved = reserved(facts, Signal::MemoryAvailable, memory, MEMORY_RESERVE_BYTES);
    memory.saturating_sub(reserved.saturating_add(pages))
}

fn allocatable_disk(facts: &Facts, size_bytes: u64) -> u64 {
    let reserved = reserved(
        facts,
        Signal::NodeFsAvailable,
        size_bytes,
        size_bytes / 100 * DISK_RESERVE_PERCENT,
    );
    size_bytes.saturating_sub(reserved)
}

/// What pods are evicted to keep free (upstream: `pkg/kubelet/cm/helpers.go` `hardEvictionReservation`).
fn reserved(facts: &Facts, signal: Signal, capacity: u64, by_default: u64) -> u64 {
    if facts.thresholds.is_empty() {
        return by_default;
    }
    let mut hard = facts
        .thresholds
        .iter()
        .filter(|one| one.is_hard() && one.signal == signal);
    let bytes = hard.next().map_or(0, |one| one.value.of(capacity).value());
    bytes.max(0).unsigned_abs()
}

fn merge(list: &mut Option<BTreeMap<String, ApiQuantity>>, figures: BTreeMap<String, Quantity>) {
    let figures = figures
        .into_iter()
        .map(|(name, quantity)| (name, ApiQuantity(quantity.to_string())));
    list.get_or_insert_default().extend(figures);
}

fn signed(figure: u64) -> i64 {
    i64::try_from(figure).unwrap_or(i64::MAX)
}

/// Whole KiB, as the kernel counts memory.
fn binary(bytes: u64) -> Quantity {
    Quantity::from_units(signed(bytes / 1024 * 1024), Format::BinarySi)
}

fn address(kind: &str, address: String) -> NodeAddress {
    NodeAddress {
        type_: kind.to_owned(),
        address,
    }
}

fn node_info(facts: &Facts) -> NodeSystemInfo {
    let machine = &facts.machine;
    let runtime = match &facts.runtime {
        Ok(version) => format!("{}://{}", version.name, version.version),
        Err(_) => "://".to_owned(),
    };
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime,
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: facts.kubelet_version.clone(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        swap: Some(NodeSwapStatus {
            capacity: Some(signed(machine.swap_bytes)),
        })
        .filter(|_| machine.swap_bytes > 0),
        ..NodeSystemInfo::default()
    }
}

/// The engine's default runtime, whose name is empty, and the others.
fn handlers(features: &Features) -> Vec<NodeRuntimeHandler> {
    let mut names: Vec<&str> = features.handlers.iter().map(String::as_str).collect();
    names.push("");
    names.sort_unstable();
    let handler = |name: &str| NodeRuntimeHandler {
        name: Some(name.to_owned()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_readonly_mounts),
            user_namespaces: Some(features.user_namespace_handlers.iter().any(|handler| handler == name)),
        }),
    };
    names.into_iter().map(handler).collect()
}

fn names(image: &Image) -> Vec<String> {
    let all = image.repo_digests.iter().chain(&image.repo_tags);
    all.take(IMAGE_NAMES_MAX).cloned().collect()
}

/// The largest images.
fn images(images: &[Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&Image> = images.iter().collect();
    sorted.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.id.cmp(&b.id)));
    let named = sorted.into_iter().take(IMAGES_MAX).map(|image| ContainerImage {
        names: Some(names(image)),
        size_bytes: Some(signed(image.size_bytes)),
    });
    named
        .filter(|image| image.names.iter().flatten().next().is_some())
        .collect()
}

/// Our four conditions over the ones that are there.
fn conditions(facts: &Facts, mut conditions: Vec<NodeCondition>, now: SystemTime) -> Vec<NodeCondition> {
    let pressure = |kind, bad: (&str, &str), good: (&str, &str)| {
        let under = facts.pressures.contains(&kind);
        let (reason, message) = if under { bad } else { good };
        (kind, under, reason.to_owned(), message.to_owned())
    };
    let down = facts.runtime.as_ref().err();
    let down = down.map(|error| format!("container runtime is down: {error}"));
    let leaving = facts.shutting_down.then(|| node_shutdown::NOT_READY.to_owned());
    let (reason, message) = match (down, leaving) {
        (None, None) => ("KubeletReady", "kubelet is posting ready status".to_owned()),
        (Some(down), Some(leaving)) => ("KubeletNotReady", format!("[{down}, {leaving}]")),
        (Some(one), None) | (None, Some(one)) => ("KubeletNotReady", one),
    };
    let ready = ("Ready", reason == "KubeletReady", reason.to_owned(), message);
    let ours = [
        pressure(
            "MemoryPressure",
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ];
    for (kind, holds, reason, message) in ours {
        let status = if holds { "True" } else { "False" };
        let known = conditions.iter().position(|c| c.type_ == kind);
        let since = known.map(|index| &conditions[index]).filter(|c| c.status == status);
        let since = since.and_then(|c| c.last_transition_time.clone());
        let condition = NodeCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason),
            message: Some(message),
            last_heartbeat_time: Some(api_time(now)),
            last_transition_time: Some(since.unwrap_or_else(|| api_time(now))),
        };
        match known {
            Some(index) => conditions[index] = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

/// Whether the difference is more than the heartbeat.
pub fn changed(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(old) != still(new)
}

/// What containers without limits may use.
pub fn figures(facts: &Facts) -> NodeFigures {
    let disk = facts
        .usage
        .disk
        .map_or(0, |disk| allocatable_disk(facts, disk.size_bytes));
    NodeFigures {
        cpu_milli: signed(facts.machine.cpus).saturating_mul(1000),
        memory_bytes: signed(allocatable_memory(facts)),
        ephemeral_storage_bytes: signed(disk),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::eviction::threshold;
    use crate::kubelet::node::figures::{Disk, Processes};
    use std::time::Duration;

    fn facts() -> Facts {
        Facts {
            name: "n1".to_owned(),
            address: IpAddr::from([10, 0, 0, 1]),
            machine: Machine {
                cpus: 2,
                memory_bytes: 4 << 30,
                architecture: "amd64".to_owned(),
                ..Machine::default()
            },
            usage: Usage {
                memory_available_bytes: Some(1 << 30),
                memory_estimate_bytes: Some(1 << 30),
                disk: Some(Disk {
                    size_bytes: 100 << 30,
                    available_bytes: 50 << 30,
                    inodes: 1000,
                    inodes_free: 900,
                }),
                image_disk: None,
                processes: Some(Processes { max: 32768, used: 100 }),
            },
            runtime: Ok(RuntimeVersion {
                name: "docker".to_owned(),
                version: "27.0".to_owned(),
            }),
            images: Vec::new(),
            kubelet_version: "v1.37.0".to_owned(),
            kubelet_port: 10250,
            pods_max: 110,
            thresholds: Vec::new(),
            pressures: Vec::new(),
            shutting_down: false,
            features: Features {
                recursive_readonly_mounts: true,
                handlers: vec!["runc".to_owned()],
                ..Features::default()
            },
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn condition<'a>(status: &'a NodeStatus, kind: &str) -> &'a NodeCondition {
        status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap()
    }

    #[test]
    fn capacity_and_what_is_left_for_pods() {
        let status = status(&facts(), None, at(0));
        let figure = |list: &Option<BTreeMap<String, ApiQuantity>>, key: &str| list.as_ref().unwrap()[key].0.clone();
        assert_eq!(figure(&status.capacity, "cpu"), "2");
        assert_eq!(figure(&status.capacity, "memory"), "4Gi");
        assert_eq!(figure(&status.allocatable, "memory"), "3996Mi");
        assert_eq!(figure(&status.capacity, "pods"), "110");
        assert_eq!(status.node_info.unwrap().container_runtime_version, "docker://27.0");
        let mut facts = facts();
        facts.machine.hugepages = BTreeMap::from([("1Gi".to_owned(), 1 << 30), ("2Mi".to_owned(), 0)]);
        let status = super::status(&facts, None, at(0));
        for list in [&status.capacity, &status.allocatable] {
            assert_eq!(
                (figure(list, "hugepages-1Gi"), figure(list, "hugepages-2Mi")),
                ("1Gi".into(), "0".into())
            );
        }
        assert_eq!(figure(&status.allocatable, "memory"), "2972Mi");
        let allocatable = |hard: &str| {
            let mut facts = self::facts();
            facts.thresholds = threshold::parse(hard, "memory.available<3Gi", "memory.available=1m", "").unwrap();
            let list = super::status(&facts, None, at(0)).allocatable;
            (figure(&list, "memory"), figure(&list, "ephemeral-storage"))
        };
        let whole = (100u64 << 30).to_string();
        assert_eq!(allocatable("memory.available<1Gi"), ("3Gi".into(), whole));
        let half = (50u64 << 30).to_string();
        assert_eq!(
            allocatable("memory.available<25%,nodefs.available<50%"),
            ("3Gi".into(), half)
        );
    }

    #[test]
    fn conditions_follow_the_figures_and_keep_their_time() {
        let mut facts = facts();
        let first = status(&facts, None, at(0));
        assert_eq!(condition(&first, "Ready").status, "True");
        assert_eq!(
            condition(&first, "MemoryPressure").reason.as_deref(),
            Some("KubeletHasSufficientMemory")
        );

        let later = status(&facts, Some(&first), at(60));
        assert!(!changed(&first, &later), "only the heartbeat moved");
        assert_eq!(
            condition(&later, "Ready").last_transition_time,
            condition(&first, "Ready").last_transition_time
        );

        facts.pressures = vec!["MemoryPressure", "DiskPressure"];
        facts.runtime = Err("no socket".to_owned());
        let bad = status(&facts, Some(&later), at(120));
        assert!(changed(&later, &bad));
        assert_eq!(condition(&bad, "MemoryPressure").status, "True");
        assert_eq!(
            condition(&bad, "DiskPressure").reason.as_deref(),
            Some("KubeletHasDiskPressure")
        );
        assert_eq!(condition(&bad, "PIDPressure").status, "False");
        let ready = condition(&bad, "Ready");
        assert_eq!(ready.message.as_deref(), Some("container runtime is down: no socket"));
        assert_eq!(ready.last_transition_time, Some(api_time(at(120))));
        facts.shutting_down = true;
        let message = |facts: &Facts| {
            let ready = condition(&status(facts, Some(&bad), at(130)), "Ready").clone();
            assert_eq!(
                (ready.status.as_str(), ready.reason.as_deref()),
                ("False", Some("KubeletNotReady"))
            );
            ready.message.unwrap()
        };
        assert_eq!(
            message(&facts),
            "[container runtime is down: no socket, node is shutting down]"
        );
        facts.runtime = self::facts().runtime;
        assert_eq!(message(&facts), "node is shutting down");
    }
}
