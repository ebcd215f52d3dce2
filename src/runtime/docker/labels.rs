//! Names and labels by which this krust's containers are found again (upstream: dockershim's `naming.go`, `labels.go`).

use super::super::{ContainerConfig, PodIdentity, SandboxConfig};
use std::collections::{BTreeMap, HashMap};

/// Which krust an object belongs to. Everything that is listed or touched carries it.
pub const CLUSTER: &str = "krust.dev/cluster";
/// Counts a pod's sandboxes, or a container's restarts.
pub const ATTEMPT: &str = "krust.dev/attempt";
pub const TYPE: &str = "io.kubernetes.docker.type";
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
const TERMINATION_MESSAGE_PATH: &str = "krust.dev/termination-message-path";
/// Limits of huge pages as JSON, which are set when the container starts.
pub const HUGE_PAGES: &str = "krust.dev/huge-pages";
/// The control group below which those of the pod's containers are.
pub const POD_GROUP: &str = "krust.dev/pod-group";
const OWN: [&str; 7] = [
    CLUSTER,
    ATTEMPT,
    TYPE,
    SANDBOX_ID,
    TERMINATION_MESSAGE_PATH,
    HUGE_PAGES,
    POD_GROUP,
];
/// Annotations are kept as labels with this before their keys.
const ANNOTATION_PREFIX: &str = "annotation.";

pub const TYPE_SANDBOX: &str = "podsandbox";
pub const TYPE_CONTAINER: &str = "container";
/// Short-lived containers by which the engine's abilities are found out.
pub const TYPE_PROBE: &str = "probe";
/// Those that keep a file system in memory mounted.
pub const TYPE_MEMORY: &str = "memory";
/// Other processes of krust.
pub const TYPE_COMPANION: &str = "companion";
/// krust's path of what a volume in memory stands for.
pub const MEMORY_PATH: &str = "krust.dev/path";

/// `k8s_POD_<pod>_<namespace>_<uid>_<attempt>`
pub fn sandbox_name(pod: &PodIdentity) -> String {
    format!("k8s_POD_{}_{}_{}_{}", pod.name, pod.namespace, pod.uid, pod.attempt)
}

/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`
pub fn container_name(container: &str, pod: &PodIdentity, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The filter for lists and events.
pub fn cluster_filter(cluster_id: &str) -> String {
    format!("{CLUSTER}={cluster_id}")
}

pub fn type_filter(object_type: &str) -> String {
    format!("{TYPE}={object_type}")
}

pub fn of_sandbox(config: &SandboxConfig, cluster_id: &str) -> HashMap<String, String> {
    let mut labels = joined(&config.labels, &config.annotations);
    labels.extend(own(cluster_id, TYPE_SANDBOX, &config.pod, config.pod.attempt));
    labels.insert(CONTAINER_NAME.into(), "POD".into());
    labels
}

pub fn of_container(
    config: &ContainerConfig,
    sandbox_id: &str,
    pod: &PodIdentity,
    cluster_id: &str,
) -> HashMap<String, String> {
    let mut labels = joined(&config.labels, &config.annotations);
    labels.extend(own(cluster_id, TYPE_CONTAINER, pod, config.attempt));
    labels.insert(CONTAINER_NAME.into(), config.name.clone());
    labels.insert(SANDBOX_ID.into(), sandbox_id.into());
    labels.insert(TERMINATION_MESSAGE_PATH.into(), config.termination_message_path.clone());
    let huge_pages = &config.resources.huge_pages;
    // Numbers always have a JSON form.
    if let (false, Ok(text)) = (huge_pages.is_empty(), serde_json::to_string(huge_pages)) {
        labels.insert(HUGE_PAGES.into(), text);
    }
    labels
}

fn joined(labels: &BTreeMap<String, String>, annotations: &BTreeMap<String, String>) -> HashMap<String, String> {
    let annotations = annotations
        .iter()
        .map(|(key, value)| (format!("{ANNOTATION_PREFIX}{key}"), value.clone()));
    labels
        .iter()
        .map(|(key, value)| (key.clone(), value.clone()))
        .chain(annotations)
        .collect()
}

fn own(cluster_id: &str, object_type: &str, pod: &PodIdentity, attempt: u32) -> [(String, String); 6] {
    [
        (CLUSTER, cluster_id.to_string()),
        (TYPE, object_type.to_string()),
        (POD_NAME, pod.name.clone()),
        (POD_NAMESPACE, pod.namespace.clone()),
        (POD_UID, pod.uid.clone()),
        (ATTEMPT, attempt.to_string()),
    ]
    .map(|(key, value)| (key.to_string(), value))
}

/// What the labels of a sandbox or container say.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub pod: PodIdentity,
    pub sandbox_id: String,
    pub container_name: String,
    pub termination_message_path: String,
    /// As they were given, with upstream's own.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

pub fn read(labels: &HashMap<String, String>) -> Found {
    let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let mut found = Found {
        pod: PodIdentity {
            name: get(POD_NAME),
            namespace: get(POD_NAMESPACE),
            uid: get(POD_UID),
            attempt: get(ATTEMPT).parse().unwrap_or(0),
        },
        sandbox_id: get(SANDBOX_ID),
        container_name: get(CONTAINER_NAME),
        termination_message_path: get(TERMINATION_MESSAGE_PATH),
        ..Default::default()
    };
    for (key, value) in labels {
        if let Some(key) = key.strip_prefix(ANNOTATION_PREFIX) {
            found.annotations.insert(key.to_string(), value.clone());
        } else if !OWN.contains(&key.as_str()) {
            found.labels.insert(key.clone(), value.clone());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_cannot_be_forged() {
        let pod = PodIdentity {
            name: "web".into(),
            namespace: "default".into(),
            uid: "1-2".into(),
            attempt: 3,
        };
        let config = ContainerConfig {
            name: "app".into(),
            attempt: 7,
            labels: [
                ("a".to_string(), "b".to_string()),
                (CLUSTER.to_string(), "other".to_string()),
            ]
            .into(),
            annotations: [("note".to_string(), "x".to_string())].into(),
            termination_message_path: "/dev/termination-log".into(),
            ..Default::default()
        };
        let labels = of_container(&config, "sandbox", &pod, "mine");
        assert_eq!(labels[CLUSTER], "mine");
        let found = read(&labels);
        assert_eq!(
            found.pod,
            PodIdentity {
                attempt: 7,
                ..pod.clone()
            }
        );
        assert_eq!(
            (found.sandbox_id.as_str(), found.container_name.as_str()),
            ("sandbox", "app")
        );
        assert_eq!(found.termination_message_path, "/dev/termination-log");
        assert_eq!(found.labels["a"], "b");
        assert!(!found.labels.contains_key(CLUSTER));
        assert_eq!(found.annotations["note"], "x");
        assert_eq!(container_name("app", &pod, 7), "k8s_app_web_default_1-2_7");
        assert_eq!(sandbox_name(&pod), "k8s_POD_web_default_1-2_3");
    }
}
