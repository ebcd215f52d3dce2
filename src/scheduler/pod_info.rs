//! What the scheduler reads of a pod, worked out once per version of it (upstream: `framework.PodInfo`).

use super::resources::Requests;
use super::selector::{Labels, RequiredNode, Selector, labels_of};
use crate::client::placement::tolerates;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Taint, Volume};
use std::sync::{Arc, LazyLock};

/// A port on the node's own addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub protocol: String,
    pub address: String,
    pub port: i32,
}

impl HostPort {
    /// Same protocol and port, and addresses that meet: 0.0.0.0 meets all.
    pub fn meets(&self, other: &Self) -> bool {
        const ANY: &str = "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || self.address == ANY || other.address == ANY)
    }
}

/// Which pods a term of pod affinity speaks of, and over which domains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    pub scope: Scope,
    pub selector: Selector,
    pub topology_key: String,
}

/// Namespaces by name or by their labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    names: Vec<String>,
    selector: Option<Selector>,
}

impl Scope {
    pub fn one(namespace: &str) -> Self {
        Self {
            names: vec![namespace.to_owned()],
            selector: None,
        }
    }

    /// `labels` are those of the namespace.
    pub fn holds(&self, namespace: &str, labels: &Labels) -> bool {
        self.names.iter().any(|name| name == namespace)
            || self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    pub fn is_by_labels(&self) -> bool {
        self.selector.is_some()
    }
}

impl AffinityTerm {
    fn new(namespace: &str, term: &PodAffinityTerm) -> Self {
        let mut names = term.namespaces.clone().unwrap_or_default();
        let selector = term.namespace_selector.as_ref().map(|s| Selector::new(Some(s)));
        if names.is_empty() && selector.is_none() {
            names.push(namespace.to_owned());
        }
        names.sort();
        Self {
            scope: Scope { names, selector },
            selector: Selector::new(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// `namespace_labels` are those of the pod's namespace.
    pub fn matches(&self, pod: &PodInfo, namespace_labels: &Labels) -> bool {
        self.scope.holds(&pod.namespace, namespace_labels) && self.selector.matches(pod.labels())
    }
}

/// Affinity to pods or anti-affinity.
#[derive(Clone, Debug, Default)]
pub struct AffinityTerms {
    pub required: Vec<AffinityTerm>,
    pub preferred: Vec<(i64, AffinityTerm)>,
}

#[derive(Clone, Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub priority: i32,
    pub requests: Requests,
    pub host_ports: Vec<HostPort>,
    pub required_node: RequiredNode,
    pub affinity: AffinityTerms,
    pub anti_affinity: AffinityTerms,
    /// Names of the claims that the pod uses, and whether a claim is made for the pod itself.
    pub claims: Vec<(String, bool)>,
}

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let meta = &pod.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        let name = meta.name.clone().unwrap_or_default();
        let spec = pod.spec.as_ref().unwrap_or(&NO_SPEC);
        let affinity = spec.affinity.as_ref();
        let to = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let from = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<AffinityTerm> {
            let terms = terms.into_iter().flatten();
            terms.map(|term| AffinityTerm::new(&namespace, term)).collect()
        };
        let preferred = |terms: Option<&Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            let terms = terms.into_iter().flatten();
            let weighted = terms.map(|t| (i64::from(t.weight), AffinityTerm::new(&namespace, &t.pod_affinity_term)));
            weighted.collect::<Vec<_>>()
        };
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            priority: spec.priority.unwrap_or(0),
            requests: Requests::of(&pod),
            host_ports: host_ports(spec),
            required_node: RequiredNode::of(spec),
            affinity: AffinityTerms {
                required: required(to.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
                preferred: preferred(to.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())),
            },
            anti_affinity: AffinityTerms {
                required: required(from.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
                preferred: preferred(
                    from.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
                ),
            },
            claims: claims(spec, &name),
            namespace,
            name,
            pod,
        }
    }

    pub fn spec(&self) -> &PodSpec {
        self.pod.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    pub fn labels(&self) -> &Labels {
        labels_of(&self.pod.metadata.labels)
    }

    pub fn volumes(&self) -> &[Volume] {
        self.spec().volumes.as_deref().unwrap_or_default()
    }

    pub fn is_terminating(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some()
    }

    pub fn nominated_node(&self) -> Option<&str> {
        let status = self.pod.status.as_ref()?;
        status.nominated_node_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn scheduler_name(&self) -> &str {
        let name = self.spec().scheduler_name.as_deref().unwrap_or_default();
        if name.is_empty() { super::SCHEDULER_NAME } else { name }
    }

    pub fn tolerates(&self, taint: &Taint) -> bool {
        let tolerations = self.spec().tolerations.iter().flatten();
        tolerations.into_iter().any(|toleration| tolerates(toleration, taint))
    }

    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The host ports that the pod claims: those of its containers, and of the init containers that stay.
fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let init = spec.init_containers.iter().flatten();
    let sidecars = init.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    let filled = |text: &Option<String>, default: &str| match text.as_deref() {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    };
    ports
        .filter_map(|port| {
            Some(HostPort {
                port: port.host_port.filter(|number| *number > 0)?,
                protocol: filled(&port.protocol, "TCP"),
                address: filled(&port.host_ip, "0.0.0.0"),
            })
        })
        .collect()
}

fn claims(spec: &PodSpec, pod: &str) -> Vec<(String, bool)> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some((claim.claim_name.clone(), false)),
            (None, Some(_)) => Some((format!("{pod}-{}", volume.name), true)),
            (None, None) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Toleration;
    use serde_json::{Value, json};

    fn info(value: Value) -> PodInfo {
        PodInfo::new(Arc::new(serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn host_ports_meet() {
        let port = |address: &str, protocol: &str, port: i32| HostPort {
            protocol: protocol.into(),
            address: address.into(),
            port,
        };
        let used = port("127.0.0.1", "TCP", 80);
        for (wanted, meets) in [
            (port("127.0.0.1", "TCP", 80), true),
            (port("0.0.0.0", "TCP", 80), true),
            (port("127.0.0.2", "TCP", 80), false),
            (port("0.0.0.0", "UDP", 80), false),
            (port("0.0.0.0", "TCP", 81), false),
        ] {
            assert_eq!(wanted.meets(&used), meets, "{wanted:?}");
        }
        let pod = info(json!({"spec": {
            "containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 8080}, {"containerPort": 2}]}],
            "initContainers": [
                {"name": "i", "ports": [{"containerPort": 3, "hostPort": 3}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 4, "hostPort": 4, "protocol": "UDP", "hostIP": "10.0.0.1"}]},
            ],
        }}));
        assert_eq!(
            pod.host_ports,
            [port("0.0.0.0", "TCP", 8080), port("10.0.0.1", "UDP", 4)]
        );
    }

    #[test]
    fn which_namespaces_a_term_speaks_of() {
        let term = |extra: Value| {
            let mut term = json!({"topologyKey": "zone", "labelSelector": {}});
            term.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let terms = json!([term]);
            let pod = json!({"metadata": {"namespace": "own"}, "spec": {"containers": [],
                "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}});
            info(pod).affinity.required.remove(0)
        };
        let labels: Labels = serde_json::from_value(json!({"team": "a"})).unwrap();
        let none = Labels::new();
        for (extra, own, other, labelled) in [
            (json!({}), true, false, false),
            (json!({"namespaces": ["other"]}), false, true, true),
            (json!({"namespaceSelector": {}}), true, true, true),
            (
                json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}),
                false,
                false,
                true,
            ),
            (
                json!({"namespaces": ["own"], "namespaceSelector": {"matchLabels": {"team": "a"}}}),
                true,
                false,
                true,
            ),
        ] {
            let term = term(extra.clone());
            let held = (
                term.scope.holds("own", &none),
                term.scope.holds("other", &none),
                term.scope.holds("other", &labels),
            );
            assert_eq!(held, (own, other, labelled), "{extra}");
        }
    }

    #[test]
    fn tolerations() {
        let taint = |effect: &str| Taint {
            key: "k".into(),
            value: Some("5".into()),
            effect: effect.into(),
            time_added: None,
        };
        for (toleration, effect, expected) in [
            (json!({"operator": "Exists"}), "NoSchedule", true),
            (json!({"key": "k", "operator": "Exists"}), "NoExecute", true),
            (
                json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}),
                "NoSchedule",
                false,
            ),
            (json!({"key": "k", "value": "5"}), "NoSchedule", true),
            (json!({"key": "k", "value": "6"}), "NoSchedule", false),
            (json!({"key": "other", "operator": "Exists"}), "NoSchedule", false),
            (json!({"key": "k", "operator": "Lt", "value": "6"}), "NoSchedule", true),
            (json!({"key": "k", "operator": "Gt", "value": "6"}), "NoSchedule", false),
        ] {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint(effect)), expected, "{toleration} {effect}");
        }
    }

    #[test]
    fn claims_by_name_and_of_ones_own() {
        let pod = info(
            json!({"metadata": {"name": "p"}, "spec": {"containers": [], "volumes": [
                {"name": "a", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "b", "emptyDir": {}}, {"name": "s", "ephemeral": {}},
            ]}}),
        );
        assert_eq!(pod.claims, [("c".to_owned(), false), ("p-s".to_owned(), true)]);
    }
}
