//! What reaches pods, and what reaches them through the API server.

use crate::cluster::{Cluster, eventually_every};
use crate::dns::asker;
use crate::pods::{AGNHOST, Pods, pod_of, server, with_main, with_spec};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP and protocol",
            host_ports,
        ),
        pod_test(
            "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http",
            async |cluster: Cluster| between_pods(&cluster, "http").await,
        ),
        pod_test(
            "[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp",
            async |cluster: Cluster| between_pods(&cluster, "udp").await,
        ),
        pod_test(
            "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http",
            async |cluster: Cluster| from_the_node(&cluster, "http").await,
        ),
        pod_test(
            "[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp",
            async |cluster: Cluster| from_the_node(&cluster, "udp").await,
        ),
        pod_test(
            "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy",
            proxied,
        ),
        pod_test(
            "[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath",
            proxied_with_a_path,
        ),
        pod_test(
            "[sig-network] Proxy version v1 should proxy through a service and a pod",
            proxied_ports,
        ),
        pod_test(
            "[sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer",
            issuer,
        ),
    ]
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A pod in the host's network that can ask.
pub fn on_the_node(name: &str) -> Value {
    with_spec(asker(name), json!({"hostNetwork": true}))
}

/// Asks until the answer is this one.
pub async fn answered(pods: &Pods, pod: &str, protocol: &str, host: &str, port: u16, expected: &str) {
    let port = port.to_string();
    let last = std::cell::RefCell::new(None);
    let asked = eventually_every(Duration::from_millis(300), "an answer", async || {
        let command = ["/agnhost", "dial", protocol, host, &port, "hostname"];
        let output = pods.exec(pod, "", &command).await;
        let good = output.code == 0 && output.stdout.trim() == expected;
        *last.borrow_mut() = Some(output);
        good.then_some(())
    });
    if tokio::time::timeout(Duration::from_secs(18), asked).await.is_err() {
        panic!("{protocol} {host}:{port}: not {expected:?} but {:?}", last.borrow());
    }
}

/// The address that the node is known by.
pub async fn node_address(cluster: &Cluster) -> String {
    let node = cluster.core("nodes", None).get(&cluster.node().await).await.unwrap();
    let addresses = node["status"]["addresses"].as_array().unwrap();
    let internal = addresses.iter().find(|address| address["type"] == "InternalIP");
    text(&internal.unwrap()["address"]).to_owned()
}

async fn between_pods(cluster: &Cluster, protocol: &str) {
    let pods = cluster.pods("between").await;
    let (one, two, _) = tokio::join!(
        async { pods.ready(&server("one")).await },
        async { pods.ready(&server("two")).await },
        async { pods.ready(&asker("client")).await },
    );
    let port = if protocol == "http" { 80 } else { 81 };
    let address = |pod: &Value| text(&pod["status"]["podIP"]).to_owned();
    // One of the servers asks the other, and itself.
    for (name, target) in [("two", address(&two)), ("one", address(&one))] {
        let url = format!("dial?request=hostname&protocol={protocol}&host={target}&port={port}");
        let command = ["/agnhost", "dial", "http", &address(&one), "80", &url];
        let output = pods.exec("client", "", &command).await;
        assert_eq!(output.code, 0, "{output:?}");
        let answer: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(answer, json!({"responses": [name]}), "{url}");
    }
}

async fn from_the_node(cluster: &Cluster, protocol: &str) {
    let pods = cluster.pods("from-node").await;
    let (one, _) = tokio::join!(async { pods.ready(&server("one")).await }, async {
        pods.ready(&on_the_node("client")).await
    });
    let port = if protocol == "http" { 80 } else { 81 };
    answered(&pods, "client", protocol, text(&one["status"]["podIP"]), port, "one").await;
}

async fn host_ports(cluster: Cluster) {
    let pods = cluster.pods("host-port").await;
    let node = node_address(&cluster).await;
    let free = crate::support::free_port();
    let published = |name: &str, address: &str, protocol: &str| {
        let container = if protocol == "UDP" { 81 } else { 80 };
        let port = json!({"containerPort": container, "hostPort": free, "hostIP": address, "protocol": protocol});
        with_main(server(name), json!({"ports": [port]}))
    };
    tokio::join!(
        async { pods.ready(&published("one", "127.0.0.1", "TCP")).await },
        async { pods.ready(&published("two", &node, "TCP")).await },
        async { pods.ready(&published("three", &node, "UDP")).await },
        async { pods.ready(&on_the_node("client")).await },
    );
    answered(&pods, "client", "http", "127.0.0.1", free, "one").await;
    answered(&pods, "client", "http", &node, free, "two").await;
    answered(&pods, "client", "udp", &node, free, "three").await;
}

const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// A server and a Service before it; the paths of both in the API.
async fn proxy_paths(pods: &Pods) -> [String; 2] {
    pods.ready(&server("one")).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 80}]);
    let service = json!({"metadata": {"name": "one"}, "spec": {"selector": {"name": "one"}, "ports": ports}});
    pods.core("services").create(&service).await.unwrap();
    let slices = "kubernetes.io/service-name=one";
    let names = pods.of_group("discovery.k8s.io/v1", "endpointslices");
    eventually_every(Duration::from_millis(100), "an endpoint is ready", async || {
        let found = names.labelled(slices).await;
        let ready = found
            .iter()
            .any(|slice| slice["endpoints"][0]["conditions"]["ready"] == true);
        ready.then_some(())
    })
    .await;
    let base = format!("/api/v1/namespaces/{}", pods.namespace);
    [
        format!("{base}/pods/one/proxy"),
        format!("{base}/services/one:http/proxy"),
    ]
}

async fn all_methods(cluster: &Cluster, url: &str, path: &str) {
    for method in METHODS {
        let answer = cluster.send(method, &format!("{url}?tell=1"), &[], "").await;
        assert_eq!(answer.code, 200, "{method} {url}: {}", answer.text);
        let expected = if method == "HEAD" {
            String::new()
        } else {
            format!("{method} {path}")
        };
        assert_eq!(answer.text, expected, "{method} {url}");
    }
}

async fn proxied(cluster: Cluster) {
    let pods = cluster.pods("proxied").await;
    for url in proxy_paths(&pods).await {
        all_methods(&cluster, &format!("{url}/"), "/").await;
        for method in METHODS {
            let answer = cluster.send(method, &url, &[], "").await;
            match method {
                // Relative links of pages need the slash.
                "GET" | "HEAD" => {
                    assert_eq!(answer.code, 301, "{method} {url}");
                    assert!(
                        answer.header("location").ends_with(&format!("{url}/")),
                        "{:?}",
                        answer.headers
                    );
                }
                _ => assert_eq!(answer.code, 200, "{method} {url}: {}", answer.text),
            }
        }
        let answer = cluster.get(&format!("{url}/redirect?to=/hostname")).await;
        assert_eq!(
            (answer.code, answer.header("location")),
            (302, format!("{url}/hostname").as_str())
        );
    }
}

async fn proxied_with_a_path(cluster: Cluster) {
    let pods = cluster.pods("proxied").await;
    for url in proxy_paths(&pods).await {
        all_methods(
            &cluster,
            &format!("{url}/some/path/with/a%20blank"),
            "/some/path/with/a%20blank",
        )
        .await;
    }
}

async fn proxied_ports(cluster: Cluster) {
    let pods = cluster.pods("proxied").await;
    let container = json!({
        "name": "main", "image": AGNHOST, "imagePullPolicy": "Never",
        "args": ["serve", "--http", "1080", "--http", "160", "--https", "443"],
        "ports": [{"name": "dest", "containerPort": 160}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 1080}, "periodSeconds": 1},
    });
    pods.ready(&pod_of("one", &[container])).await;
    let service = json!({"metadata": {"name": "one"}, "spec": {"selector": {"name": "one"}, "ports": [
        {"name": "first", "port": 80, "targetPort": 1080},
        {"name": "second", "port": 81, "targetPort": "dest"},
        {"name": "secure", "port": 443, "targetPort": 443},
    ]}});
    pods.core("services").create(&service).await.unwrap();
    let base = format!("/api/v1/namespaces/{}", pods.namespace);
    for place in [
        "pods/one:1080",
        "pods/http:one:160",
        "pods/https:one:443",
        "services/one:first",
        "services/one:81",
        "services/http:one:second",
        "services/https:one:secure",
        "services/https:one:443",
    ] {
        let url = format!("{base}/{place}/proxy/hostname");
        let last = std::cell::RefCell::new(String::new());
        let asked = eventually_every(Duration::from_millis(200), "an answer", async || {
            let answer = cluster.get(&url).await;
            let good = answer.code == 200 && answer.text == "one";
            *last.borrow_mut() = answer.text;
            good.then_some(())
        });
        if tokio::time::timeout(Duration::from_secs(15), asked).await.is_err() {
            panic!("{url}: {}", last.borrow());
        }
        let many = futures_util::future::join_all((0..20).map(|_| cluster.get(&url))).await;
        assert!(
            many.iter().all(|answer| answer.code == 200 && answer.text == "one"),
            "{url}"
        );
    }
    for place in ["services/one:third", "services/one"] {
        let answer = cluster.get(&format!("{base}/{place}/proxy/")).await;
        assert_eq!(answer.code, 503, "{place}: {}", answer.text);
    }
}

async fn issuer(cluster: Cluster) {
    let pods = cluster.pods("issuer").await;
    pods.core("serviceaccounts")
        .create(&json!({"metadata": {"name": "robot"}}))
        .await
        .unwrap();
    let token =
        json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 7200, "audience": "oidc-discovery-test"}});
    let pod = with_spec(
        pod_of(
            "checker",
            &[json!({
                "name": "main", "image": AGNHOST, "imagePullPolicy": "Never",
                "args": ["check-token", "/var/run/test/token", "oidc-discovery-test"],
                "volumeMounts": [{"name": "own", "mountPath": "/var/run/test"}],
            })],
        ),
        json!({"serviceAccountName": "robot", "volumes": [{"name": "own", "projected": {"sources": [token]}}]}),
    );
    let output = pods.output(&pod).await;
    let account = format!("system:serviceaccount:{}:robot", pods.namespace);
    assert_eq!(output.trim(), format!("a token of {account}"));
}
