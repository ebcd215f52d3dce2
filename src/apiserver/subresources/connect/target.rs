//! The pod and container that a request is about (upstream: `pkg/registry/core/pod/strategy.go`,
//! `validateContainer`).

use crate::apiserver::error::{ApiError, Subject};
use crate::storage::Storage;
use k8s_openapi::api::core::v1::Pod;

pub const PODS: Subject<'static> = Subject {
    group: "",
    resource: "pods",
};

/// A pod as it is stored.
pub struct PodTarget {
    pub namespace: String,
    pub name: String,
    pub pod: Pod,
}

impl PodTarget {
    pub fn find(storage: &Storage, namespace: &str, name: &str) -> Result<PodTarget, ApiError> {
        let entry = storage
            .get(PODS.resource, namespace, name)
            .ok_or_else(|| ApiError::not_found(PODS, name))?;
        let pod = serde_json::from_slice(&entry.bytes).map_err(ApiError::internal)?;
        Ok(PodTarget::new(pod))
    }

    pub fn new(pod: Pod) -> PodTarget {
        PodTarget {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            pod,
        }
    }

    /// The node's name, once the pod is bound.
    pub fn node(&self) -> Option<&str> {
        let spec = self.pod.spec.as_ref()?;
        spec.node_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn require_node(&self) -> Result<&str, ApiError> {
        self.node()
            .ok_or_else(|| ApiError::bad_request(format!("pod {} does not have a host assigned", self.name)))
    }

    /// The container that `wanted` names, which may be empty if there is only one.
    pub fn container<'a>(&'a self, wanted: &'a str) -> Result<&'a str, ApiError> {
        let spec = self.pod.spec.as_ref();
        let names = |containers: &'a [k8s_openapi::api::core::v1::Container]| {
            containers
                .iter()
                .map(|container| container.name.as_str())
                .collect::<Vec<_>>()
        };
        let containers = spec.map(|spec| names(&spec.containers)).unwrap_or_default();
        let init = spec
            .and_then(|spec| spec.init_containers.as_deref())
            .map(names)
            .unwrap_or_default();
        if !wanted.is_empty() {
            let mut ephemeral = spec
                .and_then(|spec| spec.ephemeral_containers.as_deref())
                .unwrap_or_default()
                .iter();
            let known = containers.contains(&wanted)
                || init.contains(&wanted)
                || ephemeral.any(|container| container.name == wanted);
            return if known {
                Ok(wanted)
            } else {
                let text = format!("container {wanted} is not valid for pod {}", self.name);
                Err(ApiError::bad_request(text))
            };
        }
        if let [only] = containers.as_slice() {
            return Ok(only);
        }
        let mut text = format!("a container name must be specified for pod {}", self.name);
        if !containers.is_empty() {
            text += &format!(", choose one of: [{}]", containers.join(" "));
        }
        if !init.is_empty() {
            text += &format!(" or one of the init containers: [{}]", init.join(" "));
        }
        Err(ApiError::bad_request(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn target(spec: serde_json::Value) -> PodTarget {
        PodTarget::new(serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_container_is_defaulted_only_when_it_is_the_only_one() {
        let one = target(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
        assert_eq!(one.container("").unwrap(), "a");
        assert_eq!(one.container("i").unwrap(), "i");
        let unknown = one.container("x").unwrap_err();
        assert_eq!(unknown.message(), "container x is not valid for pod p");
        let two = target(json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}));
        assert_eq!(
            two.container("").unwrap_err().message(),
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }

    #[test]
    fn a_pod_without_a_node_has_no_host() {
        let pod = target(json!({"containers": [{"name": "a"}]}));
        assert_eq!(
            pod.require_node().unwrap_err().message(),
            "pod p does not have a host assigned"
        );
    }
}
