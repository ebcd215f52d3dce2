//! Flow control and admission policies as objects, and policies at work.

use crate::cluster::{Cluster, eventually, refused};
use crate::lifecycle::cluster_wide;
use crate::resource::{Resource, merge_into};
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
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment",
            mutates,
        ),
        test(
            "[sig-api-machinery] MutatingAdmissionPolicy [Privileged:ClusterAdmin] should mutate a Deployment with annotations",
            annotates,
        ),
        test(
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should allow expressions to refer variables.",
            variables,
        ),
        test(
            "[sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should validate against a Deployment",
            validates,
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
    // What the server itself says of it, so that it is left as it is.
    let found = json!({
        "type": "Dangling", "status": "False", "reason": "Found", "lastTransitionTime": "2026-01-02T03:04:05Z",
        "message": "This FlowSchema references the PriorityLevelConfiguration object named \"global-default\" and it exists",
    });
    cluster_wide(FLOW, "flowschemas", "FlowSchema", json!({"spec": spec}))
        .change(json!({"spec": {"matchingPrecedence": 9999}}))
        .status(json!({"conditions": [found, condition("Tested")]}))
        .settled(|schema| schema["status"]["conditions"].is_array())
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
    .observed()
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

/// A namespace of its own, labelled with its name, and a policy that is for the Deployments in it.
struct Scene {
    deployments: Resource,
    sets: Resource,
    /// Policy and binding, which go with the test.
    made: Vec<(Resource, String)>,
}

impl Scene {
    /// `kind` is `validating` or `mutating`; `rest` is what the policy does.
    async fn new(cluster: &Cluster, kind: &str, rest: Value, binding: Value) -> Self {
        let namespace = cluster.namespace("policy").await;
        let label = json!({"metadata": {"labels": {(namespace.as_str()): "true"}}});
        cluster.core("namespaces", None).merge(&namespace, label).await.unwrap();
        let name = cluster.unique("policy.example.com");
        let selected = json!({"matchLabels": {(namespace.as_str()): "true"}});
        let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {
            "namespaceSelector": selected,
            "resourceRules": [{
                "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["deployments"],
            }],
        }}});
        merge_into(&mut policy, json!({"spec": rest}));
        let mut bound = json!({"metadata": {"name": name}, "spec": {
            "policyName": name, "matchResources": {"namespaceSelector": selected},
        }});
        merge_into(&mut bound, json!({"spec": binding}));
        let policies = cluster.resource(ADMISSION, &format!("{kind}admissionpolicies"), None);
        let bindings = cluster.resource(ADMISSION, &format!("{kind}admissionpolicybindings"), None);
        policies.create(&policy).await.unwrap();
        bindings.create(&bound).await.unwrap();
        Self {
            deployments: cluster.resource("apps/v1", "deployments", Some(&namespace)),
            sets: cluster.resource("apps/v1", "replicasets", Some(&namespace)),
            made: vec![(policies, name.clone()), (bindings, name)],
        }
    }

    async fn end(self) {
        for (resource, name) in self.made {
            resource.delete(&name).await.unwrap();
        }
    }
}

fn workload(name: &str, replicas: i32) -> Value {
    let labels = json!({"app": "nginx"});
    json!({"metadata": {"name": name, "labels": labels}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [
            {"name": "nginx", "image": "registry.example/nginx:latest"},
        ]}},
    }})
}

async fn validates(cluster: Cluster) {
    let scene = Scene::new(
        &cluster,
        "validating",
        json!({"validations": [{
            "expression": "object.spec.replicas > 1",
            "messageExpression": "'wants replicas > 1, got ' + string(object.spec.replicas)",
        }]}),
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    let status = refused(scene.deployments.create(&workload("marker", 1)).await, 422, "Invalid");
    let policy = &scene.made[0].1;
    assert_eq!(
        status.message,
        format!(
            "deployments.apps \"marker\" is forbidden: ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied \
             request: wants replicas > 1, got 1"
        )
    );
    scene.deployments.create(&workload("replicated", 2)).await.unwrap();
    let fewer = json!({"spec": {"replicas": 1}});
    refused(scene.deployments.merge("replicated", fewer).await, 422, "Invalid");
    // The policy is for no other kind.
    scene.sets.create(&workload("not-replicated", 1)).await.unwrap();
    // Its expression fits the schema, which the controller says.
    let checked = eventually("types are checked", async || {
        let policy = scene.made[0].0.get(policy).await.unwrap();
        policy["status"]["typeChecking"].is_object().then_some(policy)
    })
    .await;
    assert!(checked["status"]["typeChecking"].get("expressionWarnings").is_none());
    assert_eq!(
        checked["status"]["observedGeneration"],
        checked["metadata"]["generation"]
    );
    scene.end().await;
}

async fn variables(cluster: Cluster) {
    let scene = Scene::new(
        &cluster,
        "validating",
        json!({
            "variables": [
                {"name": "replicas", "expression": "object.spec.replicas"},
                {"name": "oddReplicas", "expression": "variables.replicas % 2 == 1"},
            ],
            "validations": [
                {"expression": "variables.replicas > 1"},
                {"expression": "variables.oddReplicas"},
            ],
        }),
        json!({"validationActions": ["Deny"]}),
    )
    .await;
    let status = refused(scene.deployments.create(&workload("marker", 1)).await, 422, "Invalid");
    assert!(
        status.message.ends_with("failed expression: variables.replicas > 1"),
        "{}",
        status.message
    );
    scene.deployments.create(&workload("replicated", 3)).await.unwrap();
    let status = refused(scene.deployments.create(&workload("even", 2)).await, 422, "Invalid");
    assert!(
        status.message.ends_with("failed expression: variables.oddReplicas"),
        "{}",
        status.message
    );
    scene.sets.create(&workload("not-replicated", 1)).await.unwrap();
    scene.end().await;
}

async fn mutates(cluster: Cluster) {
    let odd = "Object{spec: Object.spec{replicas: object.spec.replicas % 2 == 0 ? object.spec.replicas + 1 : object.spec.replicas}}";
    let scene = Scene::new(
        &cluster,
        "mutating",
        json!({"reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": odd}},
        ]}),
        json!({}),
    )
    .await;
    let created = scene.deployments.create(&workload("even", 2)).await.unwrap();
    assert_eq!(created["spec"]["replicas"], 3);
    let created = scene.deployments.create(&workload("odd", 5)).await.unwrap();
    assert_eq!(created["spec"]["replicas"], 5);
    let changed = scene
        .deployments
        .merge("odd", json!({"spec": {"replicas": 6}}))
        .await
        .unwrap();
    assert_eq!(changed["spec"]["replicas"], 7);
    let set = scene.sets.create(&workload("set", 2)).await.unwrap();
    assert_eq!(set["spec"]["replicas"], 2);
    scene.end().await;
}

async fn annotates(cluster: Cluster) {
    let annotation = r#"Object{metadata: Object.metadata{annotations: {"mutated-by": "admission-policy"}}}"#;
    let scene = Scene::new(
        &cluster,
        "mutating",
        json!({"reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": annotation}},
        ]}),
        json!({}),
    )
    .await;
    let mut sent = workload("annotated", 2);
    sent["metadata"]["annotations"] = json!({"own": "kept"});
    let created = scene.deployments.create(&sent).await.unwrap();
    let annotations = &created["metadata"]["annotations"];
    assert_eq!(annotations["mutated-by"], "admission-policy");
    assert_eq!(annotations["own"], "kept");
    let set = scene.sets.create(&workload("set", 2)).await.unwrap();
    assert!(set["metadata"].get("annotations").is_none());
    scene.end().await;
}
