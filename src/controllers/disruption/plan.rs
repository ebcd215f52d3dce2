//! How many pods of a budget may go (upstream: `trySync`, `updatePdbStatus`). Pure.

use crate::controllers::int_or_percent::{self, NotAPercentage, Round};
use crate::controllers::pods;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// An evicted pod is deleted within this time, or it stays.
const DELETION_MAX: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// How many pods there should be, and how many of them healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub pods: i32,
    pub healthy: i32,
}

#[derive(Debug)]
pub struct Plan {
    /// None if it says what is so already.
    pub status: Option<PodDisruptionBudgetStatus>,
    /// Evicted, and still there.
    pub not_deleted: Vec<Arc<Pod>>,
    pub again_after: Option<Duration>,
}

fn bounds(budget: &PodDisruptionBudget) -> (Option<&IntOrString>, Option<&IntOrString>) {
    let spec = budget.spec.as_ref();
    (
        spec.and_then(|spec| spec.max_unavailable.as_ref()),
        spec.and_then(|spec| spec.min_available.as_ref()),
    )
}

/// Whether the budget is a share of what the pods' owners want. Otherwise it is about the pods that there are.
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    matches!(bounds(budget), (Some(_), _) | (None, Some(IntOrString::String(_))))
}

/// `pods` there should be.
pub fn expected(budget: &PodDisruptionBudget, pods: i32) -> Result<Expected, NotAPercentage> {
    let (pods, healthy) = match bounds(budget) {
        (Some(max_unavailable), _) => (pods, pods - int_or_percent::scaled(max_unavailable, pods, Round::Up)?),
        (None, Some(min_available)) => (pods, int_or_percent::scaled(min_available, pods, Round::Up)?),
        (None, None) => (0, 0),
    };
    Ok(Expected {
        pods,
        healthy: healthy.max(0),
    })
}

pub fn plan(budget: &PodDisruptionBudget, selected: &[Arc<Pod>], expected: Expected, now: Timestamp) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let noted = old.disrupted_pods.clone().unwrap_or_default();
    let (mut disrupted, mut not_deleted) = (BTreeMap::new(), Vec::new());
    let mut again_at: Option<Timestamp> = None;
    for pod in selected.iter().filter(|pod| !pods::is_terminating(pod)) {
        let Some(since) = noted.get(&pod.name_any()) else {
            continue;
        };
        let deadline = since.0.saturating_add(DELETION_MAX).unwrap_or(since.0);
        if deadline < now {
            not_deleted.push(Arc::clone(pod));
        } else {
            again_at = Some(again_at.map_or(deadline, |other| other.min(deadline)));
            disrupted.insert(pod.name_any(), since.clone());
        }
    }
    let is_healthy =
        |pod: &&Arc<Pod>| !pods::is_terminating(pod) && !disrupted.contains_key(&pod.name_any()) && pods::is_ready(pod);
    let healthy = selected.iter().filter(is_healthy).count() as i32;
    // A budget that selects nothing yet allows nothing: it may just not have seen its first pods.
    let allowed = if expected.pods > 0 {
        (healthy - expected.healthy).max(0)
    } else {
        0
    };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(expected.healthy),
        expected_pods: Some(expected.pods),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions.clone(),
    };
    let (value, reason) = match allowed {
        0 => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    set_condition(&mut status, value, reason, "", now);
    Plan {
        status: (!is_same(&status, &old)).then_some(status),
        not_deleted,
        again_after: again_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default() + MARGIN),
    }
}

/// Past the deadline, not at it.
const MARGIN: Duration = Duration::from_millis(1);

/// Numbers that are missing are zeros.
fn is_same(one: &PodDisruptionBudgetStatus, other: &PodDisruptionBudgetStatus) -> bool {
    let numbers = |status: &PodDisruptionBudgetStatus| {
        [
            status.current_healthy,
            status.desired_healthy,
            status.expected_pods,
            status.disruptions_allowed,
        ]
        .map(Option::unwrap_or_default)
    };
    let disrupted = |status: &PodDisruptionBudgetStatus| status.disrupted_pods.clone().unwrap_or_default();
    numbers(one) == numbers(other)
        && disrupted(one) == disrupted(other)
        && one.observed_generation == other.observed_generation
        && one.conditions == other.conditions
}

/// The status of a budget that cannot be counted: nothing may go.
pub fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|condition| condition.type_ == CONDITION);
    let since = known
        .as_ref()
        .filter(|known| known.status == value)
        .map_or(Time(now), |known| known.last_transition_time.clone());
    let condition = Condition {
        type_: CONDITION.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// What people are told of pods without an owner. The selector stands there as Go prints one.
pub fn unmanaged_message(selector: Option<&LabelSelector>) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status \
         of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
         please set \".spec.minAvailable\" field of the PDB to an integer value.",
        selector.map_or_else(|| "nil".to_owned(), printed)
    )
}

fn printed(selector: &LabelSelector) -> String {
    let mut text = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    for (key, value) in selector.match_labels.iter().flatten() {
        let _ = write!(text, "{key}: {value},");
    }
    text.push_str("},MatchExpressions:[]LabelSelectorRequirement{");
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.as_deref().unwrap_or_default().join(" ");
        let (key, operator) = (&expression.key, &expression.operator);
        let _ = write!(
            text,
            "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"
        );
    }
    text + "},}"
}

#[cfg(test)]
mod random;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let metadata = json!({"name": "b", "namespace": "a", "generation": 2});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn pod(name: &str, ready: &str) -> Arc<Pod> {
        let conditions = json!([{"type": "Ready", "status": ready}]);
        let status = json!({"phase": "Running", "conditions": conditions});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn expectations_follow_the_bounds() {
        for (spec, by_scale, pods, expected_healthy) in [
            (json!({"minAvailable": 3}), false, 5, Some(3)),
            (json!({"minAvailable": "50%"}), true, 5, Some(3)),
            (json!({"minAvailable": "100%"}), true, 5, Some(5)),
            (json!({"maxUnavailable": 1}), true, 5, Some(4)),
            (json!({"maxUnavailable": 7}), true, 5, Some(0)),
            (json!({"maxUnavailable": "30%"}), true, 5, Some(3)),
            (json!({"maxUnavailable": "x"}), true, 5, None),
        ] {
            let budget = budget(spec.clone(), json!({}));
            assert_eq!(needs_scale(&budget), by_scale, "{spec}");
            let healthy = expected(&budget, pods).ok().map(|expected| expected.healthy);
            assert_eq!(healthy, expected_healthy, "{spec}");
        }
        let without = budget(json!({}), json!({}));
        assert_eq!(expected(&without, 5), Ok(Expected { pods: 0, healthy: 0 }));
    }

    fn expected_of(pods: i32, healthy: i32) -> Expected {
        Expected { pods, healthy }
    }

    #[test]
    fn healthy_pods_beyond_the_wanted_may_go() {
        let pods = [pod("a", "True"), pod("b", "True"), pod("c", "False")];
        for (expected, allowed, condition) in [
            (expected_of(3, 1), 1, ("True", "SufficientPods")),
            (expected_of(3, 2), 0, ("False", "InsufficientPods")),
            (expected_of(3, 9), 0, ("False", "InsufficientPods")),
            (expected_of(0, 0), 0, ("False", "InsufficientPods")),
        ] {
            let plan = plan(&budget(json!({}), json!({})), &pods, expected, now());
            let status = plan.status.expect("a first status");
            assert_eq!(status.current_healthy, Some(2));
            assert_eq!(status.disruptions_allowed, Some(allowed));
            assert_eq!(status.observed_generation, Some(2));
            let found = &status.conditions.as_ref().unwrap()[0];
            assert_eq!((found.status.as_str(), found.reason.as_str()), condition);
            assert_eq!(found.observed_generation, Some(2));
            // The second time there is nothing to write.
            let again = budget(json!({}), serde_json::to_value(&status).unwrap());
            assert!(super::plan(&again, &pods, expected, now()).status.is_none());
        }
    }

    #[test]
    fn evicted_pods_do_not_count_until_they_stay_too_long() {
        let disrupted =
            json!({"a": "2026-01-01T00:09:00Z", "b": "2026-01-01T00:07:00Z", "gone": "2026-01-01T00:09:59Z"});
        let budget = budget(json!({}), json!({"disruptedPods": disrupted, "disruptionsAllowed": 0}));
        let pods = [pod("a", "True"), pod("b", "True"), pod("c", "True")];
        let plan = plan(&budget, &pods, expected_of(3, 1), now());
        let status = plan.status.unwrap();
        assert_eq!(status.disrupted_pods.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(status.current_healthy, Some(2));
        assert_eq!(plan.not_deleted[0].name_any(), "b");
        assert_eq!(plan.again_after, Some(Duration::from_secs(60) + MARGIN));
    }

    #[test]
    fn what_cannot_be_counted_allows_nothing() {
        let since = "2026-01-01T00:00:00Z";
        let condition = json!({"type": CONDITION, "status": "True", "reason": "SufficientPods", "message": "",
            "lastTransitionTime": since, "observedGeneration": 1});
        let counted = json!({"disruptionsAllowed": 3, "observedGeneration": 1, "conditions": [condition]});
        let status = failed(&budget(json!({}), counted), "no scale", now());
        assert_eq!(status.disruptions_allowed, Some(0));
        let condition = &status.conditions.as_ref().unwrap()[0];
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("SyncFailed", "no scale")
        );
        assert_eq!(condition.last_transition_time, Time(now()));
        let again = budget(json!({}), serde_json::to_value(&status).unwrap());
        let later = now().checked_add(SignedDuration::from_mins(1)).unwrap();
        assert_eq!(failed(&again, "no scale", later), status, "it is written once");
    }

    #[test]
    fn selectors_are_printed_as_go_does() {
        let selector = serde_json::from_value(json!({
            "matchLabels": {"a": "b", "c": "d"},
            "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}],
        }))
        .unwrap();
        assert_eq!(
            printed(&selector),
            "&LabelSelector{MatchLabels:map[string]string{a: b,c: d,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}
