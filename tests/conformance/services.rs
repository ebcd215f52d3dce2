//! Services that lead to pods.

use crate::cluster::{Cluster, eventually_every};
use crate::dns::{asker, known};
use crate::network_pods::{answered, node_address};
use crate::pods::{AGNHOST, Pods, pod_of, server};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-network] Services should be able to change the type from ClusterIP to ExternalName",
            async |cluster: Cluster| to_external_name(&cluster, "ClusterIP").await,
        ),
        pod_test(
            "[sig-network] Services should be able to change the type from ExternalName to ClusterIP",
            async |cluster: Cluster| from_external_name(&cluster, "ClusterIP").await,
        ),
        pod_test(
            "[sig-network] Services should be able to change the type from ExternalName to NodePort",
            async |cluster: Cluster| from_external_name(&cluster, "NodePort").await,
        ),
        pod_test(
            "[sig-network] Services should be able to change the type from NodePort to ExternalName",
            async |cluster: Cluster| to_external_name(&cluster, "NodePort").await,
        ),
        pod_test(
            "[sig-network] Services should be able to create a functioning NodePort service",
            node_port,
        ),
        pod_test(
            "[sig-network] Services should be able to switch session affinity for NodePort service",
            async |cluster: Cluster| affinity(&cluster, "NodePort", true).await,
        ),
        pod_test(
            "[sig-network] Services should be able to switch session affinity for service with type clusterIP",
            async |cluster: Cluster| affinity(&cluster, "ClusterIP", true).await,
        ),
        pod_test(
            "[sig-network] Services should have session affinity work for NodePort service",
            async |cluster: Cluster| affinity(&cluster, "NodePort", false).await,
        ),
        pod_test(
            "[sig-network] Services should have session affinity work for service with type clusterIP",
            async |cluster: Cluster| affinity(&cluster, "ClusterIP", false).await,
        ),
        pod_test(
            "[sig-network] Services should serve a basic endpoint from pods",
            basic_endpoint,
        ),
        pod_test(
            "[sig-network] Services should serve endpoints on same port and different protocols",
            two_protocols,
        ),
        pod_test(
            "[sig-network] Services should serve multiport endpoints from pods",
            many_ports,
        ),
        pod_test(
            "[sig-cli] Kubectl client Guestbook application should create and stop a working application",
            guestbook,
        )
        .needs_kubectl(),
    ]
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Servers with a label that a Service may select, and a client beside them.
async fn servers(pods: &Pods, names: &[&str]) {
    let made = names.iter().map(|name| {
        let mut pod = server(name);
        pod["metadata"]["labels"]["app"] = json!("server");
        async move { pods.ready(&pod).await }
    });
    let client = asker("client");
    tokio::join!(futures_util::future::join_all(made), pods.ready(&client));
}

fn service(name: &str, kind: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "type": kind, "selector": {"app": "server"},
        "ports": [{"name": "http", "port": 8080, "targetPort": 80, "protocol": "TCP"}],
    }})
}

/// Who answers; None if nobody does.
async fn who(pods: &Pods, protocol: &str, host: &str, port: i64) -> Option<String> {
    let port = port.to_string();
    let command = ["/agnhost", "dial", protocol, host, &port, "hostname"];
    let output = pods.exec("client", "", &command).await;
    (output.code == 0).then(|| output.stdout.trim().to_owned())
}

/// Asks until all of them, and nobody else, have answered.
async fn reached(pods: &Pods, host: &str, port: i64, names: &[&str]) {
    let mut met = BTreeSet::new();
    eventually_every(Duration::from_millis(100), "all answer", async || {
        if let Some(name) = who(pods, "http", host, port).await {
            assert!(names.contains(&name.as_str()), "{host}:{port} leads to {name}");
            met.insert(name);
        }
        (met.len() == names.len()).then_some(())
    })
    .await;
}

async fn refused(pods: &Pods, protocol: &str, host: &str, port: i64) {
    eventually_every(Duration::from_millis(300), "nobody answers", async || {
        who(pods, protocol, host, port).await.is_none().then_some(())
    })
    .await;
}

async fn basic_endpoint(cluster: Cluster) {
    let pods = cluster.pods("basic").await;
    let made = pods
        .core("services")
        .create(&service("basic", "ClusterIP"))
        .await
        .unwrap();
    let ip = text(&made["spec"]["clusterIP"]);
    pods.ready(&asker("client")).await;
    refused(&pods, "http", &ip, 8080).await;
    let labelled = |name: &str| {
        let mut pod = server(name);
        pod["metadata"]["labels"]["app"] = json!("server");
        pod
    };
    pods.ready(&labelled("one")).await;
    reached(&pods, &ip, 8080, &["one"]).await;
    pods.ready(&labelled("two")).await;
    reached(&pods, &ip, 8080, &["one", "two"]).await;
    pods.delete("one").await;
    eventually_every(Duration::from_millis(100), "the other one is left", async || {
        let answers = futures_util::future::join_all((0..5).map(|_| who(&pods, "http", &ip, 8080))).await;
        answers.iter().all(|name| name.as_deref() == Some("two")).then_some(())
    })
    .await;
    pods.delete("two").await;
    refused(&pods, "http", &ip, 8080).await;
}

async fn node_port(cluster: Cluster) {
    let pods = cluster.pods("node-port").await;
    servers(&pods, &["one", "two"]).await;
    let made = pods.core("services").create(&service("web", "NodePort")).await.unwrap();
    let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    let ip = text(&made["spec"]["clusterIP"]);
    reached(&pods, "web", 8080, &["one", "two"]).await;
    reached(&pods, &ip, 8080, &["one", "two"]).await;
    reached(&pods, &node_address(&cluster).await, port, &["one", "two"]).await;
    // From this machine itself, at its loopback address, too.
    let asked = tokio::task::spawn_blocking(move || {
        let begun = std::time::Instant::now();
        loop {
            match crate::dialing::ask("http", "127.0.0.1", port as u16, "hostname") {
                Err(_) if begun.elapsed() < Duration::from_secs(20) => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                answer => return answer,
            }
        }
    });
    let name = asked.await.unwrap().unwrap();
    assert!(["one", "two"].contains(&name.trim()), "{name}");
}

async fn from_external_name(cluster: &Cluster, kind: &str) {
    let pods = cluster.pods("from-name").await;
    let services = pods.core("services");
    let external =
        json!({"metadata": {"name": "web"}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}});
    services.create(&external).await.unwrap();
    servers(&pods, &["one", "two"]).await;
    let mut change = service("web", kind);
    change["spec"]["externalName"] = Value::Null;
    let changed = services.merge("web", json!({"spec": change["spec"]})).await.unwrap();
    reached(&pods, "web", 8080, &["one", "two"]).await;
    reached(&pods, &text(&changed["spec"]["clusterIP"]), 8080, &["one", "two"]).await;
    if kind == "NodePort" {
        let port = changed["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
        reached(&pods, &node_address(cluster).await, port, &["one", "two"]).await;
    }
}

async fn to_external_name(cluster: &Cluster, kind: &str) {
    let pods = cluster.pods("to-name").await;
    let services = pods.core("services");
    let made = services.create(&service("web", kind)).await.unwrap();
    let ip = text(&made["spec"]["clusterIP"]);
    services.create(&service("meant", "ClusterIP")).await.unwrap();
    servers(&pods, &["one"]).await;
    reached(&pods, &ip, 8080, &["one"]).await;
    let target = format!("meant.{}.svc.cluster.local", pods.namespace);
    let change =
        json!({"spec": {"type": "ExternalName", "externalName": target, "clusterIP": null, "clusterIPs": null}});
    let changed = services.merge("web", change).await.unwrap();
    assert!(changed["spec"]["clusterIP"].is_null(), "{changed}");
    let name = format!("web.{}.svc.cluster.local", pods.namespace);
    known(&pods, "client", &[&name, "CNAME"], &[&target]).await;
    // By the other's address.
    reached(&pods, "web", 8080, &["one"]).await;
    refused(&pods, "http", &ip, 8080).await;
}

/// `switched`: it comes and goes while the Service is there.
async fn affinity(cluster: &Cluster, kind: &str, switched: bool) {
    let pods = cluster.pods("affinity").await;
    servers(&pods, &["one", "two", "three"]).await;
    let services = pods.core("services");
    let mut sticky = service("sticky", kind);
    sticky["spec"]["sessionAffinity"] = json!("ClientIP");
    let made = services.create(&sticky).await.unwrap();
    let (host, port) = match kind {
        "NodePort" => {
            let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
            (node_address(cluster).await, port)
        }
        _ => (text(&made["spec"]["clusterIP"]), 8080),
    };
    let names = |count: usize| {
        let (pods, host) = (&pods, &host);
        async move {
            let mut names = BTreeSet::new();
            for _ in 0..count {
                names.extend(who(pods, "http", host, port).await);
            }
            names
        }
    };
    let stays = async || {
        eventually_every(Duration::from_millis(100), "the same one answers", async || {
            (names(12).await.len() == 1).then_some(())
        })
        .await;
    };
    stays().await;
    if !switched {
        return;
    }
    services
        .merge("sticky", json!({"spec": {"sessionAffinity": "None"}}))
        .await
        .unwrap();
    reached(&pods, &host, port, &["one", "two", "three"]).await;
    services
        .merge("sticky", json!({"spec": {"sessionAffinity": "ClientIP"}}))
        .await
        .unwrap();
    stays().await;
}

async fn two_protocols(cluster: Cluster) {
    let pods = cluster.pods("protocols").await;
    servers(&pods, &["one"]).await;
    let services = pods.core("services");
    let tcp = json!({"name": "tcp", "port": 8080, "targetPort": 80, "protocol": "TCP"});
    let udp = json!({"name": "udp", "port": 8080, "targetPort": 81, "protocol": "UDP"});
    let both = json!({"metadata": {"name": "both"}, "spec": {"selector": {"app": "server"}, "ports": [tcp, udp]}});
    let made = services.create(&both).await.unwrap();
    let ip = text(&made["spec"]["clusterIP"]);
    answered(&pods, "client", "http", &ip, 8080, "one").await;
    answered(&pods, "client", "udp", &ip, 8080, "one").await;
    services.merge("both", json!({"spec": {"ports": [udp]}})).await.unwrap();
    refused(&pods, "http", &ip, 8080).await;
    answered(&pods, "client", "udp", &ip, 8080, "one").await;
    services.merge("both", json!({"spec": {"ports": [tcp]}})).await.unwrap();
    answered(&pods, "client", "http", &ip, 8080, "one").await;
    refused(&pods, "udp", &ip, 8080).await;
}

async fn many_ports(cluster: Cluster) {
    let pods = cluster.pods("ports").await;
    let ports = json!([
        {"name": "first", "port": 80, "targetPort": "first"}, {"name": "second", "port": 81, "targetPort": "second"},
    ]);
    let made = json!({"metadata": {"name": "both"}, "spec": {"selector": {"app": "server"}, "ports": ports}});
    let made = pods.core("services").create(&made).await.unwrap();
    let ip = text(&made["spec"]["clusterIP"]);
    let pod = |name: &str, port: &str| {
        let container = json!({
            "name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": ["serve", "--http", "80"],
            "ports": [{"name": port, "containerPort": 80}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1},
        });
        let mut pod = pod_of(name, &[container]);
        pod["metadata"]["labels"]["app"] = json!("server");
        pod
    };
    let (one, two, client) = (pod("one", "first"), pod("two", "second"), asker("client"));
    tokio::join!(pods.ready(&one), pods.ready(&two), pods.ready(&client));
    reached(&pods, &ip, 80, &["one"]).await;
    reached(&pods, &ip, 81, &["two"]).await;
    pods.delete("one").await;
    refused(&pods, "http", &ip, 80).await;
    reached(&pods, &ip, 81, &["two"]).await;
}

/// A Deployment and its Service.
fn tier(name: &str, replicas: u32, arguments: &[&str]) -> Value {
    let labels = json!({"app": "guestbook", "tier": name});
    let args = [&["serve", "--http", "80"][..], arguments].concat();
    let container = json!({
        "name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": args,
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1},
    });
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container], "terminationGracePeriodSeconds": 1}});
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"port": 80}]}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}},
    ]})
}

async fn guestbook(cluster: Cluster) {
    let pods = cluster.pods("guestbook").await;
    let tiers = [
        tier("leader", 1, &[]),
        tier("follower", 2, &["--copies", "leader:80"]),
        tier(
            "frontend",
            3,
            &["--writes-to", "leader:80", "--reads-from", "follower:80"],
        ),
    ];
    let namespace = pods.namespace.clone();
    let manifests: Vec<String> = tiers.iter().map(ToString::to_string).collect();
    let directory = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (index, manifest) in manifests.iter().enumerate() {
        let file = directory.path().join(format!("{index}.json"));
        std::fs::write(&file, manifest).unwrap();
        files.push(file.display().to_string());
    }
    let all = files.clone();
    cluster
        .with_kubectl(move |kubectl| {
            for file in &all {
                kubectl.ok(&["create", "-n", &namespace, "-f", file]);
            }
            for tier in ["leader", "follower", "frontend"] {
                let deployment = format!("deployment/{tier}");
                kubectl.ok(&["rollout", "status", "-n", &namespace, &deployment, "--timeout=90s"]);
            }
        })
        .await;
    let base = format!("/api/v1/namespaces/{}/services/frontend/proxy/entries", pods.namespace);
    let says = async |url: String, part: &str| {
        let last = std::cell::RefCell::new(String::new());
        let asked = eventually_every(Duration::from_millis(300), "the guestbook says it", async || {
            let answer = cluster.get(&url).await;
            let good = answer.code == 200 && answer.text.contains(part);
            *last.borrow_mut() = answer.text;
            good.then_some(())
        });
        if tokio::time::timeout(Duration::from_secs(19), asked).await.is_err() {
            panic!("{url}: {}", last.borrow());
        }
    };
    says(base.clone(), "").await;
    says(format!("{base}?add=TestEntry"), "TestEntry").await;
    // By the followers, which copy it.
    says(base, "TestEntry").await;
    let namespace = pods.namespace.clone();
    cluster
        .with_kubectl(move |kubectl| {
            for file in &files {
                kubectl.ok(&["delete", "-n", &namespace, "--grace-period=0", "--force", "-f", file]);
            }
        })
        .await;
}
