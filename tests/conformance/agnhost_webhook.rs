//! The webhooks of the server in the test images: `agnhost webhook PORT CERTIFICATE KEY` answers reviews over HTTPS
//! (upstream: test/images/agnhost/webhook and …/crd-conversion-webhook, whose paths and texts these are).

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The pod and the container that nobody may attach to.
pub const UNATTACHABLE: (&str, &str) = ("to-be-attached-pod", "container1");

const DELAY: Duration = Duration::from_secs(5);
const MARK: &str = "webhook-e2e-test";
const FORBIDDEN: &str = "webhook-disallow";

pub fn serve(port: u16, certificate: &str, key: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .expect("the certificate's file")
        .collect::<Result<_, _>>()
        .expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(key).expect("the key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    runtime.expect("a runtime").block_on(async move {
        let listener = TcpListener::bind(("0.0.0.0", port)).await.expect("the port");
        println!("serving webhooks");
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(io) = acceptor.accept(tcp).await else { return };
                // A client that goes away is no concern of the server.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(io), service_fn(answer))
                    .await;
            });
        }
    });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    println!("{} {path}", request.method());
    if path == "/readyz" {
        return Ok(Response::new(Full::from("ok")));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let review: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let asked = &review["request"];
    let response = match path.as_str() {
        "/crdconvert" => Some(converted(asked)),
        "/always-allow-delay-5s" => {
            tokio::time::sleep(DELAY).await;
            Some(json!({"allowed": true}))
        }
        "/pods" if asked["object"]["metadata"]["labels"][MARK] == "wait-forever" => std::future::pending().await,
        _ => admission(&path, asked),
    };
    let Some(mut response) = response else {
        let missing = Response::builder().status(404).body(Full::from("no such path"));
        return Ok(missing.expect("an answer"));
    };
    response["uid"] = asked["uid"].clone();
    let review = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response});
    let answer = Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(review.to_string()));
    Ok(answer.expect("an answer"))
}

fn denied(message: &str) -> Value {
    json!({"allowed": false, "status": {"message": message}})
}

/// Denies for what is wrong, if anything is.
fn unless(wrong: &[(bool, &str)]) -> Value {
    let messages: Vec<&str> = wrong
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, message)| *message)
        .collect();
    match messages.is_empty() {
        true => json!({"allowed": true}),
        false => denied(&messages.join("; ")),
    }
}

fn patched(operations: &[Value]) -> Value {
    use base64::Engine as _;
    if operations.is_empty() {
        return json!({"allowed": true});
    }
    let patch = base64::engine::general_purpose::STANDARD.encode(json!(operations).to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// What a webhook says to a request; None: there is none at this path.
fn admission(path: &str, request: &Value) -> Option<Value> {
    let object = &request["object"];
    let data = &object["data"];
    let add = |path: &str, value: Value| json!({"op": "add", "path": path, "value": value});
    Some(match path {
        "/always-deny" => denied("this webhook denies all requests"),
        "/add-label" => match object["metadata"]["labels"]["added-label"].is_string() {
            true => patched(&[]),
            false if object["metadata"]["labels"].is_object() => {
                patched(&[add("/metadata/labels/added-label", json!("yes"))])
            }
            false => patched(&[add("/metadata/labels", json!({"added-label": "yes"}))]),
        },
        "/pods" => {
            let containers = object["spec"]["containers"].as_array();
            let is_unwanted =
                |container: &Value| container["name"].as_str().is_some_and(|name| name.contains(FORBIDDEN));
            unless(&[
                (
                    object["metadata"]["labels"][MARK] == FORBIDDEN,
                    "the pod contains unwanted label",
                ),
                (
                    containers.is_some_and(|all| all.iter().any(is_unwanted)),
                    "the pod contains unwanted container name",
                ),
            ])
        }
        "/pods/attach" => {
            let (pod, container) = UNATTACHABLE;
            let is_meant = request["name"] == pod && object["container"] == container && object["stdin"] == true;
            unless(&[(is_meant, "attaching to pod 'to-be-attached-pod' is not allowed")])
        }
        "/configmaps" => unless(&[(data[MARK] == FORBIDDEN, "the configmap contains unwanted key and value")]),
        "/custom-resource" => {
            let data = match request["operation"] == "DELETE" {
                true => &request["oldObject"]["data"],
                false => data,
            };
            unless(&[(data[MARK] == FORBIDDEN, "the custom resource contains unwanted data")])
        }
        "/crd" => unless(&[(
            object["metadata"]["labels"][MARK] == FORBIDDEN,
            "the crd contains unwanted label",
        )]),
        "/mutating-configmaps" | "/mutating-custom-resource" => {
            let stages = [
                ("mutation-start", "mutation-stage-1"),
                ("mutation-stage-1", "mutation-stage-2"),
            ];
            let due = stages.iter().filter(|(before, _)| data[*before] == "yes");
            let operations = due.map(|(_, stage)| add(&format!("/data/{stage}"), json!("yes")));
            patched(&operations.collect::<Vec<Value>>())
        }
        "/mutating-pods" if object["metadata"]["name"] == "webhook-to-be-mutated" => {
            let container = json!({
                "name": "webhook-added-init-container", "image": "webhook-added-image", "resources": {},
            });
            patched(&[add("/spec/initContainers", json!([container]))])
        }
        "/mutating-pods" => patched(&[]),
        _ => return None,
    })
}

/// v1 has `hostPort`, v2 has `host` and `port`.
fn converted(request: &Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let convert = |mut object: Value| {
        object["apiVersion"] = json!(wanted);
        let members = object.as_object_mut()?;
        if wanted.ends_with("/v2") {
            if let Some(both) = members.remove("hostPort") {
                let (host, port) = both.as_str()?.split_once(':')?;
                members.insert("host".to_owned(), json!(host));
                members.insert("port".to_owned(), json!(port));
            }
        } else if let (Some(host), Some(port)) = (members.remove("host"), members.remove("port")) {
            let both = format!("{}:{}", host.as_str()?, port.as_str()?);
            members.insert("hostPort".to_owned(), json!(both));
        }
        Some(object)
    };
    match objects.into_iter().map(convert).collect::<Option<Vec<Value>>>() {
        Some(objects) => json!({"result": {"status": "Success"}, "convertedObjects": objects}),
        None => json!({"result": {"status": "Failure", "message": "invalid hostPort value"}}),
    }
}
