//! Pods from a directory of this node, and their mirrors in the API (upstream: `pkg/kubelet/config/file.go`,
//! `pkg/kubelet/pod/mirror_client.go`).
//!
//! A static pod is what its file says, with a uid that follows from it. The API shows a mirror of it, which has a uid of
//! its own: the worker sees the static pod with the mirror's status, and writes the status of the mirror.

mod files;
mod mirror;

use crate::client::work_queue::{Next, WorkQueue};
use crate::client::{self, ObjectKey};
use crate::kubelet::pod;
use crate::runtime::changes::Changes;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use mirror::{Action, Mirror};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use mirror::{is_mirror, seen_as};

#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the mirror of the static pod {name}: {source}")]
struct MirrorError {
    operation: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// Gives a pod its defaults and checks it, as the API server would.
pub type Complete = Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;

/// Where static pods come from.
#[derive(Clone)]
pub struct StaticPodOptions {
    pub directory: PathBuf,
    pub complete: Complete,
}

/// What the files say now, and what the API has of it.
pub struct StaticPods {
    client: Client,
    node_name: String,
    known: Mutex<Known>,
    queue: WorkQueue<ObjectKey>,
}

#[derive(Default)]
struct Known {
    pods: BTreeMap<ObjectKey, Arc<Pod>>,
    mirrors: BTreeMap<ObjectKey, Arc<Pod>>,
}

impl StaticPods {
    pub fn new(client: Client, node_name: &str) -> Arc<Self> {
        Arc::new(Self {
            client,
            node_name: node_name.to_owned(),
            known: Mutex::default(),
            queue: WorkQueue::new("static-pods"),
        })
    }

    /// What the files say, now and after every change. The first time at once; nothing is ever sent twice in a row.
    pub fn read(
        self: &Arc<Self>,
        options: StaticPodOptions,
        shutdown: CancellationToken,
    ) -> std::io::Result<(mpsc::Receiver<()>, impl Future<Output = ()> + Send + 'static)> {
        std::fs::create_dir_all(&options.directory)?;
        // Before the first read: what changes in between is seen twice rather than never.
        let mut changes = Changes::of(&options.directory)?;
        self.take_in(&options);
        let (sender, receiver) = mpsc::channel(1);
        let this = self.clone();
        let follow = async move {
            loop {
                tokio::select! {
                    changed = changes.wait() => if let Err(error) = changed {
                        tracing::error!(%error, "The directory of static pods is not watched any more");
                        return;
                    },
                    () = shutdown.cancelled() => return,
                }
                this.take_in(&options);
                // Somebody who has not looked yet sees this change, too.
                let _ = sender.try_send(());
            }
        };
        Ok((receiver, follow))
    }

    fn take_in(&self, options: &StaticPodOptions) {
        let pods = files::read(&options.directory, &self.node_name, &*options.complete);
        let mut known = self.known.lock();
        let changed = |key: &&ObjectKey| known.pods.get(key).map(|pod| pod::uid(pod)) != pods.get(key).map(pod::uid);
        let keys: BTreeSet<ObjectKey> = known.pods.keys().chain(pods.keys()).filter(changed).cloned().collect();
        let mut before = std::mem::take(&mut known.pods);
        for (key, pod) in pods {
            // The same pod stays the same object: it knows when it was first seen.
            let same = before.remove(&key).filter(|known| pod::uid(known) == pod::uid(&pod));
            known.pods.insert(key, same.unwrap_or_else(|| Arc::new(pod)));
        }
        drop(known);
        keys.into_iter().for_each(|key| self.queue.add(key));
    }

    /// The pods, each as a worker is to see it.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        let known = self.known.lock();
        let seen = |(key, pod): (&ObjectKey, &Arc<Pod>)| match known.mirrors.get(key) {
            Some(mirror) if mirror::is_of(mirror, pod) => Arc::new(seen_as(pod, mirror)),
            _ => pod.clone(),
        };
        known.pods.iter().map(seen).collect()
    }

    /// The API has this mirror. Returns what the worker of its pod is to see, and the mirror's uid.
    pub fn mirrored(&self, mirror: Arc<Pod>) -> Option<(Pod, String)> {
        let key = ObjectKey::of(&*mirror);
        let mut known = self.known.lock();
        known.mirrors.insert(key.clone(), mirror.clone());
        let pod = known.pods.get(&key).cloned();
        drop(known);
        self.queue.add(key);
        let pod = pod.filter(|pod| mirror::is_of(&mirror, pod))?;
        let seen = seen_as(&pod, &mirror);
        Some((seen, pod::uid(&mirror).to_owned()))
    }

    /// The API does not have this mirror any more. Returns the uid of its pod.
    pub fn unmirrored(&self, mirror: &Pod) -> Option<String> {
        let key = ObjectKey::of(mirror);
        let mut known = self.known.lock();
        if known
            .mirrors
            .get(&key)
            .is_some_and(|last| pod::uid(last) == pod::uid(mirror))
        {
            known.mirrors.remove(&key);
        }
        let uid = known.pods.get(&key).map(|pod| pod::uid(pod).to_owned());
        drop(known);
        self.queue.add(key);
        uid
    }

    /// The mirrors that a whole list did not have.
    pub fn unlisted(&self, listed: &BTreeSet<String>) -> Vec<Arc<Pod>> {
        let known = self.known.lock();
        let gone = known
            .mirrors
            .values()
            .filter(|mirror| !listed.contains(pod::uid(mirror)));
        gone.cloned().collect()
    }

    /// Keeps the mirrors as the files are. Begins when the API's pods are known.
    pub async fn keep_mirrors(self: Arc<Self>, shutdown: CancellationToken) {
        let this = &self;
        let work = |key: ObjectKey| async move { this.keep_mirror(&key).await.map(|()| Next::Done) };
        self.queue.run(1, &shutdown, work).await;
    }

    async fn keep_mirror(&self, key: &ObjectKey) -> Result<(), MirrorError> {
        let (pod, mirror) = {
            let known = self.known.lock();
            (known.pods.get(key).cloned(), known.mirrors.get(key).cloned())
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let failed = |operation| {
            move |source| MirrorError {
                operation,
                name: key.to_string(),
                source: Box::new(source),
            }
        };
        let state = mirror.as_deref().map(Mirror::of);
        match mirror::plan(pod.as_deref(), state.as_ref()) {
            Action::Nothing => Ok(()),
            Action::Delete { uid } => {
                let parameters = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(client::only(Some(uid))),
                    ..DeleteParams::default()
                };
                match api.delete(&key.name, &parameters).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => Ok(()),
                    Err(error) => Err(failed("delete")(error)),
                }
            }
            Action::Create => {
                let Some(pod) = pod else { return Ok(()) };
                let nodes: Api<Node> = Api::all(self.client.clone());
                let node = nodes.get(&self.node_name).await.map_err(failed("find the node of"))?;
                let wanted = mirror::mirror(&pod, &self.node_name, node.metadata.uid.unwrap_or_default());
                match api.create(&PostParams::default(), &wanted).await {
                    Ok(_) => Ok(()),
                    // Its watch event is on the way; or it is somebody else's, which nobody may take away.
                    Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(()),
                    Err(error) => Err(failed("create")(error)),
                }
            }
        }
    }
}
