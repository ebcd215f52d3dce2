//! What tests of StatefulSets and DaemonSets share: a set with its pods, and waiting for it.

use crate::cluster::Cluster;
use crate::pods::{BUSYBOX, PODS_PATIENCE, Pods, condition};
use crate::resource::{Resource, merge_into, name};
use kube::api::ListParams;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(200);

/// Is ready while `/tmp/ready` is there; ends on SIGTERM at once.
const SCRIPT: &str = "touch /tmp/ready; trap 'exit 0' TERM; while true; do sleep 3600 & wait $!; done";

/// A set of a new namespace, named `set`.
pub struct Set {
    pub pods: Pods,
    pub resource: Resource,
    pub revisions: Resource,
}

/// The spec of a set whose pods carry `app=LABEL`, with more members.
pub fn spec(label: &str, more: Value) -> Value {
    let container = json!({
        "name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT],
        // A second, which is the default, may be too short while everything starts at once.
        "readinessProbe": {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1, "timeoutSeconds": 20},
    });
    let mut spec = json!({
        "selector": {"matchLabels": {"app": label}},
        "template": {
            "metadata": {"labels": {"app": label}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        },
    });
    merge_into(&mut spec, more);
    spec
}

/// A strategic merge patch to another image.
pub fn image(image: &str) -> kube::api::Patch<Value> {
    let containers = json!([{"name": "main", "image": image}]);
    kube::api::Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": containers}}}}))
}

impl Set {
    /// Creates one in a namespace of its own.
    pub async fn create(cluster: &Cluster, plural: &str, more: Value) -> Self {
        let pods = cluster.pods("set").await;
        let namespace = pods.namespace.clone();
        let set = Self {
            pods,
            resource: cluster.resource("apps/v1", plural, Some(&namespace)),
            revisions: cluster.resource("apps/v1", "controllerrevisions", Some(&namespace)),
        };
        let object = json!({"metadata": {"name": "set", "labels": {"app": namespace}}, "spec": spec(&namespace, more)});
        set.resource.create(&object).await.unwrap();
        set
    }

    /// What selects the set, its pods and its revisions.
    pub fn selector(&self) -> String {
        format!("app={}", self.pods.namespace)
    }

    pub async fn get(&self) -> Value {
        self.resource.get("set").await.unwrap()
    }

    /// The set once it is so.
    pub async fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PODS_PATIENCE;
        loop {
            let set = self.get().await;
            if so(&set) {
                return set;
            }
            if Instant::now() > deadline {
                let pods = self.all_pods().await;
                let events = self.pods.events("set").await.join("\n");
                panic!("not {what}: {}\n{pods:#?}\n{events}", set["status"]);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until these members of the status say so.
    pub async fn until_status(&self, status: Value) -> Value {
        let is_so = |set: &Value| {
            let members = status.as_object().unwrap();
            let observed = set["status"]["observedGeneration"] == set["metadata"]["generation"];
            let zero = json!(0);
            observed
                && members.iter().all(|(key, value)| {
                    let found = &set["status"][key];
                    (if found.is_null() { &zero } else { found }) == value
                })
        };
        self.until(&status.to_string(), is_so).await
    }

    /// All pods of the set, by name.
    pub async fn all_pods(&self) -> Vec<Value> {
        self.pods.resource.labelled(&self.selector()).await
    }

    pub async fn names(&self) -> Vec<String> {
        self.all_pods().await.iter().map(|pod| name(pod).to_owned()).collect()
    }

    /// The pods once they are so.
    pub async fn until_pods(&self, what: &str, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PODS_PATIENCE;
        loop {
            let pods = self.all_pods().await;
            if so(&pods) {
                return pods;
            }
            assert!(Instant::now() < deadline, "not {what}: {pods:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// For a while nothing of it changes.
    pub async fn stays(&self, seconds: u64, so: impl Fn(&[Value]) -> bool) {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let pods = self.all_pods().await;
            assert!(so(&pods), "{pods:#?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub async fn break_pod(&self, pod: &str) {
        self.pods.shell(pod, "", "rm -f /tmp/ready").await;
        self.pods
            .until(pod, "not ready", |pod| condition(pod, "Ready") == "False")
            .await;
    }

    pub async fn mend_pod(&self, pod: &str) {
        self.pods.shell(pod, "", "touch /tmp/ready").await;
    }

    /// Deletes a pod and waits until another one has its name.
    pub async fn replace_pod(&self, pod: &str) {
        let before = self.pods.resource.get(pod).await.unwrap();
        self.pods.resource.delete(pod).await.unwrap();
        let is_new = |now: &[Value]| {
            let mut of_the_name = now.iter().filter(|now| name(now) == pod);
            of_the_name.any(|now| now["metadata"]["uid"] != before["metadata"]["uid"])
        };
        self.until_pods("replaced", is_new).await;
    }

    pub async fn scale(&self, replicas: i32) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.resource.merge("set", patch).await.unwrap();
    }

    /// Names of the revisions by number.
    pub async fn numbered_revisions(&self) -> Vec<(i64, String)> {
        let list = self
            .revisions
            .list(&ListParams::default().labels(&self.selector()))
            .await
            .unwrap();
        let revisions = crate::resource::items(&list);
        let mut numbered: Vec<(i64, String)> = revisions
            .iter()
            .map(|revision| (revision["revision"].as_i64().unwrap(), name(revision).to_owned()))
            .collect();
        numbered.sort();
        numbered
    }
}

pub fn image_of(pod: &Value) -> &str {
    pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}
