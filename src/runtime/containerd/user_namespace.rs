//! User namespaces of pods: each has ids of its own on the host, which nobody else has (upstream: `pkg/kubelet/userns`,
//! and the CRI plugin's check of what snapshotter and runtime can).
//!
//! Files keep their owners: the daemon shows the image, and the runtime the volumes, through mounts that translate ids.
//! That takes containerd 2, runc 1.2 and a kernel that can; without them a pod is refused.

use super::super::oci::USER_IDS as LENGTH;
use super::snapshots::SNAPSHOTTER;
use super::{Engine, Parts, Result, RuntimeError, container, failed, record};
use containerd_client::services::v1::{PluginInfoRequest, PluginsRequest};
use containerd_client::tonic::Status;
use parking_lot::Mutex;
use prost::Message;
use prost_types::Any;
use std::collections::{HashMap, HashSet};
use tokio::sync::OnceCell;

const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
const REMAPS: &str = "remap-ids";

#[derive(Default)]
pub(super) struct Ranges {
    /// First ids on their way to a label of the daemon's, where all others are found.
    pending: Mutex<HashSet<u32>>,
    possible: OnceCell<bool>,
}

impl Parts {
    /// The first of a range of ids that no pod has. To be given to `user_ids_are_kept` when a sandbox's label says it.
    pub(super) async fn take_user_ids(&self) -> Result<u32> {
        if !self.user_namespaces_are_possible().await {
            return Err(RuntimeError::Unsupported("a user namespace of a pod"));
        }
        let labels = self.engine.labelled(record::USER_IDS).await?;
        let mut pending = self.user_ids.pending.lock();
        let taken = labels.iter().filter_map(|label| label.parse().ok());
        let taken: HashSet<u32> = taken.chain(pending.iter().copied()).collect();
        let first = first_free(&taken).ok_or_else(|| {
            let message = "could not find an empty slot to allocate a user namespace";
            failed("take", "user ids", message)
        })?;
        pending.insert(first);
        Ok(first)
    }

    /// Whether the daemon and its runtime can; they are asked once.
    pub(super) async fn user_namespaces_are_possible(&self) -> bool {
        *self.user_ids.possible.get_or_init(|| possible(&self.engine)).await
    }

    pub(super) fn user_ids_are_kept(&self, first: u32) {
        self.user_ids.pending.lock().remove(&first);
    }
}

/// Ranges begin at multiples of their length; the first one is the host's.
fn first_free(taken: &HashSet<u32>) -> Option<u32> {
    (1..=u32::MAX / LENGTH)
        .map(|index| index * LENGTH)
        .find(|first| !taken.contains(first))
}

/// Labels of a snapshot by which the daemon translates ids.
pub(super) fn snapshot_labels(user_ids: Option<u32>) -> HashMap<String, String> {
    let Some(first) = user_ids else {
        return HashMap::new();
    };
    ["uidmapping", "gidmapping"]
        .map(|name| (format!("containerd.io/snapshot/{name}"), format!("0:{first}:{LENGTH}")))
        .into()
}

async fn possible(engine: &Engine) -> bool {
    match snapshotter_remaps(engine).await {
        Ok(true) => {}
        Ok(false) => return false,
        Err(status) => {
            tracing::debug!(error = status.message(), "containerd does not tell of its snapshotters");
            return false;
        }
    }
    match runtime_remaps(engine).await {
        Ok(found) => found.unwrap_or(false),
        Err(status) => {
            tracing::debug!(
                error = status.message(),
                "containerd does not tell what its runtime can"
            );
            false
        }
    }
}

async fn snapshotter_remaps(engine: &Engine) -> Result<bool, Status> {
    let request = engine.request(PluginsRequest {
        filters: vec![format!("type=={SNAPSHOTTERS},id=={SNAPSHOTTER}")],
    });
    let plugins = engine.introspection().plugins(request).await?.into_inner().plugins;
    Ok(plugins
        .iter()
        .any(|plugin| plugin.capabilities.iter().any(|capability| capability == REMAPS)))
}

/// What containerd is asked by, and answers with: `containerd.types.RuntimeRequest` and `RuntimeInfo`.
#[derive(Clone, PartialEq, Message)]
struct RuntimeRequest {
    #[prost(string, tag = "1")]
    runtime_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeInfo {
    #[prost(message, optional, tag = "4")]
    features: Option<Any>,
}

/// None where the runtime does not say.
async fn runtime_remaps(engine: &Engine) -> Result<Option<bool>, Status> {
    let question = RuntimeRequest {
        runtime_path: container::RUNTIME.to_owned(),
    };
    let request = engine.request(PluginInfoRequest {
        r#type: "io.containerd.runtime.v2".to_owned(),
        id: "task".to_owned(),
        options: Some(Any {
            type_url: "containerd.types.RuntimeRequest".to_owned(),
            value: question.encode_to_vec(),
        }),
    });
    let answer = engine.introspection().plugin_info(request).await?.into_inner().extra;
    let info = answer.and_then(|answer| RuntimeInfo::decode(answer.value.as_slice()).ok());
    Ok(info.and_then(|info| translates_mounts(&info.features?.value)))
}

/// From what an OCI runtime says of itself.
fn translates_mounts(features: &[u8]) -> Option<bool> {
    let features: serde_json::Value = serde_json::from_slice(features).ok()?;
    features.pointer("/linux/mountExtensions/idmap/enabled")?.as_bool()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_pods_share_ids() {
        let mut taken = HashSet::new();
        for expected in [65_536, 131_072, 196_608] {
            let first = first_free(&taken).unwrap();
            assert_eq!(first, expected);
            taken.insert(first);
        }
        taken.remove(&131_072);
        assert_eq!(first_free(&taken), Some(131_072));
        let all: HashSet<u32> = (1..=65_535).map(|index| index * LENGTH).collect();
        assert_eq!(first_free(&all), None);
    }

    #[test]
    fn what_runtimes_say_of_themselves() {
        let said = |text: &str| translates_mounts(text.as_bytes());
        let text = r#"{"ociVersionMax": "1.2.1", "linux": {"mountExtensions": {"idmap": {"enabled": true}}}}"#;
        assert_eq!(said(text), Some(true));
        // runc 1.1 knows no such extension.
        assert_eq!(
            said(r#"{"ociVersionMax": "1.0.2-dev", "linux": {"namespaces": []}}"#),
            None
        );
        assert_eq!(said(""), None);
    }
}
