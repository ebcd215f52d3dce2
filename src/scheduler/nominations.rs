//! Pods for which room is being made on a node (upstream: the queue's nominator).

use super::pod_info::PodInfo;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Debug, Default)]
pub struct Nominations {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    nodes: HashMap<String, String>,
}

impl Nominations {
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        self.nodes.insert(pod.uid.clone(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.nodes.remove(uid) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|pod| pod.uid != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// A new version of the pod. What is decided here and not yet written stays.
    pub fn update(&mut self, old: Option<&PodInfo>, new: &Arc<PodInfo>) {
        let said = |pod: &PodInfo| pod.nominated_node().map(str::to_owned);
        let was = old.and_then(said);
        match (was, said(new)) {
            (_, Some(node)) => self.set(new.clone(), &node),
            (None, None) => {
                if let Some(node) = self.nodes.get(&new.uid).cloned() {
                    self.set(new.clone(), &node);
                }
            }
            // Somebody has taken it back.
            (Some(_), None) => self.remove(&new.uid),
        }
    }

    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.nodes.get(uid).map(String::as_str)
    }

    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }
}
