//! Quotas in the path of a write. No controller runs here: the tests say themselves what is counted.

use crate::harness::{PODS, Server, pod};
use futures_util::future::join_all;
use serde_json::{Value, json};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";

impl Server {
    /// A quota that has counted nothing yet.
    async fn quota(&self, name: &str, spec: Value) {
        let quota = json!({"metadata": {"name": name}, "spec": spec});
        self.post(QUOTAS, quota).await.expect(201);
        self.count(name, json!({})).await;
    }

    /// Says what a quota has counted.
    async fn count(&self, name: &str, used: Value) {
        let mut quota = self.get(&format!("{QUOTAS}/{name}")).await.expect(200);
        let hard = quota["spec"]["hard"].clone();
        let mut all: Value = hard
            .as_object()
            .unwrap()
            .keys()
            .map(|key| (key.clone(), json!("0")))
            .collect();
        for (key, value) in used.as_object().unwrap() {
            all[key] = value.clone();
        }
        quota["status"] = json!({"hard": hard, "used": all});
        self.put(&format!("{QUOTAS}/{name}/status"), quota).await.expect(200);
    }

    async fn used(&self, name: &str) -> Value {
        self.get(&format!("{QUOTAS}/{name}")).await.expect(200)["status"]["used"].clone()
    }
}

fn asking(name: &str, cpu: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
    pod
}

#[tokio::test]
async fn many_at_once_get_no_more_than_there_is() {
    let server = Server::start().await;
    server.quota("pods", json!({"hard": {"pods": "7"}})).await;
    server.quota("cpu", json!({"hard": {"requests.cpu": "2"}})).await;
    let names: Vec<String> = (0..40).map(|index| format!("p{index}")).collect();
    let answers = join_all(names.iter().map(|name| server.post(PODS, asking(name, "300m")))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    // Six times 300m are within two processors.
    assert_eq!(made, 6);
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        let status = refused.failure(403, "Forbidden");
        let message = status["message"].as_str().unwrap();
        assert!(
            message.contains("is forbidden: exceeded quota: cpu, requested: requests.cpu=300m"),
            "{message}"
        );
    }
    assert_eq!(server.used("pods").await, json!({"pods": "6"}));
    assert_eq!(server.used("cpu").await, json!({"requests.cpu": "1800m"}));
    server.post(PODS, asking("small", "200m")).await.expect(201);
    assert_eq!(
        server.post(PODS, asking("none", "0")).await.failure(403, "Forbidden")["message"],
        "pods \"none\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods=7, limited: pods=7"
    );
}

#[tokio::test]
async fn what_is_not_written_is_not_charged() {
    let server = Server::start().await;
    server.quota("q", json!({"hard": {"pods": "2"}})).await;
    server.post(PODS, pod("one")).await.expect(201);
    server.post(PODS, pod("one")).await.failure(409, "AlreadyExists");
    server.post(&format!("{PODS}?dryRun=All"), pod("two")).await.expect(201);
    let mut odd = pod("odd");
    odd["spec"]["containers"] = json!([]);
    server.post(PODS, odd).await.failure(422, "Invalid");
    assert_eq!(server.used("q").await, json!({"pods": "1"}));
    server.post(PODS, pod("two")).await.expect(201);
    server
        .post(&format!("{PODS}?dryRun=All"), pod("three"))
        .await
        .failure(403, "Forbidden");
    // A status that nobody knows lets nothing in, and one that is not there at all lets everything.
    let mut quota = server.get(&format!("{QUOTAS}/q")).await.expect(200);
    quota["status"] = json!({"hard": {"pods": "2"}});
    server
        .put(&format!("{QUOTAS}/q/status"), quota.clone())
        .await
        .expect(200);
    assert_eq!(
        server.post(PODS, pod("three")).await.failure(403, "Forbidden")["message"],
        "pods \"three\" is forbidden: status unknown for quota: q, resources: pods"
    );
    let before = server.get(&format!("{QUOTAS}/q")).await.expect(200);
    let mut empty = before.clone();
    empty["status"] = json!({});
    let empty = server.put(&format!("{QUOTAS}/q/status"), empty).await.expect(200);
    server.post(PODS, pod("three")).await.expect(201);
    // Who is counting meanwhile must begin again.
    let mut counted = empty;
    counted["status"] = json!({"hard": {"pods": "2"}, "used": {"pods": "2"}});
    server
        .put(&format!("{QUOTAS}/q/status"), counted)
        .await
        .failure(409, "Conflict");
}

#[tokio::test]
async fn changes_are_charged_too() {
    let server = Server::start().await;
    let hard = json!({"requests.storage": "3Gi", "services.nodeports": "1", "requests.cpu": "1"});
    server.quota("q", json!({ "hard": hard })).await;
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}, {"port": 2, "name": "b"}], "selector": {"a": "b"}}});
    let mut named = service;
    named["spec"]["ports"][0]["name"] = json!("a");
    server.post(services, named).await.expect(201);
    let grown = server
        .patch(&format!("{services}/s"), "merge", json!({"spec": {"type": "NodePort"}}))
        .await;
    let message = grown.failure(403, "Forbidden")["message"].as_str().unwrap().to_owned();
    assert!(
        message.contains("exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=0"),
        "{message}"
    );
    // In place, a pod may ask for as much as is left.
    server.post(PODS, asking("p", "400m")).await.expect(201);
    let resize =
        |cpu: &str| json!({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": cpu}}}]}});
    let uri = format!("{PODS}/p/resize");
    server.patch(&uri, "strategic-merge", resize("900m")).await.expect(200);
    assert_eq!(server.used("q").await["requests.cpu"], "900m");
    server
        .patch(&uri, "strategic-merge", resize("1100m"))
        .await
        .failure(403, "Forbidden");
    assert_eq!(server.used("q").await["requests.cpu"], "900m");
}

#[tokio::test]
async fn objects_of_custom_kinds_are_counted() {
    let server = Server::with_extensions().await;
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]},
    });
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.post(definitions, definition).await.expect(201);
    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    server.until(widgets, |answer| answer.status == 200).await;
    server
        .quota("q", json!({"hard": {"count/widgets.example.com": "1"}}))
        .await;
    let widget = |name: &str| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});
    server.post(widgets, widget("one")).await.expect(201);
    assert_eq!(server.used("q").await, json!({"count/widgets.example.com": "1"}));
    assert_eq!(
        server.post(widgets, widget("two")).await.failure(403, "Forbidden")["message"],
        "widgets.example.com \"two\" is forbidden: exceeded quota: q, requested: count/widgets.example.com=1, \
         used: count/widgets.example.com=1, limited: count/widgets.example.com=1"
    );
}

#[tokio::test]
async fn claims_are_charged_by_the_names_of_extended_resources() {
    const GPU: &str = "example.com/gpu";
    const CHARGED: &str = "requests.example.com/gpu";
    let server = Server::start().await;
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": GPU}});
    server
        .post("/apis/resource.k8s.io/v1/deviceclasses", class)
        .await
        .expect(201);
    server.quota("q", json!({"hard": {CHARGED: "3"}})).await;
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = |name: &str, count: u32| {
        let request = json!({"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}});
        json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}})
    };
    server.post(claims, claim("two", 2)).await.expect(201);
    assert_eq!(server.used("q").await, json!({CHARGED: "2"}));
    assert_eq!(
        server.post(claims, claim("more", 2)).await.failure(403, "Forbidden")["message"],
        "resourceclaims.resource.k8s.io \"more\" is forbidden: exceeded quota: q, requested: \
         requests.example.com/gpu=2, used: requests.example.com/gpu=2, limited: requests.example.com/gpu=3"
    );
    let mut asking = pod("asking");
    asking["spec"]["containers"][0]["resources"] = json!({"requests": {GPU: "1"}, "limits": {GPU: "1"}});
    let asking = server.post(PODS, asking).await.expect(201);
    assert_eq!(server.used("q").await, json!({CHARGED: "3"}));
    // The pod is charged for it, and so is nobody else.
    let mut its = claim("its", 1);
    its["metadata"]["annotations"] = json!({"resource.kubernetes.io/extended-resource-claim": "true"});
    its["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Pod", "name": "asking",
        "uid": asking["metadata"]["uid"], "controller": true}]);
    server.post(claims, its).await.expect(201);
    assert_eq!(server.used("q").await, json!({CHARGED: "3"}));
}
