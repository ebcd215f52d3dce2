//! Names that pods look up.

use crate::cluster::{Cluster, eventually_every};
use crate::pods::{AGNHOST, Pods, sleeper, with_main, with_spec};
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};
use std::time::Duration;

pub fn tests() -> Vec<Test> {
    vec![
        pod_test(
            "[sig-network] DNS should provide /etc/hosts entries for the cluster",
            hosts,
        ),
        pod_test(
            "[sig-network] DNS should provide DNS for ExternalName services",
            external,
        ),
        pod_test(
            "[sig-network] DNS should provide DNS for pods for Hostname",
            by_hostname,
        ),
        pod_test(
            "[sig-network] DNS should provide DNS for pods for Subdomain",
            by_subdomain,
        ),
        pod_test("[sig-network] DNS should provide DNS for services", services),
        pod_test("[sig-network] DNS should provide DNS for the cluster", of_the_cluster),
        pod_test(
            "[sig-network] DNS should resolve DNS of partial qualified names for services",
            partial,
        ),
        pod_test(
            "[sig-network] DNS should support configurable pod DNS nameservers",
            configured,
        ),
    ]
}

/// A pod that can ask.
pub fn asker(name: &str) -> Value {
    with_main(
        sleeper(name),
        json!({"image": AGNHOST, "command": ["/agnhost", "wait"]}),
    )
}

/// What is known of a name in the pod: records, or why there is none.
pub async fn lookup(pods: &Pods, pod: &str, words: &[&str]) -> String {
    let command = [&["/agnhost", "resolve"][..], words].concat();
    let output = pods.exec(pod, "", &command).await;
    match output.code {
        0 => output.stdout.trim().to_owned(),
        _ => output.stderr.trim().to_owned(),
    }
}

/// Asks until the answer has all these parts.
pub async fn known(pods: &Pods, pod: &str, words: &[&str], parts: &[&str]) -> String {
    let last = std::cell::RefCell::new(String::new());
    let asked = eventually_every(Duration::from_millis(300), "the name is known", async || {
        let answer = lookup(pods, pod, words).await;
        let good = parts.iter().all(|part| answer.contains(part));
        *last.borrow_mut() = answer.clone();
        good.then_some(answer)
    });
    match tokio::time::timeout(Duration::from_secs(15), asked).await {
        Ok(answer) => answer,
        Err(_) => panic!("{words:?}: not {parts:?} but {}", last.borrow()),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

async fn of_the_cluster(cluster: Cluster) {
    let pods = cluster.pods("dns").await;
    pods.ready(&asker("asker")).await;
    let service = cluster
        .core("services", Some("default"))
        .get("kubernetes")
        .await
        .unwrap();
    let ip = text(&service["spec"]["clusterIP"]);
    let name = "kubernetes.default.svc.cluster.local";
    for words in [
        &["kubernetes.default.svc.cluster.local.", "A"][..],
        &["--tcp", "kubernetes.default", "A"],
    ] {
        let answer = known(&pods, "asker", words, &[]).await;
        assert_eq!(answer, format!("{name} A {ip}"));
    }
    // A client that nobody here wrote.
    let output = pods.exec("asker", "", &["/bin/busybox", "nslookup", name]).await;
    assert!(output.stdout.contains(ip), "{output:?}");
    // Dots instead of hyphens: the pod's own address.
    let pod = pods.resource.get("asker").await.unwrap();
    let address = text(&pod["status"]["podIP"]);
    let name = format!("{}.{}.pod.cluster.local.", address.replace('.', "-"), pods.namespace);
    let service = json!({"metadata": {"name": "some"}, "spec": {"ports": [{"port": 80}]}});
    pods.core("services").create(&service).await.unwrap();
    known(&pods, "asker", &[&name, "A"], &[address]).await;
}

async fn hosts(cluster: Cluster) {
    let pods = cluster.pods("hosts").await;
    let service = json!({"metadata": {"name": "sub"}, "spec": {"clusterIP": "None", "selector": {"name": "asker"}, "ports": [{"port": 80}]}});
    pods.core("services").create(&service).await.unwrap();
    let pod = with_spec(asker("asker"), json!({"hostname": "host", "subdomain": "sub"}));
    let pod = pods.ready(&pod).await;
    let whole = format!("host.sub.{}.svc.cluster.local", pods.namespace);
    let hosts = pods.shell("asker", "", "cat /etc/hosts").await;
    let line = hosts
        .lines()
        .find(|line| line.contains(&whole))
        .unwrap_or_else(|| panic!("{hosts}"));
    assert!(line.starts_with(text(&pod["status"]["podIP"])), "{line}");
    assert_eq!(pods.shell("asker", "", "hostname").await.trim(), "host");
}

async fn services(cluster: Cluster) {
    let pods = cluster.pods("names").await;
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    for (name, extra) in [("regular", json!({})), ("headless", json!({"clusterIP": "None"}))] {
        let mut service = json!({"metadata": {"name": name}, "spec": {"selector": {"name": "asker"}, "ports": ports}});
        crate::resource::merge_into(&mut service["spec"], extra);
        pods.core("services").create(&service).await.unwrap();
    }
    let pod = pods.ready(&asker("asker")).await;
    let pod_ip = text(&pod["status"]["podIP"]).to_owned();
    let namespace = &pods.namespace;
    let regular = pods.core("services").get("regular").await.unwrap();
    let ip = text(&regular["spec"]["clusterIP"]).to_owned();
    for (name, address) in [("regular", &ip), ("headless", &pod_ip)] {
        for whole in [
            name.to_owned(),
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
        ] {
            known(&pods, "asker", &[&whole, "A"], &[address]).await;
            known(&pods, "asker", &["--tcp", &whole, "A"], &[address]).await;
        }
        let port = format!("_http._tcp.{name}.{namespace}.svc");
        let target = format!("{name}.{namespace}.svc.cluster.local");
        known(&pods, "asker", &[&port, "SRV"], &["80 ", &target]).await;
        known(&pods, "asker", &["--tcp", &port, "SRV"], &["80 ", &target]).await;
    }
    let backwards = |ip: &str| {
        let parts: Vec<&str> = ip.split('.').rev().collect();
        format!("{}.in-addr.arpa.", parts.join("."))
    };
    let whole = format!("regular.{namespace}.svc.cluster.local");
    known(&pods, "asker", &[&backwards(&ip), "PTR"], &[&whole]).await;
    let below = format!("{}.headless.{namespace}.svc.cluster.local", pod_ip.replace('.', "-"));
    known(&pods, "asker", &[&backwards(&pod_ip), "PTR"], &[&below]).await;
    let nobody = lookup(
        &pods,
        "asker",
        &[&format!("nobody.{namespace}.svc.cluster.local."), "A"],
    )
    .await;
    assert!(nobody.contains("NXDOMAIN"), "{nobody}");
}

async fn partial(cluster: Cluster) {
    let pods = cluster.pods("partial").await;
    let service = json!({"metadata": {"name": "some"}, "spec": {"clusterIP": "None", "selector": {"name": "asker"}, "ports": [{"name": "http", "port": 80}]}});
    pods.core("services").create(&service).await.unwrap();
    let pod = pods.ready(&asker("asker")).await;
    let ip = text(&pod["status"]["podIP"]);
    let namespace = &pods.namespace;
    let whole = format!("some.{namespace}.svc.cluster.local");
    for name in [
        "some",
        &format!("some.{namespace}"),
        &format!("some.{namespace}.svc"),
        &whole,
    ] {
        let answer = known(&pods, "asker", &[name, "A"], &[ip]).await;
        assert!(answer.starts_with(&whole), "{name}: {answer}");
    }
    known(&pods, "asker", &["_http._tcp.some", "SRV"], &[&whole]).await;
}

/// A headless Service's pod that has a name of its own.
async fn named(cluster: &Cluster, service: &str, hostname: Option<&str>) {
    let pods = cluster.pods("named").await;
    let made = json!({"metadata": {"name": service}, "spec": {"clusterIP": "None", "selector": {"name": "asker"}, "ports": [{"port": 80}]}});
    pods.core("services").create(&made).await.unwrap();
    let mut names = json!({"subdomain": service});
    if let Some(hostname) = hostname {
        names["hostname"] = json!(hostname);
    }
    let pod = pods.ready(&with_spec(asker("asker"), names)).await;
    let ip = text(&pod["status"]["podIP"]);
    let whole = format!("{service}.{}.svc.cluster.local.", pods.namespace);
    known(&pods, "asker", &[&whole, "A"], &[ip]).await;
    let host = format!("{}.{whole}", hostname.unwrap_or("asker"));
    if hostname.is_some() {
        known(&pods, "asker", &[&host, "A"], &[ip]).await;
        known(&pods, "asker", &["--tcp", &host, "A"], &[ip]).await;
    }
    let own = pods
        .shell("asker", "", "hostname -f 2>/dev/null || cat /etc/hosts")
        .await;
    assert!(own.contains(whole.trim_end_matches('.')), "{own}");
}

async fn by_hostname(cluster: Cluster) {
    named(&cluster, "dns-test-service-2", Some("dns-querier-2")).await;
}

async fn by_subdomain(cluster: Cluster) {
    named(&cluster, "dns-test-service-2", None).await;
}

async fn external(cluster: Cluster) {
    let pods = cluster.pods("external").await;
    let services = pods.core("services");
    let service =
        json!({"metadata": {"name": "out"}, "spec": {"type": "ExternalName", "externalName": "foo.example.com"}});
    services.create(&service).await.unwrap();
    pods.ready(&asker("asker")).await;
    let name = format!("out.{}.svc.cluster.local", pods.namespace);
    let answer = known(&pods, "asker", &[&name, "CNAME"], &["foo.example.com"]).await;
    assert_eq!(answer, format!("{name} CNAME foo.example.com"));
    services
        .merge("out", json!({"spec": {"externalName": "bar.example.com"}}))
        .await
        .unwrap();
    known(&pods, "asker", &[&name, "CNAME"], &["bar.example.com"]).await;
    let change = json!({"spec": {"type": "ClusterIP", "externalName": null, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}});
    let changed = services.merge("out", change).await.unwrap();
    let ip = text(&changed["spec"]["clusterIP"]);
    known(&pods, "asker", &[&name, "A"], &[&format!("{name} A {ip}")]).await;
}

async fn configured(cluster: Cluster) {
    let pods = cluster.pods("configured").await;
    let config = json!({
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"], "options": [{"name": "ndots", "value": "2"}]},
    });
    pods.ready(&with_spec(asker("asker"), config)).await;
    let file = pods.shell("asker", "", "cat /etc/resolv.conf").await;
    let lines: Vec<&str> = file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect();
    for line in ["nameserver 1.1.1.1", "search resolv.conf.local", "options ndots:2"] {
        assert!(lines.contains(&line), "{line}: {file}");
    }
    assert_eq!(lines.len(), 3, "{file}");
}
