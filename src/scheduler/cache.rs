//! Nodes and what stands on them, pods whose binding is under way included (upstream: `pkg/scheduler/backend/cache`).
//!
//! One task owns the cache, and a cycle runs within that task without a pause: it reads the cache itself, so there is no
//! snapshot to be made.

use super::index::{Carriers, Domains, Index, Query};
use super::node_info::{NodeChange, NodeInfo};
use super::pod_info::PodInfo;
use super::selector::Labels;
use crate::client::pods::{is_finished, node_name};
use k8s_openapi::api::core::v1::{Node, Pod};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

static NO_LABELS: Labels = Labels::new();

struct Placed {
    slot: usize,
    info: Arc<PodInfo>,
    assumed: bool,
}

/// What became of a node's event.
#[derive(Debug, PartialEq, Eq)]
pub enum NodeEvent {
    Added,
    Changed(NodeChange),
    Nothing,
}

/// What became of an event of a pod that has a node.
pub enum PodEvent {
    Added(Arc<PodInfo>),
    Changed {
        old: Arc<PodInfo>,
        new: Arc<PodInfo>,
    },
    /// It takes no room any more.
    Removed(Arc<PodInfo>),
    Nothing,
}

#[derive(Default)]
pub struct Cache {
    /// By slot. Slots of nodes that are gone are used again.
    nodes: Vec<NodeInfo>,
    slots: HashMap<String, usize>,
    free: Vec<usize>,
    /// Slots of the nodes that can take pods, one zone after the other in turns.
    order: Vec<usize>,
    order_is_old: bool,
    pods: HashMap<String, Placed>,
    /// Pods on nodes that use a claim, by `namespace/name`.
    claim_users: HashMap<String, u32>,
    /// Nodes that have an image, by its name.
    image_nodes: HashMap<String, u32>,
    namespaces: HashMap<String, Labels>,
    carriers: Carriers,
    /// Filled when it is asked.
    index: RefCell<Index>,
}

impl Cache {
    /// The nodes that can take pods, in the order in which they are looked at.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// Brings the order of nodes up to date; before each cycle.
    pub fn refresh(&mut self) {
        if !std::mem::take(&mut self.order_is_old) {
            return;
        }
        let mut zones: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
        let mut names: Vec<(&String, usize)> = self.slots.iter().map(|(name, slot)| (name, *slot)).collect();
        names.sort();
        for (_, slot) in names {
            let node = &self.nodes[slot];
            if node.node.is_some() {
                zones.entry(node.zone()).or_default().push(slot);
            }
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or(0);
        self.order = (0..longest)
            .flat_map(|turn| zones.values().filter_map(move |zone| zone.get(turn).copied()))
            .collect();
    }

    pub fn node_at(&self, slot: usize) -> &NodeInfo {
        &self.nodes[slot]
    }

    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        let node = &self.nodes[*self.slots.get(name)?];
        node.node.is_some().then_some(node)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.order.iter().map(|slot| &self.nodes[*slot])
    }

    fn slot_of(&mut self, name: &str) -> usize {
        if let Some(slot) = self.slots.get(name) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(NodeInfo::default());
            self.nodes.len() - 1
        });
        self.nodes[slot] = NodeInfo {
            slot,
            name: name.to_owned(),
            ..NodeInfo::default()
        };
        self.slots.insert(name.to_owned(), slot);
        slot
    }

    pub fn put_node(&mut self, node: Arc<Node>) -> NodeEvent {
        let slot = self.slot_of(node.metadata.name.as_deref().unwrap_or_default());
        let info = &mut self.nodes[slot];
        let event = match &info.node {
            None => NodeEvent::Added,
            Some(old) => {
                let change = NodeChange::between(old, &node);
                if change.any() {
                    NodeEvent::Changed(change)
                } else {
                    NodeEvent::Nothing
                }
            }
        };
        let images = info.images.clone();
        info.set_node(node);
        if !Arc::ptr_eq(&images, &info.images) {
            let now = info.images.clone();
            self.count_images(&images, &now);
        }
        match event {
            NodeEvent::Added => self.order_is_old = true,
            NodeEvent::Changed(change) => self.order_is_old |= change.labels,
            NodeEvent::Nothing => {}
        }
        if matches!(
            event,
            NodeEvent::Added | NodeEvent::Changed(NodeChange { labels: true, .. })
        ) {
            let labels = self.nodes[slot].labels();
            self.index.get_mut().set_labels(slot, Some(labels));
        }
        event
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.slots.get(name).copied() else {
            return;
        };
        let info = &mut self.nodes[slot];
        info.node = None;
        let images = std::mem::take(&mut info.images);
        self.count_images(&images, &HashMap::new());
        self.index.get_mut().set_labels(slot, None);
        self.order_is_old = true;
        self.drop_if_empty(slot);
    }

    fn count_images(&mut self, old: &HashMap<String, i64>, new: &HashMap<String, i64>) {
        for name in old.keys() {
            if let Some(count) = self.image_nodes.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.image_nodes.remove(name);
                }
            }
        }
        for name in new.keys() {
            *self.image_nodes.entry(name.clone()).or_default() += 1;
        }
    }

    fn drop_if_empty(&mut self, slot: usize) {
        let info = &self.nodes[slot];
        if info.node.is_none() && info.pods.is_empty() {
            self.slots.remove(&info.name);
            self.free.push(slot);
        }
    }

    /// Takes note of a pod that has a node.
    pub fn put_pod(&mut self, pod: Arc<Pod>) -> PodEvent {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if is_finished(&pod) {
            return self
                .take(&uid)
                .map_or(PodEvent::Nothing, |placed| PodEvent::Removed(placed.info));
        }
        let node = node_name(&pod).unwrap_or_default().to_owned();
        let old = self.take(&uid);
        let new = self.place(Arc::new(PodInfo::new(pod)), &node, false);
        match old {
            // A placement that was assumed is news to nobody here, but the pods that wait heard nothing of it.
            Some(old) if !old.assumed => PodEvent::Changed { old: old.info, new },
            _ => PodEvent::Added(new),
        }
    }

    /// The pod, if it stood on a node.
    pub fn remove_pod(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.take(uid).map(|placed| placed.info)
    }

    /// Counts the pod as placed until the watch confirms it or [`Cache::forget`] is called.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.take(&pod.uid);
        self.place(pod, node, true);
    }
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }
    /// Takes an assumption back; a confirmed placement stays.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        if self.is_assumed(uid) {
            self.take(uid).map(|placed| placed.info)
        } else {
            None
        }
    }

    fn place(&mut self, info: Arc<PodInfo>, node: &str, assumed: bool) -> Arc<PodInfo> {
        let slot = self.slot_of(node);
        let labels = self.namespaces.get(&info.namespace).unwrap_or(&NO_LABELS);
        self.index.get_mut().add(&info, slot, labels);
        self.carriers.add(&info, slot);
        self.nodes[slot].add(info.clone());
        for (claim, _) in &info.claims {
            let key = format!("{}/{claim}", info.namespace);
            *self.claim_users.entry(key).or_default() += 1;
        }
        let placed = Placed {
            slot,
            info: info.clone(),
            assumed,
        };
        self.pods.insert(info.uid.clone(), placed);
        info
    }

    fn take(&mut self, uid: &str) -> Option<Placed> {
        let placed = self.pods.remove(uid)?;
        let info = &placed.info;
        let labels = self.namespaces.get(&info.namespace).unwrap_or(&NO_LABELS);
        self.index.get_mut().remove(info, placed.slot, labels);
        self.carriers.remove(info, placed.slot);
        self.nodes[placed.slot].remove(uid);
        for (claim, _) in &info.claims {
            let key = format!("{}/{claim}", info.namespace);
            if let Some(count) = self.claim_users.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.claim_users.remove(&key);
                }
            }
        }
        self.drop_if_empty(placed.slot);
        Some(placed)
    }

    /// Pods on nodes that use the claim.
    pub fn claim_users(&self, namespace: &str, claim: &str) -> u32 {
        self.claim_users
            .get(&format!("{namespace}/{claim}"))
            .copied()
            .unwrap_or(0)
    }

    /// Nodes that have the image.
    pub fn image_nodes(&self, image: &str) -> u32 {
        self.image_nodes.get(image).copied().unwrap_or(0)
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let changed = match labels {
            Some(labels) => {
                let changed = self.namespaces.get(name) != Some(&labels);
                self.namespaces.insert(name.to_owned(), labels);
                changed
            }
            None => self.namespaces.remove(name).is_some(),
        };
        if changed {
            self.index.get_mut().namespace_changed();
        }
    }

    pub fn namespace_labels(&self, name: &str) -> &Labels {
        self.namespaces.get(name).unwrap_or(&NO_LABELS)
    }

    /// The values of a label over the nodes.
    pub fn domains(&self, key: &str) -> Arc<Domains> {
        self.index.borrow_mut().domains(key, &self.nodes)
    }

    /// How many pods on each node match, by slot; slots beyond the end have none.
    pub fn counts(&self, query: &Query) -> Arc<Vec<u32>> {
        let namespace = |name: &str| self.namespace_labels(name);
        self.index.borrow_mut().counts(query, &self.nodes, namespace)
    }

    /// The terms of affinity that placed pods carry.
    pub fn carriers(&self) -> &Carriers {
        &self.carriers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::pod_info::Scope;
    use crate::scheduler::selector::Selector;
    use serde_json::{Value, json};

    fn node(name: &str, labels: Value) -> Arc<Node> {
        let figures = json!({"cpu": "4", "memory": "1Gi", "pods": "10"});
        let images = json!([{"names": ["img:1"], "sizeBytes": 7}]);
        let node =
            json!({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": figures, "images": images}});
        Arc::new(serde_json::from_value(node).unwrap())
    }
    fn pod(uid: &str, node: Option<&str>, extra: Value) -> Arc<Pod> {
        let mut pod = json!({"metadata": {"uid": uid, "name": uid, "namespace": "x", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}], "nodeName": node}});
        for (key, value) in extra.as_object().unwrap() {
            pod[key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }
    fn query() -> Query {
        let labels = [("app".to_owned(), "a".to_owned())].into();
        Query {
            all: vec![(Scope::one("x"), Selector::of_labels(&labels))],
            terminating: false,
        }
    }

    #[test]
    fn assumed_pods_take_room_and_give_it_back() {
        let mut cache = Cache::default();
        assert_eq!(cache.put_node(node("a", json!({}))), NodeEvent::Added);
        assert_eq!(cache.put_node(node("a", json!({}))), NodeEvent::Nothing, "a heartbeat");
        let requested = |cache: &Cache| cache.node("a").unwrap().requested.cpu;
        cache.assume(Arc::new(PodInfo::new(pod("p", None, json!({})))), "a");
        assert!(cache.is_assumed("p") && requested(&cache) == 1000);
        assert_eq!(cache.counts(&query())[0], 1);
        assert!(matches!(
            cache.put_pod(pod("p", Some("a"), json!({}))),
            PodEvent::Added(_)
        ));
        assert!(!cache.is_assumed("p") && requested(&cache) == 1000);
        assert!(cache.forget("p").is_none(), "it is confirmed");
        let ended = pod("p", Some("a"), json!({"status": {"phase": "Failed"}}));
        assert!(matches!(cache.put_pod(ended), PodEvent::Removed(_)));
        assert_eq!((requested(&cache), cache.counts(&query())[0]), (0, 0));
    }

    #[test]
    fn nodes_take_turns_by_zone_and_slots_are_used_again() {
        let mut cache = Cache::default();
        for (name, zone) in [("a", "1"), ("b", "1"), ("c", "2"), ("d", "2"), ("e", "2")] {
            cache.put_node(node(name, json!({"topology.kubernetes.io/zone": zone})));
        }
        let names = |cache: &mut Cache| {
            cache.refresh();
            cache.nodes().map(|node| node.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(&mut cache), ["a", "c", "b", "d", "e"]);
        cache.put_pod(pod("p", Some("c"), json!({})));
        cache.remove_node("c");
        assert_eq!(names(&mut cache), ["a", "d", "b", "e"]);
        assert!(cache.node("c").is_none());
        cache.remove_pod("p");
        cache.put_node(node("f", json!({"topology.kubernetes.io/zone": "1"})));
        assert_eq!(cache.nodes.len(), 5, "the slot is used again");
        assert_eq!(names(&mut cache), ["a", "d", "b", "e", "f"]);
        assert_eq!(cache.image_nodes("img:1"), 5);
    }

    #[test]
    fn counts_and_domains_follow_what_happens() {
        let mut cache = Cache::default();
        cache.put_node(node("a", json!({"zone": "x"})));
        cache.put_node(node("b", json!({})));
        let by_node = |cache: &Cache| {
            let counts = cache.counts(&query());
            (
                counts.first().copied().unwrap_or(0),
                counts.get(1).copied().unwrap_or(0),
            )
        };
        assert_eq!(by_node(&cache), (0, 0));
        cache.put_pod(pod("p", Some("a"), json!({})));
        cache.put_pod(pod("q", Some("b"), json!({})));
        cache.put_pod(pod(
            "r",
            Some("b"),
            json!({"metadata": {"uid": "r", "namespace": "other", "labels": {"app": "a"}}}),
        ));
        assert_eq!(by_node(&cache), (1, 1));
        let going = json!({"metadata": {"uid": "q", "name": "q", "namespace": "x", "labels": {"app": "a"}, "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        cache.put_pod(pod("q", Some("b"), going));
        assert_eq!(by_node(&cache), (1, 0), "what goes away does not count");
        let zones = cache.domains("zone");
        assert_eq!((zones.of(0), zones.of(1)), (0, super::super::index::NO_DOMAIN));
        cache.put_node(node("b", json!({"zone": "y"})));
        assert_eq!((cache.domains("zone").of(0), cache.domains("zone").of(1)), (0, 1));
    }
}
