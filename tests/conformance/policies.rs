//! Flow control and admission policies as objects.

use crate::cluster::Cluster;
use crate::lifecycle::cluster_wide;
use crate::runner::{Test, test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        test(
            "[sig-api-machinery] API priority and fairness should support FlowSchema API operations",
            flow_schemas,
        ),
        test(
            "[sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations",
            priority_levels,
        ),
        test(
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicy API operations",
            mutating_policies,
        ),
        test(
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should support MutatingAdmissionPolicyBinding API operations",
            mutating_bindings,
        ),
        test(
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations",
            validating_policies,
        ),
        test(
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations",
            validating_bindings,
        ),
    ]
}

const FLOW: &str = "flowcontrol.apiserver.k8s.io/v1";
const ADMISSION: &str = "admissionregistration.k8s.io/v1";

fn condition(kind: &str) -> Value {
    json!({
        "type": kind, "status": "False", "reason": "Test", "message": "by a test",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    })
}

async fn flow_schemas(cluster: Cluster) {
    let spec = json!({
        "matchingPrecedence": 9000,
        "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"},
        "rules": [{
            "subjects": [{"kind": "User", "user": {"name": "nobody-at-all"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    cluster_wide(FLOW, "flowschemas", "FlowSchema", json!({"spec": spec}))
        .change(json!({"spec": {"matchingPrecedence": 9999}}))
        .status(json!({"conditions": [condition("Dangling")]}))
        .run(&cluster)
        .await;
}

async fn priority_levels(cluster: Cluster) {
    let spec = json!({
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}},
    });
    cluster_wide(
        FLOW,
        "prioritylevelconfigurations",
        "PriorityLevelConfiguration",
        json!({"spec": spec}),
    )
    .change(json!({"spec": {"limited": {"nominalConcurrencyShares": 4}}}))
    .status(json!({"conditions": [condition("Tested")]}))
    .run(&cluster)
    .await;
}

/// Deployments of a namespace that does not exist, so that nobody else is met.
fn deployments() -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"no": "namespace"}},
        "resourceRules": [{
            "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"],
        }],
    })
}

async fn validating_policies(cluster: Cluster) {
    let spec = json!({
        "matchConstraints": deployments(),
        "validations": [{"expression": "object.spec.replicas <= 100"}],
    });
    cluster_wide(
        ADMISSION,
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        json!({"spec": spec}),
    )
    .change(json!({"spec": {"failurePolicy": "Ignore"}}))
    .status(json!({"conditions": [condition("Tested")]}))
    .run(&cluster)
    .await;
}

async fn validating_bindings(cluster: Cluster) {
    let spec = json!({"policyName": "no-policy.example.com", "validationActions": ["Deny"]});
    cluster_wide(
        ADMISSION,
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        json!({"spec": spec}),
    )
    .change(json!({"spec": {"validationActions": ["Warn", "Audit"]}}))
    .run(&cluster)
    .await;
}

async fn mutating_policies(cluster: Cluster) {
    let expression = r#"Object{metadata: Object.metadata{annotations: {"a": "b"}}}"#;
    let spec = json!({
        "matchConstraints": deployments(),
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
    });
    cluster_wide(
        ADMISSION,
        "mutatingadmissionpolicies",
        "MutatingAdmissionPolicy",
        json!({"spec": spec}),
    )
    .change(json!({"spec": {"reinvocationPolicy": "IfNeeded"}}))
    .run(&cluster)
    .await;
}

async fn mutating_bindings(cluster: Cluster) {
    let spec = json!({"policyName": "no-policy.example.com"});
    cluster_wide(
        ADMISSION,
        "mutatingadmissionpolicybindings",
        "MutatingAdmissionPolicyBinding",
        json!({"spec": spec}),
    )
    .change(json!({"spec": {"matchResources": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}}))
    .run(&cluster)
    .await;
}
