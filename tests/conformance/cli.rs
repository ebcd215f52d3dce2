//! What kubectl makes of the server: versions, addresses, differences, its proxy.

use crate::cluster::Cluster;
use crate::runner::{Test, test};
use crate::support::kubectl::deployment;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

pub fn tests() -> Vec<Test> {
    let tests = vec![
        test(
            "[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions",
            api_versions,
        ),
        test(
            "[sig-cli] Kubectl client Kubectl cluster-info should check if Kubernetes control plane services is included in cluster-info",
            cluster_info,
        ),
        test(
            "[sig-cli] Kubectl client Kubectl diff should check if kubectl diff finds a difference for Deployments",
            diff,
        ),
        test(
            "[sig-cli] Kubectl client Kubectl version should check is all data is printed",
            version,
        ),
        test(
            "[sig-cli] Kubectl client Proxy server should support --unix-socket=/path",
            proxy_on_a_socket,
        ),
        test(
            "[sig-cli] Kubectl client Proxy server should support proxy with --port 0",
            proxy_on_a_port,
        ),
    ];
    tests.into_iter().map(Test::needs_kubectl).collect()
}

async fn api_versions(cluster: Cluster) {
    let versions = cluster.with_kubectl(|kubectl| kubectl.ok(&["api-versions"])).await;
    assert!(versions.lines().any(|line| line == "v1"), "{versions}");
    assert!(versions.lines().any(|line| line == "apps/v1"), "{versions}");
}

async fn cluster_info(cluster: Cluster) {
    let port = cluster.port();
    let info = cluster.with_kubectl(|kubectl| kubectl.ok(&["cluster-info"])).await;
    let plain: String = info
        .replace("\u{1b}[0;32m", "")
        .replace("\u{1b}[0;33m", "")
        .replace("\u{1b}[0m", "");
    assert!(
        plain.contains(&format!(
            "Kubernetes control plane is running at https://127.0.0.1:{port}"
        )),
        "{plain}"
    );
}

async fn diff(cluster: Cluster) {
    let namespace = cluster.namespace("diff").await;
    cluster
        .with_kubectl(move |kubectl| {
            let one = deployment("web", "{containers: [{name: main, image: 'registry.example/httpd:1'}]}");
            kubectl.ok_with(&["-n", &namespace, "apply", "-f", "-"], &one);
            let other = one.replace("httpd:1", "busybox:2");
            let ran = kubectl.run_with(&["-n", &namespace, "diff", "-f", "-"], &other);
            assert_eq!(ran.code, Some(1), "1 says that there is a difference: {ran:?}");
            let changed = |sign: char, image: &str| {
                let line = format!("image: registry.example/{image}");
                ran.stdout.lines().any(|l| l.starts_with(sign) && l.ends_with(&line))
            };
            assert!(changed('-', "httpd:1") && changed('+', "busybox:2"), "{}", ran.stdout);
            let same = kubectl.run_with(&["-n", &namespace, "diff", "-f", "-"], &one);
            assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{}", same.stderr);
            let image = "jsonpath={.spec.template.spec.containers[0].image}";
            let stored = kubectl.ok(&["-n", &namespace, "get", "deployment", "web", "-o", image]);
            assert_eq!(stored, "registry.example/httpd:1", "a dry run stores nothing");
        })
        .await;
}

async fn version(cluster: Cluster) {
    let text = cluster.with_kubectl(|kubectl| kubectl.ok(&["version"])).await;
    for line in ["Client Version: v1.", "Server Version: v1."] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{text}");
    }
    let json = cluster
        .with_kubectl(|kubectl| kubectl.ok(&["version", "-o", "json"]))
        .await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for member in [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "goVersion",
        "platform",
        "buildDate",
    ] {
        assert!(json["serverVersion"][member].is_string(), "{member}: {json}");
    }
}

/// kubectl's proxy, ended with the value.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get_api(mut stream: impl Read + Write) -> String {
    write!(
        stream,
        "GET /api/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer
}

async fn proxy_on_a_port(cluster: Cluster) {
    cluster
        .with_kubectl(|kubectl| {
            let mut command = kubectl.command(&["proxy", "--port=0", "--disable-filter"]);
            let mut proxy = Proxy(command.stdout(Stdio::piped()).spawn().expect("kubectl starts"));
            let mut line = String::new();
            BufReader::new(proxy.0.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            let address = line.trim().strip_prefix("Starting to serve on ").expect("its address");
            let answer = get_api(std::net::TcpStream::connect(address).unwrap());
            assert!(answer.contains("APIVersions"), "{answer}");
        })
        .await;
}

async fn proxy_on_a_socket(cluster: Cluster) {
    cluster
        .with_kubectl(|kubectl| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("proxy.sock");
            let mut command = kubectl.command(&["proxy", "--unix-socket", path.to_str().unwrap()]);
            let mut proxy = Proxy(command.stdout(Stdio::piped()).spawn().expect("kubectl starts"));
            let mut line = String::new();
            BufReader::new(proxy.0.stdout.take().unwrap())
                .read_line(&mut line)
                .unwrap();
            assert!(line.starts_with("Starting to serve on "), "{line}");
            let answer = get_api(std::os::unix::net::UnixStream::connect(&path).unwrap());
            assert!(answer.contains("APIVersions"), "{answer}");
        })
        .await;
}
