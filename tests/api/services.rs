//! Cluster IPs and node ports: given once, kept, and free again.

use super::harness::Server;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, spec: Value) -> Value {
    let mut body = json!({"metadata": {"name": name}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        body["spec"][field] = value.clone();
    }
    body
}

async fn addresses(server: &Server) -> BTreeSet<String> {
    let list = server.get(ADDRESSES).await.expect(200);
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn an_address_is_an_object_that_names_its_service() {
    let server = Server::start().await;
    let created = server.post(SERVICES, service("a", json!({}))).await.expect(201);
    let ip = created["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert!(ip.starts_with("10.43."), "{ip}");
    assert_eq!(created["spec"]["clusterIPs"], json!([ip]));
    assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(created["spec"]["ipFamilyPolicy"], "SingleStack");
    let address = server.get(&format!("{ADDRESSES}/{ip}")).await.expect(200);
    assert_eq!(
        address["spec"],
        json!({"parentRef": {"resource": "services", "namespace": "default", "name": "a"}})
    );
    assert_eq!(
        address["metadata"]["labels"],
        json!({
            "ipaddress.kubernetes.io/ip-family": "IPv4",
            "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
        })
    );
    // A client that does not know the address keeps it.
    let updated = server
        .put(&format!("{SERVICES}/a"), service("a", json!({})))
        .await
        .expect(200);
    assert_eq!(updated["spec"]["clusterIP"], *ip);
    let moved = server
        .put(
            &format!("{SERVICES}/a"),
            service("a", json!({"clusterIP": "10.43.0.77"})),
        )
        .await
        .failure(422, "Invalid");
    assert_eq!(
        moved["details"]["causes"][0]["message"],
        "Invalid value: [\"10.43.0.77\"]: may not change once set"
    );
    server.delete(&format!("{SERVICES}/a")).await.expect(200);
    assert!(addresses(&server).await.is_empty());
}

#[tokio::test]
async fn requested_addresses_are_checked() {
    let server = Server::start().await;
    let asked = |name: &str, ip: &str| service(name, json!({ "clusterIP": ip }));
    server.post(SERVICES, asked("a", "10.43.0.10")).await.expect(201);
    let cases = [
        (
            "10.43.0.10",
            "failed to allocate IP 10.43.0.10: provided IP is already allocated",
        ),
        (
            "10.99.0.1",
            "failed to allocate IP 10.99.0.1: the provided network does not match the current range",
        ),
        (
            "10.43.0.0",
            "failed to allocate IP 10.43.0.0: the provided network does not match the current range",
        ),
    ];
    for (ip, expected) in cases {
        let status = server.post(SERVICES, asked("b", ip)).await.failure(422, "Invalid");
        let message = format!("Service \"b\" is invalid: spec.clusterIPs: Invalid value: [\"{ip}\"]: {expected}");
        assert_eq!(status["message"], *message);
    }
    // What is refused for another reason gives its address back.
    let mut wrong = asked("c", "10.43.0.11");
    wrong["spec"]["sessionAffinity"] = json!("Sometimes");
    server.post(SERVICES, wrong).await.failure(422, "Invalid");
    server.post(SERVICES, asked("c", "10.43.0.11")).await.expect(201);
    // A dry run takes none.
    let uri = format!("{SERVICES}?dryRun=All");
    let dry = server
        .post(&uri, service("d", json!({"type": "NodePort"})))
        .await
        .expect(201);
    assert_eq!(dry["spec"]["clusterIP"], "10.43.0.0");
    assert_eq!(dry["spec"]["ports"][0]["nodePort"], 32_768);
    assert_eq!(addresses(&server).await.len(), 2);
}

#[tokio::test]
async fn nothing_is_given_twice_under_concurrency() {
    let server = Server::start().await;
    let range = json!({
        "metadata": {"name": "small"}, "spec": {"cidrs": ["10.77.0.0/27"]},
    });
    server
        .post("/apis/networking.k8s.io/v1/servicecidrs", range)
        .await
        .expect(201);
    let requests = (0..40).map(|number| {
        let body = service(&format!("s{number}"), json!({"type": "NodePort"}));
        server.post(SERVICES, body)
    });
    let answers = futures_util::future::join_all(requests).await;
    let (mut ips, mut ports) = (BTreeSet::new(), BTreeSet::new());
    let mut full = 0;
    for answer in answers {
        if answer.status.as_u16() == 201 {
            let created = answer.json();
            assert!(ips.insert(created["spec"]["clusterIP"].to_string()));
            assert!(ports.insert(created["spec"]["ports"][0]["nodePort"].as_i64().unwrap()));
        } else {
            let status = answer.failure(500, "InternalError");
            let expected = "Internal error occurred: failed to allocate a serviceIP: range is full";
            assert_eq!(status["message"], expected);
            full += 1;
        }
    }
    assert_eq!((ips.len(), full), (30, 10), "a /27 has thirty addresses");
    assert!(ports.iter().all(|port| (30_000..=32_767).contains(port)));
    assert_eq!(addresses(&server).await.len(), 30);
}

#[tokio::test]
async fn node_ports_are_kept_and_freed() {
    let server = Server::start().await;
    let node_port = |port: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    server.post(SERVICES, service("a", node_port(30_080))).await.expect(201);
    let status = server
        .post(SERVICES, service("b", node_port(30_080)))
        .await
        .failure(422, "Invalid");
    assert_eq!(
        status["message"],
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    let status = server
        .post(SERVICES, service("b", node_port(80)))
        .await
        .failure(422, "Invalid");
    let range = "provided port is not in the valid range. The range of valid ports is 30000-32767";
    let expected = format!("Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: {range}");
    assert_eq!(status["message"], *expected);
    // Known again by the port's name, dropped when the type has no use for it, and free then.
    let uri = format!("{SERVICES}/a");
    let kept = server
        .put(&uri, service("a", json!({"type": "NodePort"})))
        .await
        .expect(200);
    assert_eq!(kept["spec"]["ports"][0]["nodePort"], 30_080);
    let changed = server
        .patch(&uri, "merge", json!({"spec": {"type": "ClusterIP"}}))
        .await
        .expect(200);
    assert_eq!(changed["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(changed["spec"].get("externalTrafficPolicy"), None);
    server.post(SERVICES, service("b", node_port(30_080))).await.expect(201);
    // As an external name it has no address, which is free then; back again it gets another.
    let ip = changed["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let external = server.patch(&uri, "merge", external).await.expect(200);
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert!(!addresses(&server).await.contains(&ip));
    let back = json!({"spec": {"type": "ClusterIP", "externalName": null}});
    let back = server.patch(&uri, "merge", back).await.expect(200);
    assert!(
        addresses(&server)
            .await
            .contains(back["spec"]["clusterIP"].as_str().unwrap())
    );
}

#[tokio::test]
async fn a_local_load_balancer_has_a_health_check_port() {
    let server = Server::start().await;
    let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let created = server.post(SERVICES, service("a", spec)).await.expect(201);
    let port = created["spec"]["healthCheckNodePort"].as_i64().unwrap();
    assert!((30_000..=32_767).contains(&port) && created["spec"]["ports"][0]["nodePort"] != port);
    let uri = format!("{SERVICES}/a");
    let mut cluster = created.clone();
    cluster["spec"]["externalTrafficPolicy"] = json!("Cluster");
    let changed = server.put(&uri, cluster).await.expect(200);
    assert_eq!(changed["spec"].get("healthCheckNodePort"), None);
}
