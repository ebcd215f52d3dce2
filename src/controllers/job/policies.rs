//! What a Job says about failed pods and about when it has succeeded (upstream: `pkg/controller/job`'s
//! `pod_failure_policy.go` and `success_policy.go`).

use super::indexes::Indexes;
use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
    PodFailurePolicyRule, SuccessPolicy,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};

/// What becomes of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts towards the limits, by a rule or because none matches.
    Count,
    Ignore,
    FailIndex,
    FailJob {
        message: String,
    },
}

impl Verdict {
    pub fn counts(&self) -> bool {
        *self != Self::Ignore
    }
}

/// The verdict of the first rule that matches the failed `pod`.
pub fn judge(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let (Some(policy), Some(status)) = (policy, &pod.status) else {
        return Verdict::Count;
    };
    for (index, rule) in policy.rules.iter().enumerate() {
        let Some(cause) = cause(rule, pod, status) else {
            continue;
        };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "Count" => Verdict::Count,
            "FailJob" => Verdict::FailJob {
                message: format!("{cause} matching FailJob rule at index {index}"),
            },
            // Of a newer version: as if it were not there.
            _ => continue,
        };
    }
    Verdict::Count
}

fn cause(rule: &PodFailurePolicyRule, pod: &Pod, status: &PodStatus) -> Option<String> {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let shown = format!("{}/{}", name(&pod.metadata.namespace), name(&pod.metadata.name));
    if let Some(requirement) = &rule.on_exit_codes {
        let (container, code) = exit_code(status, requirement)?;
        return Some(format!(
            "Container {container} for pod {shown} failed with exit code {code}"
        ));
    }
    let patterns = rule.on_pod_conditions.as_ref()?;
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| patterns.iter().any(|pattern| matches(pattern, condition)))?;
    Some(format!("Pod {shown} has condition {}", condition.type_))
}

fn matches(pattern: &PodFailurePolicyOnPodConditionsPattern, condition: &PodCondition) -> bool {
    let status = pattern.status.as_deref().unwrap_or("True");
    pattern.type_ == condition.type_ && status == condition.status
}

/// The first container that ended with a code of the requirement.
fn exit_code<'a>(
    status: &'a PodStatus,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let containers = status.container_statuses.iter().flatten();
    let all = containers.chain(status.init_container_statuses.iter().flatten());
    let found = |container: &'a ContainerStatus| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = requirement
            .container_name
            .as_ref()
            .is_none_or(|name| *name == container.name);
        let matching = match requirement.operator.as_str() {
            "In" => requirement.values.contains(&code),
            "NotIn" => !requirement.values.contains(&code),
            _ => false,
        };
        (named && code != 0 && matching).then_some((container.name.as_str(), code))
    };
    let mut all = all.filter_map(found);
    all.next()
}

/// The message about the first rule that the succeeded indexes meet.
pub fn success(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Indexes) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let mut rules = policy?.rules.iter();
    let met = rules.position(|rule| {
        let enough = |count: i32| rule.succeeded_count.is_some_and(|wanted| count >= wanted);
        match &rule.succeeded_indexes {
            Some(text) => {
                let required = Indexes::parse(text, completions);
                let common = required.common(succeeded);
                !required.is_empty() && (common == required.len() || enough(common))
            }
            None => enough(succeeded.len()),
        }
    })?;
    Some(format!("Matched rules at index {met}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_matching_rule_decides() {
        let policy: PodFailurePolicy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42, 43]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [1]}},
            {"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue", "status": "False"}]},
        ]}))
        .unwrap();
        let pod = |container: &str, code: i32, condition: (&str, &str)| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": "p"},
                "status": {
                    "containerStatuses": [{"name": container, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                        "state": {"terminated": {"exitCode": code}}}],
                    "conditions": [{"type": condition.0, "status": condition.1}],
                },
            }))
            .unwrap()
        };
        let fail = |message: &str| Verdict::FailJob {
            message: message.to_owned(),
        };
        let cases = [
            (pod("main", 42, ("DisruptionTarget", "True")), Verdict::Ignore),
            (
                pod("main", 42, ("DisruptionTarget", "False")),
                fail("Container main for pod ns/p failed with exit code 42 matching FailJob rule at index 1"),
            ),
            (pod("other", 42, ("Ready", "False")), Verdict::Count),
            (pod("other", 7, ("Ready", "False")), Verdict::FailIndex),
            (pod("main", 0, ("Ready", "False")), Verdict::Count),
            (
                pod("main", 1, ("ConfigIssue", "False")),
                fail("Pod ns/p has condition ConfigIssue matching FailJob rule at index 4"),
            ),
            (pod("main", 1, ("ConfigIssue", "True")), Verdict::Count),
        ];
        for (pod, expected) in cases {
            assert_eq!(judge(Some(&policy), &pod), expected, "{:?}", pod.status);
        }
        assert_eq!(
            judge(None, &pod("main", 42, ("DisruptionTarget", "True"))),
            Verdict::Count
        );
    }

    #[test]
    fn success_by_indexes_or_by_number() {
        let cases = [
            (json!([{"succeededIndexes": "0,2-3"}]), "0,2", None),
            (json!([{"succeededIndexes": "0,2-3"}]), "0-3", Some(0)),
            (
                json!([{"succeededIndexes": "0,2-3", "succeededCount": 2}]),
                "0,1,3",
                Some(0),
            ),
            (json!([{"succeededCount": 3}]), "0,4", None),
            (
                json!([{"succeededCount": 3}, {"succeededIndexes": "4"}]),
                "0,4",
                Some(1),
            ),
            (json!([{"succeededIndexes": "77"}]), "0,4", None),
            (json!([{"succeededCount": 1}]), "", None),
        ];
        for (rules, succeeded, rule) in cases {
            let policy: SuccessPolicy = serde_json::from_value(json!({"rules": rules})).unwrap();
            let met = success(Some(&policy), 10, &Indexes::parse(succeeded, 10));
            assert_eq!(
                met,
                rule.map(|rule: i32| format!("Matched rules at index {rule}")),
                "{rules}"
            );
        }
        assert_eq!(success(None, 10, &Indexes::parse("0", 10)), None);
    }
}
