//! The most frequent shape of a test with pods: objects, a pod that prints something and ends, and what it must print.

use crate::cluster::Cluster;
use crate::pods::{Pods, container_status};
use crate::quantity;
use crate::resource::name;
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

/// One such test.
#[derive(Clone)]
pub struct Prints {
    name: &'static str,
    /// Resource and object.
    objects: Vec<(&'static str, Value)>,
    pod: Value,
    /// Lines that must be in the output. `$pod/..` and `$node/..` stand for what is at that place of the pod (as it
    /// ended) or of its node, `$cpu` and `$memory` for what the node can give, in cores and bytes.
    lines: Vec<String>,
    not: Vec<String>,
}

impl Prints {
    pub fn new(name: &'static str, pod: Value) -> Self {
        Self {
            name,
            objects: Vec::new(),
            pod,
            lines: Vec::new(),
            not: Vec::new(),
        }
    }

    /// An object that is there before the pod.
    pub fn with(mut self, plural: &'static str, object: Value) -> Self {
        self.objects.push((plural, object));
        self
    }

    pub fn prints<S: Into<String>>(mut self, lines: impl IntoIterator<Item = S>) -> Self {
        self.lines.extend(lines.into_iter().map(Into::into));
        self
    }

    /// No line has this text.
    pub fn prints_not(mut self, text: &str) -> Self {
        self.not.push(text.to_owned());
        self
    }

    pub fn test(self) -> Test {
        let name = self.name;
        pod_test(name, move |cluster| self.clone().run(cluster))
    }

    async fn run(self, cluster: Cluster) {
        let pods = cluster.pods("prints").await;
        for (plural, object) in &self.objects {
            pods.core(plural).create(object).await.unwrap();
        }
        let output = pods.output(&self.pod).await;
        let pod = pods.resource.get(name(&self.pod)).await.unwrap();
        let node = cluster.core("nodes", None);
        let node = node.get(pod["spec"]["nodeName"].as_str().unwrap()).await.unwrap();
        for line in &self.lines {
            let line = filled(line, &pod, &node);
            assert!(output.lines().any(|l| l == line), "{line:?} is missing in:\n{output}");
        }
        for text in &self.not {
            assert!(!output.contains(text), "{text:?} is in:\n{output}");
        }
    }
}

fn filled(line: &str, pod: &Value, node: &Value) -> String {
    let Some((before, place)) = line.split_once('$') else {
        return line.to_owned();
    };
    let allocatable = |resource: &str| {
        let text = node["status"]["allocatable"][resource].as_str().expect("a quantity");
        quantity::rounded_up(text).to_string()
    };
    let value = match place.split_once('/') {
        Some(("pod", path)) => pod.pointer(&format!("/{path}")).map(text_of),
        Some(("node", path)) => node.pointer(&format!("/{path}")).map(text_of),
        _ => Some(allocatable(place)),
    };
    format!(
        "{before}{}",
        value.unwrap_or_else(|| panic!("{place} is not in {pod} or {node}"))
    )
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A ConfigMap or a Secret with this data.
pub fn map(plural: &'static str, name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<String, Value> = data.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    match plural {
        "secrets" => json!({"metadata": {"name": name}, "stringData": data}),
        _ => json!({"metadata": {"name": name}, "data": data}),
    }
}

/// Waits until the container cannot be configured, and gives the message.
pub async fn config_error(pods: &Pods, name: &str) -> String {
    let waiting = |pod: &Value| container_status(pod, "main")["state"]["waiting"].clone();
    let pod = pods
        .until(name, "refused by the node agent", |pod| {
            waiting(pod)["reason"] == "CreateContainerConfigError"
        })
        .await;
    assert_eq!(pod["status"]["phase"], "Pending");
    text_of(&waiting(&pod)["message"])
}
