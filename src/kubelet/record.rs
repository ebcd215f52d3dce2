//! What the manager and a pod's worker share: the mailbox, and the worker's last view for lookups.

use crate::kubelet::eviction::FileLimits;
use crate::kubelet::plan::PodFailure;
use crate::kubelet::pod;
use crate::kubelet::probes::Kind;
use crate::runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// News for a worker, merged until it looks: a busy pod takes no more room than a quiet one.
#[derive(Debug, Default)]
pub struct Mail {
    /// The newest pod.
    pub pod: Option<Arc<Pod>>,
    /// The API server no longer has it.
    pub gone: bool,
    /// Ids of sandboxes and containers to look at again.
    pub dirty: BTreeSet<String>,
    /// The newest verdict of each probe, by container id.
    pub probes: BTreeMap<(String, Kind), bool>,
    /// Bring changed ConfigMaps and Secrets into the volumes.
    pub refresh_volumes: bool,
    /// Some time has passed: look whether the volumes want something anew.
    pub look_over_volumes: bool,
    /// The disk is full: of a pod that has ended by itself only what the API knows is kept.
    pub clear: bool,
    /// The node ends the pod.
    pub failure: Option<PodFailure>,
}

/// A container in the worker's last view.
#[derive(Clone, Debug)]
pub struct SeenContainer {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub state: ContainerState,
    pub tty: bool,
}

#[derive(Clone, Debug)]
pub struct View {
    pub pod: Arc<Pod>,
    /// Newest first.
    pub sandboxes: Vec<String>,
    pub containers: Vec<SeenContainer>,
    /// Waiting reasons by container name.
    pub waiting: BTreeMap<String, String>,
    /// Nothing of the pod runs any more, and the API has heard of its end.
    pub over: bool,
}

/// One pod of this node.
#[derive(Debug)]
pub struct Record {
    pub uid: String,
    /// Of what its files may take; they never change.
    pub file_limits: FileLimits,
    /// Of a static pod: the uid of its mirror, as long as there is one.
    mirror: Option<Mutex<Option<String>>>,
    mail: Mutex<Mail>,
    bell: Notify,
    view: watch::Sender<View>,
}

impl Record {
    pub fn new(uid: String, pod: Arc<Pod>) -> Self {
        let file_limits = FileLimits::of(&pod);
        let view = View {
            pod,
            sandboxes: Vec::new(),
            containers: Vec::new(),
            waiting: BTreeMap::new(),
            over: false,
        };
        Self {
            uid,
            file_limits,
            mirror: None,
            mail: Mutex::default(),
            bell: Notify::new(),
            view: watch::Sender::new(view),
        }
    }

    /// One that comes from a file.
    pub fn of_static(uid: String, pod: Arc<Pod>) -> Self {
        Self {
            mirror: Some(Mutex::default()),
            ..Self::new(uid, pod)
        }
    }

    pub fn is_static(&self) -> bool {
        self.mirror.is_some()
    }

    pub fn set_mirror(&self, uid: Option<String>) {
        if let Some(mirror) = &self.mirror {
            *mirror.lock() = uid;
            self.bell.notify_one();
        }
    }

    /// The uid that the API has of the pod; None while a static pod has no mirror.
    pub fn api_uid(&self) -> Option<String> {
        match &self.mirror {
            Some(mirror) => mirror.lock().clone(),
            None => Some(self.uid.clone()),
        }
    }

    fn post(&self, write: impl FnOnce(&mut Mail)) {
        write(&mut self.mail.lock());
        self.bell.notify_one();
    }

    pub fn post_pod(&self, pod: Arc<Pod>) {
        self.view.send_modify(|view| view.pod = pod.clone());
        self.post(|mail| mail.pod = Some(pod));
    }

    /// The pod left the API; its last state may say how long its end may take.
    pub fn post_gone(&self, last: Option<Arc<Pod>>) {
        self.post(|mail| {
            mail.gone = true;
            mail.pod = last.or(mail.pod.take());
        });
    }

    pub fn post_dirty(&self, id: String) {
        self.post(|mail| {
            mail.dirty.insert(id);
        });
    }

    pub fn post_probe(&self, container_id: String, kind: Kind, ok: bool) {
        self.post(|mail| {
            mail.probes.insert((container_id, kind), ok);
        });
    }

    pub fn post_refresh(&self) {
        self.post(|mail| mail.refresh_volumes = true);
    }

    pub fn post_look_over(&self) {
        self.post(|mail| mail.look_over_volumes = true);
    }

    pub fn post_clear(&self) {
        self.post(|mail| mail.clear = true);
    }

    pub fn post_failure(&self, failure: PodFailure) {
        self.post(|mail| mail.failure = Some(failure));
    }

    pub fn take_mail(&self) -> Mail {
        std::mem::take(&mut self.mail.lock())
    }

    /// Returns when there may be mail.
    pub async fn wait(&self) {
        self.bell.notified().await;
    }

    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub fn pod(&self) -> Arc<Pod> {
        self.view.borrow().pod.clone()
    }

    /// Whether a container of it runs, as far as its worker knows.
    pub fn runs(&self) -> bool {
        let view = self.view.borrow();
        view.containers
            .iter()
            .any(|container| container.state == ContainerState::Running)
    }

    /// Whether it has ended, and left containers behind.
    pub fn left_remains(&self) -> bool {
        let view = self.view.borrow();
        !view.sandboxes.is_empty() && pod::is_finished(&view.pod) && view.pod.metadata.deletion_timestamp.is_none()
    }

    pub fn set_view(&self, view: View) {
        self.view.send_replace(view);
    }

    /// Returns when the pod is over.
    pub async fn over(&self) {
        // The sender is ours: it does not go away meanwhile.
        let _ = self.view.subscribe().wait_for(|view| view.over).await;
    }
}
