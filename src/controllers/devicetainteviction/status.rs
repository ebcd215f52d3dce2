//! What a rule says of its evictions: the condition `EvictionInProgress`. Pure.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceTaintRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use std::time::Duration;

const IN_PROGRESS: &str = "EvictionInProgress";
/// The shortest time between two changes of a status, unless the rule has changed.
pub const PERIOD: Duration = Duration::from_secs(10);

/// What a rule concerns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// That are to leave, or would be if the rule was in effect.
    pub pods: usize,
    /// Of those pods.
    pub namespaces: usize,
    pub published: usize,
    pub allocated: usize,
    /// Pods that have left since the start.
    pub evicted: usize,
}

/// The rule as it would be if it drove pods away.
pub fn in_effect(rule: &DeviceTaintRule) -> DeviceTaintRule {
    let mut rule = rule.clone();
    if rule.spec.taint.effect == "None" {
        "NoExecute".clone_into(&mut rule.spec.taint.effect);
    }
    rule
}

fn known(rule: &DeviceTaintRule) -> Option<&Condition> {
    let conditions = rule.status.as_ref().and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .find(|one| one.type_ == IN_PROGRESS)
}

/// How long the status is to stay as it is.
pub fn waits(rule: &DeviceTaintRule, now: Timestamp) -> Option<Duration> {
    let known = known(rule).filter(|known| known.observed_generation == rule.metadata.generation)?;
    let since = Duration::try_from(now.duration_since(known.last_transition_time.0)).unwrap_or_default();
    PERIOD.checked_sub(since).filter(|left| !left.is_zero())
}

fn some(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {many}"),
    }
}

/// The condition, if it is not what the rule says already.
pub fn news(rule: &DeviceTaintRule, counts: &Counts, now: Timestamp) -> Option<Condition> {
    let namespaces = some(counts.namespaces, "namespace", "different namespaces");
    let (status, reason, mut message) = match rule.spec.taint.effect.as_str() {
        "NoExecute" if counts.pods > 0 => {
            let pods = some(counts.pods, "pod needs", "pods need");
            let message = format!("{pods} to be evicted in {namespaces}.");
            ("True", "PodsPendingEviction", message)
        }
        "NoExecute" if counts.evicted > 0 => ("False", "Completed", String::new()),
        "NoExecute" => ("False", "NotStarted", String::new()),
        "None" => {
            let message = format!(
                "{} selected. {} selected. {} would be evicted in {namespaces} if the effect was NoExecute. \
                This information will not be updated again. Recreate the DeviceTaintRule to trigger an update.",
                some(counts.published, "published device", "published devices"),
                some(counts.allocated, "allocated device", "allocated devices"),
                some(counts.pods, "pod", "pods"),
            );
            ("False", "NoEffect", message)
        }
        _ => {
            let message = "Eviction only happens for the NoExecute effect.".to_owned();
            ("False", "OtherEffect", message)
        }
    };
    if counts.evicted > 0 {
        let space = if message.is_empty() { "" } else { " " };
        let evicted = some(counts.evicted, "pod", "pods");
        message += &format!("{space}{evicted} evicted since starting the controller.");
    }
    let condition = Condition {
        type_: IN_PROGRESS.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: rule.metadata.generation,
        last_transition_time: Time(now),
    };
    let same = known(rule).is_some_and(|known| {
        Condition {
            last_transition_time: Time(now),
            ..known.clone()
        } == condition
    });
    (!same).then_some(condition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(effect: &str) -> DeviceTaintRule {
        let rule =
            json!({"metadata": {"name": "r", "generation": 3}, "spec": {"taint": {"key": "k", "effect": effect}}});
        serde_json::from_value(rule).unwrap()
    }

    #[test]
    fn situations() {
        let now = "2024-01-01T00:00:00Z".parse().unwrap();
        for (effect, pods, namespaces, published, evicted, expected) in [
            ("NoExecute", 0, 0, 0, 0, ["False", "NotStarted", ""]),
            (
                "NoExecute",
                1,
                1,
                0,
                0,
                [
                    "True",
                    "PodsPendingEviction",
                    "1 pod needs to be evicted in 1 namespace.",
                ],
            ),
            (
                "NoExecute",
                2,
                2,
                0,
                1,
                [
                    "True",
                    "PodsPendingEviction",
                    "2 pods need to be evicted in 2 different namespaces. 1 pod evicted since starting the controller.",
                ],
            ),
            (
                "NoExecute",
                0,
                0,
                0,
                2,
                ["False", "Completed", "2 pods evicted since starting the controller."],
            ),
            (
                "NoSchedule",
                0,
                0,
                0,
                0,
                [
                    "False",
                    "OtherEffect",
                    "Eviction only happens for the NoExecute effect.",
                ],
            ),
            (
                "None",
                0,
                0,
                1,
                0,
                [
                    "False",
                    "NoEffect",
                    "1 published device selected. 0 allocated devices selected. 0 pods would be evicted in 0 different \
                    namespaces if the effect was NoExecute. This information will not be updated again. Recreate the \
                    DeviceTaintRule to trigger an update.",
                ],
            ),
        ] {
            let counts = Counts {
                pods,
                namespaces,
                published,
                allocated: 0,
                evicted,
            };
            let mut rule = rule(effect);
            let condition = news(&rule, &counts, now).unwrap();
            assert_eq!([&*condition.status, &*condition.reason, &*condition.message], expected);
            assert_eq!(condition.observed_generation, Some(3));
            rule.status = Some(serde_json::from_value(json!({"conditions": [condition]})).unwrap());
            let later = now + PERIOD;
            assert_eq!(news(&rule, &counts, later), None, "what is said is not said again");
            assert_eq!(waits(&rule, later), None);
            assert_eq!(waits(&rule, now + Duration::from_secs(4)), Some(Duration::from_secs(6)));
            rule.metadata.generation = Some(4);
            assert_eq!(waits(&rule, now), None, "a change is told at once");
        }
    }

    #[test]
    fn what_has_no_effect_is_tried() {
        assert_eq!(in_effect(&rule("None")).spec.taint.effect, "NoExecute");
        assert_eq!(in_effect(&rule("NoSchedule")).spec.taint.effect, "NoSchedule");
    }
}
