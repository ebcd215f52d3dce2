//! Admission policies at work: who is refused, warned, changed; and which policies are themselves refused.

use crate::harness::{Answer, Server};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rule(group: &str, resource: &str, operations: &[&str]) -> Value {
    json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations})
}

fn config_maps() -> Value {
    rule("", "configmaps", &["CREATE", "UPDATE", "DELETE"])
}

/// What policies that change objects may be about.
fn written_config_maps() -> Value {
    rule("", "configmaps", &["CREATE", "UPDATE"])
}

/// A policy of a kind (`validating`, `mutating`) and its binding, both by one name.
async fn bound(server: &Server, kind: &str, name: &str, rule: Value, spec: Value, binding: Value) {
    let mut policy = json!({"metadata": {"name": name}, "spec": {"matchConstraints": {"resourceRules": [rule]}}});
    let mut bound = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    if kind == "validating" {
        bound["spec"]["validationActions"] = json!(["Deny"]);
    }
    for (of, more) in [(&mut policy, spec), (&mut bound, binding)] {
        for (field, value) in more.as_object().unwrap() {
            of["spec"][field] = value.clone();
        }
    }
    server
        .post(&format!("{GROUP}/{kind}admissionpolicies"), policy)
        .await
        .expect(201);
    server
        .post(&format!("{GROUP}/{kind}admissionpolicybindings"), bound)
        .await
        .expect(201);
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn message(status: &Value) -> &str {
    status["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_policy_refuses_in_upstreams_words() {
    let server = Server::start().await;
    let validations = json!({"validations": [{
        "expression": "request.operation == 'DELETE' ? oldObject.data.a != 'keep' : object.data.a != 'bad'",
    }]});
    bound(
        &server,
        "validating",
        "p.example.com",
        config_maps(),
        validations,
        json!({}),
    )
    .await;
    let status = server
        .post(MAPS, config_map("m", json!({"a": "bad"})))
        .await
        .failure(422, "Invalid");
    let text = "ValidatingAdmissionPolicy 'p.example.com' with binding 'p.example.com' denied request: failed expression: \
                request.operation == 'DELETE' ? oldObject.data.a != 'keep' : object.data.a != 'bad'";
    assert_eq!(message(&status), format!("configmaps \"m\" is forbidden: {text}"));
    assert_eq!(
        status["details"],
        json!({"name": "m", "kind": "configmaps", "causes": [{"message": text}]})
    );
    server
        .post(MAPS, config_map("m", json!({"a": "keep"})))
        .await
        .expect(201);
    let uri = format!("{MAPS}/m");
    server
        .patch(&uri, "merge", json!({"data": {"a": "bad"}}))
        .await
        .failure(422, "Invalid");
    server.delete(&uri).await.failure(422, "Invalid");
    server
        .patch(&uri, "merge", json!({"data": {"a": "good"}}))
        .await
        .expect(200);
    // Without its binding a policy has nothing to say.
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/p.example.com");
    server.delete(&binding).await.expect(200);
    server
        .patch(&uri, "merge", json!({"data": {"a": "bad"}}))
        .await
        .expect(200);
}

#[tokio::test]
async fn reasons_and_actions_are_those_of_the_policy_and_its_binding() {
    let server = Server::start().await;
    for (name, reason, code) in [
        ("forbidden", "Forbidden", 403),
        ("too-large", "RequestEntityTooLarge", 413),
    ] {
        let validation =
            json!({"expression": format!("object.metadata.name != '{name}'"), "message": "no", "reason": reason});
        bound(
            &server,
            "validating",
            name,
            config_maps(),
            json!({"validations": [validation]}),
            json!({}),
        )
        .await;
        server
            .post(MAPS, config_map(name, json!({})))
            .await
            .failure(code, reason);
    }
    let validation = json!({"expression": "object.metadata.name != 'warned'", "message": "better not"});
    let warn = json!({"validationActions": ["Warn", "Audit"]});
    bound(
        &server,
        "validating",
        "warns",
        config_maps(),
        json!({"validations": [validation]}),
        warn,
    )
    .await;
    let answer = server.post(MAPS, config_map("warned", json!({}))).await;
    answer.expect(201);
    assert_eq!(
        answer.warnings(),
        [r#"299 - "Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns': better not""#]
    );
}

#[tokio::test]
async fn parameters_are_found_by_name_and_by_label() {
    let server = Server::start().await;
    let spec = |fails: &str| {
        json!({
            "failurePolicy": fails,
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "validations": [{"expression": "!has(object.data) || size(object.data) <= int(params.data.max)"}],
        })
    };
    let secrets = || rule("", "secrets", &["CREATE"]);
    let by_name = json!({"paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    bound(&server, "validating", "by-name", secrets(), spec("Fail"), by_name).await;
    let secret = |name: &str, count: usize| {
        let data: Value = (0..count)
            .map(|n| (format!("k{n}"), json!("eA==")))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({"metadata": {"name": name}, "data": data})
    };
    let uri = "/api/v1/namespaces/default/secrets";
    let status = server.post(uri, secret("a", 1)).await.failure(422, "Invalid");
    assert!(
        message(&status).ends_with(
            "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{status}"
    );
    server
        .post(MAPS, config_map("limits", json!({"max": "1"})))
        .await
        .expect(201);
    server.post(uri, secret("a", 1)).await.expect(201);
    server.post(uri, secret("b", 2)).await.failure(422, "Invalid");
    server
        .patch(&format!("{MAPS}/limits"), "merge", json!({"data": {"max": "2"}}))
        .await
        .expect(200);
    server.post(uri, secret("b", 2)).await.expect(201);
    // By label, in the namespace of the object; every one that is found counts.
    let by_label = json!({"paramRef": {
        "selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Allow",
    }});
    bound(&server, "validating", "by-label", secrets(), spec("Fail"), by_label).await;
    server.post(uri, secret("c", 2)).await.expect(201);
    let mut labelled = config_map("labelled", json!({"max": "0"}));
    labelled["metadata"]["labels"] = json!({"limits": "yes"});
    server.post(MAPS, labelled).await.expect(201);
    let status = server.post(uri, secret("d", 1)).await.failure(422, "Invalid");
    assert!(message(&status).contains("with binding 'by-label'"), "{status}");
    server.post(uri, secret("e", 0)).await.expect(201);
    // A kind that is not served is the policy's mistake.
    let mut lost = spec("Fail");
    lost["paramKind"] = json!({"apiVersion": "example.com/v1", "kind": "Limit"});
    bound(&server, "validating", "a-lost", secrets(), lost, json!({})).await;
    let status = server.post(uri, secret("f", 0)).await.failure(422, "Invalid");
    assert_eq!(
        message(&status),
        "secrets \"f\" is forbidden: ValidatingAdmissionPolicy 'a-lost' denied request: failed to configure policy: failed to \
         find resource referenced by paramKind: 'example.com/v1, Kind=Limit'"
    );
}

#[tokio::test]
async fn policies_see_subresources_other_versions_and_who_asks() {
    let server = Server::start().await;
    let on = |expression: &str| json!({"validations": [{"expression": expression}]});
    let scale = rule("apps", "deployments/scale", &["UPDATE"]);
    let small = on("object.kind == 'Scale' && object.spec.replicas < 5 && request.kind.kind == 'Scale'");
    bound(&server, "validating", "scale", scale, small, json!({})).await;
    let labels = json!({"app": "x"});
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
    }});
    server
        .post("/apis/apps/v1/namespaces/default/deployments", deployment)
        .await
        .expect(201);
    let uri = "/apis/apps/v1/namespaces/default/deployments/web";
    server
        .patch(&format!("{uri}/scale"), "merge", json!({"spec": {"replicas": 4}}))
        .await
        .expect(200);
    server
        .patch(&format!("{uri}/scale"), "merge", json!({"spec": {"replicas": 6}}))
        .await
        .failure(422, "Invalid");
    server
        .patch(uri, "merge", json!({"spec": {"replicas": 6}}))
        .await
        .expect(200);
    // The policy speaks of v1, and the request of v2.
    let mut old = rule("autoscaling", "horizontalpodautoscalers", &["CREATE"]);
    old["apiVersions"] = json!(["v1"]);
    let target = on("object.apiVersion == 'autoscaling/v1' && object.spec.targetCPUUtilizationPercentage < 90");
    bound(&server, "validating", "old", old, target, json!({})).await;
    let scaler = |percent: u32| {
        json!({"metadata": {"name": format!("h{percent}")}, "spec": {
            "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent},
            }}],
        }})
    };
    let uri = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    server.post(uri, scaler(50)).await.expect(201);
    server.post(uri, scaler(95)).await.failure(422, "Invalid");
    // Whom the server knows is the administrator here, and no account.
    let asked = on(
        "authorizer.group('').resource('secrets').namespace('default').check('get').allowed() && \
         !authorizer.serviceAccount('default', 'default').group('').resource('secrets').check('get').allowed()",
    );
    bound(
        &server,
        "validating",
        "asks",
        rule("", "configmaps", &["CREATE"]),
        asked,
        json!({}),
    )
    .await;
    server.post(MAPS, config_map("asked", json!({}))).await.expect(201);
}

#[tokio::test]
async fn mutations_change_what_is_stored_and_nothing_that_is_not_theirs() {
    let server = Server::start().await;
    let apply = |expression: &str| {
        json!({"reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}},
        ]})
    };
    let labels = r#"Object{metadata: Object.metadata{labels: {"by": "policy"}, name: "other", uid: "u"}}"#;
    bound(
        &server,
        "mutating",
        "a-labels",
        written_config_maps(),
        apply(labels),
        json!({}),
    )
    .await;
    let patch = r#"[JSONPatch{op: "test", path: "/data/a", value: "x"}, JSONPatch{op: "add", path: "/data/b.c", value: object.data.a + "y"}]"#;
    let patches = json!({"reinvocationPolicy": "Never", "mutations": [
        {"patchType": "JSONPatch", "jsonPatch": {"expression": patch}},
    ]});
    bound(
        &server,
        "mutating",
        "b-patches",
        written_config_maps(),
        patches,
        json!({}),
    )
    .await;
    let made = server.post(MAPS, config_map("m", json!({"a": "x"}))).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({"by": "policy"}));
    assert_eq!(made["metadata"]["name"], "m");
    assert_ne!(made["metadata"]["uid"], "u");
    assert_eq!(made["data"], json!({"a": "x", "b.c": "xy"}));
    // Where the test of a patch fails, nothing is patched.
    let made = server.post(MAPS, config_map("n", json!({"a": "z"}))).await.expect(201);
    assert_eq!(made["data"], json!({"a": "z"}));
    let answer = server
        .post(&format!("{MAPS}?dryRun=All"), config_map("dry", json!({"a": "x"})))
        .await;
    assert_eq!(answer.expect(201)["data"]["b.c"], "xy");
    server.get(&format!("{MAPS}/dry")).await.failure(404, "NotFound");
    server.delete(&format!("{MAPS}/m")).await.expect(200);
}

#[tokio::test]
async fn a_mutation_is_invoked_again_if_it_wants_to_be() {
    let server = Server::start().await;
    let count = |policy: &str| {
        let expression = r#"Object{metadata: Object.metadata{annotations: {"first": has(object.metadata.annotations) && "second" in object.metadata.annotations ? "saw" : "blind"}}}"#;
        json!({"reinvocationPolicy": policy, "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}},
        ]})
    };
    let second = json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": r#"Object{metadata: Object.metadata{annotations: {"second": "yes"}}}"#,
    }}]});
    bound(
        &server,
        "mutating",
        "b-second",
        written_config_maps(),
        second,
        json!({}),
    )
    .await;
    bound(
        &server,
        "mutating",
        "a-first",
        written_config_maps(),
        count("IfNeeded"),
        json!({}),
    )
    .await;
    let made = server.post(MAPS, config_map("again", json!({}))).await.expect(201);
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"first": "saw", "second": "yes"})
    );
    let uri = format!("{GROUP}/mutatingadmissionpolicies/a-first");
    server
        .patch(&uri, "merge", json!({"spec": {"reinvocationPolicy": "Never"}}))
        .await
        .expect(200);
    let made = server.post(MAPS, config_map("once", json!({}))).await.expect(201);
    assert_eq!(
        made["metadata"]["annotations"],
        json!({"first": "blind", "second": "yes"})
    );
}

#[tokio::test]
async fn mutations_that_go_wrong_refuse_unless_they_are_to_be_ignored() {
    let server = Server::start().await;
    let pods = || rule("", "pods", &["CREATE"]);
    let command = r#"Object{spec: Object.spec{containers: [Object.spec.containers{name: "a", command: ["x"]}]}}"#;
    let spec = |fails: &str, expression: &str| {
        json!({"failurePolicy": fails, "reinvocationPolicy": "Never", "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}},
        ]})
    };
    bound(&server, "mutating", "p", pods(), spec("Fail", command), json!({})).await;
    let pod = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "automountServiceAccountToken": false, "containers": [{"name": "a", "image": "a"}],
        }})
    };
    let uri = "/api/v1/namespaces/default/pods";
    let status = server.post(uri, pod("a")).await.failure(403, "Invalid");
    assert_eq!(
        message(&status),
        "policy 'p' with binding 'p' denied request: error applying patch: invalid ApplyConfiguration: may not mutate atomic \
         arrays, maps or structs: .spec.containers[0].command"
    );
    let policy = format!("{GROUP}/mutatingadmissionpolicies/p");
    let set = |expression: &str| json!({"spec": spec("Fail", expression)});
    server
        .patch(&policy, "merge", set("Object{spec: Object.spec{lost: 1}}"))
        .await
        .expect(200);
    let status = server.post(uri, pod("a")).await.failure(403, "Invalid");
    assert!(
        message(&status).ends_with(".spec.lost: field not declared in schema"),
        "{status}"
    );
    server
        .patch(&policy, "merge", json!({"spec": {"failurePolicy": "Ignore"}}))
        .await
        .expect(200);
    server.post(uri, pod("a")).await.expect(201);
    let image = r#"Object{spec: Object.spec{containers: [Object.spec.containers{name: "a", image: "mirror/" + object.spec.containers[0].image}]}}"#;
    server.patch(&policy, "merge", set(image)).await.expect(200);
    let made = server.post(uri, pod("b")).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["image"], "mirror/a");
}

#[tokio::test]
async fn custom_resources_are_subject_to_policies_and_policies_are_not() {
    let server = Server::with_extensions().await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}, "color": {"type": "string"},
    }}}});
    let definition = json!({
        "metadata": {"name": "gadgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, definition).await.expect(201);
    let established = |answer: &Answer| answer.json()["status"]["conditions"][1]["status"] == "True";
    server
        .until(&format!("{definitions}/gadgets.example.com"), established)
        .await;
    let validations = json!({"validations": [{"expression": "object.spec.size < 10"}]});
    let gadgets = || rule("example.com", "gadgets", &["CREATE", "UPDATE"]);
    bound(&server, "validating", "size", gadgets(), validations, json!({})).await;
    let paint = json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
        "expression": r#"Object{spec: Object.spec{color: "red"}}"#,
    }}]});
    bound(&server, "mutating", "paint", gadgets(), paint, json!({})).await;
    let gadget = |name: &str, size: u32| json!({"apiVersion": "example.com/v1", "kind": "Gadget", "metadata": {"name": name}, "spec": {"size": size}});
    let uri = "/apis/example.com/v1/namespaces/default/gadgets";
    let made = server.post(uri, gadget("a", 1)).await.expect(201);
    assert_eq!(made["spec"], json!({"size": 1, "color": "red"}));
    server.post(uri, gadget("b", 10)).await.failure(422, "Invalid");
    // One that refuses everything can still be taken away.
    let everything = json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]});
    bound(
        &server,
        "validating",
        "all",
        everything,
        json!({"validations": [{"expression": "false"}]}),
        json!({}),
    )
    .await;
    server
        .post(MAPS, config_map("m", json!({})))
        .await
        .failure(422, "Invalid");
    server
        .delete(&format!("{GROUP}/validatingadmissionpolicybindings/all"))
        .await
        .expect(200);
    server.post(MAPS, config_map("m", json!({}))).await.expect(201);
}

#[tokio::test]
async fn policies_must_compile() {
    let server = Server::start().await;
    let policy = |spec: Value| {
        let mut policy =
            json!({"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [config_maps()]}}});
        for (field, value) in spec.as_object().unwrap() {
            policy["spec"][field] = value.clone();
        }
        policy
    };
    let uri = format!("{GROUP}/validatingadmissionpolicies");
    let status = server
        .post(
            &uri,
            policy(json!({
                "matchConditions": [{"name": "c", "expression": "lost"}],
                "validations": [{"expression": "object.x + ", "messageExpression": "1"}],
            })),
        )
        .await
        .failure(422, "Invalid");
    let fields: Vec<&str> = status["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.matchConditions[0].expression",
            "spec.validations[0].expression",
            "spec.validations[0].messageExpression",
        ]
    );
    let first = status["details"]["causes"][0]["message"].as_str().unwrap();
    assert_eq!(
        first,
        "Invalid value: \"lost\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'lost' (in container '')\n | \
         lost\n | ^"
    );
    let uri = format!("{GROUP}/mutatingadmissionpolicies");
    let status = server
        .post(
            &uri,
            policy(json!({"reinvocationPolicy": "Never", "mutations": [
                {"patchType": "JSONPatch", "jsonPatch": {"expression": "[1]"}},
            ]})),
        )
        .await
        .failure(422, "Invalid");
    assert!(
        message(&status).contains("spec.mutations[0].jsonPatch.expression: Invalid value: \"[1]\": must evaluate to list(JSONPatch) but got list(int)"),
        "{status}"
    );
}
