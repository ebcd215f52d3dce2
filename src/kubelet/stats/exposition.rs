//! `/metrics/resource` and `/metrics/cadvisor` in Prometheus' text format
//! (upstream: `pkg/kubelet/metrics/collectors/resource_metrics.go`, cAdvisor's `metrics/prometheus.go`).

use super::sampler::{ContainerFigures, PodFigures, Snapshot};
use crate::runtime::Usage;
use std::fmt::Write as _;
use std::time::SystemTime;

/// A family of samples under construction.
struct Family<'a>(&'a mut String, &'static str);

fn family<'a>(text: &'a mut String, name: &'static str, kind: &str, help: &str) -> Family<'a> {
    // Writing to a string does not fail, here and below.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    Family(text, name)
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display, at: Option<SystemTime>) {
        let Family(text, name) = self;
        text.push_str(name);
        for (index, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(text, "{before}{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            text.push('}');
        }
        let _ = write!(text, " {value}");
        if let Some(at) = at {
            let millis = at
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
                .as_millis();
            let _ = write!(text, " {millis}");
        }
        text.push('\n');
    }
}

fn seconds(nanos: u64) -> f64 {
    std::time::Duration::from_nanos(nanos).as_secs_f64()
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

fn containers(snapshot: &Snapshot) -> impl Iterator<Item = (&PodFigures, &ContainerFigures)> {
    let pods = snapshot.pods.iter();
    pods.flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

/// What metrics-server reads.
pub fn resource(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let mut of_containers = |name, kind, help, value: &dyn Fn(&ContainerFigures) -> f64, timed: bool| {
        let mut family = family(&mut text, name, kind, help);
        for (pod, one) in containers(snapshot) {
            let id = &pod.pod;
            let labels = [
                ("container", one.name.as_str()),
                ("namespace", &id.namespace),
                ("pod", &id.name),
            ];
            family.sample(&labels, value(one), timed.then_some(one.figures.usage.read_at));
        }
    };
    of_containers(
        "container_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the container in core-seconds",
        &|one| seconds(one.figures.usage.cpu_nanos),
        true,
    );
    of_containers(
        "container_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the container in bytes",
        &|one| one.figures.usage.working_set_bytes as f64,
        true,
    );
    of_containers(
        "container_start_time_seconds",
        "gauge",
        "[STABLE] Start time of the container since unix epoch in seconds",
        &|one| unix_seconds(one.started_at),
        false,
    );
    if let Some(machine) = &snapshot.machine {
        let usage = &machine.usage;
        family(
            &mut text,
            "node_cpu_usage_seconds_total",
            "counter",
            "[STABLE] Cumulative cpu time consumed by the node in core-seconds",
        )
        .sample(&[], seconds(usage.cpu_nanos), Some(usage.read_at));
        family(
            &mut text,
            "node_memory_working_set_bytes",
            "gauge",
            "[STABLE] Current working set of the node in bytes",
        )
        .sample(&[], usage.working_set_bytes, Some(usage.read_at));
    }
    let mut of_pods = |name, kind, help, value: &dyn Fn(&PodFigures) -> f64| {
        let mut family = family(&mut text, name, kind, help);
        for pod in &snapshot.pods {
            let labels = [("namespace", pod.pod.namespace.as_str()), ("pod", &pod.pod.name)];
            family.sample(&labels, value(pod), Some(snapshot.at));
        }
    };
    of_pods(
        "pod_cpu_usage_seconds_total",
        "counter",
        "[STABLE] Cumulative cpu time consumed by the pod in core-seconds",
        &|pod| seconds(pod.sum(|usage| usage.cpu_nanos)),
    );
    of_pods(
        "pod_memory_working_set_bytes",
        "gauge",
        "[STABLE] Current working set of the pod in bytes",
        &|pod| pod.sum(|usage| usage.working_set_bytes) as f64,
    );
    family(
        &mut text,
        "resource_scrape_error",
        "gauge",
        "[STABLE] 1 if there was an error while getting container metrics, 0 otherwise",
    )
    .sample(&[], 0, None);
    text
}

/// The part of cAdvisor's families that dashboards ask for most.
pub fn cadvisor(snapshot: &Snapshot, cpus: u64, memory_bytes: u64) -> String {
    type Value = fn(&Usage) -> f64;
    let of_containers: [(&'static str, &str, &str, Value); 7] = [
        (
            "container_cpu_usage_seconds_total",
            "counter",
            "Cumulative cpu time consumed in seconds.",
            |u| seconds(u.cpu_nanos),
        ),
        (
            "container_memory_failures_total",
            "counter",
            "Cumulative count of memory allocation failures.",
            |u| u.page_faults as f64,
        ),
        ("container_memory_rss", "gauge", "Size of RSS in bytes.", |u| {
            u.rss_bytes as f64
        }),
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |u| u.memory_bytes as f64,
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
            |u| u.working_set_bytes as f64,
        ),
        (
            "container_processes",
            "gauge",
            "Number of processes running inside the container.",
            |u| u.processes as f64,
        ),
        (
            "container_last_seen",
            "gauge",
            "Last time a container was seen by the exporter",
            |u| unix_seconds(u.read_at),
        ),
    ];
    let mut text = String::new();
    for (name, kind, help, value) in of_containers {
        let mut family = family(&mut text, name, kind, help);
        for (pod, one) in containers(snapshot) {
            let (id, usage) = (&pod.pod, &one.figures.usage);
            let mut labels = vec![("container", one.name.as_str())];
            if name == "container_memory_failures_total" {
                labels.extend([("failure_type", "pgfault"), ("scope", "container")]);
            }
            labels.extend([("id", one.id.as_str()), ("image", &one.image), ("name", &one.id)]);
            labels.extend([("namespace", id.namespace.as_str()), ("pod", &id.name)]);
            family.sample(&labels, value(usage), Some(usage.read_at));
        }
    }
    type OfInterface = fn(&crate::runtime::usage::Interface) -> u64;
    let of_networks: [(&'static str, &str, OfInterface); 4] = [
        (
            "container_network_receive_bytes_total",
            "Cumulative count of bytes received",
            |i| i.received_bytes,
        ),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |i| i.received_errors,
        ),
        (
            "container_network_transmit_bytes_total",
            "Cumulative count of bytes transmitted",
            |i| i.sent_bytes,
        ),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |i| i.sent_errors,
        ),
    ];
    for (name, help, value) in of_networks {
        let mut family = family(&mut text, name, "counter", help);
        for pod in &snapshot.pods {
            let Some(sandbox) = &pod.sandbox else { continue };
            for interface in &sandbox.usage.interfaces {
                let id = &pod.pod;
                let labels = [
                    ("container", ""),
                    ("id", sandbox.usage.id.as_str()),
                    ("interface", &interface.name),
                    ("namespace", &id.namespace),
                    ("pod", &id.name),
                ];
                family.sample(&labels, value(interface), Some(sandbox.usage.read_at));
            }
        }
    }
    family(&mut text, "machine_cpu_cores", "gauge", "Number of logical CPU cores.").sample(&[], cpus, None);
    family(
        &mut text,
        "machine_memory_bytes",
        "gauge",
        "Amount of memory installed on the machine.",
    )
    .sample(&[], memory_bytes, None);
    text
}

#[cfg(test)]
mod tests {
    use super::super::sampler::Figures;
    use super::*;
    use crate::runtime::PodIdentity;
    use std::time::Duration;

    #[test]
    fn counters_carry_labels_and_times() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let mut usage = Usage::none("id", at);
        (usage.cpu_nanos, usage.working_set_bytes) = (2_500_000_000, 4096);
        let figures = Figures { usage, rate: None };
        let snapshot = Snapshot {
            at,
            machine: Some(figures.clone()),
            pods: vec![PodFigures {
                pod: PodIdentity {
                    name: "p".to_owned(),
                    namespace: "ns".to_owned(),
                    ..PodIdentity::default()
                },
                started_at: at,
                sandbox: None,
                containers: vec![ContainerFigures {
                    id: "id".to_owned(),
                    name: "c\"".to_owned(),
                    image: "i".to_owned(),
                    started_at: at,
                    figures,
                }],
            }],
        };
        let text = resource(&snapshot);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"c\\\"\",namespace=\"ns\",pod=\"p\"} 2.5 1500",
            "container_start_time_seconds{container=\"c\\\"\",namespace=\"ns\",pod=\"p\"} 1.5",
            "node_memory_working_set_bytes 4096 1500",
            "pod_cpu_usage_seconds_total{namespace=\"ns\",pod=\"p\"} 2.5 1500",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let text = cadvisor(&snapshot, 2, 8192);
        let rss = "container_memory_rss{container=\"c\\\"\",id=\"id\",image=\"i\",name=\"id\",namespace=\"ns\",pod=\"p\"} 0 1500";
        assert!(text.lines().any(|found| found == rss), "{text}");
        assert!(text.ends_with("machine_memory_bytes 8192\n"));
    }
}
