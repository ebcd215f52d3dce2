//! Which nodes a DaemonSet is for (upstream: `NodeShouldRunDaemonPod`, `AddOrUpdateDaemonPodTolerations`).

use crate::client::placement;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, PodSpec, Toleration};
use kube::ResourceExt;
use std::borrow::Cow;

/// What a node is to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// A pod belongs there.
    pub should_run: bool,
    /// One that is there may stay.
    pub may_stay: bool,
}

const NO: Fit = Fit {
    should_run: false,
    may_stay: false,
};

/// The pod that the set would put on a node, as far as nodes care.
pub struct Eligibility<'a> {
    spec: Cow<'a, PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Eligibility<'a> {
    pub fn of(set: &'a DaemonSet) -> Self {
        let spec = match &set.spec.template.spec {
            Some(spec) => Cow::Borrowed(spec),
            None => Cow::Owned(PodSpec::default()),
        };
        Self {
            tolerations: tolerations(&spec),
            spec,
        }
    }

    pub fn fit(&self, node: &Node) -> Fit {
        let is_named = self
            .spec
            .node_name
            .as_ref()
            .is_none_or(|name| name.is_empty() || *name == node.name_any());
        if !is_named || !placement::is_selected(&self.spec, node) {
            return NO;
        }
        let is_free_of = |effects: &[&str]| placement::untolerated(node, &self.tolerations, effects).is_none();
        let may_stay = is_free_of(&["NoExecute"]);
        Fit {
            should_run: may_stay && is_free_of(&["NoSchedule"]),
            may_stay,
        }
    }
}

/// Daemons outlive trouble of their node: the pod's own tolerations and those that all daemons get.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let of_network = (spec.host_network == Some(true)).then_some(("network-unavailable", "NoSchedule"));
    let of_all = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    for (condition, effect) in of_all.into_iter().chain(of_network) {
        let toleration = Toleration {
            key: Some(format!("node.kubernetes.io/{condition}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let is_same = |other: &Toleration| {
            (&other.key, &other.operator, &other.effect) == (&toleration.key, &toleration.operator, &toleration.effect)
                && other.value.as_deref().is_none_or(str::is_empty)
        };
        match tolerations.iter_mut().find(|other| is_same(other)) {
            // For ever, and not for some seconds.
            Some(other) => *other = toleration,
            None => tolerations.push(toleration),
        }
    }
    tolerations
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn fit(pod: Value, node: Value) -> (bool, bool) {
        let set: DaemonSet = serde_json::from_value(json!({
            "metadata": {"name": "d"}, "spec": {"selector": {}, "template": {"spec": pod}}}))
        .unwrap();
        let mut whole = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}});
        whole.as_object_mut().unwrap().extend(node.as_object().unwrap().clone());
        let node: Node = serde_json::from_value(whole).unwrap();
        let fit = Eligibility::of(&set).fit(&node);
        (fit.should_run, fit.may_stay)
    }

    fn tainted(key: &str, effect: &str) -> Value {
        json!({"spec": {"taints": [{"key": key, "effect": effect}]}})
    }

    #[test]
    fn situations() {
        let plain = || json!({"containers": []});
        for (pod, node, expected) in [
            (plain(), json!({}), (true, true)),
            (json!({"containers": [], "nodeName": "n1"}), json!({}), (true, true)),
            (json!({"containers": [], "nodeName": "n2"}), json!({}), (false, false)),
            (
                json!({"containers": [], "nodeSelector": {"zone": "b"}}),
                json!({}),
                (false, false),
            ),
            (plain(), tainted("own", "NoSchedule"), (false, true)),
            (plain(), tainted("own", "NoExecute"), (false, false)),
            (plain(), tainted("own", "PreferNoSchedule"), (true, true)),
            (
                plain(),
                tainted("node.kubernetes.io/not-ready", "NoExecute"),
                (true, true),
            ),
            (
                plain(),
                tainted("node.kubernetes.io/not-ready", "NoSchedule"),
                (false, true),
            ),
            (
                plain(),
                tainted("node.kubernetes.io/unschedulable", "NoSchedule"),
                (true, true),
            ),
            (
                plain(),
                tainted("node.kubernetes.io/network-unavailable", "NoSchedule"),
                (false, true),
            ),
            (
                json!({"containers": [], "hostNetwork": true}),
                tainted("node.kubernetes.io/network-unavailable", "NoSchedule"),
                (true, true),
            ),
            (
                json!({"containers": [], "tolerations": [{"operator": "Exists"}]}),
                tainted("own", "NoExecute"),
                (true, true),
            ),
        ] {
            assert_eq!(fit(pod.clone(), node.clone()), expected, "{pod} {node}");
        }
    }

    #[test]
    fn a_toleration_for_some_seconds_becomes_one_for_ever() {
        let own = json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": 5}, {"key": "x", "operator": "Exists"}]);
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "tolerations": own})).unwrap();
        let tolerations = tolerations(&spec);
        assert_eq!(tolerations.len(), 7);
        assert_eq!(tolerations[0].toleration_seconds, None);
        assert_eq!(tolerations[1].key.as_deref(), Some("x"));
    }
}
