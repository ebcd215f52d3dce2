//! Admission webhooks at work: served by a pod, reached through its service.

use crate::agnhost_webhook::UNATTACHABLE;
use crate::cluster::{Cluster, refused};
use crate::custom_resources::{Definition, anything, version};
use crate::pods::{BUSYBOX, SLEEP, pod_of};
use crate::resource::{Answered, name};
use crate::runner::{Test, pod_test};
use crate::webhook_server::{Kind, LABEL, WebhookServer, rule};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde_json::{Value, json};

/// Rows of the tests of admission webhooks.
macro_rules! webhook_tests {
    ($($name:literal => $run:path,)*) => {
        vec![$(pod_test(
            concat!("[sig-api-machinery] AdmissionWebhook [Privileged:ClusterAdmin] ", $name),
            $run,
        )),*]
    };
}

pub(crate) use webhook_tests;

pub fn tests() -> Vec<Test> {
    webhook_tests![
        "should be able to deny attaching pod" => denies_attaching,
        "should be able to deny custom resource creation, update and deletion" => denies_custom_resources,
        "should be able to deny pod and configmap creation" => denies_pods_and_config_maps,
        "should deny crd creation" => denies_definitions,
        "should honor timeout" => timeouts,
        "should mutate configmap" => mutates_config_maps,
        "should mutate custom resource" => mutates_custom_resources,
        "should mutate custom resource with different stored version" => mutates_other_versions,
        "should mutate custom resource with pruning" => mutates_with_pruning,
        "should mutate everything except 'skip-me' configmaps" => mutates_all_but_one,
        "should mutate pod and apply defaults after mutation" => mutates_pods,
        "should unconditionally reject operations on fail closed webhook" => fails_closed,
    ]
}

const FORBIDDEN: &str = "webhook-disallow";

pub fn maps(operations: &[&str]) -> Value {
    rule("", "v1", "configmaps", operations)
}

pub fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

pub fn unwanted(name: &str) -> Value {
    map(name, json!({"webhook-e2e-test": FORBIDDEN}))
}

/// A refusal of a webhook that says this.
#[track_caller]
pub fn denied(answer: Answered, message: &str) {
    let status = refused(answer, 400, "");
    assert!(
        status.message.starts_with("admission webhook ") && status.message.contains(message),
        "{}",
        status.message
    );
}

async fn denies_attaching(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let hook = server.hook(
        "deny-attaching-pod",
        "/pods/attach",
        rule("", "v1", "pods/attach", &["CONNECT"]),
        json!({}),
    );
    server.register(Kind::Validating, &[hook]).await;
    let (pod, container) = UNATTACHABLE;
    let main = json!({
        "name": container, "image": BUSYBOX, "imagePullPolicy": "Never", "stdin": true, "command": ["sh", "-c", SLEEP],
    });
    server.pods.ready(&pod_of(pod, &[main])).await;
    let api: Api<Pod> = Api::namespaced(cluster.client(), server.namespace());
    let parameters = AttachParams::default()
        .container(container)
        .stdin(true)
        .stdout(true)
        .stderr(true);
    let error = api.attach(pod, &parameters).await.err().expect("a refusal");
    // Libraries do not read the body of what is no upgrade.
    assert!(format!("{error:?}").contains("400"), "{error:?}");
    let uri = format!(
        "/api/v1/namespaces/{}/pods/{pod}/attach?container={container}&stdin=true&stdout=true",
        server.namespace()
    );
    let refused = cluster.send("POST", &uri, &[], "").await.expect(400);
    assert_eq!(
        refused["message"],
        "admission webhook \"deny-attaching-pod.k8s.io\" denied the request: attaching to pod 'to-be-attached-pod' is not \
         allowed"
    );
    // Without an input it is none of the webhook's business.
    let parameters = AttachParams::default()
        .container(container)
        .stdin(false)
        .stdout(true)
        .stderr(true);
    api.attach(pod, &parameters).await.expect("a session").abort();
    server.end().await;
}

async fn denies_custom_resources(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let definition = Definition::new(&cluster, "denied").establish(&cluster).await;
    let operations = ["CREATE", "UPDATE", "DELETE"];
    let hook = server.hook(
        "deny-unwanted-custom-resource-data",
        "/custom-resource",
        rule(&definition.group, "v1", &definition.plural, &operations),
        json!({}),
    );
    server.register(Kind::Validating, &[hook]).await;
    let instances = definition.instances(&cluster, "v1", Some(server.namespace()));
    let unwanted = json!({"data": {"webhook-e2e-test": FORBIDDEN}});
    let message = "the custom resource contains unwanted data";
    denied(
        instances.create(&definition.instance("one", unwanted.clone())).await,
        message,
    );
    let wanted = json!({"data": {"webhook-e2e-test": "webhook-allow"}});
    let made = instances.create(&definition.instance("two", wanted)).await.unwrap();
    denied(instances.merge("two", unwanted.clone()).await, message);
    // What got in beside the webhook cannot be deleted.
    server.end().await;
    instances.merge("two", unwanted).await.unwrap();
    let hook = server.hook(
        "deny-unwanted-custom-resource-data",
        "/custom-resource",
        rule(&definition.group, "v1", &definition.plural, &operations),
        json!({}),
    );
    server.register(Kind::Validating, &[hook]).await;
    denied(instances.delete(name(&made)).await, message);
    instances
        .merge("two", json!({"data": {"webhook-e2e-test": "webhook-allow"}}))
        .await
        .unwrap();
    instances.delete("two").await.unwrap();
    server.end().await;
    definition.delete(&cluster).await;
}

async fn denies_pods_and_config_maps(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let label = server.namespace().to_owned();
    // Another namespace of the test's is spared by its label.
    let spared = cluster.namespace("spared").await;
    let namespaces = cluster.core("namespaces", None);
    for (namespace, more) in [(&label, json!({})), (&spared, json!({"skip-webhook-admission": "yes"}))] {
        let mut labels = more;
        labels[LABEL] = json!(label);
        let patch = json!({"metadata": {"labels": labels}});
        namespaces.merge(namespace, patch).await.unwrap();
    }
    let selector = json!({"namespaceSelector": {
        "matchLabels": {LABEL: label},
        "matchExpressions": [{"key": "skip-webhook-admission", "operator": "NotIn", "values": ["yes"]}],
    }});
    let mut of_pods = server.hook(
        "deny-unwanted-pod-container-name-and-label",
        "/pods",
        rule("", "v1", "pods", &["CREATE"]),
        selector.clone(),
    );
    of_pods["timeoutSeconds"] = json!(3);
    let of_maps = server.hook(
        "deny-unwanted-configmap-data",
        "/configmaps",
        maps(&["CREATE", "UPDATE", "DELETE"]),
        selector,
    );
    server.register(Kind::Validating, &[of_pods, of_maps]).await;
    let pod = |name: &str, container: &str, mark: &str| {
        let container = json!({"name": container, "image": BUSYBOX, "imagePullPolicy": "Never"});
        let mut pod = pod_of(name, &[container]);
        pod["metadata"]["labels"] = json!({"webhook-e2e-test": mark});
        pod
    };
    let answer = server
        .pods
        .resource
        .create(&pod("disallowed-pod", FORBIDDEN, FORBIDDEN))
        .await;
    denied(answer.clone(), "the pod contains unwanted label");
    denied(answer, "the pod contains unwanted container name");
    let hanging = server
        .pods
        .resource
        .create(&pod("hanging-pod", "wait", "wait-forever"))
        .await;
    let status = refused(hanging, 500, "InternalError");
    assert!(
        status.message.contains("webhook") && status.message.contains("deadline"),
        "{}",
        status.message
    );
    assert_eq!(server.pods.resource.get("hanging-pod").await.unwrap_err().code, 404);
    let message = "the configmap contains unwanted key and value";
    let maps = server.pods.core("configmaps");
    denied(maps.create(&unwanted("disallowed")).await, message);
    let mut allowed = maps.create(&map("allowed", json!({"admit": "this"}))).await.unwrap();
    allowed["data"]["webhook-e2e-test"] = json!(FORBIDDEN);
    denied(maps.replace(&allowed).await, message);
    let patch = json!({"data": {"webhook-e2e-test": FORBIDDEN}});
    denied(maps.merge("allowed", patch).await, message);
    let others = cluster.core("configmaps", Some(&spared));
    others.create(&unwanted("disallowed")).await.unwrap();
    server.end().await;
}

async fn denies_definitions(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let hook = server.hook(
        "deny-crd-with-unwanted-label",
        "/crd",
        rule("apiextensions.k8s.io", "*", "customresourcedefinitions", &["CREATE"]),
        json!({"objectSelector": {"matchLabels": {LABEL: server.namespace()}}}),
    );
    server.register(Kind::Validating, &[hook]).await;
    let mut definition = Definition::new(&cluster, "unwanted").object;
    definition["metadata"]["labels"] = json!({LABEL: server.namespace(), "webhook-e2e-test": FORBIDDEN});
    let definitions = cluster.resource("apiextensions.k8s.io/v1", "customresourcedefinitions", None);
    denied(definitions.create(&definition).await, "the crd contains unwanted label");
    server.end().await;
}

async fn timeouts(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let maps_of_the_test = server.pods.core("configmaps");
    // The webhook takes five seconds.
    for (number, (more, passes)) in [
        (json!({"timeoutSeconds": 1, "failurePolicy": "Fail"}), false),
        (json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"}), true),
        (json!({"timeoutSeconds": 25, "failurePolicy": "Fail"}), true),
        (json!({"timeoutSeconds": null, "failurePolicy": "Fail"}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let hook = server.hook("slow.webhook", "/always-allow-delay-5s", maps(&["CREATE"]), more);
        server.register(Kind::Validating, &[hook]).await;
        let answer = maps_of_the_test.create(&map(&format!("map-{number}"), json!({}))).await;
        if passes {
            answer.unwrap();
        } else {
            let status = refused(answer, 500, "InternalError");
            assert!(
                status
                    .message
                    .starts_with("Internal error occurred: failed calling webhook \"slow.webhook.k8s.io\"")
                    && status
                        .message
                        .ends_with("/always-allow-delay-5s?timeout=1s\": context deadline exceeded"),
                "{}",
                status.message
            );
        }
        server.end().await;
    }
}

/// Two webhooks, the second of which needs what the first did.
fn stages(server: &WebhookServer, path: &str, rule: Value) -> [Value; 2] {
    ["stage-1", "stage-2"].map(|stage| server.hook(&format!("mutate-data-{stage}"), path, rule.clone(), json!({})))
}

fn in_stages() -> Value {
    json!({"mutation-start": "yes", "mutation-stage-1": "yes", "mutation-stage-2": "yes"})
}

async fn mutates_config_maps(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let hooks = stages(&server, "/mutating-configmaps", maps(&["CREATE"]));
    server.register(Kind::Mutating, &hooks).await;
    let sent = map("to-be-mutated", json!({"mutation-start": "yes"}));
    let made = server.pods.core("configmaps").create(&sent).await.unwrap();
    assert_eq!(made["data"], in_stages());
    server.end().await;
}

async fn mutates_custom_resources(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let definition = Definition::new(&cluster, "mutated").establish(&cluster).await;
    let rule = rule(&definition.group, "v1", &definition.plural, &["CREATE", "UPDATE"]);
    let hooks = stages(&server, "/mutating-custom-resource", rule);
    server.register(Kind::Mutating, &hooks).await;
    let instances = definition.instances(&cluster, "v1", Some(server.namespace()));
    let sent = definition.instance("one", json!({"data": {"mutation-start": "yes"}}));
    let made = instances.create(&sent).await.unwrap();
    assert_eq!(made["data"], in_stages());
    server.end().await;
    definition.delete(&cluster).await;
}

async fn mutates_other_versions(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let versions = vec![version("v1", anything()), version("v2", anything())];
    let definition = Definition::new(&cluster, "stored")
        .versions(versions)
        .establish(&cluster)
        .await;
    // Of the first version only: what is sent in the second is meant, too.
    let rule = rule(&definition.group, "v1", &definition.plural, &["CREATE", "UPDATE"]);
    let hooks = stages(&server, "/mutating-custom-resource", rule);
    server.register(Kind::Mutating, &hooks).await;
    let first = definition.instances(&cluster, "v1", Some(server.namespace()));
    let sent = definition.instance("one", json!({"data": {"other": "data"}}));
    first.create(&sent).await.unwrap();
    definition.store_in_second(&cluster).await;
    let second = definition.instances(&cluster, "v2", Some(server.namespace()));
    let start = json!({"data": {"mutation-start": "yes"}});
    let mutated = second.merge("one", start).await.unwrap();
    let mut expected = in_stages();
    expected["other"] = json!("data");
    assert_eq!(mutated["data"], expected);
    assert_eq!(mutated["apiVersion"], format!("{}/v2", definition.group));
    assert_eq!(first.get("one").await.unwrap()["data"], expected);
    server.end().await;
    definition.delete(&cluster).await;
}

async fn mutates_with_pruning(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    // The second stage is no field of it.
    let text = json!({"type": "string"});
    let definition = Definition::new(&cluster, "pruned")
        .schema(json!({"type": "object", "properties": {"data": {
            "type": "object", "properties": {"mutation-start": text, "mutation-stage-1": text},
        }}}))
        .establish(&cluster)
        .await;
    let rule = rule(&definition.group, "v1", &definition.plural, &["CREATE", "UPDATE"]);
    let hooks = stages(&server, "/mutating-custom-resource", rule);
    server.register(Kind::Mutating, &hooks).await;
    let instances = definition.instances(&cluster, "v1", Some(server.namespace()));
    let sent = definition.instance("one", json!({"data": {"mutation-start": "yes"}}));
    let made = instances.create(&sent).await.unwrap();
    assert_eq!(
        made["data"],
        json!({"mutation-start": "yes", "mutation-stage-1": "yes"})
    );
    server.end().await;
    definition.delete(&cluster).await;
}

async fn mutates_all_but_one(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let more = json!({"matchConditions": [
        {"name": "skip-configmaps", "expression": "object.metadata.name != 'skip-me'"},
    ]});
    let hook = server.hook("adding-label", "/add-label", maps(&["CREATE"]), more);
    server.register(Kind::Mutating, &[hook]).await;
    let maps = server.pods.core("configmaps");
    let label = |made: Value| made["metadata"]["labels"]["added-label"].clone();
    let skipped = maps.create(&map("skip-me", json!({}))).await.unwrap();
    assert_eq!(label(skipped), Value::Null);
    let mutated = maps.create(&map("mutate-me", json!({}))).await.unwrap();
    assert_eq!(label(mutated), "yes");
    server.end().await;
}

async fn mutates_pods(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let hook = server.hook(
        "adding-init-container",
        "/mutating-pods",
        rule("", "v1", "pods", &["CREATE"]),
        json!({}),
    );
    server.register(Kind::Mutating, &[hook]).await;
    let container = json!({"name": "example", "image": BUSYBOX, "imagePullPolicy": "Never"});
    let pod = server.pods.create(&pod_of("webhook-to-be-mutated", &[container])).await;
    let added = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(added.len(), 1, "{pod}");
    assert_eq!(added[0]["name"], "webhook-added-init-container");
    assert_eq!(added[0]["terminationMessagePolicy"], "File");
    server.end().await;
}

async fn fails_closed(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    // Without the authority the server is not believed.
    let mut hook = server.hook(
        "fail-closed",
        "/configmaps",
        maps(&["CREATE"]),
        json!({"failurePolicy": "Fail"}),
    );
    hook["clientConfig"].as_object_mut().unwrap().remove("caBundle");
    server.register(Kind::Validating, &[hook]).await;
    let answer = server.pods.core("configmaps").create(&map("foo", json!({}))).await;
    let status = refused(answer, 500, "InternalError");
    assert!(status.message.contains("failed calling webhook"), "{}", status.message);
    server.end().await;
}
