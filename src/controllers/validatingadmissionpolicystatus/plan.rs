//! The status of a policy whose present form was not looked at yet.

use super::TypeCheck;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

/// What is to be applied; None if the status speaks of this generation.
pub fn plan(policy: &ValidatingAdmissionPolicy, check: &TypeCheck) -> Option<Value> {
    let generation = policy.metadata.generation.unwrap_or(0);
    let status = policy.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
    if generation <= observed {
        return None;
    }
    let warnings = check(policy);
    let type_checking = if warnings.is_empty() {
        json!({})
    } else {
        json!({"expressionWarnings": warnings})
    };
    Some(json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": policy.metadata.name},
        "status": {"observedGeneration": generation, "typeChecking": type_checking},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::admissionregistration::v1::ExpressionWarning;

    fn policy(generation: i64, observed: Option<i64>) -> ValidatingAdmissionPolicy {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": generation},
            "status": {"observedGeneration": observed},
        }))
        .unwrap()
    }

    #[test]
    fn a_generation_is_looked_at_once() {
        let silent: TypeCheck = Box::new(|_| Vec::new());
        for (generation, observed, expected) in [
            (1, None, Some(json!({"observedGeneration": 1, "typeChecking": {}}))),
            (2, Some(1), Some(json!({"observedGeneration": 2, "typeChecking": {}}))),
            (2, Some(2), None),
            (1, Some(2), None),
        ] {
            let patch = plan(&policy(generation, observed), &silent);
            assert_eq!(
                patch.map(|patch| patch["status"].clone()),
                expected,
                "{generation} after {observed:?}"
            );
        }
        let loud: TypeCheck = Box::new(|_| {
            vec![ExpressionWarning {
                field_ref: "spec.validations[0].expression".into(),
                warning: "no".into(),
            }]
        });
        let patch = plan(&policy(1, None), &loud).unwrap();
        assert_eq!(
            patch["status"]["typeChecking"]["expressionWarnings"],
            json!([{"fieldRef": "spec.validations[0].expression", "warning": "no"}])
        );
    }
}
