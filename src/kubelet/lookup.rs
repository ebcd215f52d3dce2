//! What the kubelet's HTTPS API asks the pod manager (upstream: `kubelet_pods.go`, `validateContainerLogStatus`).

use crate::runtime::ContainerState;
use k8s_openapi::api::core::v1::Pod;
use std::sync::Arc;

/// A container of a pod as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// The runtime's id, without a scheme.
    pub id: String,
    pub name: String,
    /// Counts restarts, from 0.
    pub attempt: u32,
    pub state: ContainerState,
    pub tty: bool,
}

/// Why a container cannot be reached; the texts are the ones `kubectl logs` and `kubectl exec` show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("pod {pod:?} not found")]
    PodNotFound { pod: String },
    /// The pod has no container of that name.
    #[error("container {container:?} in pod {pod:?} is not available")]
    NotInPod { container: String, pod: String },
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious { container: String, pod: String },
    #[error("container {container:?} in pod {pod:?} is waiting to start: {reason}")]
    Waiting {
        container: String,
        pod: String,
        /// `ContainerCreating`, `image can't be pulled`, …
        reason: String,
    },
    #[error("container {container:?} in pod {pod:?} is waiting to start - no logs yet")]
    NoLogsYet { container: String, pod: String },
}

/// Answers from memory, without I/O: the state that the pod workers last saw.
pub trait PodLookup: Send + Sync + 'static {
    /// The pod as the API server last had it; `uid` guards against a namesake.
    fn pod(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Pod>>;

    /// Every pod of this node.
    fn pods(&self) -> Vec<Arc<Pod>>;

    /// The newest container of that name (init and ephemeral ones too), or with `previous` the one before it.
    /// Its state may be any: exec asks for `Running`, logs do not.
    fn container(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        previous: bool,
    ) -> Result<ContainerRef, LookupError>;

    /// Id of the pod's newest sandbox.
    fn sandbox(&self, namespace: &str, name: &str) -> Option<String>;
}
