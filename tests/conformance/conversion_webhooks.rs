//! Custom resources whose versions a webhook converts.

use crate::cluster::{Cluster, refused};
use crate::custom_resources::{Definition, version};
use crate::resource::{Resource, Watch, name};
use crate::runner::{Test, pod_test};
use crate::webhook_server::WebhookServer;
use kube::api::{ListParams, WatchParams};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert from CR v1 to CR v2",
            converts_one,
        ),
        pod_test(
            "[sig-api-machinery] CustomResourceConversionWebhook [Privileged:ClusterAdmin] should be able to convert a non homogeneous list of CRs",
            converts_lists,
        ),
        pod_test(
            "[sig-api-machinery] CustomResourceFieldSelectors [Privileged:ClusterAdmin] CustomResourceFieldSelectors MUST list and watch custom resources matching the field selector",
            selects,
        ),
    ]
}

/// v1 is stored first and has `hostPort`; v2 has `host` and `port`.
async fn definition(server: &WebhookServer, base: &str) -> Definition {
    unserved(server, base).establish(&server.cluster).await
}

fn unserved(server: &WebhookServer, base: &str) -> Definition {
    let of = |fields: &[&str]| {
        let mut properties = json!({});
        fields
            .iter()
            .for_each(|field| properties[*field] = json!({"type": "string"}));
        json!({"type": "object", "properties": properties})
    };
    let versions = vec![version("v1", of(&["hostPort"])), version("v2", of(&["host", "port"]))];
    let mut definition = Definition::new(&server.cluster, base).versions(versions);
    definition.object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "clientConfig": server.client_config("/crdconvert"), "conversionReviewVersions": ["v1", "v1beta1"],
    }});
    definition
}

fn is_first(definition: &Definition, object: &Value) {
    assert_eq!(object["apiVersion"], format!("{}/v1", definition.group));
    assert_eq!(object["hostPort"], "localhost:8080", "{object}");
    assert!(object.get("host").is_none() && object.get("port").is_none(), "{object}");
}

fn is_second(definition: &Definition, object: &Value) {
    assert_eq!(object["apiVersion"], format!("{}/v2", definition.group));
    assert_eq!(
        (&object["host"], &object["port"]),
        (&json!("localhost"), &json!("8080")),
        "{object}"
    );
    assert!(object.get("hostPort").is_none(), "{object}");
}

fn of_version(server: &WebhookServer, definition: &Definition, version: &str) -> Resource {
    definition.instances(&server.cluster, version, Some(server.namespace()))
}

async fn converts_one(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let definition = definition(&server, "converted").await;
    let sent = definition.instance("one", json!({"hostPort": "localhost:8080"}));
    of_version(&server, &definition, "v1").create(&sent).await.unwrap();
    is_second(
        &definition,
        &of_version(&server, &definition, "v2").get("one").await.unwrap(),
    );
    definition.delete(&cluster).await;
}

async fn converts_lists(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let definition = definition(&server, "mixed").await;
    let (first, second) = (
        of_version(&server, &definition, "v1"),
        of_version(&server, &definition, "v2"),
    );
    let instance = |name: &str| definition.instance(name, json!({"hostPort": "localhost:8080"}));
    first.create(&instance("stored-as-v1")).await.unwrap();
    definition.store_in_second(&cluster).await;
    first.create(&instance("stored-as-v2")).await.unwrap();
    for (resource, check) in [
        (&first, is_first as fn(&Definition, &Value)),
        (&second, is_second as fn(&Definition, &Value)),
    ] {
        let list = resource.list(&ListParams::default()).await.unwrap();
        let items = list["items"].as_array().unwrap();
        let names: Vec<&str> = items.iter().map(name).collect();
        assert_eq!(names, ["stored-as-v1", "stored-as-v2"]);
        items.iter().for_each(|item| check(&definition, item));
    }
    definition.delete(&cluster).await;
}

/// Each version has fields of its own to select by, and objects are converted before they are compared.
async fn selects(cluster: Cluster) {
    let server = WebhookServer::start(&cluster).await;
    let mut definition = unserved(&server, "selected");
    let versions = &mut definition.object["spec"]["versions"];
    versions[0]["selectableFields"] = json!([{"jsonPath": ".hostPort"}]);
    versions[1]["selectableFields"] = json!([{"jsonPath": ".host"}]);
    let definition = definition.establish(&cluster).await;
    let (first, second) = (
        of_version(&server, &definition, "v1"),
        of_version(&server, &definition, "v2"),
    );
    let create = async |name: &str, at: &str| {
        let instance = definition.instance(name, json!({"hostPort": at}));
        first.create(&instance).await.unwrap();
    };
    create("one", "host1:80").await;
    create("two", "host1:8080").await;
    create("three", "host2:80").await;
    let listed = async |resource: &Resource, selector: &str| {
        let list = resource.list(&ListParams::default().fields(selector)).await.unwrap();
        let names: Vec<String> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| name(one).to_owned())
            .collect();
        names
    };
    assert_eq!(listed(&first, "hostPort=host1:80").await, ["one"]);
    assert_eq!(listed(&first, "hostPort!=host1:80").await, ["three", "two"]);
    assert_eq!(listed(&second, "host=host1").await, ["one", "two"]);
    // A field of the other version is none of this one.
    let other = first.list(&ListParams::default().fields("host=host1")).await;
    let told = refused(other, 400, "BadRequest");
    assert!(
        told.message.contains("field label not supported: host"),
        "{}",
        told.message
    );
    let revision = first.list(&ListParams::default()).await.unwrap();
    let revision = revision["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let follow = async |resource: &Resource, selector: &str| -> Watch {
        let parameters = WatchParams::default().fields(selector);
        resource.watch_with(&parameters, &revision).await
    };
    let (mut ports, mut hosts) = (
        follow(&first, "hostPort=host1:80").await,
        follow(&second, "host=host1").await,
    );
    async fn sees(watch: &mut Watch, kind: &str, expected: &str) -> Value {
        let object = watch.expect(kind).await;
        assert_eq!(name(&object), expected, "{object}");
        object
    }
    create("four", "host1:80").await;
    assert_eq!(sees(&mut ports, "ADDED", "four").await["hostPort"], "host1:80");
    assert_eq!(sees(&mut hosts, "ADDED", "four").await["host"], "host1");
    // From one selection into the other, and out of both.
    first.merge("two", json!({"hostPort": "host1:80"})).await.unwrap();
    sees(&mut ports, "ADDED", "two").await;
    assert_eq!(sees(&mut hosts, "MODIFIED", "two").await["port"], "80");
    second.merge("one", json!({"host": "host2"})).await.unwrap();
    sees(&mut ports, "DELETED", "one").await;
    sees(&mut hosts, "DELETED", "one").await;
    // What was never selected is not seen to go.
    first.delete("three").await.unwrap();
    first.delete("four").await.unwrap();
    sees(&mut ports, "DELETED", "four").await;
    sees(&mut hosts, "DELETED", "four").await;
    let uri = format!(
        "/apis/{}/v2/namespaces/{}/{}?fieldSelector=host%3Dhost2",
        definition.group,
        server.namespace(),
        definition.plural
    );
    cluster.send("DELETE", &uri, &[], "").await.expect(200);
    assert_eq!(listed(&first, "").await, ["two"]);
    definition.delete(&cluster).await;
}
