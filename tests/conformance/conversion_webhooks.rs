//! Custom resources whose versions a webhook converts.

use crate::cluster::Cluster;
use crate::custom_resources::{Definition, version};
use crate::resource::{Resource, name};
use crate::runner::{Test, pod_test};
use crate::webhook_server::WebhookServer;
use kube::api::ListParams;
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
    ]
}

/// v1 is stored first and has `hostPort`; v2 has `host` and `port`.
async fn definition(server: &WebhookServer, base: &str) -> Definition {
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
    definition.establish(&server.cluster).await
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
