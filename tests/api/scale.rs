//! `scale`: GET, PUT and PATCH, preconditions, dry run, and what becomes of the object.

use crate::harness::Server;
use serde_json::{Value, json};

const APPS: &str = "/apis/apps/v1/namespaces/default";

fn workload(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 2, "serviceName": "s",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

#[tokio::test]
async fn every_workload_scales_by_every_verb() {
    let server = Server::start().await;
    let mut controller = workload("w");
    controller["spec"]["selector"] = json!({"app": "w"});
    controller["spec"].as_object_mut().unwrap().remove("serviceName");
    let mut plain = controller.clone();
    plain["spec"]["selector"] = json!({"matchLabels": {"app": "w"}});
    for (collection, body) in [
        (
            "/api/v1/namespaces/default/replicationcontrollers".to_owned(),
            controller,
        ),
        (format!("{APPS}/deployments"), plain.clone()),
        (format!("{APPS}/replicasets"), plain),
        (format!("{APPS}/statefulsets"), workload("w")),
    ] {
        server.post(&collection, body).await.expect(201);
        let uri = format!("{collection}/w/scale");
        let scale = server.get(&uri).await.expect(200);
        assert_eq!(
            (&scale["kind"], &scale["apiVersion"]),
            (&json!("Scale"), &json!("autoscaling/v1"))
        );
        assert_eq!(scale["spec"]["replicas"], 2, "{collection}");
        assert_eq!(scale["status"], json!({"replicas": 0, "selector": "app=w"}));
        assert!(scale["metadata"]["uid"].is_string());

        let mut wanted = scale.clone();
        wanted["spec"]["replicas"] = json!(3);
        let dry = server
            .put(&format!("{uri}?dryRun=All"), wanted.clone())
            .await
            .expect(200);
        assert_eq!(dry["spec"]["replicas"], 3);
        assert_eq!(server.get(&uri).await.expect(200), scale);
        let put = server.put(&uri, wanted.clone()).await.expect(200);
        assert_eq!(put["spec"]["replicas"], 3);
        // The version that was read is spent now.
        let stale = server.put(&uri, wanted).await.failure(409, "Conflict");
        assert!(
            stale["message"]
                .as_str()
                .unwrap()
                .contains("the object has been modified")
        );

        let merged = server
            .patch(&uri, "merge", json!({"spec": {"replicas": 4}}))
            .await
            .expect(200);
        assert_eq!(merged["spec"]["replicas"], 4);
        let test = json!({"op": "test", "path": "/spec/replicas", "value": 4});
        let replace = json!({"op": "replace", "path": "/spec/replicas", "value": 5});
        let json = server.patch(&uri, "json", json!([test, replace])).await.expect(200);
        assert_eq!(json["spec"]["replicas"], 5);
        let strategic = server
            .patch(&uri, "strategic-merge", json!({"spec": {"replicas": 0}}))
            .await;
        assert_eq!(strategic.expect(200)["spec"], json!({}));
        let object = server.get(&format!("{collection}/w")).await.expect(200);
        assert_eq!(object["spec"]["replicas"], 0);
        // Four changes of the spec after the first.
        assert_eq!(object["metadata"]["generation"], 5, "{collection}");
    }
}

#[tokio::test]
async fn what_is_no_scale_of_the_object_is_refused() {
    let server = Server::start().await;
    let collection = format!("{APPS}/deployments");
    let mut body = workload("d");
    body["spec"].as_object_mut().unwrap().remove("serviceName");
    server.post(&collection, body).await.expect(201);
    let uri = format!("{collection}/d/scale");
    let scale = server.get(&uri).await.expect(200);
    let with = |pointer: &str, value: Value| {
        let mut scale = scale.clone();
        *scale.pointer_mut(pointer).unwrap() = value;
        scale
    };
    let invalid = server
        .put(&uri, with("/spec/replicas", json!(-1)))
        .await
        .failure(422, "Invalid");
    assert_eq!(
        invalid["message"],
        "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    let named = server
        .put(&uri, with("/metadata/name", json!("e")))
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        named["message"],
        "the name of the object (e) does not match the name on the URL (d)"
    );
    let other = server
        .put(&uri, with("/metadata/uid", json!("other")))
        .await
        .failure(409, "Conflict");
    let message = other["message"].as_str().unwrap();
    assert!(
        message.starts_with("Operation cannot be fulfilled on deployments/scale.apps \"d\": Precondition failed"),
        "{message}"
    );
    server
        .put(&uri, json!({"kind": "Deployment", "apiVersion": "apps/v1"}))
        .await
        .failure(400, "BadRequest");
    server
        .get(&format!("{collection}/absent/scale"))
        .await
        .failure(404, "NotFound");
    server.delete(&uri).await.failure(405, "MethodNotAllowed");
    server
        .get(&format!("{APPS}/daemonsets/d/scale"))
        .await
        .failure(404, "NotFound");
    let strict = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "extra": 1}});
    let strict = server
        .put(&format!("{uri}?fieldValidation=Strict"), strict)
        .await
        .failure(400, "BadRequest");
    assert!(
        strict["message"]
            .as_str()
            .unwrap()
            .contains("unknown field \"spec.extra\""),
        "{strict}"
    );
}

#[tokio::test]
async fn a_scale_prints_as_a_table() {
    let server = Server::start().await;
    let collection = format!("{APPS}/statefulsets");
    server.post(&collection, workload("s")).await.expect(201);
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = server
        .get_as(&format!("{collection}/s/scale"), accept)
        .await
        .expect(200);
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[..3],
        [json!("s"), json!(2), json!(0)]
    );
}
