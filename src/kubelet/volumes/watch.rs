//! Watches the ConfigMaps and Secrets of a pod's volumes, each by its name, so that a change reaches the pod at once
//! (upstream: `pkg/kubelet/util/manager/watch_based_manager.go`).

use crate::kubelet::objects::Versions;
use crate::kubelet::pod;
use crate::kubelet::record::Record;
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The watches of one pod; dropping it ends them.
#[derive(Default)]
pub struct Watches {
    begun: bool,
    tasks: JoinSet<()>,
}

impl Watches {
    /// Begins, once. What changed since the volumes were written is noticed, too: each watch starts with the object as
    /// it is, and compares it with what they were made of.
    pub fn begin(&mut self, client: &kube::Client, pod: &Pod, written: Versions, record: &Arc<Record>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let namespace = pod::namespace(pod);
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        for (name, version) in written.config_maps {
            self.tasks
                .spawn(watch(config_maps.clone(), name, version, record.clone()));
        }
        for (name, version) in written.secrets {
            self.tasks.spawn(watch(secrets.clone(), name, version, record.clone()));
        }
    }
}

/// Tells the pod's worker of every change since the version that it knows.
async fn watch<K>(api: Api<K>, name: String, mut known: Option<String>, record: Arc<Record>)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watcher(api, one).default_backoff());
    let version = |object: &K| object.meta().resource_version.clone();
    let mut listed = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listed = None,
            Ok(watcher::Event::InitApply(object)) => listed = version(&object),
            Ok(watcher::Event::InitDone) => {
                if known != listed {
                    record.post_refresh();
                }
                known = listed.take();
            }
            Ok(watcher::Event::Apply(object)) => {
                known = version(&object);
                record.post_refresh();
            }
            Ok(watcher::Event::Delete(_)) => {
                known = None;
                record.post_refresh();
            }
            // It goes on after a pause, with a list.
            Err(error) => tracing::debug!(name, %error, "A watch of a volume's source broke off"),
        }
    }
}
