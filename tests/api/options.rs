//! What queries and bodies may say, and in which words the rest is refused.

use crate::harness::{CONFIG_MAPS, PODS, Server, pod};
use poem::http::Method;
use serde_json::{Value, json};

fn causes(status: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    causes
        .iter()
        .map(|cause| (text(&cause["reason"]), text(&cause["field"]), text(&cause["message"])))
        .collect()
}

#[tokio::test]
async fn options_that_do_not_go_together_are_invalid() {
    let server = Server::start().await;
    let forbidden = "FieldValueForbidden";
    let unsupported = "FieldValueNotSupported";
    let rows: [(&str, &str, &str, &str); 10] = [
        (
            "resourceVersionMatch=Exact",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=1&continue=x",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        (
            "resourceVersionMatch=Maybe&resourceVersion=1",
            unsupported,
            "resourceVersionMatch",
            "Unsupported value: \"Maybe\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "sendInitialEvents=false",
            forbidden,
            "sendInitialEvents",
            "Forbidden: sendInitialEvents is forbidden for list",
        ),
        (
            "watch=1&sendInitialEvents=true",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (
            "watch=1&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&continue=x",
            forbidden,
            "resourceVersionMatch",
            "Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ),
        (
            "watch=1&resourceVersionMatch=Maybe&sendInitialEvents=true",
            unsupported,
            "resourceVersionMatch",
            "Unsupported value: \"Maybe\": supported values: \"NotOlderThan\"",
        ),
        (
            "watch=1&resourceVersionMatch=Exact",
            unsupported,
            "resourceVersionMatch",
            "Unsupported value: \"Exact\": supported values: \"NotOlderThan\"",
        ),
    ];
    for (query, reason, field, message) in rows {
        let status = server
            .get(&format!("{CONFIG_MAPS}?{query}"))
            .await
            .failure(422, "Invalid");
        let found = causes(&status);
        let wanted = (reason.to_owned(), field.to_owned(), message.to_owned());
        assert!(found.contains(&wanted), "{query}: {found:?}");
        let text = status["message"].as_str().unwrap();
        assert!(text.starts_with("ListOptions.meta.k8s.io \"\" is invalid: "), "{text}");
        assert_eq!(status["details"]["kind"], "ListOptions");
        assert_eq!(status["details"]["group"], "meta.k8s.io");
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_a_bad_request() {
    let server = Server::start().await;
    let token = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0";
    let rows = [
        ("limit=many", "strconv.ParseInt: parsing \"many\": invalid syntax"),
        ("limit=", "strconv.ParseInt: parsing \"\": invalid syntax"),
        (
            "resourceVersion=x",
            "invalid resource version: resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": \
             invalid syntax",
        ),
        (
            "continue=%24",
            "invalid continue token: continue key is not valid: illegal base64 data at input byte 0",
        ),
        (
            &format!("continue={token}"),
            "invalid continue token: continue key is not valid: incorrect encoded start resourceVersion \
             (version meta.k8s.io/v1)",
        ),
    ];
    for (query, message) in rows {
        let status = server
            .get(&format!("{CONFIG_MAPS}?{query}"))
            .await
            .failure(400, "BadRequest");
        assert_eq!(status["message"], message, "{query}");
    }
    // Not more than all.
    server.get(&format!("{CONFIG_MAPS}?limit=-1")).await.expect(200);
}

#[tokio::test]
async fn tables_say_what_of_the_object_they_may_include() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let status = server.get_as(&format!("{CONFIG_MAPS}?includeObject=Half"), table).await;
    assert_eq!(
        status.failure(400, "BadRequest")["message"],
        "Unable to convert to Table as requested: includeObject: Invalid value: \"Half\": must be 'Metadata', \
         'Object', 'None', or empty"
    );
    // Nobody else has the option.
    server
        .get(&format!("{CONFIG_MAPS}?includeObject=Half"))
        .await
        .expect(200);
    let uri = |include: &str| format!("{CONFIG_MAPS}?includeObject={include}");
    let object = |list: &Value| list["rows"][0]["object"].clone();
    let none = server.get_as(&uri("None"), table).await.expect(200);
    assert_eq!(object(&none), Value::Null);
    let whole = server.get_as(&uri("Object"), table).await.expect(200);
    assert_eq!(object(&whole)["data"]["k"], "v");
    let metadata = server.get_as(&uri(""), table).await.expect(200);
    assert_eq!(object(&metadata)["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn write_options_are_checked() {
    let server = Server::start().await;
    let body = json!({"metadata": {"name": "a"}});
    let rows = [
        (
            "dryRun=Some",
            "dryRun",
            "Unsupported value: [\"Some\"]: supported values: \"All\"",
        ),
        (
            "fieldValidation=Maybe",
            "fieldValidation",
            "Unsupported value: \"Maybe\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (
            "fieldManager=a%0Ab",
            "fieldManager",
            "Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
        ),
    ];
    for (query, field, message) in rows {
        let status = server
            .post(&format!("{CONFIG_MAPS}?{query}"), body.clone())
            .await
            .failure(422, "Invalid");
        assert_eq!(status["details"]["kind"], "CreateOptions");
        let found = causes(&status);
        assert_eq!((found[0].1.as_str(), found[0].2.as_str()), (field, message));
    }
    let long = format!("{CONFIG_MAPS}?fieldManager={}", "x".repeat(129));
    let status = server.post(&long, body).await.failure(422, "Invalid");
    assert_eq!(causes(&status)[0].2, "Too long: may not be more than 128 bytes");
}

#[tokio::test]
async fn deletions_are_told_how() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let uri = format!("{CONFIG_MAPS}/a");
    let rows = [
        (
            json!({"propagationPolicy": "Sideways"}),
            "Unsupported value: \"Sideways\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            json!({"propagationPolicy": "Background", "orphanDependents": true}),
            "Invalid value: \"Background\": orphanDependents and deletionPropagation cannot be both set",
        ),
        (
            json!({"dryRun": ["All", "None"]}),
            "Unsupported value: [\"All\",\"None\"]: supported values: \"All\"",
        ),
    ];
    for (body, message) in rows {
        let status = server.delete_with(&uri, body).await.failure(422, "Invalid");
        assert_eq!(status["details"]["kind"], "DeleteOptions");
        assert_eq!(causes(&status)[0].2, message);
    }
    for api_version in ["v1", "meta.k8s.io/v1", "apps/v1"] {
        let body = json!({"kind": "DeleteOptions", "apiVersion": api_version, "dryRun": ["All"]});
        server.delete_with(&uri, body).await.expect(200);
    }
    let other = json!({"kind": "ConfigMap", "apiVersion": "v1"});
    server.delete_with(&uri, other).await.failure(400, "BadRequest");
    let headers = [("content-type", "text/plain")];
    let answer = server.send(Method::DELETE, &uri, &headers, "{}").await;
    answer.failure(415, "UnsupportedMediaType");
    // A body, whatever it says, makes the query's options void.
    server
        .delete_with(&format!("{uri}?dryRun=All"), json!({}))
        .await
        .expect(200);
    server.get(&uri).await.failure(404, "NotFound");
}

#[tokio::test]
async fn who_waits_for_dependents_is_told_that_the_object_is_still_there() {
    let server = Server::start().await;
    let held = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    server.post(CONFIG_MAPS, held).await.expect(201);
    let uri = format!("{CONFIG_MAPS}/a");
    let object = server
        .delete_with(&uri, json!({"orphanDependents": false}))
        .await
        .expect(202);
    assert!(object["metadata"]["deletionTimestamp"].is_string());
    server.delete(&uri).await.expect(200);
    server.config_map("b", json!({})).await;
    server
        .delete_with(&format!("{CONFIG_MAPS}/b"), json!({"orphanDependents": false}))
        .await
        .expect(200);
}

#[tokio::test]
async fn one_object_is_watched_by_its_own_name_only() {
    let server = Server::start().await;
    let uri = "/api/v1/watch/namespaces/default/configmaps/a";
    let status = server
        .get(&format!("{uri}?fieldSelector=metadata.name%3Db"))
        .await
        .failure(400, "BadRequest");
    assert_eq!(
        status["message"],
        "fieldSelector metadata.name doesn't match requested name"
    );
    let mut events = server
        .watch(&format!("{uri}?fieldSelector=metadata.name%3Da"), "")
        .await;
    server.config_map("b", json!({})).await;
    server.config_map("a", json!({})).await;
    assert_eq!(events.next_name().await, ("ADDED".to_owned(), "a".to_owned()));
}

#[tokio::test]
async fn a_large_collection_goes_at_once() {
    let server = Server::start().await;
    for n in 0..150 {
        server
            .config_map(&format!("c{n}"), json!({"n": (n % 2).to_string()}))
            .await;
    }
    let list = server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=n%3D0"))
        .await
        .expect(200);
    assert_eq!(
        (&list["kind"], list["items"].as_array().unwrap().len()),
        (&json!("ConfigMapList"), 75)
    );
    let rest = server.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 75);
    let list = server.delete(&format!("{CONFIG_MAPS}?limit=5")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 5);
    let dry = server
        .delete_with(CONFIG_MAPS, json!({"dryRun": ["All"]}))
        .await
        .expect(200);
    assert_eq!(dry["items"].as_array().unwrap().len(), 70);
    assert_eq!(
        server.get(CONFIG_MAPS).await.expect(200)["items"]
            .as_array()
            .unwrap()
            .len(),
        70
    );
    let status = server
        .delete("/api/v1/configmaps")
        .await
        .failure(405, "MethodNotAllowed");
    assert_eq!(
        status["message"],
        "the server does not allow this method on the requested resource"
    );
}

#[tokio::test]
async fn names_are_given_or_generated() {
    let server = Server::start().await;
    let status = server
        .post(PODS, json!({"spec": pod("x")["spec"]}))
        .await
        .failure(422, "Invalid");
    let found = causes(&status);
    assert_eq!(
        found[0],
        (
            "FieldValueRequired".to_owned(),
            "metadata.name".to_owned(),
            "Required value: name or generateName is required".to_owned()
        )
    );
    let long = json!({"metadata": {"generateName": "g".repeat(70)}});
    let made = server.post(CONFIG_MAPS, long).await.expect(201);
    let name = made["metadata"]["name"].as_str().unwrap();
    assert_eq!(name.len(), 63);
    assert!(
        name[58..].chars().all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c)),
        "{name}"
    );
}
