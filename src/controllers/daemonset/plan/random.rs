//! Random histories of a DaemonSet: nodes come and go, pods fail, the cache lags.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const SEEDS: u64 = 200;
const STEPS: usize = 120;
const NODES: u32 = 6;

#[derive(Clone, Debug, PartialEq)]
struct Daemon {
    node: u32,
    hash: String,
    phase: &'static str,
    ready: bool,
    going: bool,
}

impl Daemon {
    fn is_available(&self) -> bool {
        self.ready && !self.going
    }
}

/// What a node does to daemons.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Fit,
    NoSchedule,
    NoExecute,
}

struct World {
    random: StdRng,
    set: DaemonSet,
    hash: String,
    nodes: BTreeMap<u32, Kind>,
    pods: BTreeMap<u32, Daemon>,
    /// What the controller's cache shows; its own writes it always shows.
    seen: BTreeMap<u32, Daemon>,
    backoff: Backoff,
    names: u32,
    seconds: i64,
    surge: bool,
    /// Pods fail, are deleted by others, and nodes change.
    rough: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let surge = random.random_bool(0.5);
        let number = random.random_range(1..4);
        let numbers = match surge {
            true => json!({"maxSurge": number, "maxUnavailable": 0}),
            false => json!({"maxSurge": 0, "maxUnavailable": number}),
        };
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": numbers});
        let spec = json!({"selector": {}, "template": {"spec": {"containers": []}}, "updateStrategy": strategy});
        let metadata = json!({"name": "d", "namespace": "a", "uid": "set", "generation": 1});
        Self {
            rough: random.random_bool(0.5),
            random,
            set: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            hash: "h0".to_owned(),
            nodes: (0..4).map(|node| (node, Kind::Fit)).collect(),
            pods: BTreeMap::new(),
            seen: BTreeMap::new(),
            backoff: Backoff::default(),
            names: 0,
            seconds: 1_000_000,
            surge,
        }
    }

    fn any_pod(&mut self) -> Option<u32> {
        let names: Vec<u32> = self.pods.keys().chain(self.seen.keys()).copied().collect();
        (!names.is_empty()).then(|| names[self.random.random_range(0..names.len())])
    }

    fn step(&mut self) {
        self.seconds += self.random.random_range(0..3);
        let pod = self.any_pod();
        match (self.random.random_range(0..16), pod) {
            (0, _) => self.hash = format!("h{}", self.random.random_range(0..3)),
            (1, _) if self.rough => self.change_a_node(),
            (2, Some(pod)) if self.rough => self.harm(pod),
            (3..7, Some(pod)) => self.work_on(pod),
            (7..11, Some(pod)) => self.show(pod),
            _ => {
                self.sync();
            }
        }
    }

    fn change_a_node(&mut self) {
        let node = self.random.random_range(0..NODES);
        match self.random.random_range(0..5) {
            0 => {
                self.nodes.remove(&node);
                // Its pods are collected; those that wait for it are the controller's to remove.
                self.pods.retain(|_, pod| pod.node != node || pod.phase == "Waiting");
            }
            1 => drop(self.nodes.insert(node, Kind::NoSchedule)),
            2 => drop(self.nodes.insert(node, Kind::NoExecute)),
            _ => drop(self.nodes.insert(node, Kind::Fit)),
        }
    }

    fn harm(&mut self, name: u32) {
        let kind = self.random.random_range(0..4);
        let Some(pod) = self.pods.get_mut(&name) else { return };
        match kind {
            0 => pod.ready = false,
            1 => (pod.phase, pod.ready) = ("Failed", false),
            2 => (pod.phase, pod.ready) = ("Succeeded", false),
            _ => pod.going = true,
        }
    }

    /// Scheduled, begun, ready; or gone.
    fn work_on(&mut self, name: u32) {
        let Some(pod) = self.pods.get_mut(&name) else { return };
        match (pod.going, pod.phase) {
            (true, _) => drop(self.pods.remove(&name)),
            (_, "Waiting") if self.nodes.contains_key(&pod.node) => pod.phase = "Pending",
            (_, "Pending") => pod.phase = "Running",
            (_, "Running") => pod.ready = true,
            _ => {}
        }
    }

    fn show(&mut self, name: u32) {
        match self.pods.get(&name) {
            Some(pod) => drop(self.seen.insert(name, pod.clone())),
            None => drop(self.seen.remove(&name)),
        }
    }

    fn cached_pods(&self) -> Vec<Arc<Pod>> {
        let pod = |(name, daemon): (&u32, &Daemon)| {
            let node = format!("n{}", daemon.node);
            let fields = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
            let terms = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
            let mut spec = json!({"containers": [], "affinity":
                {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
            let phase = match daemon.phase {
                "Waiting" => "Pending",
                phase => {
                    spec["nodeName"] = json!(node);
                    phase
                }
            };
            let ready = if daemon.ready { "True" } else { "False" };
            let mut pod = json!({
                "metadata": {"name": format!("p{name:04}"), "namespace": "a", "uid": name.to_string(),
                    "labels": {"controller-revision-hash": daemon.hash}},
                "spec": spec, "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
            });
            if daemon.going {
                pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            Arc::new(serde_json::from_value(pod).unwrap())
        };
        self.seen.iter().map(pod).collect()
    }

    fn cached_nodes(&self) -> Vec<Arc<Node>> {
        let node = |(name, kind): (&u32, &Kind)| {
            let taints = match kind {
                Kind::Fit => json!([]),
                kind => json!([{"key": "own", "effect": format!("{kind:?}")}]),
            };
            let node = json!({"metadata": {"name": format!("n{name}")}, "spec": {"taints": taints}});
            Arc::new(serde_json::from_value(node).unwrap())
        };
        self.nodes.iter().map(node).collect()
    }

    /// One turn of the controller, which may break off anywhere. Whether there was anything to do.
    fn sync(&mut self) -> bool {
        let (nodes, pods) = (self.cached_nodes(), self.cached_pods());
        let view = View {
            set: &self.set,
            nodes: &nodes,
            pods: &pods,
            hash: &self.hash,
            now: Timestamp::from_second(self.seconds).unwrap(),
        };
        let plan = plan(&view, &mut self.backoff).unwrap();
        let status = status(&view);
        let mut acted = !plan.create_on.is_empty() || !plan.delete.is_empty() || plan.again_after.is_some();
        for node in &plan.create_on {
            if self.random.random_bool(0.1) {
                return true;
            }
            self.create(node[1..].parse().unwrap());
        }
        for pod in &plan.delete {
            if self.random.random_bool(0.1) {
                return true;
            }
            self.delete(pod.uid().unwrap().parse().unwrap());
        }
        if differs(&self.set, &status) {
            acted = true;
            self.set.status = Some(status);
        }
        acted
    }

    fn create(&mut self, node: u32) {
        assert_eq!(self.nodes.get(&node), Some(&Kind::Fit), "node {node} is not fit");
        let holds = |pod: &&Daemon| pod.node == node && !matches!(pod.phase, "Failed" | "Succeeded");
        let (going, staying): (Vec<&Daemon>, _) = self.pods.values().filter(holds).partition(|pod| pod.going);
        if self.surge {
            assert!(staying.len() <= 1, "a third one on node {node}: {:?}", self.pods);
        } else {
            assert!(
                going.is_empty() && staying.is_empty(),
                "a second one on node {node}: {:?}",
                self.pods
            );
        }
        self.names += 1;
        let pod = Daemon {
            node,
            hash: self.hash.clone(),
            phase: "Waiting",
            ready: false,
            going: false,
        };
        self.pods.insert(self.names, pod);
        self.show(self.names);
    }

    fn delete(&mut self, name: u32) {
        let Some(pod) = self.pods.get_mut(&name) else { return };
        let (is_old, node) = (pod.hash != self.hash, pod.node);
        pod.going = true;
        // What seems to be down goes for nothing.
        let seemed_available = self.seen.get(&name).is_some_and(Daemon::is_available);
        self.show(name);
        if self.rough || !is_old || !seemed_available {
            return;
        }
        // All nodes are fit here.
        let is_served = |node: &u32| self.pods.values().any(|pod| pod.node == *node && pod.is_available());
        if self.surge {
            assert!(is_served(&node), "node {node} is not served: {:?}", self.pods);
            return;
        }
        let unavailable = self.nodes.keys().filter(|node| !is_served(node)).count();
        let most = max_unavailable(&self.set, NODES as i32).unwrap() as usize;
        assert!(
            unavailable <= most,
            "{unavailable} of {most} are unavailable: {:?}",
            self.pods
        );
    }

    /// All become quiet: what is left to do is done, and then nothing is.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.seconds += 2000;
            let mut acted = self.sync();
            let names: Vec<u32> = self.pods.keys().chain(self.seen.keys()).copied().collect();
            let before = self.seen.clone();
            for name in names {
                self.work_on(name);
                self.show(name);
            }
            acted |= before != self.seen;
            if !acted {
                return;
            }
        }
        panic!("it does not come to rest: {:?}", self.pods);
    }

    fn check_the_end(&self) {
        for (node, kind) in &self.nodes {
            let there: Vec<&Daemon> = self.pods.values().filter(|pod| pod.node == *node).collect();
            match kind {
                Kind::Fit => assert_eq!(there.len(), 1, "node {node}: {there:?}"),
                Kind::NoSchedule => assert!(there.len() <= 1, "node {node}: {there:?}"),
                Kind::NoExecute => assert!(there.is_empty(), "node {node}: {there:?}"),
            }
            for pod in there.iter().filter(|_| *kind == Kind::Fit) {
                assert!(pod.is_available() && pod.hash == self.hash, "node {node}: {pod:?}");
            }
        }
        assert!(
            self.pods.values().all(|pod| self.nodes.contains_key(&pod.node)),
            "{:?}",
            self.pods
        );
        let fit = self.nodes.values().filter(|kind| **kind == Kind::Fit).count() as i32;
        let status = self.set.status.as_ref().unwrap();
        assert_eq!(
            (status.desired_number_scheduled, status.number_available),
            (fit, Some(fit))
        );
    }
}

#[test]
fn every_history_keeps_the_bounds_and_comes_to_rest() {
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            world.settle();
            world.check_the_end();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
