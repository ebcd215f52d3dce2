//! `/stats/summary` (upstream: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`, `pkg/kubelet/server/stats/summary.go`).

use super::disk::DiskUsage;
use super::files::PodFiles;
use super::sampler::{ContainerFigures, Figures, PodFigures, Snapshot};
use crate::kubelet::node::figures::{Disk, Usage as NodeUsage};
use crate::runtime::Usage;
use crate::runtime::usage::Interface;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

/// What a summary is made from.
pub struct Seen<'a> {
    pub node_name: &'a str,
    /// When the machine started.
    pub booted_at: Option<SystemTime>,
    pub snapshot: &'a Snapshot,
    pub node: &'a NodeUsage,
    /// By uid; None where only processor and memory are asked for.
    pub files: Option<&'a BTreeMap<String, Arc<PodFiles>>>,
    /// By uid and container; bytes.
    pub memory_limits: &'a BTreeMap<(String, String), u64>,
}

fn time(at: SystemTime) -> Value {
    let at = Timestamp::try_from(at).unwrap_or_default();
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The document.
pub fn summary(seen: &Seen<'_>) -> Value {
    json!({"node": node(seen), "pods": seen.snapshot.pods.iter().map(|one| pod(seen, one)).collect::<Vec<_>>()})
}

fn node(seen: &Seen<'_>) -> Value {
    let mut node = Map::new();
    node.insert("nodeName".into(), json!(seen.node_name));
    if let Some(at) = seen.booted_at {
        node.insert("startTime".into(), time(at));
    }
    if let Some(machine) = &seen.snapshot.machine {
        node.insert("cpu".into(), cpu(machine));
        let mut shown = memory(&machine.usage, None);
        if let Some(available) = seen.node.memory_available_bytes {
            shown["availableBytes"] = json!(available);
        }
        node.insert("memory".into(), shown);
        if seen.files.is_some() {
            node.insert("network".into(), network(&machine.usage));
        }
    }
    if seen.files.is_none() {
        return Value::Object(node);
    }
    let now = time(seen.snapshot.at);
    if let Some(disk) = &seen.node.disk {
        let whole = |disk: &Disk| {
            let bytes = disk.size_bytes.saturating_sub(disk.available_bytes);
            let inodes = disk.inodes.saturating_sub(disk.inodes_free);
            file_system(&now, disk, DiskUsage { bytes, inodes })
        };
        let images = whole(seen.node.image_disk.as_ref().unwrap_or(disk));
        node.insert("fs".into(), whole(disk));
        node.insert("runtime".into(), json!({"imageFs": images, "containerFs": images}));
    }
    if let Some(processes) = &seen.node.processes {
        let limits = json!({"time": now, "maxpid": processes.max, "curproc": processes.used});
        node.insert("rlimit".into(), limits);
    }
    Value::Object(node)
}

fn pod(seen: &Seen<'_>, figures: &PodFigures) -> Value {
    let id = &figures.pod;
    let files = seen.files.map(|files| files.get(&id.uid).cloned().unwrap_or_default());
    let containers = figures.containers.iter();
    let containers: Vec<Value> = containers
        .map(|one| container(seen, &id.uid, one, files.as_deref()))
        .collect();
    let mut pod = Map::new();
    pod.insert(
        "podRef".into(),
        json!({"name": id.name, "namespace": id.namespace, "uid": id.uid}),
    );
    pod.insert("startTime".into(), time(figures.started_at));
    pod.insert("containers".into(), json!(containers));
    let mut whole = Usage::none(&id.uid, seen.snapshot.at);
    whole.cpu_nanos = figures.sum(|usage| usage.cpu_nanos);
    whole.memory_bytes = figures.sum(|usage| usage.memory_bytes);
    whole.working_set_bytes = figures.sum(|usage| usage.working_set_bytes);
    whole.rss_bytes = figures.sum(|usage| usage.rss_bytes);
    whole.page_faults = figures.sum(|usage| usage.page_faults);
    whole.major_page_faults = figures.sum(|usage| usage.major_page_faults);
    let shown = memory(&whole, None);
    let cpu_of_pod = Figures {
        usage: whole,
        rate: figures.rate(),
    };
    pod.insert("cpu".into(), cpu(&cpu_of_pod));
    pod.insert("memory".into(), shown);
    let Some(files) = files else {
        return Value::Object(pod);
    };
    if let Some(sandbox) = &figures.sandbox
        && !sandbox.usage.interfaces.is_empty()
    {
        pod.insert("network".into(), network(&sandbox.usage));
    }
    let now = time(seen.snapshot.at);
    if let Some(disk) = &seen.node.disk {
        let volumes = files.volumes.iter().map(|(name, used)| {
            let mut volume = file_system(&now, disk, *used);
            volume["name"] = json!(name);
            volume
        });
        pod.insert("volume".into(), volumes.collect());
        pod.insert("ephemeral-storage".into(), file_system(&now, disk, ephemeral(&files)));
    }
    let processes = figures.sum(|usage| usage.processes);
    pod.insert("process_stats".into(), json!({"process_count": processes}));
    Value::Object(pod)
}

/// All that a pod takes of the node's disk.
fn ephemeral(files: &PodFiles) -> DiskUsage {
    let mut sum = DiskUsage::default();
    for used in files.volumes.values() {
        sum.bytes += used.bytes;
        sum.inodes += used.inodes;
    }
    for written in files.containers.values() {
        sum.bytes += written.bytes + written.log_bytes;
        sum.inodes += written.inodes.unwrap_or(0);
    }
    sum
}

fn container(seen: &Seen<'_>, uid: &str, one: &ContainerFigures, files: Option<&PodFiles>) -> Value {
    let limit = seen.memory_limits.get(&(uid.to_owned(), one.name.clone())).copied();
    let mut shown = Map::new();
    shown.insert("name".into(), json!(one.name));
    shown.insert("startTime".into(), time(one.started_at));
    shown.insert("cpu".into(), cpu(&one.figures));
    shown.insert("memory".into(), memory(&one.figures.usage, limit));
    if let (Some(files), Some(disk)) = (files, &seen.node.disk)
        && let Some(written) = files.containers.get(&one.name)
    {
        let now = time(seen.snapshot.at);
        let layer = DiskUsage {
            bytes: written.bytes,
            inodes: written.inodes.unwrap_or(0),
        };
        let log = DiskUsage {
            bytes: written.log_bytes,
            inodes: 1,
        };
        shown.insert("rootfs".into(), file_system(&now, disk, layer));
        shown.insert("logs".into(), file_system(&now, disk, log));
    }
    Value::Object(shown)
}

/// `windowSeconds` is ours: it says over which time the rate was taken, and others do not look at it.
fn cpu(figures: &Figures) -> Value {
    let mut cpu = json!({"time": time(figures.usage.read_at), "usageCoreNanoSeconds": figures.usage.cpu_nanos});
    if let Some(rate) = figures.rate {
        cpu["usageNanoCores"] = json!(rate.nano_cores);
        cpu["windowSeconds"] = json!(rate.window.as_secs_f64());
    }
    cpu
}

fn memory(usage: &Usage, limit: Option<u64>) -> Value {
    let mut memory = json!({
        "time": time(usage.read_at),
        "usageBytes": usage.memory_bytes,
        "workingSetBytes": usage.working_set_bytes,
        "rssBytes": usage.rss_bytes,
        "pageFaults": usage.page_faults,
        "majorPageFaults": usage.major_page_faults,
    });
    if let Some(limit) = limit {
        memory["availableBytes"] = json!(limit.saturating_sub(usage.working_set_bytes));
    }
    memory
}

fn network(usage: &Usage) -> Value {
    let shown = |interface: &Interface| {
        json!({
            "name": interface.name,
            "rxBytes": interface.received_bytes,
            "rxErrors": interface.received_errors,
            "txBytes": interface.sent_bytes,
            "txErrors": interface.sent_errors,
        })
    };
    let interfaces: Vec<Value> = usage.interfaces.iter().map(shown).collect();
    // Upstream takes the figures of eth0 for those of the whole, where there is one.
    let main = usage
        .interfaces
        .iter()
        .find(|one| one.name == "eth0")
        .or(usage.interfaces.first());
    let mut network = main.map_or_else(|| json!({}), shown);
    network["time"] = time(usage.read_at);
    network["interfaces"] = json!(interfaces);
    network
}

fn file_system(now: &Value, disk: &Disk, used: DiskUsage) -> Value {
    json!({
        "time": now,
        "availableBytes": disk.available_bytes,
        "capacityBytes": disk.size_bytes,
        "usedBytes": used.bytes,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": used.inodes,
    })
}

#[cfg(test)]
mod tests {
    use super::super::sampler::Rate;
    use super::*;
    use crate::runtime::{PodIdentity, Written};
    use std::time::Duration;

    #[test]
    fn a_pod_is_the_sum_of_its_containers() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let figures = |id: &str, cpu: u64, memory: u64| {
            let mut usage = Usage::none(id, at);
            (usage.cpu_nanos, usage.working_set_bytes) = (cpu, memory);
            Figures {
                usage,
                rate: Some(Rate {
                    nano_cores: cpu / 10,
                    window: Duration::from_secs(10),
                }),
            }
        };
        let container = |name: &str, cpu, memory| ContainerFigures {
            id: name.to_owned(),
            name: name.to_owned(),
            image: String::new(),
            started_at: at,
            figures: figures(name, cpu, memory),
        };
        let pod = PodFigures {
            pod: PodIdentity {
                name: "p".to_owned(),
                namespace: "ns".to_owned(),
                uid: "u".to_owned(),
                attempt: 0,
            },
            started_at: at,
            sandbox: Some(figures("s", 10, 1)),
            containers: vec![container("a", 100, 5), container("b", 1000, 7)],
        };
        let snapshot = Snapshot {
            at,
            machine: Some(figures("/", 5000, 100)),
            pods: vec![pod],
        };
        let node = NodeUsage {
            memory_available_bytes: Some(77),
            memory_estimate_bytes: Some(78),
            disk: Some(Disk {
                size_bytes: 1000,
                available_bytes: 400,
                inodes: 10,
                inodes_free: 4,
            }),
            image_disk: None,
            processes: None,
        };
        let files = PodFiles {
            volumes: BTreeMap::from([("v".to_owned(), DiskUsage { bytes: 20, inodes: 2 })]),
            containers: BTreeMap::from([(
                "a".to_owned(),
                Written {
                    bytes: 3,
                    inodes: Some(1),
                    log_bytes: 4,
                },
            )]),
        };
        let files = BTreeMap::from([("u".to_owned(), Arc::new(files))]);
        let limits = BTreeMap::from([(("u".to_owned(), "a".to_owned()), 8)]);
        let mut seen = Seen {
            node_name: "n",
            booted_at: None,
            snapshot: &snapshot,
            node: &node,
            files: Some(&files),
            memory_limits: &limits,
        };
        let whole = summary(&seen);
        let pod = &whole["pods"][0];
        assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
        assert_eq!(
            (&pod["cpu"]["usageCoreNanoSeconds"], &pod["cpu"]["usageNanoCores"]),
            (&json!(1110), &json!(111))
        );
        assert_eq!(pod["memory"]["workingSetBytes"], 13);
        assert_eq!(pod["containers"][0]["memory"]["availableBytes"], 3);
        assert_eq!(pod["containers"][0]["logs"]["usedBytes"], 4);
        assert_eq!(
            (&pod["volume"][0]["name"], &pod["volume"][0]["usedBytes"]),
            (&json!("v"), &json!(20))
        );
        assert_eq!(pod["ephemeral-storage"]["usedBytes"], 27);
        assert_eq!(whole["node"]["memory"]["availableBytes"], 77);
        assert_eq!(whole["node"]["fs"]["usedBytes"], 600);
        seen.files = None;
        let short = summary(&seen);
        assert!(short["node"]["fs"].is_null() && short["pods"][0]["volume"].is_null());
        assert_eq!(short["pods"][0]["cpu"], whole["pods"][0]["cpu"]);
    }
}
