//! From a kubelet's summary to NodeMetrics and PodMetrics. Pure.

use crate::quantity::{Format, Quantity};
use crate::registry::strategy::Object;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// The part of `/stats/summary` that is needed here.
#[derive(Debug, Deserialize)]
pub struct Summary {
    node: Node,
    #[serde(default)]
    pods: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Node {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Debug, Deserialize)]
struct PodRef {
    name: String,
    namespace: String,
    #[serde(default)]
    uid: String,
}

#[derive(Debug, Deserialize)]
struct Container {
    name: String,
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: String,
    usage_nano_cores: Option<u64>,
    /// Our kubelet's word for the time that it took the average of.
    window_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: Option<u64>,
}

/// How often a kubelet that does not say reads its counters (cAdvisor's `housekeeping-interval`).
const WINDOW: Duration = Duration::from_secs(10);

/// What something uses, and over which time.
struct Used {
    time: String,
    window: Duration,
    usage: Value,
}

fn used(cpu: Option<&Cpu>, memory: Option<&Memory>) -> Option<Used> {
    let (cpu, bytes) = (cpu?, memory?.working_set_bytes?);
    let cores: Quantity = format!("{}n", cpu.usage_nano_cores?).parse().ok()?;
    let bytes = Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi);
    let window = cpu
        .window_seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Used {
        time: cpu.time.clone(),
        window: window.unwrap_or(WINDOW),
        usage: json!({"cpu": cores.to_string(), "memory": bytes.to_string()}),
    })
}

impl Summary {
    /// None when the node does not say all of it.
    pub fn node_metrics(&self, name: &str, labels: &[(String, String)]) -> Option<Object> {
        let used = used(self.node.cpu.as_ref(), self.node.memory.as_ref())?;
        let mut object = object("NodeMetrics", "", name, labels, &used);
        object.insert("usage".into(), used.usage);
        Some(object)
    }

    /// None when the pod does not run, or not all of its containers have figures yet.
    pub fn pod_metrics(&self, namespace: &str, name: &str, uid: &str, labels: &[(String, String)]) -> Option<Object> {
        let found = self.pods.iter().find(|pod| {
            let known = &pod.pod_ref;
            known.name == name && known.namespace == namespace && (known.uid.is_empty() || known.uid == uid)
        })?;
        let containers = found
            .containers
            .iter()
            .map(|one| used(one.cpu.as_ref(), one.memory.as_ref()));
        let mut all: Vec<Used> = containers.collect::<Option<_>>()?;
        let named = found.containers.iter().zip(&mut all);
        let shown: Vec<Value> = named
            .map(|(one, used)| json!({"name": one.name, "usage": used.usage.take()}))
            .collect();
        // One time stands for all: that of the container which was looked at first, and the longest window.
        let earliest = all.iter().min_by(|a, b| a.time.cmp(&b.time))?;
        let whole = Used {
            time: earliest.time.clone(),
            window: all.iter().map(|one| one.window).max()?,
            usage: Value::Null,
        };
        let mut object = object("PodMetrics", namespace, name, labels, &whole);
        object.insert("containers".into(), Value::Array(shown));
        Some(object)
    }
}

fn object(kind: &str, namespace: &str, name: &str, labels: &[(String, String)], used: &Used) -> Object {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut metadata = Object::new();
    metadata.insert("name".into(), json!(name));
    if !namespace.is_empty() {
        metadata.insert("namespace".into(), json!(namespace));
    }
    metadata.insert("creationTimestamp".into(), json!(now));
    if !labels.is_empty() {
        let labels = labels.iter().map(|(key, value)| (key.clone(), json!(value)));
        metadata.insert("labels".into(), Value::Object(labels.collect()));
    }
    let mut object = Object::new();
    object.insert("kind".into(), json!(kind));
    object.insert("apiVersion".into(), json!("metrics.k8s.io/v1beta1"));
    object.insert("metadata".into(), Value::Object(metadata));
    object.insert("timestamp".into(), json!(used.time));
    object.insert("window".into(), json!(go_duration(used.window)));
    object
}

/// `1m15.25s`, in whole milliseconds.
fn go_duration(duration: Duration) -> String {
    let (minutes, seconds) = (duration.as_secs() / 60, duration.as_secs() % 60);
    let mut text = match minutes {
        0 => format!("{seconds}"),
        minutes => format!("{minutes}m{seconds}"),
    };
    if duration.subsec_millis() > 0 {
        text += format!(".{:03}", duration.subsec_millis()).trim_end_matches('0');
    }
    text + "s"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let cpu = |nano: u64, window: f64| json!({"time": "2026-01-01T00:00:00Z", "usageNanoCores": nano, "windowSeconds": window});
        serde_json::from_value(json!({
            "node": {"nodeName": "n", "cpu": {"time": "2026-01-01T00:00:00Z", "usageNanoCores": 1_500_000_000}, "memory": {"workingSetBytes": 3072}},
            "pods": [
                {"podRef": {"name": "p", "namespace": "ns", "uid": "u"}, "containers": [
                    {"name": "a", "cpu": cpu(1_234_567, 15.25), "memory": {"workingSetBytes": 1 << 20}},
                    {"name": "b", "cpu": cpu(2_000_000, 3.0), "memory": {"workingSetBytes": 100}},
                ]},
                {"podRef": {"name": "young", "namespace": "ns", "uid": "v"}, "containers": [
                    {"name": "a", "cpu": {"time": "2026-01-01T00:00:00Z"}, "memory": {"workingSetBytes": 1}},
                ]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn pods() {
        let labels = [("app".to_owned(), "x".to_owned())];
        let pod = Value::Object(summary().pod_metrics("ns", "p", "u", &labels).unwrap());
        assert_eq!(pod["metadata"]["labels"], json!({"app": "x"}));
        assert_eq!(
            (&pod["window"], &pod["timestamp"]),
            (&json!("15.25s"), &json!("2026-01-01T00:00:00Z"))
        );
        assert_eq!(
            pod["containers"],
            json!([
                {"name": "a", "usage": {"cpu": "1234567n", "memory": "1Mi"}},
                {"name": "b", "usage": {"cpu": "2m", "memory": "100"}},
            ])
        );
        assert!(summary().pod_metrics("ns", "p", "another", &[]).is_none());
        assert!(
            summary().pod_metrics("ns", "young", "v", &[]).is_none(),
            "nothing to compare with yet"
        );
        assert!(summary().pod_metrics("ns", "absent", "u", &[]).is_none());
    }

    #[test]
    fn nodes() {
        let node = Value::Object(summary().node_metrics("n", &[]).unwrap());
        assert_eq!(node["usage"], json!({"cpu": "1500m", "memory": "3Ki"}));
        assert_eq!(node["window"], "10s", "of a kubelet that does not say");
    }

    #[test]
    fn durations() {
        for (millis, text) in [(900, "0.9s"), (10_000, "10s"), (75_250, "1m15.25s")] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }
}
