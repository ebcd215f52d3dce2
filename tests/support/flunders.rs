//! A small server of an API group of its own, to stand behind an APIService: flunders of `wardle.example.com`, kept in
//! memory (upstream: `k8s.io/sample-apiserver`, of which this has what our tests need). It believes names of users in
//! headers from whoever shows a certificate of the front proxy's authority, and answers nobody else.
//!
//! - `flunders`: get, list, watch, create, update, patch (merge), delete, deletecollection.
//! - `identities/self`: who asks, as the server sees it.
//! - `flunders/NAME/echo`: changes the protocol and sends back what it is sent.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ACCEPT, CONNECTION, CONTENT_TYPE, ETAG, IF_NONE_MATCH, UPGRADE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub const GROUP: &str = "wardle.example.com";
pub const VERSION: &str = "v1alpha1";
const ALLOWED_NAME: &str = "front-proxy-client";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// A certificate with its key, and the authority of front proxies, all in PEM.
pub struct Pem<'a> {
    pub certificate: &'a str,
    pub key: &'a str,
    pub front_proxies: &'a str,
}

#[derive(Default)]
pub struct Flunders {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    uids: AtomicU64,
    /// Discovery in the old form, and OpenAPI in version 2 only.
    pub is_old: AtomicBool,
    /// Says that it cannot be used.
    pub is_broken: AtomicBool,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    /// Events with the revisions of theirs.
    log: Vec<(u64, &'static str, Value)>,
}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>>;

impl Flunders {
    /// Serves until the runtime ends.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, pem: Pem<'_>) {
        let acceptor = acceptor(&pem);
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, server) = (acceptor.clone(), self.clone());
            tokio::spawn(async move {
                let Ok(io) = acceptor.accept(tcp).await else { return };
                let is_proxy = io
                    .get_ref()
                    .1
                    .peer_certificates()
                    .is_some_and(|chain| is_allowed(&chain[0]));
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request, is_proxy).await) }
                });
                // A client that goes away is no concern of the server.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service)
                    .with_upgrades()
                    .await;
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, is_proxy: bool) -> Answer {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if path == "/readyz" {
            return text(200, "ok");
        }
        if self.is_broken.load(Ordering::Relaxed) {
            return text(500, "broken");
        }
        let user = request.headers().get("x-remote-user").filter(|_| is_proxy);
        if user.is_none() {
            return failure(401, "Unauthorized", "Unauthorized");
        }
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        match segments[..] {
            ["apis"] => self.groups(request.headers()),
            ["apis", GROUP] => object(200, &group(true)),
            ["apis", GROUP, VERSION] => object(200, &resources()),
            ["openapi", "v2"] => object(200, &swagger()),
            ["openapi", "v3", ..] if self.is_old.load(Ordering::Relaxed) => failure(404, "NotFound", "no such path"),
            ["openapi", "v3"] => object(200, &index()),
            ["openapi", "v3", "apis", GROUP, VERSION] => object(200, &document()),
            ["apis", GROUP, VERSION, "identities", "self"] => object(200, &identity(request.headers())),
            ["apis", GROUP, VERSION, "flunders"] => self.collection("", request).await,
            ["apis", GROUP, VERSION, "namespaces", namespace, "flunders"] => {
                let namespace = namespace.to_owned();
                self.collection(&namespace, request).await
            }
            ["apis", GROUP, VERSION, "namespaces", namespace, "flunders", name] => {
                let key = (namespace.to_owned(), name.to_owned());
                self.one(key, request).await
            }
            ["apis", GROUP, VERSION, "namespaces", _, "flunders", _, "echo"] => echo(request),
            _ => text(404, "404 page not found"),
        }
    }

    fn groups(&self, headers: &HeaderMap) -> Answer {
        let accept = headers
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if self.is_old.load(Ordering::Relaxed) || !accept.contains(AGGREGATED) {
            return object(
                200,
                &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(false)]}),
            );
        }
        let etag = "\"one\"";
        if headers.get(IF_NONE_MATCH).is_some_and(|tag| tag == etag) {
            return answer(304, AGGREGATED, Bytes::new());
        }
        let mut answer = answer(200, AGGREGATED, aggregated().to_string().into());
        answer.headers_mut().insert(ETAG, etag.parse().unwrap());
        answer
    }

    async fn collection(self: &Arc<Self>, namespace: &str, request: Request<Incoming>) -> Answer {
        let parameters = parameters(&request);
        let selector = parameters.get("labelSelector").cloned().unwrap_or_default();
        match *request.method() {
            Method::GET
                if parameters
                    .get("watch")
                    .is_some_and(|value| value != "false" && value != "0") =>
            {
                let from = parameters.get("resourceVersion").and_then(|text| text.parse().ok());
                self.watch(namespace.to_owned(), selector, from.unwrap_or_default())
            }
            Method::GET => {
                let state = self.state.lock().unwrap();
                let items: Vec<&Value> = state
                    .objects
                    .values()
                    .filter(|one| fits(one, namespace, &selector))
                    .collect();
                object(
                    200,
                    &json!({
                        "kind": "FlunderList", "apiVersion": format!("{GROUP}/{VERSION}"),
                        "metadata": {"resourceVersion": self.revision.borrow().to_string()}, "items": items,
                    }),
                )
            }
            Method::POST => {
                let Some(mut flunder) = body(request).await else {
                    return failure(400, "BadRequest", "the body is no object");
                };
                let name = flunder["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let key = (namespace.to_owned(), name.clone());
                if self.state.lock().unwrap().objects.contains_key(&key) {
                    return failure(
                        409,
                        "AlreadyExists",
                        &format!("flunders.{GROUP} {name:?} already exists"),
                    );
                }
                let uid = self.uids.fetch_add(1, Ordering::Relaxed);
                flunder["kind"] = json!("Flunder");
                flunder["apiVersion"] = json!(format!("{GROUP}/{VERSION}"));
                flunder["metadata"]["namespace"] = json!(namespace);
                flunder["metadata"]["uid"] = json!(format!("f1c0de00-0000-4000-8000-{uid:012}"));
                flunder["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                object(201, &self.put(key, flunder))
            }
            Method::DELETE => {
                let keys: Vec<(String, String)> = {
                    let state = self.state.lock().unwrap();
                    let found = state.objects.iter().filter(|(_, one)| fits(one, namespace, &selector));
                    found.map(|(key, _)| key.clone()).collect()
                };
                keys.iter().for_each(|key| self.remove(key));
                success()
            }
            _ => failure(405, "MethodNotAllowed", "the method is not allowed"),
        }
    }

    async fn one(&self, key: (String, String), request: Request<Incoming>) -> Answer {
        let Some(known) = self.state.lock().unwrap().objects.get(&key).cloned() else {
            return failure(404, "NotFound", &format!("flunders.{GROUP} {:?} not found", key.1));
        };
        let method = request.method().clone();
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let sent = body(request).await;
        match method {
            Method::GET => object(200, &known),
            Method::DELETE => {
                let uid = sent
                    .as_ref()
                    .and_then(|options| options["preconditions"]["uid"].as_str());
                if uid.is_some_and(|uid| known["metadata"]["uid"] != uid) {
                    return failure(409, "Conflict", "the uid is another's");
                }
                self.remove(&key);
                success()
            }
            Method::PUT => {
                let Some(mut new) = sent else {
                    return failure(400, "BadRequest", "the body is no object");
                };
                for field in ["uid", "creationTimestamp", "namespace"] {
                    new["metadata"][field] = known["metadata"][field].clone();
                }
                object(200, &self.put(key, new))
            }
            Method::PATCH if content_type.is_some_and(|kind| kind == "application/merge-patch+json") => {
                let mut new = known;
                merge(&mut new, &sent.unwrap_or_default());
                object(200, &self.put(key, new))
            }
            Method::PATCH => failure(415, "UnsupportedMediaType", "only merge patches are known"),
            _ => failure(405, "MethodNotAllowed", "the method is not allowed"),
        }
    }

    fn put(&self, key: (String, String), mut flunder: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let revision = *self.revision.borrow() + 1;
        flunder["metadata"]["resourceVersion"] = json!(revision.to_string());
        let is_new = state.objects.insert(key, flunder.clone()).is_none();
        state
            .log
            .push((revision, if is_new { "ADDED" } else { "MODIFIED" }, flunder.clone()));
        self.revision.send_replace(revision);
        flunder
    }

    fn remove(&self, key: &(String, String)) {
        let mut state = self.state.lock().unwrap();
        let Some(mut flunder) = state.objects.remove(key) else {
            return;
        };
        let revision = *self.revision.borrow() + 1;
        flunder["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.log.push((revision, "DELETED", flunder));
        self.revision.send_replace(revision);
    }

    /// Events after a revision; from the beginning, all that ever was.
    fn watch(self: &Arc<Self>, namespace: String, selector: String, from: u64) -> Answer {
        let start = (self.clone(), self.revision.subscribe(), from);
        let batches = stream::unfold(start, |(server, mut revision, from)| async move {
            loop {
                let fresh: Vec<_> = {
                    let state = server.state.lock().unwrap();
                    state
                        .log
                        .iter()
                        .filter(|(number, _, _)| *number > from)
                        .cloned()
                        .collect()
                };
                if let Some((last, _, _)) = fresh.last() {
                    let last = *last;
                    return Some((fresh, (server, revision, last)));
                }
                revision.changed().await.ok()?;
            }
        });
        let lines = batches.flat_map(move |events| {
            let events = events
                .into_iter()
                .filter(|(_, _, flunder)| fits(flunder, &namespace, &selector));
            let lines: Vec<Bytes> = events
                .map(|(_, kind, flunder)| format!("{}\n", json!({"type": kind, "object": flunder})).into())
                .collect();
            stream::iter(lines)
        });
        streamed(lines.boxed())
    }
}

/// The flunder is in the namespace, if one is named, and has the label, if one is asked for.
fn fits(flunder: &Value, namespace: &str, selector: &str) -> bool {
    let has_label = match selector.split_once('=') {
        Some((key, value)) => flunder["metadata"]["labels"][key] == value.trim_start_matches('='),
        None => true,
    };
    has_label && (namespace.is_empty() || flunder["metadata"]["namespace"] == namespace)
}

fn acceptor(pem: &Pem<'_>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(pem.front_proxies.as_bytes()) {
        roots.add(authority.unwrap()).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn is_allowed(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return false;
    };
    let mut names = certificate.subject().iter_common_name();
    names.any(|name| name.as_str() == Ok(ALLOWED_NAME))
}

fn streamed(body: BoxStream<'static, Bytes>) -> Answer {
    let frames = body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    let answer = Response::builder().header(CONTENT_TYPE, "application/json");
    answer.body(StreamBody::new(frames).boxed_unsync()).unwrap()
}

fn answer(code: u16, content_type: &str, body: Bytes) -> Answer {
    let answer = Response::builder().status(code).header(CONTENT_TYPE, content_type);
    answer.body(http_body_util::Full::new(body).boxed_unsync()).unwrap()
}

fn text(code: u16, text: &'static str) -> Answer {
    answer(code, "text/plain", text.into())
}

fn object(code: u16, object: &Value) -> Answer {
    answer(code, "application/json", object.to_string().into())
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    object(
        code,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": reason, "message": message, "code": code,
        }),
    )
}

fn success() -> Answer {
    object(
        200,
        &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}),
    )
}

async fn body(request: Request<Incoming>) -> Option<Value> {
    let bytes = request.into_body().collect().await.ok()?.to_bytes();
    let object: Value = serde_json::from_slice(&bytes).ok()?;
    object.is_object().then_some(object)
}

fn parameters(request: &Request<Incoming>) -> BTreeMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in members {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            value => merge(&mut into[key], value),
        }
    }
}

/// Sends back what comes, until the other side ends.
fn echo(mut request: Request<Incoming>) -> Answer {
    if request.headers().get(UPGRADE).is_none_or(|protocol| protocol != "echo") {
        return failure(400, "BadRequest", "the protocol is echo");
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
        let _ = io.shutdown().await;
    });
    let mut answer = answer(101, "text/plain", Bytes::new());
    answer.headers_mut().remove(CONTENT_TYPE);
    answer.headers_mut().insert(CONNECTION, "upgrade".parse().unwrap());
    answer.headers_mut().insert(UPGRADE, "echo".parse().unwrap());
    answer
}

/// Who asks, from the headers.
fn identity(headers: &HeaderMap) -> Value {
    let all = |name: &str| -> Vec<&str> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).collect()
    };
    let names: Vec<&str> = headers.keys().map(|name| name.as_str()).collect();
    json!({
        "kind": "Identity", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {"name": "self"},
        "user": all("x-remote-user"), "groups": all("x-remote-group"), "headers": names,
    })
}

fn group(with_kind: bool) -> Value {
    let version = json!({"groupVersion": format!("{GROUP}/{VERSION}"), "version": VERSION});
    let mut group = json!({"name": GROUP, "versions": [version], "preferredVersion": version});
    if with_kind {
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
    }
    group
}

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": VERBS,
            "shortNames": ["fl"]},
        {"name": "identities", "singularName": "identity", "namespaced": false, "kind": "Identity", "verbs": ["get"]},
    ]})
}

fn aggregated() -> Value {
    let kind = |kind: &str| json!({"group": GROUP, "version": VERSION, "kind": kind});
    let resources = json!([
        {"resource": "flunders", "responseKind": kind("Flunder"), "scope": "Namespaced", "singularResource": "flunder",
            "verbs": VERBS, "shortNames": ["fl"]},
        {"resource": "identities", "responseKind": kind("Identity"), "scope": "Cluster",
            "singularResource": "identity", "verbs": ["get"]},
    ]);
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": [{
        "metadata": {"name": GROUP},
        "versions": [{"version": VERSION, "resources": resources, "freshness": "Current"}],
    }]})
}

/// What a flunder is made of.
fn schema() -> Value {
    json!({
        "description": "A flunder, which refers to another one.", "type": "object",
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of this schema."},
            "kind": {"type": "string", "description": "What this is."},
            "metadata": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "spec": {"type": "object", "description": "What it shall be.", "properties": {
                "reference": {"type": "string", "description": "The name of the other flunder."},
            }},
        },
        "x-kubernetes-group-version-kind": [{"group": GROUP, "version": VERSION, "kind": "Flunder"}],
    })
}

const DEFINITION: &str = "com.example.wardle.v1alpha1.Flunder";

fn collection_path() -> String {
    format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/flunders")
}

fn swagger() -> Value {
    let mut operation = json!({
        "operationId": "listWardleExampleComV1alpha1NamespacedFlunder", "produces": ["application/json"],
        "parameters": [{"name": "limit", "in": "query", "type": "integer"}],
        "responses": {"200": {"description": "OK", "schema": {"$ref": format!("#/definitions/{DEFINITION}")}}},
    });
    operation["x-kubernetes-group-version-kind"] = json!({"group": GROUP, "version": VERSION, "kind": "Flunder"});
    let mut paths = json!({"/version/": {"get": {"responses": {"200": {"description": "not of the group"}}}}});
    paths[collection_path()] = json!({"get": operation});
    json!({
        "swagger": "2.0", "info": {"title": "Wardle", "version": "1"}, "paths": paths,
        "definitions": {DEFINITION: schema()},
    })
}

fn index() -> Value {
    let key = format!("apis/{GROUP}/{VERSION}");
    json!({"paths": {key.clone(): {"serverRelativeURL": format!("/openapi/v3/{key}?hash=ONE")}}})
}

fn document() -> Value {
    let reference = json!({"$ref": format!("#/components/schemas/{DEFINITION}")});
    let mut paths = json!({});
    paths[collection_path()] = json!({"get": {
        "operationId": "listWardleExampleComV1alpha1NamespacedFlunder", "x-kubernetes-action": "list",
        "x-kubernetes-group-version-kind": {"group": GROUP, "version": VERSION, "kind": "Flunder"},
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
    }});
    json!({
        "openapi": "3.0.0", "info": {"title": "Wardle", "version": "1"}, "paths": paths,
        "components": {"schemas": {DEFINITION: schema()}},
    })
}
