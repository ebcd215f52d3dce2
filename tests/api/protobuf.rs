//! Answers in protobuf: objects, lists, Statuses, watches; what is in them is checked by reading them back.

use crate::harness::{Answer, CONFIG_MAPS, PODS, Server, pod, revision};
use bytes::Bytes;
use futures_util::StreamExt;
use krust::apiserver::codec::protobuf;
use poem::http::Method;
use serde_json::{Value, json};
use std::pin::Pin;
use std::time::Duration;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";

/// The object in a protobuf answer.
fn object(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.status.as_u16(), code, "{}", answer.text());
    assert_eq!(answer.header("content-type"), PROTOBUF);
    read(&answer.body)
}

fn read(body: &[u8]) -> Value {
    let (api_version, kind, object) = protobuf::decode(body).expect("a protobuf body");
    assert_eq!(
        (&*api_version, &*kind),
        (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
    );
    Value::Object(object)
}

/// What JSON says and protobuf cannot: a list's items have no type of their own, empty metadata is none.
fn without_types(mut list: Value) -> Value {
    for item in list["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("apiVersion");
        item.as_object_mut().unwrap().remove("kind");
    }
    list
}

#[tokio::test]
async fn every_verb_answers_in_protobuf() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json"), ("accept", TYPED)];
    let mut body = pod("a");
    // Nobody can tell an empty struct from an absent one.
    body["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let created = server.send(Method::POST, PODS, &headers, body.to_string()).await;
    let created = object(&created, 201);
    let uri = format!("{PODS}/a");
    assert_eq!(server.get(&uri).await.expect(200), created, "the same as in JSON");
    assert_eq!(object(&server.get_as(&uri, TYPED).await, 200), created);
    assert_eq!(
        object(&server.get_as(&uri, TYPED).await, 200),
        created,
        "from what was encoded before"
    );
    let headers = [("content-type", "application/merge-patch+json"), ("accept", TYPED)];
    let body = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let patched = object(&server.send(Method::PATCH, &uri, &headers, body).await, 200);
    assert_eq!(patched["metadata"]["labels"], json!({"a": "b"}));
    assert!(revision(&patched) > revision(&created));
    let headers = [("content-type", "application/json"), ("accept", TYPED)];
    let updated = server.send(Method::PUT, &uri, &headers, patched.to_string()).await;
    assert_eq!(object(&updated, 200), patched);
    let dry = server
        .send(Method::PUT, &format!("{uri}?dryRun=All"), &headers, patched.to_string())
        .await;
    assert_eq!(object(&dry, 200)["metadata"]["name"], "a");
    let deleted = server.send(Method::DELETE, &uri, &headers, "").await;
    assert_eq!(object(&deleted, 200)["metadata"]["name"], "a");
    server.config_map("m", json!({})).await;
    let deleted = server
        .send(Method::DELETE, &format!("{CONFIG_MAPS}/m"), &headers, "")
        .await;
    let status = object(&deleted, 200);
    assert_eq!(
        (&status["kind"], &status["status"]),
        (&json!("Status"), &json!("Success"))
    );
    assert_eq!(status["details"]["kind"], "configmaps");
}

#[tokio::test]
async fn failures_take_the_form_that_was_asked_for() {
    let server = Server::start().await;
    let uri = format!("{PODS}/none");
    let json = server.get(&uri).await.failure(404, "NotFound");
    let mut expected = json.clone();
    expected.as_object_mut().unwrap().remove("metadata");
    let mut status = object(&server.get_as(&uri, TYPED).await, 404);
    assert_eq!(status, expected);
    status = object(&server.get_as("/api/v1/nonsense", PROTOBUF).await, 404);
    assert_eq!(status["reason"], "NotFound");
    let yaml = server.get_as(&uri, "application/yaml").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    assert!(yaml.text().contains("reason: NotFound"));
    let table = server
        .get_as(&uri, "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await;
    assert_eq!(
        table.failure(404, "NotFound"),
        json,
        "also who accepts tables only gets a Status"
    );
    let pretty = server.get(&format!("{uri}?pretty=1")).await;
    assert!(pretty.text().contains("\n  \"kind\": \"Status\""));
}

#[tokio::test]
async fn lists_are_messages_with_shared_items() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.config_map(name, json!({"app": name})).await;
    }
    let json = || async { without_types(server.get(CONFIG_MAPS).await.expect(200)) };
    assert_eq!(object(&server.get_as(CONFIG_MAPS, TYPED).await, 200), json().await);
    server.post(PODS, pod("other")).await.expect(201);
    let again = object(&server.get_as(CONFIG_MAPS, TYPED).await, 200);
    assert_eq!(again, json().await, "the same items at a later revision");
    server.config_map("d", json!({})).await;
    assert_eq!(object(&server.get_as(CONFIG_MAPS, TYPED).await, 200), json().await);
    let page = object(&server.get_as(&format!("{CONFIG_MAPS}?limit=1"), TYPED).await, 200);
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = object(
        &server.get_as(&format!("{CONFIG_MAPS}?continue={token}"), TYPED).await,
        200,
    );
    assert_eq!(rest["items"].as_array().unwrap().len(), 3);
    let selected = object(
        &server
            .get_as(&format!("{CONFIG_MAPS}?labelSelector=app%3Db"), TYPED)
            .await,
        200,
    );
    assert_eq!(selected["items"][0]["metadata"]["name"], "b");
    let empty = object(&server.get_as("/api/v1/namespaces/x/configmaps", TYPED).await, 200);
    assert_eq!((&empty["kind"], empty.get("items")), (&json!("ConfigMapList"), None));
}

#[tokio::test]
async fn metadata_alone_and_no_tables() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let one = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{PROTOBUF}");
    let partial = object(&server.get_as(&format!("{CONFIG_MAPS}/a"), &one).await, 200);
    assert_eq!(
        (&partial["kind"], &partial["apiVersion"]),
        (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1"))
    );
    assert!(partial.get("data").is_none());
    let many = format!("{PROTOBUF};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{PROTOBUF}");
    let list = object(&server.get_as(CONFIG_MAPS, &many).await, 200);
    assert_eq!(list["items"][0]["metadata"], partial["metadata"]);
    let table = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1,application/json;as=Table;g=meta.k8s.io;v=v1");
    assert_eq!(server.get_as(CONFIG_MAPS, &table).await.expect(200)["kind"], "Table");
    let only = format!("{PROTOBUF};as=Table;g=meta.k8s.io;v=v1");
    server.get_as(CONFIG_MAPS, &only).await.failure(406, "NotAcceptable");
    let status = server
        .get_as(
            CONFIG_MAPS,
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        )
        .await;
    let message = &status.failure(406, "NotAcceptable")["message"];
    assert!(
        message.as_str().unwrap().contains("the requested object is a list"),
        "{message}"
    );
}

#[tokio::test]
async fn discovery_of_old_speaks_it_too() {
    let server = Server::start().await;
    for (uri, kind) in [
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
    ] {
        let mut json = server.get(uri).await.expect(200);
        let answer = object(&server.get_as(uri, PROTOBUF).await, 200);
        assert_eq!(answer["kind"], kind);
        // What is empty in one is absent in the other.
        json.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        assert_eq!(answer, json, "{uri}");
    }
    let versions = server.get_as("/api", PROTOBUF).await;
    assert_eq!(versions.header("content-type"), PROTOBUF);
    assert_eq!(server.get_as("/version", PROTOBUF).await.expect(200)["major"], "1");
}

#[tokio::test]
async fn large_answers_are_compressed() {
    let server = Server::start().await;
    for n in 0..20 {
        let body = json!({"metadata": {"name": format!("m{n}")}, "data": {"k": "v".repeat(10_000)}});
        server.post(CONFIG_MAPS, body).await.expect(201);
    }
    let headers = [("accept", PROTOBUF), ("accept-encoding", "gzip")];
    let answer = server.send(Method::GET, CONFIG_MAPS, &headers, ()).await;
    assert_eq!(
        (answer.header("content-encoding"), answer.header("vary")),
        ("gzip", "Accept-Encoding")
    );
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*answer.body), &mut plain).unwrap();
    assert_eq!(read(&plain)["items"].as_array().unwrap().len(), 20);
}

/// Frames of a protobuf watch.
struct Frames {
    chunks: Pin<Box<dyn futures_util::Stream<Item = std::io::Result<Bytes>> + Send>>,
    buffer: Vec<u8>,
}

impl Frames {
    async fn open(server: &Server, uri: &str, accept: &str) -> Self {
        let response = server.open(Method::GET, uri, &[("accept", accept)], ()).await;
        assert_eq!(response.status(), 200);
        let content_type = response.header("content-type");
        assert_eq!(content_type, Some("application/vnd.kubernetes.protobuf;stream=watch"));
        Self {
            chunks: Box::pin(response.into_body().into_bytes_stream()),
            buffer: Vec::new(),
        }
    }

    /// Type and object of the next event; None at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let frame: Vec<u8> = self.buffer.drain(..4 + length).skip(4).collect();
                    return Some(event(&frame));
                }
            }
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.chunks.next());
            match chunk.await.expect("no event in time") {
                Some(chunk) => self.buffer.extend_from_slice(&chunk.unwrap()),
                None => {
                    assert!(self.buffer.is_empty(), "the last frame is cut off");
                    return None;
                }
            }
        }
    }
}

/// `WatchEvent {1: type, 2: RawExtension {1: body}}`, read by another reader than the server's.
fn event(frame: &[u8]) -> (String, Value) {
    #[derive(prost::Message)]
    struct WatchEvent {
        #[prost(string, tag = "1")]
        event: String,
        #[prost(message, tag = "2")]
        object: Option<RawExtension>,
    }
    #[derive(prost::Message)]
    struct RawExtension {
        #[prost(bytes, tag = "1")]
        raw: Vec<u8>,
    }
    let event = <WatchEvent as prost::Message>::decode(frame).unwrap();
    (event.event, read(&event.object.unwrap().raw))
}

#[tokio::test]
async fn watches_are_frames() {
    let server = Server::start().await;
    let first = server.config_map("a", json!({})).await;
    let uri = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut frames = Frames::open(&server, &uri, TYPED).await;
    let mut also = Frames::open(
        &server,
        &format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&first)),
        TYPED,
    )
    .await;
    assert_eq!(frames.next().await, Some(("ADDED".to_owned(), first.clone())));
    let (kind, bookmark) = frames.next().await.unwrap();
    assert_eq!((kind.as_str(), &bookmark["kind"]), ("BOOKMARK", &json!("ConfigMap")));
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let second = server.config_map("b", json!({})).await;
    assert_eq!(frames.next().await, Some(("ADDED".to_owned(), second.clone())));
    assert_eq!(also.next().await, Some(("ADDED".to_owned(), second)));
    server.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let (kind, gone) = frames.next().await.unwrap();
    assert_eq!((kind.as_str(), &gone["metadata"]["name"]), ("DELETED", &json!("a")));
    assert!(revision(&gone) > revision(&first));
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let mut partial = Frames::open(&server, &format!("{CONFIG_MAPS}?watch=1"), &partial).await;
    let (_, object) = partial.next().await.unwrap();
    assert_eq!(
        (&object["kind"], &object["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("b"))
    );
    server.api.begin_shutdown();
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn a_watch_whose_history_is_gone_says_so_in_protobuf() {
    let server = Server::with_history(4).await;
    let first = server.config_map("a", json!({})).await;
    for n in 0..20 {
        let change = json!({"data": {"k": n.to_string()}});
        server
            .patch(&format!("{CONFIG_MAPS}/a"), "merge", change)
            .await
            .expect(200);
    }
    server.history_reaches(revision(&first) + 1).await;
    let uri = format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&first));
    let mut frames = Frames::open(&server, &uri, TYPED).await;
    let (kind, status) = frames.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    assert_eq!(frames.next().await, None);
}
