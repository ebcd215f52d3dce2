//! Admission webhooks: who is called with what, and what comes of the answers. They listen on loopback.

use crate::harness::{PODS, Server, pod};
use base64::Engine as _;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A server whose paths say how it answers, and what it was asked.
#[derive(Clone)]
pub struct Hooks {
    port: u16,
    authority: String,
    /// The requests of reviews, in order.
    pub asked: Arc<Mutex<Vec<Value>>>,
}

impl Hooks {
    pub async fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let hooks = Self {
            port: listener.local_addr().unwrap().port(),
            authority: encoded(certified.cert.pem()),
            asked: Arc::default(),
        };
        let (serving, acceptor) = (hooks.clone(), TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let (acceptor, hooks) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move {
                    let Ok(io) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| {
                        let hooks = hooks.clone();
                        async move { Ok::<_, Infallible>(hooks.answer(request).await) }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(io), service)
                        .await;
                });
            }
        });
        hooks
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let review: Value = serde_json::from_slice(&body).unwrap();
        self.asked.lock().push(review["request"].clone());
        if path.starts_with("/convert") {
            return Response::new(Full::from(converted(&path, &review).to_string()));
        }
        let mut response = json!({"uid": review["request"]["uid"], "allowed": true});
        let patch = |operations: Value| encoded(operations.to_string());
        match path.as_str() {
            "/deny" => {
                response["allowed"] = json!(false);
                response["status"] = json!({"message": "not this one", "code": 403, "reason": "Forbidden"});
            }
            "/silent" => response["allowed"] = json!(false),
            "/warn" => response["warnings"] = json!(["careful"]),
            "/label" => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(patch(json!([
                    {"op": "add", "path": "/metadata/labels", "value": {"by": "webhook"}},
                    {"op": "add", "path": "/metadata/uid", "value": "theirs"},
                ])));
            }
            "/count" => {
                let seen = review["request"]["object"]["data"]["seen"].as_str().unwrap_or("0");
                let more = (seen.parse::<u32>().unwrap() + 1).to_string();
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(patch(json!([{"op": "add", "path": "/data/seen", "value": more}])));
            }
            "/annotate" => {
                response["patchType"] = json!("JSONPatch");
                let annotations = json!({"op": "add", "path": "/metadata/annotations", "value": {"by": "webhook"}});
                response["patch"] = json!(patch(json!([annotations])));
            }
            "/wrong" => response["uid"] = json!("other"),
            "/broken" => return Response::builder().status(500).body(Full::from("oops")).unwrap(),
            "/slow" => tokio::time::sleep(Duration::from_secs(600)).await,
            _ => {}
        }
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        Response::new(Full::from(review.to_string()))
    }

    /// `clientConfig` of what is at this path.
    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}/{path}", self.port), "caBundle": self.authority})
    }

    /// A webhook for config maps whose path says what it does.
    pub fn hook(&self, path: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": format!("{path}.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": self.client(path),
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"],
            }],
        });
        for (field, value) in more.as_object().unwrap() {
            hook[field] = value.clone();
        }
        hook
    }

    pub async fn configure(&self, server: &Server, kind: &str, name: &str, hooks: &[Value]) {
        let configuration = json!({"metadata": {"name": name}, "webhooks": hooks});
        let uri = format!("{GROUP}/{kind}webhookconfigurations");
        server.post(&uri, configuration).await.expect(201);
    }
}

/// The answer to a ConversionReview: v1 has `hostPort`, v2 `host` and `port`.
fn converted(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let second = request["desiredAPIVersion"].as_str().unwrap().ends_with("/v2");
    let convert = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        let take = |object: &mut Value, field: &str| object.as_object_mut().unwrap().remove(field);
        if second {
            let both = take(&mut object, "hostPort").unwrap();
            let (host, port) = both.as_str().unwrap().split_once(':').unwrap();
            (object["host"], object["port"]) = (json!(host), json!(port));
        } else {
            let (host, port) = (take(&mut object, "host").unwrap(), take(&mut object, "port").unwrap());
            object["hostPort"] = json!(format!("{}:{}", host.as_str().unwrap(), port.as_str().unwrap()));
        }
        // Nothing but labels and annotations is taken from here.
        object["metadata"]["generation"] = json!(99);
        if path == "/convert-renamed" {
            object["metadata"]["name"] = json!("other");
        }
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().unwrap().iter().map(convert).collect();
    let mut response = json!({
        "uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects,
    });
    match path {
        "/convert-refused" => response["result"] = json!({"status": "Failure", "message": "not today"}),
        "/convert-none" => response["convertedObjects"] = json!([]),
        _ => {}
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// Only objects whose data say so: tests share a server.
fn only(value: &str) -> Value {
    json!([{"name": "only", "expression": format!("has(object.data) && object.data.kind == '{value}'")}])
}

#[tokio::test]
async fn validating_webhooks_refuse_warn_and_fail_in_upstreams_words() {
    let (server, hooks) = (Server::start().await, Hooks::start().await);
    let of = |path: &str| hooks.hook(path, json!({"matchConditions": only(path)}));
    let ignored = hooks.hook(
        "broken2",
        json!({
            "matchConditions": only("ignored"), "failurePolicy": "Ignore",
            "clientConfig": {"url": format!("https://127.0.0.1:{}/broken", hooks.port), "caBundle": hooks.authority},
        }),
    );
    let untrusted = hooks.hook(
        "untrusted",
        json!({
            "matchConditions": only("untrusted"),
            "clientConfig": {"url": format!("https://127.0.0.1:{}/allow", hooks.port)},
        }),
    );
    let slow = hooks.hook("slow", json!({"matchConditions": only("slow"), "timeoutSeconds": 1}));
    let effects = hooks.hook("allow", json!({"matchConditions": only("effects")}));
    let lost = hooks.hook(
        "lost",
        json!({
            "matchConditions": only("lost"),
            "clientConfig": {"service": {"namespace": "default", "name": "lost"}, "caBundle": hooks.authority},
        }),
    );
    let all = [
        of("deny"),
        of("silent"),
        of("warn"),
        of("wrong"),
        of("broken"),
        ignored,
        untrusted,
        slow,
        effects,
        lost,
    ];
    hooks.configure(&server, "validating", "all", &all).await;
    let made = async |kind: &str| server.post(MAPS, config_map(kind, json!({"kind": kind}))).await;
    let message = |status: &Value| status["message"].as_str().unwrap().to_owned();
    let status = made("deny").await.failure(403, "Forbidden");
    assert_eq!(
        message(&status),
        "admission webhook \"deny.example.com\" denied the request: not this one"
    );
    let status = made("silent").await.expect(400);
    assert_eq!(
        message(&status),
        "admission webhook \"silent.example.com\" denied the request without explanation"
    );
    let answer = made("warn").await;
    answer.expect(201);
    assert_eq!(answer.warnings(), [r#"299 - "careful""#]);
    let failing = "Internal error occurred: failed calling webhook";
    let status = made("wrong").await.failure(500, "InternalError");
    assert!(
        message(&status).starts_with(&format!(
            "{failing} \"wrong.example.com\": received invalid webhook response: expected response.uid="
        )),
        "{status}"
    );
    let status = made("broken").await.failure(500, "InternalError");
    assert_eq!(
        message(&status),
        format!(
            "{failing} \"broken.example.com\": failed to call webhook: an error on the server (\"oops\") has prevented the \
             request from succeeding"
        )
    );
    made("ignored").await.expect(201);
    let status = made("untrusted").await.failure(500, "InternalError");
    assert!(
        message(&status).ends_with("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
        "{status}"
    );
    let status = made("slow").await.failure(500, "InternalError");
    assert_eq!(
        message(&status),
        format!(
            "{failing} \"slow.example.com\": failed to call webhook: Post \"https://127.0.0.1:{}/slow?timeout=1s\": context \
             deadline exceeded",
            hooks.port
        )
    );
    let status = made("lost").await.failure(500, "InternalError");
    assert_eq!(
        message(&status),
        format!(
            "{failing} \"lost.example.com\": failed to call webhook: Post \"https://lost.default.svc:443/?timeout=10s\": \
             service \"lost\" not found"
        )
    );
    // What it was asked.
    hooks.asked.lock().clear();
    made("effects").await.expect(201);
    let asked = hooks.asked.lock().pop().unwrap();
    assert_eq!(asked["operation"], "CREATE");
    assert_eq!(
        asked["kind"],
        json!({"group": "", "version": "v1", "kind": "ConfigMap"})
    );
    assert_eq!(asked["object"]["metadata"]["name"], "effects");
    assert_eq!(asked["oldObject"], Value::Null);
    assert_eq!(
        (&asked["namespace"], &asked["dryRun"]),
        (&json!("default"), &json!(false))
    );
}

#[tokio::test]
async fn mutating_webhooks_change_objects_one_after_the_other() {
    let (server, hooks) = (Server::start().await, Hooks::start().await);
    let count = |name: &str, policy: &str| {
        hooks.hook(
            "count",
            json!({"name": format!("{name}.example.com"), "reinvocationPolicy": policy}),
        )
    };
    hooks
        .configure(&server, "mutating", "a", &[hooks.hook("label", json!({}))])
        .await;
    hooks
        .configure(
            &server,
            "mutating",
            "b",
            &[count("one", "IfNeeded"), count("two", "Never")],
        )
        .await;
    let made = server.post(MAPS, config_map("m", json!({"a": "b"}))).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({"by": "webhook"}));
    assert_ne!(made["metadata"]["uid"], "theirs");
    // The first counted, the second counted, and the first saw that and counted once more.
    assert_eq!(made["data"], json!({"a": "b", "seen": "3"}));
    let dry = server
        .post(&format!("{MAPS}?dryRun=All"), config_map("n", json!({"a": "b"})))
        .await;
    assert_eq!(dry.expect(201)["data"]["seen"], "3");
    assert_eq!(hooks.asked.lock().last().unwrap()["dryRun"], json!(true));
    // Nothing is asked about the configuration itself, so it can always be taken away.
    let everything = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]);
    hooks
        .configure(
            &server,
            "validating",
            "all",
            &[hooks.hook("deny", json!({"rules": everything}))],
        )
        .await;
    server.delete(&format!("{MAPS}/m")).await.failure(403, "Forbidden");
    server
        .delete(&format!("{GROUP}/validatingwebhookconfigurations/all"))
        .await
        .expect(200);
    server.delete(&format!("{MAPS}/m")).await.expect(200);
}

#[tokio::test]
async fn mutating_webhooks_see_what_is_sent_and_no_object_of_a_deletion() {
    let (server, hooks) = (Server::start().await, Hooks::start().await);
    let bindings = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/binding"], "operations": ["CREATE"],
    }]);
    let deletions = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["DELETE"],
    }]);
    let of_bindings = hooks.hook("annotate", json!({"rules": bindings}));
    let of_deletions = hooks.hook("allow", json!({"rules": deletions}));
    hooks
        .configure(&server, "mutating", "sent", &[of_bindings, of_deletions])
        .await;
    server.post(PODS, pod("bound")).await.expect(201);
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "bound"}, "target": {"kind": "Node", "name": "n"},
    });
    server.post(&format!("{PODS}/bound/binding"), binding).await.expect(201);
    let asked = hooks.asked.lock().pop().unwrap();
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "Binding"}));
    assert_eq!(
        (&asked["subResource"], &asked["object"]["target"]["name"]),
        (&json!("binding"), &json!("n"))
    );
    let bound = server.get(&format!("{PODS}/bound")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(bound["metadata"]["annotations"]["by"], "webhook");
    server.post(MAPS, config_map("gone", json!({}))).await.expect(201);
    server.post(MAPS, config_map("gone-too", json!({}))).await.expect(201);
    let options = json!({"gracePeriodSeconds": 5, "propagationPolicy": "Background"});
    server.delete_with(&format!("{MAPS}/gone"), options).await.expect(200);
    let asked = hooks.asked.lock().pop().unwrap();
    assert_eq!(asked["options"]["gracePeriodSeconds"], 5);
    assert_eq!(asked["options"]["propagationPolicy"], "Background");
    assert_eq!(
        (&asked["operation"], &asked["name"]),
        (&json!("DELETE"), &json!("gone"))
    );
    assert_eq!((&asked["object"], &asked["oldObject"]), (&Value::Null, &Value::Null));
    // A collection is asked about once.
    server.delete(MAPS).await.expect(200);
    let asked: Vec<Value> = hooks.asked.lock().drain(..).collect();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].get("name"), None);
}

#[tokio::test]
async fn the_server_starts_whoever_can_be_reached() {
    let (server, hooks) = (Server::start().await, Hooks::start().await);
    let unreachable = hooks.hook("lost", json!({"clientConfig": {"url": "https://127.0.0.1:1/"}}));
    hooks.configure(&server, "validating", "lost", &[unreachable]).await;
    server
        .post(MAPS, config_map("one", json!({})))
        .await
        .failure(500, "InternalError");
    server.api.begin_start();
    server.post(MAPS, config_map("one", json!({}))).await.expect(201);
    server.api.end_start();
    server
        .post(MAPS, config_map("two", json!({})))
        .await
        .failure(500, "InternalError");
}
