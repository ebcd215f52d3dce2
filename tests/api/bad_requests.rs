//! A hundred malformed requests: each is answered with a Status of the right code and reason. None is a 5xx,
//! a hang or a crash.

use crate::harness::{Server, pod};
use poem::http::Method;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/a";
const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

const BAD: (u16, &str) = (400, "BadRequest");
const NOT_FOUND: (u16, &str) = (404, "NotFound");
const METHOD: (u16, &str) = (405, "MethodNotAllowed");
const MEDIA: (u16, &str) = (415, "UnsupportedMediaType");
const INVALID: (u16, &str) = (422, "Invalid");
const TOO_LARGE: (u16, &str) = (413, "RequestEntityTooLarge");

/// Method, URI, content type, body, and what is expected.
struct Case(Method, String, &'static str, Vec<u8>, (u16, &'static str));

fn case(
    method: Method,
    uri: &str,
    content_type: &'static str,
    body: impl Into<Vec<u8>>,
    expected: (u16, &'static str),
) -> Case {
    Case(method, uri.to_owned(), content_type, body.into(), expected)
}

fn post(uri: &str, body: Value, expected: (u16, &'static str)) -> Case {
    case(Method::POST, uri, JSON, body.to_string(), expected)
}

fn get(uri: &str, expected: (u16, &'static str)) -> Case {
    case(Method::GET, uri, "", "", expected)
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name}})
}

/// Bodies that are not what they should be.
fn bodies() -> Vec<Case> {
    let deep = format!("{}{}", "{\"a\":".repeat(2000), "1").into_bytes();
    let raw = |body: &[u8]| case(Method::POST, MAPS, JSON, body, BAD);
    let mut cases = vec![
        raw(b""),
        raw(b"{"),
        raw(b"}"),
        raw(b"null trailing"),
        raw(b"[]"),
        raw(b"\"text\""),
        raw(b"42"),
        raw(b"{\"metadata\":}"),
        raw(b"{\"metadata\":{\"name\":\"a\"},}"),
        raw(b"{'metadata':{}}"),
        raw(b"\xff\xfe{}"),
        raw(b"{\"metadata\":{\"name\":\"\xff\"}}"),
        raw(b"{}{}"),
        raw(&deep),
        raw(b"\x1f\x8b\x08\x00"),
        case(Method::POST, MAPS, YAML, "a: [", BAD),
        case(Method::POST, MAPS, YAML, "- a\n- b\n", BAD),
        case(
            Method::POST,
            MAPS,
            YAML,
            "metadata:\n  name: a\n---\nmetadata:\n  name: b\n",
            BAD,
        ),
        case(Method::POST, MAPS, YAML, "\tname: x", BAD),
        case(Method::POST, MAPS, PROTOBUF, "not protobuf", BAD),
        case(Method::POST, MAPS, PROTOBUF, &b"k8s\0"[..], BAD),
        case(Method::POST, MAPS, PROTOBUF, &b"k8s\0\x0a\xff\xff\xff\xff\x0f"[..], BAD),
        case(Method::POST, MAPS, "text/plain", "{}", MEDIA),
        case(Method::POST, MAPS, "application/xml", "<a/>", MEDIA),
        case(Method::POST, MAPS, "application/cbor", "x", MEDIA),
        case(Method::PUT, MAP, "multipart/form-data", "x", MEDIA),
        case(Method::POST, MAPS, JSON, vec![b' '; 3 * 1024 * 1024 + 1], TOO_LARGE),
        case(
            Method::PATCH,
            MAP,
            "application/merge-patch+json",
            vec![b' '; 4 * 1024 * 1024],
            TOO_LARGE,
        ),
    ];
    for wrong in [json!(1), json!("x"), json!([]), json!(true)] {
        cases.push(post(MAPS, json!({"metadata": wrong}), BAD));
        cases.push(post(MAPS, json!({"metadata": {"name": "a"}, "data": wrong}), BAD));
    }
    cases
}

/// Objects of another kind, version or shape.
fn objects() -> Vec<Case> {
    let mut wrong_port = pod("p");
    wrong_port["spec"]["containers"][0]["ports"] = json!([{"containerPort": "http"}]);
    let mut fractional = pod("p");
    fractional["spec"]["terminationGracePeriodSeconds"] = json!(1.5);
    let mut unknown = pod("p");
    unknown["spec"]["hostNetwrok"] = json!(true);
    let mut no_containers = pod("p");
    no_containers["spec"] = json!({"containers": []});
    vec![
        post(
            MAPS,
            json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}}),
            BAD,
        ),
        post(
            MAPS,
            json!({"kind": "Nonsense", "apiVersion": "v1", "metadata": {"name": "a"}}),
            BAD,
        ),
        post(
            MAPS,
            json!({"kind": "ConfigMap", "apiVersion": "v2", "metadata": {"name": "a"}}),
            BAD,
        ),
        post(
            MAPS,
            json!({"kind": "ConfigMap", "apiVersion": "apps/v1", "metadata": {"name": "a"}}),
            BAD,
        ),
        post(MAPS, json!({"kind": 1, "apiVersion": "v1"}), BAD),
        post(MAPS, json!({"metadata": {"name": "a", "labels": {"a": 1}}}), BAD),
        post(MAPS, json!({"metadata": {"name": "a", "resourceVersion": "5"}}), BAD),
        post(MAPS, json!({"metadata": {"name": "a", "namespace": "other"}}), BAD),
        post(MAPS, json!({"metadata": {"name": ["a"]}}), BAD),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "creationTimestamp": "yesterday"}}),
            BAD,
        ),
        post(
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}, "data": {"k": "%%%"}}),
            BAD,
        ),
        post(PODS, wrong_port, BAD),
        post(PODS, fractional, BAD),
        post(&format!("{PODS}?fieldValidation=Strict"), unknown, BAD),
        post(PODS, no_containers, INVALID),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "labels": {"bad key!": "v"}}}),
            INVALID,
        ),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "labels": {"k": "bad value!"}}}),
            INVALID,
        ),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "annotations": {"/": "v"}}}),
            INVALID,
        ),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "annotations": {"k": "x".repeat(300 * 1024)}}}),
            INVALID,
        ),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "finalizers": ["not qualified"]}}),
            INVALID,
        ),
        post(
            MAPS,
            json!({"metadata": {"name": "a", "ownerReferences": [{"kind": "Pod"}]}}),
            INVALID,
        ),
    ]
}

fn names() -> Vec<Case> {
    let long = "x".repeat(254);
    let mut cases: Vec<Case> = [
        "Upper",
        "under_score",
        "-a",
        "a-",
        "a..b",
        ".",
        "..",
        "a/b",
        "a b",
        "ä",
        "a\u{0}",
        &long,
        "%41",
    ]
    .into_iter()
    .map(|name| post(MAPS, named(name), INVALID))
    .collect();
    cases.extend([
        post(MAPS, json!({"metadata": {}}), INVALID),
        post(MAPS, json!({"metadata": {"name": ""}}), INVALID),
        post(MAPS, json!({"metadata": {"generateName": "Bad_"}}), INVALID),
        post("/api/v1/namespaces", named("has.dots"), INVALID),
        post("/api/v1/namespaces", named(&"n".repeat(64)), INVALID),
        post("/api/v1/namespaces/nowhere/configmaps", named("a"), NOT_FOUND),
        post("/api/v1/namespaces/UPPER/configmaps", named("a"), NOT_FOUND),
    ]);
    cases
}

fn queries() -> Vec<Case> {
    let invalid = [
        "resourceVersionMatch=Exact",
        "resourceVersion=1&resourceVersionMatch=Sometimes",
        "resourceVersion=0&resourceVersionMatch=Exact",
        "sendInitialEvents=true",
        "watch=1&sendInitialEvents=true",
        "watch=1&resourceVersionMatch=NotOlderThan",
        "watch=1&sendInitialEvents=true&resourceVersionMatch=Exact",
    ];
    let bad = [
        "resourceVersion=abc",
        "resourceVersion=-1",
        "resourceVersion=99999999999999999999999",
        "resourceVersion=1.5",
        "watch=1&resourceVersion=abc",
        "limit=ten",
        "timeoutSeconds=soon&watch=1",
        "timeout=soon",
        "continue=garbage",
        "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiIifQ",
        "labelSelector=a%3D%3D%3Db",
        "labelSelector=%21%21a",
        "labelSelector=a%20in%20b",
        "labelSelector=a%20in%20(b",
        "labelSelector=%2C%2C",
        "labelSelector=-bad-%3Dx",
        "labelSelector=a%3Ex",
        "fieldSelector=spec.nothing%3Dx",
        "fieldSelector=metadata.name",
        "fieldSelector=metadata.name%3Da%5C",
        "fieldSelector=%3Dx",
        "watch=1&labelSelector=a%3D%3D%3Db",
        "watch=1&fieldSelector=spec.nothing%3Dx",
    ];
    let list = |query: &&str, expected| get(&format!("{MAPS}?{query}"), expected);
    let mut cases: Vec<Case> = invalid.iter().map(|query| list(query, INVALID)).collect();
    cases.extend(bad.iter().map(|query| list(query, BAD)));
    for query in ["dryRun=Perhaps", "fieldValidation=Loud", "fieldManager=a%00b"] {
        cases.push(post(&format!("{MAPS}?{query}"), named("a"), INVALID));
    }
    cases.push(post(
        &format!("{MAPS}?fieldManager={}", "m".repeat(129)),
        named("a"),
        INVALID,
    ));
    cases.extend([
        case(Method::DELETE, &format!("{MAP}?gracePeriodSeconds=soon"), "", "", BAD),
        case(
            Method::DELETE,
            &format!("{MAP}?propagationPolicy=Sideways"),
            "",
            "",
            INVALID,
        ),
        case(Method::DELETE, MAP, JSON, "{\"gracePeriodSeconds\":\"x\"}", BAD),
        case(
            Method::DELETE,
            MAP,
            JSON,
            "{\"propagationPolicy\":\"Orphan\",\"orphanDependents\":true}",
            INVALID,
        ),
        case(
            Method::DELETE,
            MAP,
            JSON,
            "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
            BAD,
        ),
        case(Method::DELETE, MAP, JSON, "{{{", BAD),
        get(&format!("{MAP}?resourceVersion=x"), BAD),
    ]);
    cases
}

fn patches() -> Vec<Case> {
    let patch = |kind: &'static str, body: &str, expected| case(Method::PATCH, MAP, kind, body, expected);
    const MERGE: &str = "application/merge-patch+json";
    const OPS: &str = "application/json-patch+json";
    const STRATEGIC: &str = "application/strategic-merge-patch+json";
    vec![
        patch("", "{}", MEDIA),
        patch(JSON, "{}", MEDIA),
        patch(MERGE, "{", BAD),
        patch(MERGE, "[]", BAD),
        patch(MERGE, "1", BAD),
        patch(MERGE, r#"{"data":{"k":1}}"#, INVALID),
        patch(MERGE, r#"{"data":"x"}"#, INVALID),
        patch(MERGE, r#"{"metadata":{"name":"b"}}"#, BAD),
        patch(MERGE, r#"{"metadata":{"namespace":"b"}}"#, BAD),
        patch(MERGE, r#"{"metadata":{"uid":"b"}}"#, (409, "Conflict")),
        patch(MERGE, r#"{"metadata":{"resourceVersion":"x"}}"#, INVALID),
        patch(MERGE, r#"{"metadata":{"finalizers":["not qualified"]}}"#, INVALID),
        patch(MERGE, r#"{"apiVersion":"v2"}"#, BAD),
        patch(OPS, "{}", BAD),
        patch(OPS, r#"[{"op":"fly","path":"/data"}]"#, INVALID),
        patch(OPS, r#"[{"op":"remove","path":"/nothing"}]"#, INVALID),
        patch(OPS, r#"[{"op":"add","path":"nothing","value":1}]"#, INVALID),
        patch(OPS, r#"[{"op":"test","path":"/data/k","value":"x"}]"#, INVALID),
        patch(OPS, r#"[{"op":"replace","path":"","value":1}]"#, INVALID),
        patch(STRATEGIC, "{", BAD),
        patch(STRATEGIC, r#"{"$patch":"explode"}"#, (500, "")),
        patch(STRATEGIC, r#"{"$retainKeys":"x"}"#, BAD),
        patch(
            STRATEGIC,
            r#"{"metadata":{"$setElementOrder/finalizers":"x"}}"#,
            (500, ""),
        ),
        patch(STRATEGIC, r#"{"metadata":{"ownerReferences":[{"name":"x"}]}}"#, INVALID),
    ]
}

/// Paths that are not there, and methods that they do not know.
fn paths() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "/api/v1/nothings",
        "/api/v1/namespaces/default/nothings/a",
        "/api/v9/pods",
        "/apis/apps/v9/deployments",
        "/apis/apps/v1/pods",
        "/apis//v1/pods",
        "/api/v1/namespaces//pods",
        "/api/v1/namespaces/default/pods/..%2f..%2fsecrets",
        "/api/v1/namespaces/default/pods/%2e%2e/x",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/namespaces",
        "/api/v1/pods/a",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/namespaces/default/configmaps/absent",
        "/api/v1/watch/nothings",
        "/api/v1/namespaces/default/configmaps/%00",
    ]
    .into_iter()
    .map(|uri| get(uri, NOT_FOUND))
    .collect();
    cases.extend([
        post(MAP, named("a"), METHOD),
        post("/api/v1/configmaps", named("a"), METHOD),
        case(Method::PUT, MAPS, JSON, "{}", METHOD),
        case(Method::PATCH, MAPS, "application/merge-patch+json", "{}", METHOD),
        case(Method::DELETE, "/api/v1/configmaps", "", "", METHOD),
        case(Method::DELETE, "/api/v1/namespaces", "", "", METHOD),
        case(Method::OPTIONS, MAPS, "", "", METHOD),
        case(Method::TRACE, MAP, "", "", METHOD),
        case(Method::POST, "/version", JSON, "{}", METHOD),
        get("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", METHOD),
        case(
            Method::POST,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            JSON,
            "{}",
            INVALID,
        ),
        case(
            Method::POST,
            "/api/v1/namespaces/default/pods/absent/eviction",
            JSON,
            r#"{"metadata": {"name": "absent"}}"#,
            NOT_FOUND,
        ),
        case(
            Method::POST,
            "/api/v1/namespaces/default/pods/absent/binding",
            JSON,
            "{}",
            INVALID,
        ),
        case(
            Method::PUT,
            "/api/v1/namespaces/absent/finalize",
            JSON,
            r#"{"metadata": {"name": "absent"}}"#,
            NOT_FOUND,
        ),
    ]);
    cases
}

#[tokio::test]
async fn each_is_answered_with_the_right_status() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let before = server.get("/api/v1/configmaps").await.json();
    let cases: Vec<Case> = [bodies(), objects(), names(), queries(), patches(), paths()]
        .into_iter()
        .flatten()
        .collect();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut failures = Vec::new();
    for Case(method, uri, content_type, body, (code, reason)) in cases {
        let headers: &[(&str, &str)] = if content_type.is_empty() {
            &[]
        } else {
            &[("content-type", content_type)]
        };
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = server.send(method.clone(), &uri, headers, body).await;
        let status: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let right = answer.status.as_u16() == code
            && status["kind"] == "Status"
            && status["status"] == "Failure"
            && status["code"] == code
            && status["reason"].as_str().unwrap_or_default() == reason
            && status["message"].as_str().is_some_and(|message| !message.is_empty());
        if !right {
            failures.push(format!(
                "{method} {uri} {shown}\n  expected {code} {reason}, got {} {}",
                answer.status,
                answer.text()
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of the requests:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert_eq!(
        server.get("/api/v1/configmaps").await.json(),
        before,
        "nothing was changed by any of them"
    );
}

#[tokio::test]
async fn what_cannot_be_accepted_is_406() {
    let server = Server::start().await;
    for accept in [
        "text/html",
        "image/*",
        "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
    ] {
        server.get_as(MAPS, accept).await.failure(406, "NotAcceptable");
    }
    server
        .get_as(
            &format!("{MAPS}?includeObject=Half"),
            "application/json;as=Table;v=v1;g=meta.k8s.io",
        )
        .await
        .failure(400, "BadRequest");
}
