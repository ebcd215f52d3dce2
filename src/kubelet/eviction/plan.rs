//! Whom to end, and what they are told (upstream: `pkg/kubelet/eviction/helpers.go`, `eviction_manager.go`). Pure.

use super::threshold::{Met, Signal};
use crate::client::placement;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pod;
use crate::kubelet::pod::CRITICAL_PRIORITY;
use crate::kubelet::resources::{self, Qos};
use crate::kubelet::stats::files::PodFiles;
use crate::quantity::{Format, Quantity};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Taint, Volume};
use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The reason of a pod that was evicted, or refused for the node's sake.
pub const EVICTED: &str = "Evicted";
const STORAGE: &str = "ephemeral-storage";
/// Pods that are evicted at once get this long to end.
pub const GRACE_SECONDS: u32 = 1;

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

/// Which volumes of a pod take room of the node's disk for itself (upstream: `IsLocalEphemeralVolume`).
fn on_disk(pod: &Pod, volume: &str) -> bool {
    let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
    let found = volumes.iter().find(|known| known.name == volume);
    found.is_some_and(|volume| {
        let of_memory = |dir: &EmptyDirVolumeSource| dir.medium.as_ref().is_some_and(|medium| !medium.is_empty());
        volume.config_map.is_some() || volume.empty_dir.as_ref().is_some_and(|dir| !of_memory(dir))
    })
}

/// Which of a pod's files count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    All,
    /// Volumes and logs, where the images have a disk of their own.
    Node,
    /// The containers' layers, which are on that disk.
    Images,
}

impl Part {
    pub fn of(signal: Signal, own_image_disk: bool) -> Part {
        match (own_image_disk, signal.is_of_images()) {
            (false, _) => Part::All,
            (true, false) => Part::Node,
            (true, true) => Part::Images,
        }
    }
}

/// Bytes and inodes of the node's disk.
fn disk(pod: &Pod, files: &PodFiles, part: Part) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    if part != Part::Images {
        for (_, used) in files.volumes.iter().filter(|(name, _)| on_disk(pod, name)) {
            bytes += used.bytes;
            inodes += used.inodes;
        }
        bytes += files.containers.values().map(|written| written.log_bytes).sum::<u64>();
    }
    if part != Part::Node {
        for written in files.containers.values() {
            bytes += written.bytes;
            inodes += written.inodes.unwrap_or(0);
        }
    }
    (bytes, inodes)
}

fn amount(candidate: &Candidate, resource: &str, part: Part) -> Option<i64> {
    let used = candidate.used.as_ref()?;
    let amount = match resource {
        "memory" => used.memory_of_pod,
        "pids" => used.processes,
        "inodes" => disk(&candidate.pod, &used.files, part).1,
        _ => disk(&candidate.pod, &used.files, part).0,
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

/// Why a node with these conditions takes no such pod (upstream: `Admit`).
pub fn refusal(pod: &Pod, conditions: &[&'static str]) -> Option<PodFailure> {
    let takes = match conditions {
        [] => true,
        _ if is_critical(pod) => true,
        ["MemoryPressure"] => resources::qos(pod) != Qos::BestEffort || tolerates(pod),
        _ => false,
    };
    (!takes).then(|| PodFailure {
        reason: EVICTED,
        message: format!("Pod was rejected: The node had condition: [{}]. ", conditions.join(" ")),
        ..PodFailure::default()
    })
}

/// The taint of a node that is low on memory.
fn tolerates(pod: &Pod) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let mut tolerations = pod::spec(pod).tolerations.iter().flatten();
    tolerations.any(|one| placement::tolerates(one, &taint))
}

/// Sorts those that go first to the front: who uses more than was asked for, then the less important, then who is
/// furthest above what was asked for.
pub fn rank(candidates: &mut [Candidate], signal: Signal, part: Part) {
    let resource = signal.resource();
    // There are no requests for processes and inodes, but upstream takes those for bytes from the files that are used.
    let request = |candidate: &Candidate| match resource {
        "memory" => resources::pod_request(&candidate.pod, resource),
        "pids" => 0,
        _ => resources::pod_request(&candidate.pod, "ephemeral-storage"),
    };
    candidates.sort_by(|a, b| {
        let (Some(used_a), Some(used_b)) = (amount(a, resource, part), amount(b, resource, part)) else {
            return b.used.is_none().cmp(&a.used.is_none());
        };
        let (over_a, over_b) = (used_a - request(a), used_b - request(b));
        let exceeds = match resource {
            "pids" => Ordering::Equal,
            "inodes" => Reverse(used_a > 0).cmp(&Reverse(used_b > 0)),
            _ => Reverse(over_a > 0).cmp(&Reverse(over_b > 0)),
        };
        exceeds
            .then_with(|| priority(&a.pod).cmp(&priority(&b.pod)))
            .then_with(|| over_b.cmp(&over_a))
    });
}

fn binary(bytes: u64) -> Quantity {
    Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi)
}

/// What the pod's status says, and the annotations of the event (upstream: `evictionMessage`).
pub fn message(met: &Met, candidate: &Candidate) -> (String, BTreeMap<String, String>) {
    let (resource, pod) = (met.signal.resource(), &candidate.pod);
    let mut text = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        met.wanted, met.available
    );
    let mut annotations = BTreeMap::new();
    let Some(used) = &candidate.used else {
        return (text, annotations);
    };
    let mut annotate = |key: &str, value: String| annotations.insert(key.to_owned(), value);
    let of_pod = pod::spec(pod).resources.as_ref().and_then(|own| own.requests.as_ref());
    let of_pod = of_pod
        .and_then(|own| own.get(resource))
        .filter(|_| resource == "memory");
    if let Some(request) = of_pod.and_then(|request| request.0.parse::<Quantity>().ok()) {
        let (name, used) = (pod::name(pod), binary(used.memory_of_pod));
        text += &format!("Pod {name} was using {used}, request is {request}, has larger consumption of {resource}. ");
        annotate("offending_pod", name.to_owned());
        annotate("offending_pod_usage", used.to_string());
    }
    let (mut names, mut amounts) = (Vec::new(), Vec::new());
    let init = pod::init_containers(pod).map(|(_, container)| container);
    for container in pod::app_containers(pod).iter().chain(init) {
        let name = container.name.as_str();
        let bytes = match resource {
            "memory" => used.memory.get(name).copied(),
            "ephemeral-storage" => used.files.containers.get(name).map(|w| w.bytes + w.log_bytes),
            _ => None,
        };
        let request = resources::request(container, resource).unwrap_or(Quantity::ZERO);
        let Some(used) = bytes.map(binary).filter(|used| *used > request) else {
            continue;
        };
        text +=
            &format!("Container {name} was using {used}, request is {request}, has larger consumption of {resource}. ");
        names.push(name);
        amounts.push(used.to_string());
    }
    annotate("offending_containers", names.join(","));
    annotate("offending_containers_usage", amounts.join(","));
    annotate("starved_resource", resource.to_owned());
    (text, annotations)
}

/// How long a pod that is evicted may take to end; None: as long as it says itself.
pub fn grace_seconds(met: &Met, soft_max: u32) -> Option<u32> {
    match (met.hard, soft_max) {
        (true, _) => Some(GRACE_SECONDS),
        (false, 0) => None,
        (false, max) => Some(max),
    }
}

/// What the pod says that its files may take at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileLimits {
    pub of_volumes: bool,
    pub of_containers: bool,
}

impl FileLimits {
    pub fn of(pod: &Pod) -> FileLimits {
        let volumes = pod::spec(pod).volumes.as_deref().unwrap_or_default();
        let sized = |volume: &Volume| volume.empty_dir.as_ref().is_some_and(|dir| dir.size_limit.is_some());
        let init = pod::init_containers(pod).map(|(_, container)| container);
        let mut all = init.chain(pod::app_containers(pod));
        FileLimits {
            of_volumes: volumes.iter().any(sized),
            of_containers: all.any(|container| resources::limit(container, STORAGE).is_some()),
        }
    }

    pub fn any(self) -> bool {
        self.of_volumes || self.of_containers
    }
}

/// Why the pod's files are more than it may have. Of containers whose layers are on a disk of their own only logs count.
pub fn over_limit(pod: &Pod, files: &PodFiles, own_image_disk: bool) -> Option<String> {
    for volume in pod::spec(pod).volumes.as_deref().unwrap_or_default() {
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|dir| dir.size_limit.as_ref()?.0.parse::<Quantity>().ok());
        let Some(limit) = limit.filter(|limit| *limit > Quantity::ZERO) else {
            continue;
        };
        let used = files.volumes.get(&volume.name).map_or(0, |used| used.bytes);
        if binary(used) > limit {
            let name = &volume.name;
            return Some(format!(
                "Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". "
            ));
        }
    }
    let total = resources::limits_together(pod).remove(STORAGE)?;
    let total = total.0.parse::<Quantity>().ok()?;
    if binary(disk(pod, files, Part::All).0) > total {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {total}. "
        ));
    }
    for container in pod::app_containers(pod) {
        let Some(limit) = resources::limit(container, STORAGE).filter(|limit| !limit.is_zero()) else {
            continue;
        };
        let written = files.containers.get(&container.name).copied().unwrap_or_default();
        let layer = if own_image_disk { 0 } else { written.bytes };
        if binary(layer + written.log_bytes) > limit {
            let name = &container.name;
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
        let volumes = json!([{"name": "v", "emptyDir": {}}]);
        let spec = json!({"priority": priority, "containers": [container], "volumes": volumes});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap())
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
        rank(&mut all, signal, Part::All);
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
        // All have files; what is taken from their number are bytes.
        let by_bytes = [
            "unknown",
            "less-important",
            "asked-for-nothing",
            "much-over",
            "a-little-over",
            "within",
            "important",
        ];
        assert_eq!(order(Signal::NodeFsInodesFree), by_bytes);
    }

    #[test]
    fn with_a_disk_of_their_own_only_what_is_there_counts() {
        let with = |name: &str, volume: u64, layer: u64, log: u64| {
            let mut candidate = candidate(name, 0, None, Some(volume));
            let used = candidate.used.as_mut().unwrap();
            let mut files = PodFiles::clone(&used.files);
            let written = Written {
                bytes: layer,
                inodes: Some(1),
                log_bytes: log,
            };
            files.containers.insert("c".to_owned(), written);
            used.files = Arc::new(files);
            candidate
        };
        let first = |signal: Signal, own_image_disk: bool| {
            let mut all = [
                with("volume", 50 << 20, 1, 1),
                with("layer", 1, 60 << 20, 1),
                with("log", 30 << 20, 1, 40 << 20),
            ];
            rank(&mut all, signal, Part::of(signal, own_image_disk));
            pod::name(&all[0].pod).to_owned()
        };
        for (signal, own_image_disk, expected) in [
            (Signal::NodeFsAvailable, false, "log"),
            (Signal::ImageFsAvailable, false, "log"),
            (Signal::NodeFsAvailable, true, "log"),
            (Signal::ImageFsAvailable, true, "layer"),
        ] {
            assert_eq!(first(signal, own_image_disk), expected, "{signal:?} {own_image_disk}");
        }
    }

    #[test]
    fn who_is_not_taken() {
        let taken = |spec: Value, conditions: &[&'static str]| {
            let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
            refusal(&pod, conditions).map(|failure| (failure.reason, failure.message))
        };
        let plain = json!({"containers": [{"name": "c"}]});
        let burstable = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]});
        let critical = json!({"containers": [{"name": "c"}], "priority": 2_000_000_000});
        let tolerant = |toleration: Value| json!({"containers": [{"name": "c"}], "tolerations": [toleration]});
        let key = "node.kubernetes.io/memory-pressure";
        let memory: &[&'static str] = &["MemoryPressure"];
        let both: &[&'static str] = &["DiskPressure", "MemoryPressure"];
        for (spec, conditions, said) in [
            (&plain, &[] as &[&'static str], None),
            (&plain, memory, Some("[MemoryPressure]")),
            (&burstable, memory, None),
            (&critical, both, None),
            (&burstable, both, Some("[DiskPressure MemoryPressure]")),
            (&tolerant(json!({"key": key, "operator": "Exists"})), memory, None),
            (
                &tolerant(json!({"operator": "Exists", "effect": "NoSchedule"})),
                memory,
                None,
            ),
            (
                &tolerant(json!({"key": key, "operator": "Exists"})),
                both,
                Some("[DiskPressure MemoryPressure]"),
            ),
            (
                &tolerant(json!({"key": key, "operator": "Exists", "effect": "NoExecute"})),
                memory,
                Some("[MemoryPressure]"),
            ),
            (
                &tolerant(json!({"key": key, "value": "x"})),
                memory,
                Some("[MemoryPressure]"),
            ),
        ] {
            let said = said.map(|said| ("Evicted", format!("Pod was rejected: The node had condition: {said}. ")));
            assert_eq!(taken(spec.clone(), conditions), said, "{spec} {conditions:?}");
        }
    }

    #[test]
    fn messages() {
        let met = Met {
            signal: Signal::MemoryAvailable,
            wanted: "100Mi".to_owned(),
            available: "50Mi".to_owned(),
            hard: true,
        };
        let (text, annotations) = message(&met, &candidate("p", 0, Some("10Mi"), Some(20 << 20)));
        assert_eq!(
            text,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using \
             20Mi, request is 10Mi, has larger consumption of memory. "
        );
        assert_eq!(
            json!(annotations),
            json!({"offending_containers": "c", "offending_containers_usage": "20Mi", "starved_resource": "memory"})
        );
        let (within, annotations) = message(&met, &candidate("p", 0, Some("30Mi"), Some(20 << 20)));
        assert!(within.ends_with("available: 50Mi. "), "{within}");
        assert_eq!(annotations["offending_containers"], "");
        assert_eq!(message(&met, &candidate("p", 0, None, None)).1, BTreeMap::new());
        let mut whole = candidate("p", 0, None, Some(20 << 20));
        let mut pod = Pod::clone(&whole.pod);
        let spec = pod.spec.as_mut().unwrap();
        spec.resources = serde_json::from_value(json!({"requests": {"memory": "10Mi"}})).unwrap();
        spec.init_containers = Some(vec![std::mem::take(&mut spec.containers[0])]);
        whole.pod = Arc::new(pod);
        let (text, annotations) = message(&met, &whole);
        assert!(
            text.ends_with(
                "Pod p was using 20Mi, request is 10Mi, has larger consumption of memory. Container c was using 20Mi, \
                 request is 0, has larger consumption of memory. "
            ),
            "{text}"
        );
        assert_eq!(
            json!(annotations),
            json!({"offending_pod": "p", "offending_pod_usage": "20Mi", "offending_containers": "c",
                "offending_containers_usage": "20Mi", "starved_resource": "memory"})
        );
        let soft = Met {
            hard: false,
            ..met.clone()
        };
        for (met, max, expected) in [(&met, 60, Some(1)), (&soft, 60, Some(60)), (&soft, 0, None)] {
            assert_eq!(grace_seconds(met, max), expected);
        }
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
        let limits = |of_volumes, of_containers| FileLimits {
            of_volumes,
            of_containers,
        };
        let volume =
            pod(json!({"containers": [{"name": "a"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]}));
        assert_eq!(FileLimits::of(&volume), limits(true, false));
        assert_eq!(over_limit(&volume, &files(1 << 20, 0), false), None);
        assert_eq!(
            over_limit(&volume, &files((1 << 20) + 1, 0), false).as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
        );
        let two = pod(
            json!({"containers": [limited("a", "1Mi"), limited("b", "1Mi")], "volumes": [{"name": "v", "emptyDir": {}}]}),
        );
        assert_eq!(FileLimits::of(&two), limits(false, true));
        assert_eq!(over_limit(&two, &files(1 << 20, 1 << 10), false), None);
        assert_eq!(
            over_limit(&two, &files(1 << 20, 1 << 20), false).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ")
        );
        assert_eq!(
            over_limit(&two, &files(0, 1 << 20), false).as_deref(),
            Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ")
        );
        assert_eq!(over_limit(&two, &files(0, 1 << 20), true), None, "layers are elsewhere");
        let init = pod(json!({"containers": [{"name": "a"}], "initContainers": [limited("i", "1Mi")]}));
        assert_eq!(FileLimits::of(&init), limits(false, true));
        assert_eq!(
            over_limit(&init, &files(0, 1 << 20), false).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")
        );
        let memory = pod(
            json!({"containers": [limited("a", "1Mi")], "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}]}),
        );
        assert_eq!(
            over_limit(&memory, &files(1 << 30, 0), false),
            None,
            "memory is no disk"
        );
    }

    #[test]
    fn critical_pods_stay() {
        assert!(is_critical(&pod("p", 2_000_000_000, json!({}))));
        assert!(!is_critical(&pod("p", 1_999_999_999, json!({}))));
    }
}
