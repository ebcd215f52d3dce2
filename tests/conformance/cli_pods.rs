//! What kubectl does with pods that run.

use crate::cluster::{Cluster, eventually};
use crate::pods::{AGNHOST, BUSYBOX, BUSYBOX_TWO, Pods, SLEEP, container_status, pod, server, sleeper};
use crate::resource::name;
use crate::runner::{Test, pod_test};
use serde_json::{Value, json};

pub fn tests() -> Vec<Test> {
    let tests = vec![
        pod_test(
            "[sig-cli] Kubectl client Kubectl describe should check if kubectl describe prints relevant information for rc and pods",
            describe,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl expose should create services for rc",
            expose,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl label should update the label on a resource",
            label,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl patch should add annotations for pods in rc",
            patch,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl replace should update a single-container pod's image",
            replace,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl run pod should create a pod from an image when restart is Never",
            run,
        ),
        pod_test(
            "[sig-cli] Kubectl client Kubectl server-side dry-run should check if kubectl can dry-run update Pods",
            dry_run,
        ),
        pod_test(
            "[sig-cli] Kubectl client Update Demo should create and stop a replication controller",
            update_demo,
        ),
        pod_test(
            "[sig-cli] Kubectl client Update Demo should scale a replication controller",
            update_demo_scaled,
        ),
        pod_test(
            "[sig-cli] Kubectl logs logs should be able to retrieve and filter logs",
            logs,
        ),
    ];
    tests.into_iter().map(Test::needs_kubectl).collect()
}

/// One who works in a namespace.
struct User {
    cluster: Cluster,
    pods: Pods,
}

impl User {
    async fn of(cluster: Cluster, base: &str) -> Self {
        let pods = cluster.pods(base).await;
        Self { cluster, pods }
    }

    /// What kubectl prints, which must succeed.
    async fn kubectl_with(&self, arguments: &[&str], input: &Value) -> String {
        let namespace = ["-n", self.pods.namespace.as_str()];
        let all = namespace.iter().chain(arguments);
        let all: Vec<String> = all.map(|word| (*word).to_owned()).collect();
        let input = input.to_string();
        self.cluster
            .with_kubectl(move |kubectl| {
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                kubectl.ok_with(&all, &input)
            })
            .await
    }

    async fn kubectl(&self, arguments: &[&str]) -> String {
        self.kubectl_with(arguments, &Value::Null).await
    }

    /// The words of a command.
    async fn says(&self, command: &str) -> String {
        self.kubectl(&command.split_whitespace().collect::<Vec<_>>()).await
    }

    async fn creates(&self, object: &Value) {
        self.kubectl_with(&["create", "-f", "-"], object).await;
    }

    /// What `describe` prints has lines with all these words.
    async fn describe_says(&self, what: &str, expected: &[&str]) {
        let text = self.says(&format!("describe {what}")).await;
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(squeezed).collect();
        for expected in expected {
            assert!(lines.iter().any(|line| line.contains(expected)), "{expected}:\n{text}");
        }
    }

    /// The replication controller and its pods, once they are ready.
    async fn replicas(&self, replicas: usize) -> Vec<Value> {
        let mut template = json!({"metadata": {"labels": {"app": "demo"}}, "spec": server("x")["spec"]});
        template["spec"]["restartPolicy"] = json!("Always");
        // On a busy machine probes come too late, and nothing here is about them.
        template["spec"]["containers"][0]["readinessProbe"] = Value::Null;
        self.creates(&json!({
            "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "demo"},
            "spec": {"replicas": replicas, "selector": {"app": "demo"}, "template": template},
        }))
        .await;
        self.ready_replicas(replicas).await
    }

    async fn ready_replicas(&self, replicas: usize) -> Vec<Value> {
        let ready = format!("jsonpath={{.status.readyReplicas}}={replicas}");
        let wait = ["wait", "rc/demo", "--timeout=90s", "--for"];
        self.kubectl(&[wait.as_slice(), &[&ready]].concat()).await;
        let names = [
            "get",
            "pods",
            "-l",
            "app=demo",
            "-o",
            "template",
            "--template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}",
        ];
        let names = self.kubectl(&names).await;
        let mut pods = Vec::new();
        for name in names.split_whitespace() {
            pods.push(self.pods.until_ready(name).await);
        }
        assert_eq!(pods.len(), replicas, "{names}");
        pods
    }

    /// Addresses and ports of a service, once it has some.
    async fn endpoints(&self, service: &str) -> (String, i64) {
        let found = eventually("an endpoint", async || {
            let endpoints = self.pods.core("endpoints").get(service).await.ok()?;
            endpoints["subsets"][0]["addresses"][0].is_object().then_some(endpoints)
        })
        .await;
        let subset = &found["subsets"][0];
        let ip = subset["addresses"][0]["ip"].as_str().unwrap().to_owned();
        (ip, subset["ports"][0]["port"].as_i64().unwrap())
    }

    async fn image_of(&self, pod: &str) -> String {
        self.kubectl(&["get", "pod", pod, "-o", "jsonpath={.spec.containers[0].image}"])
            .await
    }

    /// `kubectl run` of a pod that sleeps.
    async fn runs(&self, pod: &str, more: &[&str]) {
        let image = format!("--image={BUSYBOX}");
        let begin = ["run", pod, &image, "--image-pull-policy=Never"];
        let command = ["--command", "--", "sh", "-c", SLEEP];
        self.kubectl(&[begin.as_slice(), more, &command].concat()).await;
        self.pods.until_ready(pod).await;
    }
}

async fn describe(cluster: Cluster) {
    let user = User::of(cluster, "describe").await;
    let pods = user.replicas(1).await;
    let pod = name(&pods[0]);
    let namespace = format!("Namespace: {}", user.pods.namespace);
    user.says("expose rc demo --port=6379 --target-port=80").await;
    let (ip, _) = user.endpoints("demo").await;
    let node = user.cluster.node().await;
    user.describe_says(
        &format!("pod {pod}"),
        &[
            &format!("Name: {pod}"),
            &namespace,
            &format!("Node: {node}/"),
            "Labels: app=demo",
            "Status: Running",
            &format!("IP: {ip}"),
            "Controlled By: ReplicationController/demo",
            &format!("Image: {AGNHOST}"),
            "State: Running",
            "QoS Class: BestEffort",
        ],
    )
    .await;
    user.describe_says(
        "rc demo",
        &[
            "Name: demo",
            &namespace,
            "Selector: app=demo",
            "Labels: app=demo",
            "Annotations: <none>",
            "Replicas: 1 current / 1 desired",
            "Pods Status: 1 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            "Pod Template:",
            &format!("Image: {AGNHOST}"),
            &format!("replication-controller Created pod: {pod}"),
        ],
    )
    .await;
    user.describe_says(
        "service demo",
        &[
            "Name: demo",
            &namespace,
            "Labels: app=demo",
            "Annotations: <none>",
            "Selector: app=demo",
            "Type: ClusterIP",
            "IP: ",
            "Port: <unset> 6379/TCP",
            &format!("Endpoints: {ip}:80"),
            "Session Affinity: None",
        ],
    )
    .await;
    user.describe_says(
        &format!("node {node}"),
        &[
            &format!("Name: {node}"),
            "Labels: ",
            "Annotations: ",
            "CreationTimestamp: ",
            "Conditions:",
            "Type Status LastHeartbeatTime LastTransitionTime Reason Message",
            "Addresses:",
            "Capacity:",
            "Kubelet Version: v1.",
            "Container Runtime Version: ",
            &format!("{} {pod} ", user.pods.namespace),
        ],
    )
    .await;
    let labels = format!("Labels: kubernetes.io/metadata.name={}", user.pods.namespace);
    user.describe_says(
        &format!("namespace {}", user.pods.namespace),
        &[
            &format!("Name: {}", user.pods.namespace),
            &labels,
            "Annotations: ",
            "Status: Active",
        ],
    )
    .await;
}

async fn expose(cluster: Cluster) {
    let user = User::of(cluster, "expose").await;
    let pods = user.replicas(1).await;
    let ip = pods[0]["status"]["podIP"].as_str().unwrap().to_owned();
    for (command, service, port) in [
        ("expose rc demo --name=rm2 --port=1234 --target-port=80", "rm2", 1234),
        (
            "expose service rm2 --name=rm3 --port=2345 --target-port=80",
            "rm3",
            2345,
        ),
    ] {
        let said = user.says(command).await;
        assert_eq!(said.trim(), format!("service/{service} exposed"));
        let stored = user.pods.core("services").get(service).await.unwrap();
        assert_eq!(stored["spec"]["ports"][0]["port"], port);
        assert_eq!(stored["spec"]["selector"], json!({"app": "demo"}));
        assert_eq!(user.endpoints(service).await, (ip.clone(), 80));
    }
}

async fn label(cluster: Cluster) {
    let user = User::of(cluster, "label").await;
    user.creates(&sleeper("pause")).await;
    user.pods.until_ready("pause").await;
    let last_column = async || {
        let table = user.says("get pod pause -L testing-label").await;
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].ends_with("TESTING-LABEL"), "{table}");
        lines[1].split_whitespace().last().unwrap_or_default().to_owned()
    };
    user.says("label pods pause testing-label=testing-label-value").await;
    assert_eq!(last_column().await, "testing-label-value");
    user.says("label pods pause testing-label-").await;
    assert_ne!(last_column().await, "testing-label-value");
    let stored = user.pods.resource.get("pause").await.unwrap();
    assert!(stored["metadata"]["labels"]["testing-label"].is_null());
}

async fn patch(cluster: Cluster) {
    let user = User::of(cluster, "patch").await;
    for pod in user.replicas(2).await {
        let patch = r#"{"metadata":{"annotations":{"x":"y"}}}"#;
        user.kubectl(&["patch", "pod", name(&pod), "-p", patch]).await;
        let stored = user.pods.resource.get(name(&pod)).await.unwrap();
        assert_eq!(stored["metadata"]["annotations"]["x"], "y");
    }
}

async fn replace(cluster: Cluster) {
    let user = User::of(cluster, "replace").await;
    user.runs("e2e", &["--labels=run=e2e"]).await;
    let stored = user.says("get pod e2e -o json").await;
    let mut stored: Value = serde_json::from_str(&stored).unwrap();
    stored["spec"]["containers"][0]["image"] = json!(BUSYBOX_TWO);
    user.kubectl_with(&["replace", "-f", "-"], &stored).await;
    assert_eq!(user.image_of("e2e").await, BUSYBOX_TWO);
    // The container is replaced, too.
    user.pods
        .until("e2e", "restarted", |pod| {
            let status = container_status(pod, "e2e");
            status["restartCount"] == 1 && status["state"]["running"].is_object()
        })
        .await;
}

async fn run(cluster: Cluster) {
    let user = User::of(cluster, "run").await;
    user.runs("e2e", &["--restart=Never"]).await;
    assert_eq!(user.image_of("e2e").await, BUSYBOX);
    let policy = user.says("get pod e2e -o jsonpath={.spec.restartPolicy}").await;
    assert_eq!(policy, "Never");
    user.says("delete pod e2e --grace-period=1").await;
    user.pods.gone("e2e").await;
}

async fn dry_run(cluster: Cluster) {
    let user = User::of(cluster, "dryrun").await;
    user.runs("e2e", &["--labels=run=e2e"]).await;
    let patch = json!({"spec": {"containers": [{"name": "e2e", "image": BUSYBOX_TWO}]}}).to_string();
    let said = user
        .kubectl(&["patch", "pod", "e2e", "-p", &patch, "--dry-run=server"])
        .await;
    assert!(said.starts_with("pod/e2e patched"), "{said}");
    assert_eq!(user.image_of("e2e").await, BUSYBOX);
}

/// Each of the pods answers with its name.
async fn serve(user: &User, pods: &[Value]) {
    for pod in pods {
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}:80/proxy/hostname",
            user.pods.namespace,
            name(pod)
        );
        // It may not listen yet.
        let answer = eventually("an answer", async || {
            let answer = user.cluster.get(&path).await;
            (answer.code == 200).then_some(answer.text)
        });
        assert_eq!(answer.await.trim(), name(pod));
    }
}

async fn update_demo(cluster: Cluster) {
    let user = User::of(cluster, "demo").await;
    let pods = user.replicas(2).await;
    serve(&user, &pods).await;
    user.says("delete rc demo --grace-period=0 --force").await;
    for pod in &pods {
        user.pods.gone(name(pod)).await;
    }
    assert_eq!(user.says("get rc,svc -l app=demo --no-headers").await, "");
}

async fn update_demo_scaled(cluster: Cluster) {
    let user = User::of(cluster, "scaled").await;
    user.replicas(2).await;
    for replicas in [1, 2] {
        let said = user
            .says(&format!("scale rc demo --replicas={replicas} --timeout=1m"))
            .await;
        assert_eq!(said.trim(), "replicationcontroller/demo scaled");
        let pods = user.ready_replicas(replicas).await;
        serve(&user, &pods).await;
    }
    user.says("delete rc demo --grace-period=0 --force").await;
}

async fn logs(cluster: Cluster) {
    let user = User::of(cluster, "logs").await;
    let script = "for i in 1 2 3 4 5 6 7 8; do echo line $i; done; sleep 4; echo late";
    user.creates(&pod("writes", script)).await;
    user.pods.ended("writes").await;
    let logs = async |flags: &str| user.says(&format!("logs writes main {flags}")).await;
    let all = logs("").await;
    assert_eq!((all.lines().count(), all.lines().next()), (9, Some("line 1")));
    assert_eq!(logs("--tail=1").await, "late\n");
    assert_eq!(logs("--limit-bytes=1").await, "l");
    let stamped = logs("--tail=1 --timestamps").await;
    let (time, line) = stamped.trim_end().split_once(' ').unwrap();
    assert_eq!(line, "late");
    let time: jiff::Timestamp = time.parse().unwrap();
    assert_eq!(logs("--since=24h").await, all);
    let since = time - jiff::SignedDuration::from_secs(2);
    assert_eq!(logs(&format!("--since-time={since}")).await, "late\n");
}
