//! What tests do with pods that run.
#![allow(dead_code)] // shared by all areas, which use what they need

use crate::cluster::Cluster;
use crate::resource::{Resource, Watch, merge_into, name};
pub use crate::support::images::BUSYBOX;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{AttachParams, DeleteParams, WatchParams};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Another name of the same, for what changes images.
pub const BUSYBOX_TWO: &str = "busybox:two";
/// A server: see [`crate::agnhost`].
pub const AGNHOST: &str = "agnhost:test";
pub const AGNHOST_TWO: &str = "agnhost:two";
/// Its entrypoint prints the arguments, which are `["default","arguments"]`.
pub const SAYER: &str = "sayer:test";
/// Busybox, whose user is 1000.
pub const USER: &str = "user:test";

/// How long a pod may take to come into a state.
pub const PODS_PATIENCE: Duration = Duration::from_secs(90);

/// A container that runs a shell script.
pub fn container(name: &str, script: &str) -> Value {
    json!({"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script]})
}

/// A pod of these containers that is not restarted and ends within a second.
pub fn pod_of(name: &str, containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}},
        "spec": {"containers": containers, "restartPolicy": "Never", "terminationGracePeriodSeconds": 1},
    })
}

/// A pod of one container `main` that runs a shell script.
pub fn pod(name: &str, script: &str) -> Value {
    pod_of(name, &[container("main", script)])
}

/// A pod that sleeps until it is told to end.
pub fn sleeper(name: &str) -> Value {
    pod(name, SLEEP)
}

/// Ends on SIGTERM at once.
pub const SLEEP: &str = "trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";

/// A pod that serves HTTP on port 80 and UDP on port 81: see [`crate::agnhost`].
pub fn server(name: &str) -> Value {
    let container = json!({
        "name": "main", "image": AGNHOST, "imagePullPolicy": "Never",
        "args": ["serve", "--http", "80", "--udp", "81"],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 1},
    });
    pod_of(name, &[container])
}

/// The object with more members of its spec.
pub fn with_spec(mut pod: Value, more: Value) -> Value {
    merge_into(&mut pod["spec"], more);
    pod
}

/// The object with more members of its first container.
pub fn with_main(mut pod: Value, more: Value) -> Value {
    merge_into(&mut pod["spec"]["containers"][0], more);
    pod
}

/// The pods of one namespace.
pub struct Pods {
    cluster: Cluster,
    pub namespace: String,
    pub resource: Resource,
}

/// What a command in a container printed, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl Cluster {
    /// A new namespace, for pods.
    pub async fn pods(&self, base: &str) -> Pods {
        let namespace = self.namespace(base).await;
        self.pods_in(&namespace)
    }

    pub fn pods_in(&self, namespace: &str) -> Pods {
        Pods {
            cluster: self.clone(),
            namespace: namespace.to_owned(),
            resource: self.core("pods", Some(namespace)),
        }
    }
}

impl Pods {
    /// Another resource of the namespace.
    pub fn core(&self, plural: &str) -> Resource {
        self.cluster.core(plural, Some(&self.namespace))
    }

    /// One of another group.
    pub fn of_group(&self, api_version: &str, plural: &str) -> Resource {
        self.cluster.resource(api_version, plural, Some(&self.namespace))
    }

    pub async fn create(&self, pod: &Value) -> Value {
        self.resource.create(pod).await.unwrap()
    }

    /// Creates a pod and waits until it is ready.
    pub async fn ready(&self, pod: &Value) -> Value {
        self.create(pod).await;
        self.until_ready(name(pod)).await
    }

    /// Creates a pod that ends well, waits for that, and gives its output.
    pub async fn output(&self, pod: &Value) -> String {
        self.create(pod).await;
        let ended = self.ended(name(pod)).await;
        let logs = self.logs(name(pod), "").await;
        assert_eq!(ended["status"]["phase"], "Succeeded", "{logs}\n{}", ended["status"]);
        logs
    }

    /// The pod once it is so; `what` says what is waited for.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PODS_PATIENCE;
        let mut last = Value::Null;
        // A watch may end at any time.
        while Instant::now() < deadline {
            let mut watch = self.watch(name).await;
            while let Ok(event) = tokio::time::timeout_at(deadline.into(), watch.next_or_end()).await {
                match event {
                    Some(("ERROR", _)) | None => break,
                    Some((kind, pod)) => {
                        assert_ne!(kind, "DELETED", "{name} is gone, not {what}: {}", pod["status"]);
                        if so(&pod) {
                            return pod;
                        }
                        last = pod;
                    }
                }
            }
        }
        let events = self.events(name).await;
        panic!("{name} is not {what}: {}\n{}", last["status"], events.join("\n"));
    }

    async fn watch(&self, name: &str) -> Watch {
        let fields = format!("metadata.name={name}");
        let parameters = WatchParams::default().fields(&fields).timeout(250);
        let watch = self.resource.watch_with(&parameters, "").await;
        watch.with_patience(PODS_PATIENCE * 2)
    }

    pub async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |pod| pod["status"]["phase"] == phase).await
    }

    pub async fn until_ready(&self, name: &str) -> Value {
        self.until(name, "ready", |pod| condition(pod, "Ready") == "True").await
    }

    /// The pod when it has succeeded or failed.
    pub async fn ended(&self, name: &str) -> Value {
        let ended = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        self.until(name, "ended", ended).await
    }

    /// Waits until the API does not have it any more.
    pub async fn gone(&self, name: &str) {
        self.gone_within(name, PODS_PATIENCE).await;
    }

    pub async fn gone_within(&self, name: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            match self.resource.get(name).await {
                Err(status) if status.code == 404 => return,
                answer => assert!(Instant::now() < deadline, "{name} is still there: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Deletes it with its own grace period and waits until it is gone.
    pub async fn delete(&self, name: &str) {
        self.resource.delete_with(name, &DeleteParams::default()).await.unwrap();
        self.gone(name).await;
    }

    /// What the container printed; of the only container if no name is given.
    pub async fn logs(&self, name: &str, container: &str) -> String {
        let query = match container {
            "" => String::new(),
            container => format!("?container={container}"),
        };
        let uri = format!("/api/v1/namespaces/{}/pods/{name}/log{query}", self.namespace);
        let answer = self.cluster.get(&uri).await;
        assert_eq!(answer.code, 200, "{uri}: {}", answer.text);
        answer.text
    }

    /// The output once it is so.
    pub async fn logs_until(&self, name: &str, container: &str, what: &str, so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PODS_PATIENCE;
        loop {
            let logs = self.logs(name, container).await;
            if so(&logs) {
                return logs;
            }
            assert!(Instant::now() < deadline, "the output of {name} is not {what}:\n{logs}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Runs a command in a container; in the only container if no name is given.
    pub async fn exec(&self, name: &str, container: &str, command: &[&str]) -> Output {
        let api: Api<Pod> = Api::namespaced(self.cluster.client(), &self.namespace);
        let mut parameters = AttachParams::default().stdout(true).stderr(true);
        if !container.is_empty() {
            parameters = parameters.container(container);
        }
        let mut process = api
            .exec(name, command.iter().copied(), &parameters)
            .await
            .unwrap_or_else(|error| panic!("exec in {name} of {command:?}: {error}"));
        let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
        let status = process.take_status().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let (first, second, status) =
            futures_util::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err), status);
        first.and(second).expect("the output");
        let status = status.expect("the status");
        let code = match status.status.as_deref() {
            Some("Success") => 0,
            _ => {
                let causes = status.details.and_then(|details| details.causes).unwrap_or_default();
                let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
                let code = code.and_then(|cause| cause.message.as_deref()?.parse().ok());
                code.unwrap_or_else(|| panic!("exec in {name} of {command:?}: {:?}", status.message))
            }
        };
        Output {
            stdout: out,
            stderr: err,
            code,
        }
    }

    /// stdout of a shell script that must succeed.
    pub async fn shell(&self, name: &str, container: &str, script: &str) -> String {
        let output = self.exec(name, container, &["sh", "-c", script]).await;
        assert_eq!(output.code, 0, "{script}: {output:?}");
        output.stdout
    }

    /// The events of an object, as `Reason: message`.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let fields = format!("involvedObject.name={name}");
        let parameters = kube::api::ListParams::default().fields(&fields);
        let list = self.core("events").list(&parameters).await.unwrap();
        let events = crate::resource::items(&list);
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|event| format!("{}: {}", text(event, "reason"), text(event, "message")))
            .collect()
    }

    /// Waits for an event whose text has this part.
    pub async fn event(&self, name: &str, part: &str) -> String {
        let deadline = Instant::now() + PODS_PATIENCE;
        loop {
            let events = self.events(name).await;
            if let Some(event) = events.iter().find(|event| event.contains(part)) {
                return event.clone();
            }
            assert!(Instant::now() < deadline, "no event {part:?} of {name} in {events:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The status of a condition.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object["status"]["conditions"].as_array();
    let mut found = conditions
        .into_iter()
        .flatten()
        .filter(|condition| condition["type"] == kind);
    found
        .next()
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

/// The status of a container.
pub fn container_status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = [
        "containerStatuses",
        "initContainerStatuses",
        "ephemeralContainerStatuses",
    ];
    let all = lists.iter().filter_map(|list| pod["status"][list].as_array()).flatten();
    let mut found = all.filter(|status| status["name"] == name);
    found.next().unwrap_or(&Value::Null)
}
