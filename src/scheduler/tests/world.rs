//! A small cluster for tests: nodes and pods as JSON, and an engine that has heard of them.

use crate::scheduler::configuration::Configuration;
use crate::scheduler::engine::{Action, Engine};
use crate::scheduler::objects::Objects;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Adds the members of `extra`, deeply.
pub fn with(mut object: Value, extra: Value) -> Value {
    match (&mut object, extra) {
        (Value::Object(members), Value::Object(extra)) => {
            for (key, value) in extra {
                let old = members.remove(&key).unwrap_or(Value::Null);
                members.insert(key, with(old, value));
            }
            object
        }
        (_, extra) => extra,
    }
}

pub fn node(name: &str, extra: Value) -> Value {
    let base = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}},
    });
    with(base, extra)
}

pub fn pod(name: &str, spec: Value) -> Value {
    let base = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "img"}]},
        "status": {"phase": "Pending"},
    });
    with(base, json!({"spec": spec}))
}

/// A spec that requests so much cpu.
pub fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "img", "resources": {"requests": {"cpu": amount}}}]})
}

pub fn labelled(pod: Value, labels: Value) -> Value {
    with(pod, json!({"metadata": {"labels": labels}}))
}

pub fn parsed<K: DeserializeOwned>(value: Value) -> Arc<K> {
    Arc::new(serde_json::from_value(value.clone()).unwrap_or_else(|error| panic!("{error}: {value}")))
}

pub struct World {
    pub engine: Engine,
    pub now: Instant,
    pods: BTreeMap<String, Arc<Pod>>,
    nodes: BTreeMap<String, Arc<Node>>,
}

impl World {
    pub fn new(nodes: impl IntoIterator<Item = Value>) -> Self {
        Self::of(&Configuration::default(), nodes)
    }

    pub fn of(configuration: &Configuration, nodes: impl IntoIterator<Item = Value>) -> Self {
        let mut world = Self {
            engine: Engine::new(configuration, 7),
            now: Instant::now(),
            pods: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        for node in nodes {
            world.put_node(node);
        }
        world
    }

    pub fn put_node(&mut self, node: Value) {
        let node: Arc<Node> = parsed(node);
        let name = node.metadata.name.clone().unwrap();
        let old = self.nodes.insert(name, node.clone());
        self.engine.on_node(old.as_deref(), Some(node), self.now);
    }

    pub fn put(&mut self, pod: Value) {
        let pod: Arc<Pod> = parsed(pod);
        let uid = pod.metadata.uid.clone().unwrap();
        let old = self.pods.insert(uid, pod.clone());
        self.engine.on_pod(old.as_deref(), Some(pod), self.now);
    }

    /// A pod that stands on the node.
    pub fn place(&mut self, pod: Value, node: &str) {
        self.put(with(
            pod,
            json!({"spec": {"nodeName": node}, "status": {"phase": "Running"}}),
        ));
    }

    pub fn remove(&mut self, uid: &str) {
        let old = self.pods.remove(uid);
        self.engine.on_pod(old.as_deref(), None, self.now);
    }

    pub fn objects(&mut self) -> &mut Objects {
        &mut self.engine.objects
    }

    /// Decides about one pod; the actions.
    pub fn step(&mut self) -> Vec<Action> {
        self.engine.step(self.now).expect("a pod waits")
    }

    /// What is decided about a new pod: the node, or the message.
    pub fn ask(&mut self, pod: Value) -> String {
        self.put(pod);
        told(&self.step())
    }

    /// The same, but the pod is taken away again.
    pub fn try_one(&mut self, pod: Value) -> String {
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        self.put(pod);
        let actions = self.step();
        self.remove(&uid);
        for action in &actions {
            if let Action::Bind { bindings, .. } = action {
                self.engine.bound(bindings);
                self.objects().assumed.allocations.clear();
            }
        }
        told(&actions)
    }
}

pub fn told(actions: &[Action]) -> String {
    let one = |action: &Action| match action {
        Action::Bind { node, .. } => node.clone(),
        Action::Report(report) => report.message.clone(),
        Action::Deallocate(claim) => format!("[{} gives its devices back]", crate::scheduler::devices::key(claim)),
        Action::Preempt { node, victims, .. } => {
            let names: Vec<&str> = victims.iter().map(|victim| victim.name.as_str()).collect();
            format!("[{} make room on {node}]", names.join(" "))
        }
    };
    actions.iter().map(one).collect::<Vec<_>>().join(" ")
}
