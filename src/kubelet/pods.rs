//! The pods of this node by uid and by name (upstream: `pkg/kubelet/pod/pod_manager.go`), and lookups in them.

use crate::kubelet::lookup::{ContainerRef, LookupError, PodLookup};
use crate::kubelet::pod;
use crate::kubelet::record::{Record, SeenContainer};
use crate::runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

#[derive(Debug, Default)]
pub struct Pods {
    index: RwLock<Index>,
    /// How many of them limit what their files take.
    limited: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Index {
    by_uid: HashMap<String, Arc<Record>>,
    /// The newest pod of a namespace and name: an older one may still be ending.
    by_name: HashMap<(String, String), Arc<Record>>,
}

fn key(pod: &Pod) -> (String, String) {
    (pod::namespace(pod).to_owned(), pod::name(pod).to_owned())
}

impl Pods {
    pub fn get(&self, uid: &str) -> Option<Arc<Record>> {
        self.index.read().by_uid.get(uid).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Record>> {
        self.index.read().by_uid.values().cloned().collect()
    }

    pub fn insert(&self, record: Arc<Record>) {
        let name = key(&record.pod());
        let mut index = self.index.write();
        let before = index.by_uid.insert(record.uid.clone(), record.clone());
        self.count(Some(&record), before.as_ref());
        index.by_name.insert(name, record);
    }

    fn count(&self, new: Option<&Arc<Record>>, old: Option<&Arc<Record>>) {
        let limited = |record: Option<&Arc<Record>>| record.is_some_and(|record| record.file_limits.any());
        match (limited(new), limited(old)) {
            (true, false) => self.limited.send_modify(|count| *count += 1),
            (false, true) => self.limited.send_modify(|count| *count -= 1),
            _ => {}
        }
    }

    /// Forgets the pod if it still is that record.
    pub fn remove(&self, record: &Arc<Record>) {
        let name = key(&record.pod());
        let mut index = self.index.write();
        let before = index.by_uid.remove(&record.uid);
        self.count(None, before.as_ref());
        if index.by_name.get(&name).is_some_and(|named| Arc::ptr_eq(named, record)) {
            index.by_name.remove(&name);
        }
    }

    /// Returns once there is a pod that limits what its files take.
    pub async fn limited(&self) {
        // The sender is ours: it does not go away meanwhile.
        let _ = self.limited.subscribe().wait_for(|count| *count > 0).await;
    }

    fn named(&self, namespace: &str, name: &str) -> Option<Arc<Record>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.index.read().by_name.get(&key).cloned()
    }
}

impl PodLookup for Pods {
    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>> {
        let record = self.named(namespace, name)?;
        let wanted = uid.is_none_or(|uid| uid.is_empty() || uid == record.uid);
        wanted.then(|| record.pod())
    }

    fn pods(&self) -> Vec<Arc<Pod>> {
        self.all().iter().map(|record| record.pod()).collect()
    }

    fn container(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerRef, LookupError> {
        let not_found = || LookupError::PodNotFound { pod: name.to_owned() };
        let view = self.named(namespace, name).ok_or_else(not_found)?.view();
        let (container, pod) = (container.to_owned(), name.to_owned());
        if pod::find_container(&view.pod, &container).is_none() {
            return Err(LookupError::NotInPod { container, pod });
        }
        let mut history: Vec<&SeenContainer> = view.containers.iter().filter(|c| c.name == container).collect();
        history.sort_by_key(|c| std::cmp::Reverse(c.attempt));
        // A container that was created but never started has nothing to show.
        let mut started = history.into_iter().filter(|c| c.state != ContainerState::Created);
        let wanted = if previous { started.nth(1) } else { started.next() };
        match (wanted, previous) {
            (Some(found), _) => Ok(ContainerRef {
                id: found.id.clone(),
                name: container,
                attempt: found.attempt,
                state: found.state,
                tty: found.tty,
            }),
            (None, true) => Err(LookupError::NoPrevious { container, pod }),
            (None, false) => {
                let reason = match view.waiting.get(&container).map(String::as_str) {
                    Some("ErrImagePull") => "image can't be pulled",
                    Some("ImagePullBackOff") => "trying and failing to pull image",
                    Some(reason) => reason,
                    None => return Err(LookupError::NoLogsYet { container, pod }),
                };
                let reason = reason.to_owned();
                Err(LookupError::Waiting { container, pod, reason })
            }
        }
    }

    fn sandbox(&self, namespace: &str, name: &str) -> Option<String> {
        self.named(namespace, name)?.view().sandboxes.first().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use serde_json::json;

    fn record(states: &[(&str, u32, ContainerState)], waiting: Option<&str>) -> Arc<Record> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c"}]},
        }))
        .unwrap();
        let record = Record::new("u".to_owned(), Arc::new(pod));
        let mut view = record.view();
        view.containers = states
            .iter()
            .map(|(id, attempt, state)| SeenContainer {
                id: (*id).to_owned(),
                name: "c".to_owned(),
                attempt: *attempt,
                state: *state,
                tty: false,
            })
            .collect();
        view.waiting
            .extend(waiting.map(|reason| ("c".to_owned(), reason.to_owned())));
        record.set_view(view);
        Arc::new(record)
    }

    fn pods(record: Arc<Record>) -> Pods {
        let pods = Pods::default();
        pods.insert(record);
        pods
    }

    #[test]
    fn newest_and_previous() {
        let states = [("old", 0, ContainerState::Exited), ("new", 1, ContainerState::Running)];
        let pods = pods(record(&states, None));
        assert_eq!(pods.container("ns", "p", "c", false).unwrap().id, "new");
        assert_eq!(pods.container("ns", "p", "c", true).unwrap().id, "old");
        assert!(pods.pod("ns", "p", Some("other")).is_none());
        assert!(pods.pod("ns", "p", Some("u")).is_some());
    }

    #[test]
    fn errors_say_what_kubectl_shows() {
        let pods = pods(record(&[], Some("ErrImagePull")));
        let error = |pod: &str, container: &str, previous| {
            pods.container("ns", pod, container, previous).unwrap_err().to_string()
        };
        assert_eq!(error("x", "c", false), "pod \"x\" not found");
        assert_eq!(error("p", "x", false), "container \"x\" in pod \"p\" is not available");
        assert_eq!(
            error("p", "c", true),
            "previous terminated container \"c\" in pod \"p\" not found"
        );
        assert_eq!(
            error("p", "c", false),
            "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"
        );
    }

    #[test]
    fn a_namesake_replaces_and_the_old_one_leaves_alone() {
        let old = record(&[], None);
        let pods = pods(old.clone());
        let pod = Pod::clone(&old.pod());
        let new = Arc::new(Record::new("u2".to_owned(), Arc::new(pod)));
        pods.insert(new);
        pods.remove(&old);
        assert!(pods.pod("ns", "p", Some("u2")).is_some());
        assert!(pods.get("u").is_none());
    }

    #[tokio::test]
    async fn limits_are_waited_for() {
        let limited = |uid: &str, limit: serde_json::Value| {
            let pod = json!({
                "metadata": {"name": uid, "namespace": "ns", "uid": uid},
                "spec": {"containers": [{"name": "c", "resources": {"limits": limit}}]},
            });
            Arc::new(Record::new(
                uid.to_owned(),
                Arc::new(serde_json::from_value(pod).unwrap()),
            ))
        };
        let pods = Pods::default();
        let waits = |pods: &Pods| pods.limited().now_or_never().is_none();
        assert!(waits(&pods));
        pods.insert(limited("a", json!({"memory": "1Gi"})));
        assert!(waits(&pods), "nothing is said of files");
        let one = limited("b", json!({"ephemeral-storage": "1Gi"}));
        pods.insert(one.clone());
        pods.insert(one.clone());
        assert!(!waits(&pods));
        pods.remove(&one);
        pods.remove(&one);
        assert!(waits(&pods));
    }
}
