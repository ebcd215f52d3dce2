//! Taints that the pod does not tolerate keep it away (upstream: `tainttoleration`).

use super::Plugin;
use crate::scheduler::cache::NodeInfo;
use crate::scheduler::plan::PodInfo;
use k8s_openapi::api::core::v1::{Taint, Toleration};

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn filter(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> Vec<String> {
        let hard = taints(node).filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
        if hard.into_iter().all(|taint| tolerates(pod, taint)) {
            Vec::new()
        } else {
            vec!["node(s) had untolerated taint(s)".into()]
        }
    }

    /// Fewer untolerated `PreferNoSchedule` taints are better.
    fn score(&self, pod: &PodInfo<'_>, node: &NodeInfo) -> i64 {
        let soft = taints(node)
            .filter(|taint| taint.effect == "PreferNoSchedule" && !tolerates(pod, taint))
            .count();
        100 / (1 + soft as i64)
    }
}

fn taints(node: &NodeInfo) -> impl Iterator<Item = &Taint> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten()
}

pub fn tolerates(pod: &PodInfo<'_>, taint: &Taint) -> bool {
    pod.spec
        .tolerations
        .iter()
        .flatten()
        .any(|toleration| matches(toleration, taint))
}

/// An empty key with Exists matches every taint; an empty effect matches every effect.
fn matches(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    let key = toleration.key.as_deref().unwrap_or("");
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    let value = taint.value.as_deref().unwrap_or("");
    let wanted = toleration.value.as_deref().unwrap_or("");
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "" | "Equal" => !key.is_empty() && wanted == value,
        "Exists" => true,
        "Lt" => matches!((value.parse::<i64>(), wanted.parse::<i64>()), (Ok(value), Ok(wanted)) if value < wanted),
        "Gt" => matches!((value.parse::<i64>(), wanted.parse::<i64>()), (Ok(value), Ok(wanted)) if value > wanted),
        _ => false,
    }
}
