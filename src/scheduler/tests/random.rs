//! Randomised runs against a small model of the API: nodes and pods come and go, calls fail, events get lost until the next
//! list, the scheduler starts anew. Whatever happens, nobody takes more than there is or stands where it must not, and in
//! the end every pod that could have a place has one, the more important first.

use super::world::{labelled, node, parsed, pod, with};
use crate::scheduler::configuration::Configuration;
use crate::scheduler::engine::{Action, Engine};
use k8s_openapi::api::core::v1::{Node, Pod};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const CPU_OF_NODE: i64 = 4000;

type Objects<K> = BTreeMap<String, Arc<K>>;

#[derive(Clone)]
enum Heard {
    Node(String),
    Pod(String),
}

struct Model {
    random: StdRng,
    engine: Engine,
    now: Instant,
    /// The truth, and what the scheduler has heard of it.
    nodes: Objects<Node>,
    pods: Objects<Pod>,
    seen_nodes: Objects<Node>,
    seen_pods: Objects<Pod>,
    /// In order; what is there when it is heard counts.
    news: Vec<Heard>,
    calls: Vec<Action>,
    made: usize,
}

fn cpu_of(pod: &Pod) -> i64 {
    let requests = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers[0].resources.as_ref()?.requests.as_ref());
    requests.map_or(0, |r| r["cpu"].0.trim_end_matches('m').parse().unwrap())
}
fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}
fn on(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
fn group(pod: &Pod) -> Option<&String> {
    pod.metadata.labels.as_ref()?.get("shy")
}
fn takes_pods(node: &Node) -> bool {
    node.spec.as_ref().is_none_or(|spec| spec.unschedulable != Some(true))
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut model = Self {
            random: StdRng::seed_from_u64(seed),
            engine: Engine::new(&Configuration::default(), seed),
            now: Instant::now(),
            nodes: Objects::new(),
            pods: Objects::new(),
            seen_nodes: Objects::new(),
            seen_pods: Objects::new(),
            news: Vec::new(),
            calls: Vec::new(),
            made: 0,
        };
        for n in 0..4 {
            model.set_node(&format!("n{n}"), false);
        }
        model
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }
    fn any<K>(&mut self, objects: fn(&Self) -> &Objects<K>) -> Option<String> {
        let count = objects(self).len();
        let at = (count > 0).then(|| self.random.random_range(0..count))?;
        objects(self).keys().nth(at).cloned()
    }

    fn set_node(&mut self, name: &str, cordoned: bool) {
        let figures = json!({"cpu": format!("{CPU_OF_NODE}m"), "pods": "6"});
        let object = node(
            name,
            json!({"spec": {"unschedulable": cordoned}, "status": {"allocatable": figures}}),
        );
        self.nodes.insert(name.into(), parsed(object));
        self.news.push(Heard::Node(name.into()));
    }
    fn write(&mut self, uid: &str, change: Value) {
        let Some(pod) = self.pods.get(uid) else { return };
        let changed = with(serde_json::to_value(&**pod).unwrap(), change);
        self.pods.insert(uid.into(), parsed(changed));
        self.news.push(Heard::Pod(uid.into()));
    }
    fn drop_pod(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.news.push(Heard::Pod(uid.into()));
    }

    fn create(&mut self) {
        self.made += 1;
        let name = format!("p{}", self.made);
        let size = self.random.random_range(1..=8) * 400;
        let requests = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{size}m")}}}]});
        let mut object = pod(
            &name,
            with(requests, json!({"priority": self.random.random_range(0..4)})),
        );
        if self.chance(30) {
            let group = format!("g{}", self.random.random_range(0..2));
            let term =
                json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"shy": group}}}]);
            let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
            object = labelled(
                with(object, json!({"spec": {"affinity": affinity}})),
                json!({"shy": group}),
            );
        }
        if self.chance(10) {
            object = with(object, json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
        }
        self.pods.insert(name.clone(), parsed(object));
        self.news.push(Heard::Pod(name));
    }

    fn tell(&mut self, heard: &Heard) {
        match heard {
            Heard::Node(name) => {
                let new = self.nodes.get(name).cloned();
                let old = match &new {
                    Some(new) => self.seen_nodes.insert(name.clone(), new.clone()),
                    None => self.seen_nodes.remove(name),
                };
                self.engine.on_node(old.as_deref(), new, self.now);
            }
            Heard::Pod(uid) => {
                let new = self.pods.get(uid).cloned();
                let old = match &new {
                    Some(new) => self.seen_pods.insert(uid.clone(), new.clone()),
                    None => self.seen_pods.remove(uid),
                };
                self.engine.on_pod(old.as_deref(), new, self.now);
            }
        }
    }
    fn tell_all(&mut self) {
        for heard in std::mem::take(&mut self.news) {
            self.tell(&heard);
        }
    }
    /// Everything that differs from what was heard.
    fn relist(&mut self) {
        let names: Vec<String> = self.nodes.keys().chain(self.seen_nodes.keys()).cloned().collect();
        let uids: Vec<String> = self.pods.keys().chain(self.seen_pods.keys()).cloned().collect();
        self.news = names
            .into_iter()
            .map(Heard::Node)
            .chain(uids.into_iter().map(Heard::Pod))
            .collect();
        self.tell_all();
    }

    /// Another process, which has heard of nothing; calls that were under way are done or never arrive.
    fn restart(&mut self) {
        for call in std::mem::take(&mut self.calls) {
            if self.chance(50) {
                // Whether it was done or refused: nobody hears of it.
                let _ = self.do_call(&call, 0);
            }
        }
        self.engine = Engine::new(&Configuration::default(), self.made as u64);
        self.seen_nodes.clear();
        self.seen_pods.clear();
        self.relist();
    }

    /// What the API does; Err if it does not.
    fn do_call(&mut self, call: &Action, fail_percent: u32) -> Result<(), Vec<String>> {
        match call {
            Action::Bind { pod, node, .. } => {
                let free = self
                    .pods
                    .get(&pod.uid)
                    .is_some_and(|pod| on(pod).is_none() && pod.metadata.deletion_timestamp.is_none());
                if !free || self.chance(fail_percent) {
                    return Err(Vec::new());
                }
                self.write(
                    &pod.uid,
                    json!({"spec": {"nodeName": node}, "status": {"nominatedNodeName": null}}),
                );
                self.check();
                // It was done, but the answer was lost. The watch is faster than the time limit.
                if self.chance(fail_percent) {
                    self.tell_all();
                    return Err(Vec::new());
                }
                Ok(())
            }
            Action::Deallocate(_) => Ok(()),
            Action::Report(report) => {
                if let Some(node) = &report.nominate {
                    self.write(&report.pod.uid, json!({"status": {"nominatedNodeName": node}}));
                }
                Ok(())
            }
            Action::Preempt { victims, pod, .. } => {
                let mut failed = Vec::new();
                for victim in victims {
                    assert!(victim.priority < pod.priority);
                    if self.chance(fail_percent) {
                        failed.push(victim.uid.clone());
                        continue;
                    }
                    let condition =
                        json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
                    let gone = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": [condition]}});
                    self.write(&victim.uid, gone);
                }
                if failed.is_empty() { Ok(()) } else { Err(failed) }
            }
        }
    }
    fn end_call(&mut self, fail_percent: u32) {
        if self.calls.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.calls.len());
        let call = self.calls.swap_remove(at);
        let result = self.do_call(&call, fail_percent);
        match (&call, result) {
            (Action::Bind { bindings, .. }, Ok(())) => self.engine.bound(bindings),
            (Action::Bind { pod, bindings, .. }, Err(_)) => {
                let report = self
                    .engine
                    .not_bound(&pod.uid, bindings, &[], "failed".into(), self.now);
                self.calls.extend(report);
            }
            (Action::Preempt { pod, displaced, .. }, result) => {
                let failed = result.err().unwrap_or_default();
                self.engine.room_was_made(&pod.uid, &failed, displaced, self.now);
            }
            (Action::Report(_) | Action::Deallocate(_), _) => {}
        }
    }
    fn decide(&mut self) -> bool {
        match self.engine.step(self.now) {
            Some(actions) => {
                self.calls.extend(actions);
                true
            }
            None => false,
        }
    }

    fn churn(&mut self) {
        match self.random.random_range(0..14) {
            0..3 => self.create(),
            3 => {
                if let Some(uid) = self.any(|model| &model.pods) {
                    self.drop_pod(&uid);
                }
            }
            4 => {
                let name = format!("n{}", self.random.random_range(0..6));
                let cordoned = self.chance(30);
                self.set_node(&name, cordoned);
            }
            5 => {
                if self.nodes.len() > 2
                    && let Some(name) = self.any(|model| &model.nodes)
                {
                    self.nodes.remove(&name);
                    self.news.push(Heard::Node(name));
                }
            }
            6 => self.finish_deletions(),
            7 => {
                if let Some(uid) = self.any(|model| &model.pods) {
                    self.write(&uid, json!({"spec": {"schedulingGates": null}}));
                }
            }
            // Lost until the next list: anything but that a pod has a node.
            8 if !self.news.is_empty() => {
                let at = self.random.random_range(0..self.news.len());
                let has_node = |uid: &String| self.pods.get(uid).is_some_and(|pod| on(pod).is_some());
                let bound = matches!(&self.news[at], Heard::Pod(uid) if has_node(uid));
                if !bound {
                    self.news.remove(at);
                }
            }
            9 if self.chance(10) => self.restart(),
            9 => self.relist(),
            10 => self.now += Duration::from_millis(self.random.random_range(0..3000)),
            _ => {}
        }
    }
    fn finish_deletions(&mut self) {
        let going = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.metadata.deletion_timestamp.is_some());
        let going: Vec<String> = going.map(|(uid, _)| uid.clone()).collect();
        for uid in going {
            self.drop_pod(&uid);
        }
    }

    /// What must hold at every moment.
    fn check(&self) {
        let mut used: BTreeMap<&str, (i64, usize)> = BTreeMap::new();
        let mut groups: BTreeMap<(&str, &String), usize> = BTreeMap::new();
        for pod in self.pods.values() {
            let Some(node) = on(pod) else { continue };
            let used = used.entry(node).or_default();
            *used = (used.0 + cpu_of(pod), used.1 + 1);
            if let Some(group) = group(pod) {
                *groups.entry((node, group)).or_default() += 1;
            }
        }
        for (node, (cpu, pods)) in used {
            assert!(
                cpu <= CPU_OF_NODE && pods <= 6,
                "{node} is over-committed: {cpu}m, {pods} pods"
            );
        }
        for ((node, group), count) in groups {
            assert_eq!(count, 1, "pods of {group} stand together on {node}");
        }
    }

    /// Whether the pod would fit on the node beside those pods there that count.
    fn would_fit(&self, pod: &Pod, node: &str, counts: impl Fn(&Pod) -> bool) -> bool {
        let there: Vec<&Arc<Pod>> = self
            .pods
            .values()
            .filter(|other| on(other) == Some(node) && counts(other))
            .collect();
        let cpu: i64 = there.iter().map(|other| cpu_of(other)).sum();
        let apart = group(pod).is_none_or(|own| !there.iter().any(|other| group(other) == Some(own)));
        takes_pods(&self.nodes[node]) && apart && there.len() < 6 && cpu + cpu_of(pod) <= CPU_OF_NODE
    }

    /// What must hold once everything has settled.
    fn check_end(&self) {
        self.check();
        for (uid, pod) in &self.pods {
            let gated = pod
                .spec
                .as_ref()
                .unwrap()
                .scheduling_gates
                .as_ref()
                .is_some_and(|g| !g.is_empty());
            if on(pod).is_some() || gated {
                continue;
            }
            for node in self.nodes.keys() {
                assert!(
                    !self.would_fit(pod, node, |_| true),
                    "{uid} waits although it fits on {node}"
                );
                let own = priority(pod);
                assert!(
                    !self.would_fit(pod, node, |other| priority(other) >= own),
                    "{uid} starves: only pods of lower priority are in its way on {node}"
                );
            }
        }
    }
}

fn run(seed: u64) {
    let mut model = Model::new(seed);
    for _ in 0..250 {
        model.churn();
        if model.chance(50) {
            let count = model.random.random_range(0..3);
            for _ in 0..count.min(model.news.len()) {
                let heard = model.news.remove(0);
                model.tell(&heard);
            }
        }
        if model.chance(60) {
            model.decide();
        }
        if model.chance(50) {
            model.end_call(15);
        }
        model.check();
    }
    // It becomes quiet. Well before pods are tried again without a reason.
    model.relist();
    for _ in 0..60 {
        model.tell_all();
        while model.decide() {}
        while !model.calls.is_empty() {
            model.end_call(0);
        }
        model.finish_deletions();
        model.now += Duration::from_secs(4);
    }
    model.tell_all();
    assert!(!model.decide() && model.calls.is_empty(), "it does not come to rest");
    model.check_end();
}

#[test]
fn whatever_happens() {
    for seed in 0..300 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            panic!("seed {seed}: {}", text.unwrap_or_default());
        }
    }
}
