//! Static pods and their mirrors, side by side.

use crate::kubelet::pod;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

pub const HASH: &str = "kubernetes.io/config.hash";
pub const SEEN: &str = "kubernetes.io/config.seen";
pub const SOURCE: &str = "kubernetes.io/config.source";
const MIRROR: &str = "kubernetes.io/config.mirror";

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether the mirror shows this pod, and not another version of it.
pub fn is_of(mirror: &Pod, pod: &Pod) -> bool {
    annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// The static pod with what the API has of it: version and status.
pub fn seen_as(pod: &Pod, mirror: &Pod) -> Pod {
    let mut seen = pod.clone();
    seen.metadata
        .resource_version
        .clone_from(&mirror.metadata.resource_version);
    seen.metadata.generation = mirror.metadata.generation;
    seen.metadata
        .creation_timestamp
        .clone_from(&mirror.metadata.creation_timestamp);
    seen.status.clone_from(&mirror.status);
    seen
}

/// The mirror to be created.
pub fn mirror(pod: &Pod, node_name: &str, node_uid: String) -> Pod {
    let mut mirror = pod.clone();
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(MIRROR.to_owned(), hash);
    mirror.metadata.uid = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror.status = None;
    mirror
}

/// What counts of a mirror.
#[derive(Clone, Debug)]
pub struct Mirror {
    uid: String,
    hash: String,
    deleting: bool,
}

impl Mirror {
    pub fn of(mirror: &Pod) -> Self {
        Self {
            uid: pod::uid(mirror).to_owned(),
            hash: annotation(mirror, MIRROR).unwrap_or_default().to_owned(),
            deleting: mirror.metadata.deletion_timestamp.is_some(),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    Create,
    Delete { uid: String },
}

/// One step: after a deletion its event leads here again.
pub fn plan(pod: Option<&Pod>, mirror: Option<&Mirror>) -> Action {
    match (pod, mirror) {
        (None, None) => Action::Nothing,
        (Some(_), None) => Action::Create,
        (Some(pod), Some(mirror)) if annotation(pod, HASH) == Some(&mirror.hash) && !mirror.deleting => Action::Nothing,
        (_, Some(mirror)) => Action::Delete {
            uid: mirror.uid.clone(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn static_pod(hash: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web-n1", "namespace": "ns", "uid": hash, "annotations": {HASH: hash, SOURCE: "file"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
        }))
        .unwrap()
    }

    #[test]
    fn one_step_at_a_time() {
        let (pod, state) = (static_pod("h1"), |hash: &str, deleting| Mirror {
            uid: "m".to_owned(),
            hash: hash.to_owned(),
            deleting,
        });
        let delete = || Action::Delete { uid: "m".to_owned() };
        for (pod, mirror, expected) in [
            (None, None, Action::Nothing),
            (Some(&pod), None, Action::Create),
            (Some(&pod), Some(state("h1", false)), Action::Nothing),
            (Some(&pod), Some(state("h1", true)), delete()),
            (Some(&pod), Some(state("h0", false)), delete()),
            (None, Some(state("h1", false)), delete()),
        ] {
            assert_eq!(plan(pod, mirror.as_ref()), expected, "{mirror:?}");
        }
    }

    #[test]
    fn a_mirror_is_the_nodes_and_shows_the_pod() {
        let pod = static_pod("h1");
        let mut made = mirror(&pod, "n1", "node-uid".to_owned());
        assert!(is_mirror(&made) && !is_mirror(&pod) && is_of(&made, &pod) && !is_of(&made, &static_pod("h2")));
        assert_eq!(made.metadata.owner_references.as_ref().unwrap()[0].uid, "node-uid");
        made.metadata.uid = Some("of-the-api".to_owned());
        made.metadata.resource_version = Some("7".to_owned());
        made.metadata.deletion_timestamp = Some(pod::api_time(std::time::SystemTime::now()));
        made.status = Some(serde_json::from_value(json!({"phase": "Running"})).unwrap());
        let seen = seen_as(&pod, &made);
        assert_eq!(
            (pod::uid(&seen), seen.metadata.resource_version.as_deref()),
            ("h1", Some("7"))
        );
        assert!(
            seen.metadata.deletion_timestamp.is_none(),
            "the mirror's deletion is not the pod's"
        );
        assert_eq!(seen.status.unwrap().phase.as_deref(), Some("Running"));
    }
}
