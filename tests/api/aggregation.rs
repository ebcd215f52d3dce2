//! API groups that another server serves, which is a real one on loopback: see [`crate::flunders`].

use crate::flunders::{Flunders, GROUP, Pem, VERSION};
use crate::harness::Server;
use base64::Engine as _;
use futures_util::FutureExt;
use krust::registry::metadata_index;
use krust::storage::{Draft, Key, Operation};
use krust::transport::Peer;
use krust::transport::pki::{Pki, ServerNames};
use poem::EndpointExt;
use poem::http::Method;
use poem::listener::TcpAcceptor;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

fn api_service() -> String {
    format!("{SERVICES}/{VERSION}.{GROUP}")
}

fn below(path: &str) -> String {
    format!("/apis/{GROUP}/{VERSION}/{path}")
}

/// Both servers, and what the one must have of the other.
struct Both {
    server: Server,
    flunders: Arc<Flunders>,
    port: u16,
    /// Base64 of the authority that vouches for the other server.
    authority: String,
    _pki: TempDir,
}

impl Both {
    /// The other server is not registered yet.
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::load_or_create(directory.path(), ServerNames::parse(&[] as &[&str]).unwrap()).unwrap();
        let server = Server::with_front_proxy(pki.front_proxy_identity()).await;
        tokio::spawn(server.api.clone().aggregate(CancellationToken::new()));
        let certified = rcgen::generate_simple_self_signed(vec!["api.default.svc".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let flunders = Arc::new(Flunders::default());
        let (serving, certificate) = (flunders.clone(), certified.cert.pem());
        let (key, front_proxies) = (
            certified.signing_key.serialize_pem(),
            pki.front_proxy_authority_pem().to_owned(),
        );
        tokio::spawn(async move {
            let pem = Pem {
                certificate: &certificate,
                key: &key,
                front_proxies: &front_proxies,
            };
            serving.serve(listener, pem).await;
        });
        Self {
            server,
            flunders,
            port,
            authority: base64::engine::general_purpose::STANDARD.encode(certified.cert.pem()),
            _pki: directory,
        }
    }

    /// A registered one that is available.
    async fn available() -> Self {
        let both = Self::start().await;
        both.service().await;
        both.endpoints().await;
        both.register(json!({})).await;
        both.until("True Passed: all checks passed").await;
        both
    }

    async fn service(&self) {
        let service = json!({"metadata": {"name": "api"}, "spec": {"ports": [{"name": "https", "port": 443}]}});
        self.server
            .post("/api/v1/namespaces/default/services", service)
            .await
            .expect(201);
    }

    async fn endpoints(&self) {
        // No slice may name an address of the loopback device, where the server is: so the store is told directly.
        let slice = json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"name": "api", "namespace": "default", "labels": {"kubernetes.io/service-name": "api"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": self.port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        });
        let slice = slice.as_object().unwrap();
        let create = Operation::Create {
            key: Key::new("endpointslices.discovery.k8s.io", "default", "api"),
            draft: Draft::new(slice, metadata_index(slice)),
        };
        self.server.api.storage.write(create).await.unwrap();
    }

    async fn register(&self, more: Value) {
        let mut service = json!({
            "metadata": {"name": format!("{VERSION}.{GROUP}")},
            "spec": {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": {"namespace": "default", "name": "api"}, "caBundle": self.authority},
        });
        for (field, value) in more.as_object().unwrap() {
            service["spec"][field] = value.clone();
        }
        let answer = self.server.post(SERVICES, service).await;
        assert_eq!(answer.warnings(), [] as [&str; 0]);
        answer.expect(201);
    }

    /// Waits until the condition is this one.
    async fn until(&self, expected: &str) {
        let said = |service: &Value| {
            let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions
                .iter()
                .find(|condition| condition["type"] == "Available")?
                .clone();
            let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
            Some(format!("{} {}: {}", text("status"), text("reason"), text("message")))
        };
        let wanted =
            |answer: &crate::harness::Answer| said(&answer.json()).is_some_and(|said| said.starts_with(expected));
        self.server.until(&api_service(), wanted).await;
    }

    /// The group in aggregated discovery.
    async fn discovered(&self) -> Option<Value> {
        let document = self.server.get_as("/apis", AGGREGATED).await.expect(200);
        let groups = document["items"].as_array().unwrap();
        groups.iter().find(|group| group["metadata"]["name"] == GROUP).cloned()
    }

    async fn flunder(&self, name: &str, labels: Value) -> Value {
        let flunder = json!({"kind": "Flunder", "metadata": {"name": name, "labels": labels}});
        self.server
            .post(&below("namespaces/default/flunders"), flunder)
            .await
            .expect(201)
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_said_step_by_step() {
    let both = Both::start().await;
    let flunders = below("namespaces/default/flunders");
    assert_eq!(both.server.get(&flunders).await.status, 404);
    both.register(json!({})).await;
    both.until("False ServiceNotFound: service/api in \"default\" is not present")
        .await;
    let answer = both.server.get(&flunders).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (503, "service unavailable\n")
    );
    assert!(answer.header("content-type").starts_with("text/plain"));
    both.service().await;
    both.until("False EndpointsNotFound: cannot find endpointslices for service/api in \"default\"")
        .await;
    both.flunders.is_broken.store(true, Ordering::Relaxed);
    both.endpoints().await;
    let url = format!("https://127.0.0.1:{}/apis/{GROUP}/{VERSION}", both.port);
    both.until(&format!(
        "False FailedDiscoveryCheck: failing or missing response from {url}: bad status from {url}: 500"
    ))
    .await;
    // It is tried again by itself.
    both.flunders.is_broken.store(false, Ordering::Relaxed);
    both.until("True Passed: all checks passed").await;
    assert_eq!(both.server.get(&flunders).await.expect(200)["items"], json!([]));
    let table = both
        .server
        .get_as(&api_service(), "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[1..3],
        [json!("default/api"), json!("True")]
    );
    // Another port is another server.
    let other = json!({"spec": {"service": {"port": 444}}});
    both.server.patch(&api_service(), "merge", other).await.expect(200);
    both.until("False ServicePortError: service/api in \"default\" is not listening on port 444")
        .await;
    both.server.delete(&api_service()).await.expect(200);
    assert_eq!(both.server.get(&flunders).await.status, 404);
    assert_eq!(both.discovered().await, None);
}

#[tokio::test]
async fn objects_of_the_other_server_are_served_like_others() {
    let both = Both::available().await;
    let server = &both.server;
    let uri = below("namespaces/default/flunders");
    let begin = server.get(&uri).await.expect(200)["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut watch = server
        .watch(&format!("{uri}?watch=1&resourceVersion={begin}"), "application/json")
        .await;
    both.flunder("one", json!({"a": "b"})).await;
    assert_eq!(watch.next_name().await, ("ADDED".to_owned(), "one".to_owned()));
    let one = format!("{uri}/one");
    let changed = server
        .patch(&one, "merge", json!({"spec": {"reference": "two"}}))
        .await
        .expect(200);
    assert_eq!(changed["spec"]["reference"], "two");
    assert_eq!(watch.next_name().await, ("MODIFIED".to_owned(), "one".to_owned()));
    // What the other server has to say is passed on as it is.
    server.get(&format!("{uri}/two")).await.failure(404, "NotFound");
    server
        .post(&uri, json!({"metadata": {"name": "one"}}))
        .await
        .failure(409, "AlreadyExists");
    assert_eq!(
        server.get(&format!("{uri}?labelSelector=a%3Dc")).await.expect(200)["items"],
        json!([])
    );
    let large = "x".repeat(4 << 20);
    let replaced = json!({"metadata": {"name": "one"}, "spec": {"reference": large}});
    assert_eq!(server.put(&one, replaced).await.expect(200)["spec"]["reference"], large);
    assert_eq!(server.get(&one).await.expect(200)["spec"]["reference"], large);
    server.delete(&one).await.expect(200);
    for kind in ["MODIFIED", "DELETED"] {
        assert_eq!(watch.next_name().await, (kind.to_owned(), "one".to_owned()));
    }
}

#[tokio::test]
async fn users_are_authorized_here_and_named_there() {
    let both = Both::available().await;
    let server = &both.server;
    let uri = below("identities/self");
    let ask = async |user: &str, groups: &[&str]| server.send_as(user, groups, Method::GET, &uri, ()).await;
    let refused = ask("jane", &["dev"]).await.failure(403, "Forbidden");
    assert_eq!(
        refused["message"],
        format!(
            "identities.{GROUP} \"self\" is forbidden: User \"jane\" cannot get resource \"identities\" in API group {GROUP:?} at the cluster scope"
        )
    );
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "asker"}, "rules": [
        {"apiGroups": [GROUP], "resources": ["identities"], "verbs": ["get"]},
    ]});
    server.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({"metadata": {"name": "asker"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asker"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}]});
    server
        .post(&format!("{rbac}/clusterrolebindings"), binding)
        .await
        .expect(201);
    let identity = ask("jane", &["dev"]).await.expect(200);
    assert_eq!(identity["user"], json!(["jane"]));
    assert_eq!(identity["groups"], json!(["dev", "system:authenticated"]));
    // Nobody makes himself somebody else, and what is for this server stays here.
    let shown = [
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
        ("impersonate-user", "jane"),
    ];
    let shown = [&shown[..], &[("impersonate-group", "dev")]].concat();
    let answer = server.send(Method::GET, &uri, &shown, ()).await.expect(200);
    assert_eq!(
        (&answer["user"], &answer["groups"]),
        (&identity["user"], &identity["groups"])
    );
    let names: Vec<&str> = answer["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("impersonate-") || *name == "authorization"),
        "{names:?}"
    );
}

#[tokio::test]
async fn whom_the_api_service_does_not_vouch_for_is_not_spoken_to() {
    let both = Both::start().await;
    both.service().await;
    both.endpoints().await;
    let other = rcgen::generate_simple_self_signed(vec!["api.default.svc".to_owned()]).unwrap();
    let bundle = base64::engine::general_purpose::STANDARD.encode(other.cert.pem());
    both.register(json!({"caBundle": bundle})).await;
    // That it answers can be seen by anybody.
    both.until("True Passed").await;
    let answer = both.server.get(&below("identities/self")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.text(),
        "error trying to reach service: tls: failed to verify certificate: x509: certificate signed by unknown authority\n"
    );
    assert_eq!(both.discovered().await.unwrap()["versions"][0]["freshness"], "Stale");
    // Who wants it so talks to anybody.
    let skip = json!({"spec": {"caBundle": null, "insecureSkipTLSVerify": true}});
    both.server.patch(&api_service(), "merge", skip).await.expect(200);
    both.server.get(&below("identities/self")).await.expect(200);
}

#[tokio::test]
async fn discovery_tells_what_the_other_server_serves() {
    for is_old in [false, true] {
        let both = Both::start().await;
        both.flunders.is_old.store(is_old, Ordering::Relaxed);
        both.service().await;
        both.endpoints().await;
        both.register(json!({})).await;
        both.until("True Passed").await;
        let server = &both.server;
        let group = both.discovered().await.unwrap();
        let version = &group["versions"][0];
        assert_eq!(
            (&version["version"], &version["freshness"]),
            (&json!(VERSION), &json!("Current"))
        );
        let found = &version["resources"][0];
        assert_eq!(
            (
                &found["resource"],
                &found["scope"],
                &found["shortNames"],
                &found["responseKind"]
            ),
            (
                &json!("flunders"),
                &json!("Namespaced"),
                &json!(["fl"]),
                &json!({"group": GROUP, "version": VERSION, "kind": "Flunder"})
            ),
            "old: {is_old}"
        );
        let groups = server.get("/apis").await.expect(200);
        let names: Vec<&str> = groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|group| group["name"].as_str())
            .collect();
        assert!(names.contains(&GROUP), "{names:?}");
        let one = server.get(&format!("/apis/{GROUP}")).await.expect(200);
        assert_eq!(one["preferredVersion"]["groupVersion"], format!("{GROUP}/{VERSION}"));
        let resources = server.get(&format!("/apis/{GROUP}/{VERSION}")).await.expect(200);
        assert_eq!(resources["resources"][0]["name"], "flunders");
        let paths = server.get("/").await.expect(200);
        assert!(
            paths["paths"]
                .as_array()
                .unwrap()
                .contains(&json!(format!("/apis/{GROUP}/{VERSION}")))
        );
        // When it goes, what it served is still said, and that nobody can be sure.
        both.flunders.is_broken.store(true, Ordering::Relaxed);
        server
            .patch(&api_service(), "merge", json!({"spec": {"versionPriority": 300}}))
            .await
            .expect(200);
        both.until("False FailedDiscoveryCheck").await;
        let version = &both.discovered().await.unwrap()["versions"][0];
        assert_eq!(
            (&version["freshness"], &version["resources"][0]["resource"]),
            (&json!("Stale"), &json!("flunders"))
        );
    }
}

#[tokio::test]
async fn openapi_describes_what_the_other_server_serves() {
    let both = Both::available().await;
    let server = &both.server;
    let key = format!("apis/{GROUP}/{VERSION}");
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"][&key]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, format!("/openapi/v3/{key}?hash=ONE"));
    let document = server.get(url).await.expect(200);
    let schema = &document["components"]["schemas"]["com.example.wardle.v1alpha1.Flunder"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["reference"]["type"],
        "string"
    );
    let swagger = server.get("/openapi/v2").await.expect(200);
    let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/flunders");
    assert!(swagger["paths"][&path]["get"].is_object());
    assert!(swagger["definitions"]["com.example.wardle.v1alpha1.Flunder"].is_object());
    assert!(swagger["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    server.delete(&api_service()).await.expect(200);
    server
        .until("/openapi/v3", |answer| answer.json()["paths"].get(&key).is_none())
        .await;
    assert!(
        server.get("/openapi/v2").await.expect(200)["paths"]
            .get(&path)
            .is_none()
    );
}

#[tokio::test]
async fn openapi_of_version_2_is_told_in_version_3_where_a_server_has_no_other() {
    let both = Both::start().await;
    both.flunders.is_old.store(true, Ordering::Relaxed);
    both.service().await;
    both.endpoints().await;
    both.register(json!({})).await;
    both.until("True Passed: all checks passed").await;
    let server = &both.server;
    let key = format!("apis/{GROUP}/{VERSION}");
    let index = server.get("/openapi/v3").await.expect(200);
    let url = index["paths"][&key]["serverRelativeURL"].as_str().unwrap();
    assert!(url.starts_with(&format!("/openapi/v3/{key}?hash=")), "{url}");
    let document = server.get(url).await.expect(200);
    assert_eq!(document["openapi"], "3.0.0");
    let schema = &document["components"]["schemas"]["com.example.wardle.v1alpha1.Flunder"];
    assert_eq!(
        schema["properties"]["spec"]["properties"]["reference"]["type"],
        "string"
    );
    let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/flunders");
    let list = &document["paths"][&path]["get"];
    assert_eq!(list["parameters"][0]["schema"], json!({"type": "integer"}));
    assert_eq!(
        list["responses"]["200"]["content"]["application/json"]["schema"],
        json!({"$ref": "#/components/schemas/com.example.wardle.v1alpha1.Flunder"})
    );
    server.delete(&api_service()).await.expect(200);
    server
        .until("/openapi/v3", |answer| answer.json()["paths"].get(&key).is_none())
        .await;
    assert_eq!(server.get(&format!("/openapi/v3/{key}")).await.status, 404);
}

#[tokio::test]
async fn connections_that_change_their_protocol_pass_through() {
    let both = Both::available().await;
    both.flunder("one", json!({})).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = both.server.endpoint().before(|mut request: poem::Request| {
        request.extensions_mut().insert(Peer::TrustedLoopback);
        async move { Ok(request) }.boxed()
    });
    let acceptor = TcpAcceptor::from_std(listener).unwrap();
    tokio::spawn(poem::Server::new_with_acceptor(acceptor).run(endpoint));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = below("namespaces/default/flunders/one/echo");
    let request = format!("GET {path} HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    for word in ["first", "second"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut back = vec![0; word.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, word.as_bytes());
    }
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "the end comes through, too");
}
