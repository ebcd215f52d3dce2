//! Whom to end, and what they are told (upstream: `pkg/kubelet/eviction/helpers.go`, `eviction_manager.go`). Pure.

use super::threshold::{Met, Signal};
use crate::kubelet::pod;
use crate::kubelet::pod::CRITICAL_PRIORITY;
use crate::kubelet::resources;
use crate::kubelet::stats::files::PodFiles;
use crate::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::Pod;
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a pod uses; None of a figure that is not known.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// Working set of each container.
    pub memory: BTreeMap<String, u64>,
    pub memory_of_pod: u64,
    pub processes: u64,
    pub files: Arc<PodFiles>,
}

#[derive(Clone, Debug)]
pub struct Candidate {
    pub pod: Arc<Pod>,
    /// None: nothing is known of it, which makes it the first to go.
    pub used: Option<Used>,
}

/// Which volumes of a pod are on the node's disk.
fn on_disk(pod: &Pod, volume: &str) -> bool {
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let found = volumes.iter().find(|known| known.name == volume);
    let medium = found.and_then(|known| known.empty_dir.as_ref()?.medium.as_deref());
    medium != Some("Memory")
}

/// Bytes and inodes of the node's disk.
fn disk(pod: &Pod, files: &PodFiles) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    for (_, used) in files.volumes.iter().filter(|(name, _)| on_disk(pod, name)) {
        bytes += used.bytes;
        inodes += used.inodes;
    }
    for written in files.containers.values() {
        bytes += written.bytes + written.log_bytes;
        inodes += written.inodes.unwrap_or(0);
    }
    (bytes, inodes)
}

fn amount(candidate: &Candidate, resource: &str) -> Option<i64> {
    let used = candidate.used.as_ref()?;
    let amount = match resource {
        "memory" => used.memory_of_pod,
        "pids" => used.processes,
        "inodes" => disk(&candidate.pod, &used.files).1,
        _ => disk(&candidate.pod, &used.files).0,
    };
    Some(i64::try_from(amount).unwrap_or(i64::MAX))
}

fn priority(pod: &Pod) -> i32 {
    pod::spec(pod).priority.unwrap_or(0)
}

/// Static pods and those that the system cannot do without.
pub fn is_critical(pod: &Pod) -> bool {
    let source = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get("kubernetes.io/config.source"));
    source.is_some_and(|source| source != "api") || priority(pod) >= CRITICAL_PRIORITY
}

/// Sorts those that go first to the front: who uses more than was asked for, then the less important, then who is
/// furthest above what was asked for.
pub fn rank(candidates: &mut [Candidate], signal: Signal) {
    let resource = signal.resource();
    // There are no requests for processes and inodes.
    let request = |candidate: &Candidate| match resource {
        "memory" | "ephemeral-storage" => resources::pod_request(&candidate.pod, resource),
        _ => 0,
    };
    candidates.sort_by(|a, b| {
        let (Some(used_a), Some(used_b)) = (amount(a, resource), amount(b, resource)) else {
            return b.used.is_none().cmp(&a.used.is_none());
        };
        let (over_a, over_b) = (used_a - request(a), used_b - request(b));
        let exceeds = match resource {
            "pids" => Ordering::Equal,
            _ => Reverse(over_a > 0).cmp(&Reverse(over_b > 0)),
        };
        exceeds
            .then_with(|| priority(&a.pod).cmp(&priority(&b.pod)))
            .then_with(|| over_b.cmp(&over_a))
    });
}

fn binary(bytes: i64) -> String {
    Quantity::from_units(bytes, Format::BinarySi).to_string()
}

/// What the pod's status says.
pub fn message(met: &Met, candidate: &Candidate) -> String {
    let resource = met.signal.resource();
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        met.wanted, met.available
    );
    let Some(used) = &candidate.used else {
        return text;
    };
    for container in pod::app_containers(&candidate.pod) {
        let bytes = match resource {
            "memory" => used.memory.get(&container.name).copied(),
            "ephemeral-storage" => used
                .files
                .containers
                .get(&container.name)
                .map(|w| w.bytes + w.log_bytes),
            _ => None,
        };
        let Some(bytes) = bytes.and_then(|bytes| i64::try_from(bytes).ok()) else {
            continue;
        };
        let request = resources::request(container, resource);
        if bytes > request.map_or(0, Quantity::value) {
            let shown = request.map_or("0".to_owned(), |request| request.to_string());
            text += &format!(
                "Container {} was using {}, request is {shown}, has larger consumption of {resource}. ",
                container.name,
                binary(bytes)
            );
        }
    }
    text
}

/// Whether the pod sets a limit for what its files take: of volumes, and of containers.
pub fn limits(pod: &Pod) -> (bool, bool) {
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let sizes = volumes
        .iter()
        .filter_map(|volume| volume.empty_dir.as_ref()?.size_limit.as_ref());
    let containers = pod::app_containers(pod).iter();
    let mut storage = containers.filter_map(|container| resources::limit(container, "ephemeral-storage"));
    (sizes.count() > 0, storage.next().is_some())
}

/// Why the pod's files are more than it may have.
pub fn over_limit(pod: &Pod, files: &PodFiles) -> Option<String> {
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    for volume in pod::spec(pod).volumes.as_deref().unwrap_or_default() {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref()?.0.parse::<Quantity>().ok());
        let Some(limit) = limit.filter(|limit| limit.value() > 0) else {
            continue;
        };
        let used = files.volumes.get(&volume.name).map_or(0, |used| used.bytes);
        if signed(used) > limit.value() {
            let name = &volume.name;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "
            ));
        }
    }
    let containers = pod::app_containers(pod).iter();
    let limited: Vec<_> = containers
        .filter_map(|one| Some((&one.name, resources::limit(one, "ephemeral-storage")?)))
        .collect();
    let total = limited.iter().map(|(_, limit)| *limit).reduce(Quantity::plus)?;
    if signed(disk(pod, files).0) > total.value() {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        ));
    }
    for (name, limit) in limited {
        let written = files
            .containers
            .get(name)
            .map_or(0, |written| written.bytes + written.log_bytes);
        if limit.value() > 0 && signed(written) > limit.value() {
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{limit}\". "
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::stats::disk::DiskUsage;
    use crate::runtime::Written;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, requests: Value) -> Arc<Pod> {
        let container = json!({"name": "c", "resources": {"requests": requests}});
        let pod = json!({"metadata": {"name": name}, "spec": {"priority": priority, "containers": [container]}});
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn candidate(name: &str, priority: i32, request: Option<&str>, used: Option<u64>) -> Candidate {
        let requests = request.map_or(
            json!({}),
            |request| json!({"memory": request, "ephemeral-storage": request}),
        );
        let used = used.map(|used| Used {
            memory: BTreeMap::from([("c".to_owned(), used)]),
            memory_of_pod: used,
            processes: used >> 20,
            files: Arc::new(PodFiles {
                volumes: BTreeMap::from([(
                    "v".to_owned(),
                    DiskUsage {
                        bytes: used,
                        inodes: used >> 20,
                    },
                )]),
                containers: BTreeMap::new(),
            }),
        });
        Candidate {
            pod: pod(name, priority, requests),
            used,
        }
    }

    fn order(signal: Signal) -> Vec<String> {
        let mi = |count: u64| Some(count << 20);
        let mut all = [
            candidate("within", 0, Some("100Mi"), mi(90)),
            candidate("important", 1000, None, mi(500)),
            candidate("a-little-over", 0, Some("100Mi"), mi(101)),
            candidate("much-over", 0, Some("100Mi"), mi(300)),
            candidate("asked-for-nothing", 0, None, mi(250)),
            candidate("unknown", 5, None, None),
            candidate("less-important", -1, Some("100Mi"), mi(101)),
        ];
        rank(&mut all, signal);
        all.iter().map(|one| pod::name(&one.pod).to_owned()).collect()
    }

    #[test]
    fn ranking() {
        let by_request = [
            "unknown",
            "less-important",
            "asked-for-nothing",
            "much-over",
            "a-little-over",
            "important",
            "within",
        ];
        assert_eq!(order(Signal::MemoryAvailable), by_request);
        assert_eq!(order(Signal::NodeFsAvailable), by_request);
        let by_priority = [
            "unknown",
            "less-important",
            "much-over",
            "asked-for-nothing",
            "a-little-over",
            "within",
            "important",
        ];
        assert_eq!(order(Signal::PidAvailable), by_priority);
    }

    #[test]
    fn messages() {
        let met = Met {
            signal: Signal::MemoryAvailable,
            wanted: "100Mi".to_owned(),
            available: "50Mi".to_owned(),
        };
        assert_eq!(
            message(&met, &candidate("p", 0, Some("10Mi"), Some(20 << 20))),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using \
             20Mi, request is 10Mi, has larger consumption of memory. "
        );
        let within = message(&met, &candidate("p", 0, Some("30Mi"), Some(20 << 20)));
        assert!(within.ends_with("available: 50Mi. "), "{within}");
    }

    #[test]
    fn limits_of_files() {
        let pod =
            |spec: Value| -> Pod { serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap() };
        let files = |volume: u64, written: u64| PodFiles {
            volumes: BTreeMap::from([(
                "v".to_owned(),
                DiskUsage {
                    bytes: volume,
                    inodes: 1,
                },
            )]),
            containers: BTreeMap::from([(
                "a".to_owned(),
                Written {
                    bytes: written,
                    inodes: None,
                    log_bytes: 1,
                },
            )]),
        };
        let limited =
            |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {"ephemeral-storage": limit}}});
        let volume =
            pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}));
        assert_eq!(limits(&volume), (true, false));
        assert_eq!(over_limit(&volume, &files(1 << 20, 0)), None);
        assert_eq!(
            over_limit(&volume, &files((1 << 20) + 1, 0)).as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
        );
        let two = pod(
            json!({"containers": [limited("a", "1Mi"), limited("b", "1Mi")], "volumes": [{"name": "v", "emptyDir": {}}]}),
        );
        assert_eq!(limits(&two), (false, true));
        assert_eq!(over_limit(&two, &files(1 << 20, 1 << 10)), None);
        assert_eq!(
            over_limit(&two, &files(1 << 20, 1 << 20)).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")
        );
        assert_eq!(
            over_limit(&two, &files(0, 1 << 20)).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")
        );
        let memory = pod(
            json!({"containers": [limited("a", "1Mi")], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}),
        );
        assert_eq!(over_limit(&memory, &files(1 << 30, 0)), None, "memory is no disk");
    }

    #[test]
    fn critical_pods_stay() {
        assert!(is_critical(&pod("p", 2_000_000_000, json!({}))));
        assert!(!is_critical(&pod("p", 1_999_999_999, json!({}))));
    }
}
