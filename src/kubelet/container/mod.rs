//! From a container's spec to what the runtime is told (upstream: `kuberuntime_container.go`,
//! `generateContainerConfig`).

pub mod env;
mod expansion;
pub mod security;
mod services;

pub use expansion::expand;

use crate::kubelet::pod::{self, Role};
use crate::kubelet::resources;
use crate::runtime::{ContainerConfig, ContainerStatus, LogLimits, Mount};
use env::Environment;
use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// Upstream's annotation for the part of the spec whose change restarts the container.
const HASH_ANNOTATION: &str = "io.kubernetes.container.hash";
pub const DEFAULT_TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";

/// Why a container's configuration cannot be made: CreateContainerConfigError.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{kind} {name:?} not found")]
    ObjectNotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {object}")]
    KeyNotFound {
        key: String,
        kind: &'static str,
        object: String,
    },
    #[error("key {key} in {kind} {object} is not text")]
    NotText {
        key: String,
        kind: &'static str,
        object: String,
    },
    #[error("failed to get {kind} {name:?}: {source}")]
    Fetch {
        kind: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("unsupported fieldPath: {path}")]
    UnsupportedField { path: String },
    #[error("unsupported container resource: {resource}")]
    UnsupportedResource { resource: String },
    #[error("the source of environment variable {name:?} is not supported")]
    UnsupportedSource { name: String },
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RunAsRoot { pod: String, container: String },
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
         (pod: {pod:?}, container: {container})"
    )]
    ImageUserUnknown {
        user: String,
        pod: String,
        container: String,
    },
    #[error("cannot find volume {volume:?} to mount into container {container:?}")]
    NoSuchVolume { volume: String, container: String },
    /// Why is only in the log: it would tell of the node's files.
    #[error("failed to {step} for volumeMount {volume:?} of container {container:?}")]
    SubPath {
        step: &'static str,
        volume: String,
        container: String,
    },
    #[error("error SubPath `{0}` must not be an absolute path")]
    AbsoluteSubPath(String),
    #[error("unable to provision SubPath `{0}`: must not contain '..'")]
    SubPathSteps(String),
    #[error("missing value for {variables}")]
    SubPathExpression { variables: String },
    #[error("volume {volume:?} requested recursive read-only mode, but it is not supported by the runtime")]
    RecursiveReadOnly { volume: String },
    #[error("unable to find target container {0}")]
    NoTarget(String),
    #[error("failed to write the hosts file {path}: {message}")]
    Hosts { path: String, message: String },
    #[error("{field} is not supported by this node agent")]
    UnsupportedSetting { field: &'static str },
}

/// A digest of the fields that may change in a running pod and then restart the container.
fn definition_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let digest = Sha256::digest(format!("{}\0{image}", container.name));
    hex::encode(&digest[..8])
}

/// Whether the container runs something else than its spec now says.
pub fn definition_changed(container: &Container, running: &ContainerStatus) -> bool {
    let known = running.annotations.get(HASH_ANNOTATION);
    known.is_some_and(|hash| *hash != definition_hash(container))
}

/// What [`config`] is made from.
pub struct Parts<'a> {
    pub pod: &'a Pod,
    pub role: Role,
    pub container: &'a Container,
    pub attempt: u32,
    /// User of the image, for runAsNonRoot.
    pub image_user: &'a str,
    pub env: &'a Environment,
    pub mounts: Vec<Mount>,
    pub node_memory_bytes: u64,
    pub seccomp: &'a security::Seccomp,
    pub logs: LogLimits,
    /// The container whose processes an ephemeral one sees.
    pub target: Option<String>,
}

pub fn config(parts: Parts<'_>) -> Result<ContainerConfig, ConfigError> {
    let Parts {
        pod, container, env, ..
    } = parts;
    let lookup = |name: &str| env.get(name).map(String::as_str);
    let expand_all = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, lookup)).collect()
    };
    let stop_signal = container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone());
    let message_path = container.termination_message_path.as_deref().filter(|p| !p.is_empty());
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: parts.attempt,
        image: container.image.clone().unwrap_or_default(),
        command: expand_all(&container.command),
        args: expand_all(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        env: env.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        mounts: parts.mounts,
        labels: labels(pod, Some(&container.name)),
        annotations: BTreeMap::from([(HASH_ANNOTATION.to_owned(), definition_hash(container))]),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        resources: resources::for_container(pod, parts.role, container, parts.node_memory_bytes),
        security: security::context(pod, container, parts.image_user, parts.seccomp)?,
        stop_signal: stop_signal.unwrap_or_default(),
        termination_message_path: message_path.unwrap_or(DEFAULT_TERMINATION_MESSAGE_PATH).to_owned(),
        target: parts.target,
        logs: parts.logs,
    })
}

/// Upstream's labels of everything that belongs to a pod.
pub fn labels(pod: &Pod, container: Option<&str>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("io.kubernetes.pod.name".to_owned(), pod::name(pod).to_owned()),
        ("io.kubernetes.pod.namespace".to_owned(), pod::namespace(pod).to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), pod::uid(pod).to_owned()),
    ]);
    if let Some(container) = container {
        labels.insert("io.kubernetes.container.name".to_owned(), container.to_owned());
    }
    labels
}

/// The variables of `subPathExpr` must all have a value; what remains is a path inside the volume.
pub fn sub_path(expression: &str, env: &Environment) -> Result<String, ConfigError> {
    let unknown = std::cell::RefCell::new(BTreeSet::new());
    let path = expand(expression, |name| {
        let value = env.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if value.is_none() {
            unknown.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let unknown: Vec<String> = unknown.into_inner().into_iter().collect();
    match unknown.is_empty() {
        true => Ok(path),
        false => Err(ConfigError::SubPathExpression {
            variables: unknown.join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn commands_are_expanded_and_defaults_set() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"containers": [{"name": "c", "image": "i", "command": ["echo", "$(A)"], "args": ["$(B)", "$$(A)"]}]},
        }))
        .unwrap();
        let env = Environment::from([("A".to_owned(), "1".to_owned())]);
        let built = config(Parts {
            pod: &pod,
            role: Role::App,
            container: &pod::app_containers(&pod)[0],
            attempt: 3,
            image_user: "",
            env: &env,
            mounts: Vec::new(),
            node_memory_bytes: 1 << 30,
            seccomp: &security::Seccomp::default(),
            logs: LogLimits::default(),
            target: None,
        })
        .unwrap();
        assert_eq!(built.command, ["echo", "1"]);
        assert_eq!(built.args, ["$(B)", "$(A)"]);
        assert_eq!(built.attempt, 3);
        assert_eq!(built.termination_message_path, "/dev/termination-log");
        assert_eq!(built.resources.oom_score_adj, 1000);
    }

    #[test]
    fn sub_paths_need_every_variable() {
        let env = [("POD", "p"), ("EMPTY", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let env = Environment::from(env);
        assert_eq!(sub_path("logs/$(POD)", &env).unwrap(), "logs/p");
        for (expression, variables) in [
            ("logs/$(NODE)", "NODE"),
            ("$(POD)/$(NODE)/$(EMPTY)/$(NODE)", "EMPTY, NODE"),
        ] {
            let error = sub_path(expression, &env).unwrap_err().to_string();
            assert_eq!(error, format!("missing value for {variables}"));
        }
    }
}
