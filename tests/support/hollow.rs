//! Nodes of which only the objects exist: pods that are bound to them run at once, and are gone when they are told to go
//! (upstream: kubemark's hollow nodes). What a pod does stands in its annotations, see [`EXIT`].

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use krust::client::ObjectKey;
use krust::client::informer::Informers;
use krust::client::work_queue::{Next, WorkQueue};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The containers of a pod with this annotation end with that code soon after their start.
pub const EXIT: &str = "hollow/exit";
/// A node renews its lease this often, as upstream's kubelet.
const HEARTBEAT: Duration = Duration::from_secs(10);
const CALLS_AT_ONCE: usize = 32;
const LEASES: &str = "kube-node-lease";

/// What each of the nodes is.
#[derive(Clone, Debug)]
pub struct Hollow {
    pub names: Vec<String>,
    /// Room for pods.
    pub pods: usize,
}

impl Hollow {
    pub fn new(count: usize, pods: usize) -> Self {
        Self {
            names: (0..count).map(|number| format!("hollow-{number:04}")).collect(),
            pods,
        }
    }

    /// Makes the Node objects, ready, and their leases.
    pub async fn register(&self, client: &Client) -> kube::Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
        for names in self.names.chunks(CALLS_AT_ONCE) {
            let calls = names.iter().map(|name| {
                let (nodes, leases) = (&nodes, &leases);
                async move {
                    let node = serde_json::from_value(self.node(name)).map_err(kube::Error::SerdeError)?;
                    nodes.create(&PostParams::default(), &node).await?;
                    let status = json!({"status": self.status()});
                    nodes
                        .patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
                        .await?;
                    let lease = serde_json::from_value(lease(name)).map_err(kube::Error::SerdeError)?;
                    leases.create(&PostParams::default(), &lease).await
                }
            });
            futures_util::future::try_join_all(calls).await?;
        }
        Ok(())
    }

    fn node(&self, name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}})
    }

    fn status(&self) -> Value {
        let room = json!({"cpu": "32", "memory": "64Gi", "ephemeral-storage": "100Gi", "pods": self.pods.to_string()});
        json!({"capacity": room, "allocatable": room, "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "hollow",
            "lastHeartbeatTime": Timestamp::now().to_string(), "lastTransitionTime": Timestamp::now().to_string(),
        }]})
    }

    /// Plays the kubelets until `shutdown`. `delay` is how long a pod takes to run, and to end.
    pub async fn run(&self, client: Client, informers: &Informers, delay: Duration, shutdown: CancellationToken) {
        let pods = informers.of::<Pod>();
        let queue = WorkQueue::<ObjectKey>::new("hollow nodes");
        let ours: Arc<BTreeSet<String>> = Arc::new(self.names.iter().cloned().collect());
        let (waiting, of_ours) = (queue.clone(), ours.clone());
        pods.on_change(move |change| {
            let Some(pod) = &change.new else { return };
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
            if node.is_some_and(|node| of_ours.contains(node)) {
                waiting.add_after(ObjectKey::of(&**pod), delay);
            }
        });
        let work = queue.run(CALLS_AT_ONCE, &shutdown, |key| {
            let (client, pods) = (client.clone(), pods.clone());
            async move {
                match pods.get_key(&key) {
                    Some(pod) => look_after(&client, &key, &pod).await,
                    None => Ok(Next::Done),
                }
            }
        });
        tokio::join!(work, self.heartbeats(&client, &shutdown));
    }

    async fn heartbeats(&self, client: &Client, shutdown: &CancellationToken) {
        let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
        let mut interval = tokio::time::interval(HEARTBEAT / u32::try_from(self.names.len().max(1)).unwrap_or(1));
        for name in self.names.iter().cycle() {
            tokio::select! {
                _ = interval.tick() => {}
                () = shutdown.cancelled() => return,
            }
            let renewed = json!({"spec": {"renewTime": lease(name)["spec"]["renewTime"]}});
            // The next one comes soon.
            let _ = leases
                .patch(name, &PatchParams::default(), &Patch::Merge(renewed))
                .await;
        }
    }
}

fn lease(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": LEASES}, "spec": {"holderIdentity": name,
        "leaseDurationSeconds": 40, "renewTime": format!("{:.6}", Timestamp::now())}})
}

/// Does the next thing that a kubelet would do.
async fn look_after(client: &Client, key: &ObjectKey, pod: &Pod) -> kube::Result<Next> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending");
    let exit = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(EXIT));
    let done = if pod.metadata.deletion_timestamp.is_some() {
        if matches!(phase, "Succeeded" | "Failed") {
            let now = DeleteParams::default().grace_period(0);
            api.delete(&key.name, &now).await.map(|_| Next::Done)
        } else {
            report(&api, pod, if phase == "Pending" { "Failed" } else { "Succeeded" }, 0).await
        }
    } else if phase == "Pending" {
        report(&api, pod, "Running", 0).await
    } else if let (Some(exit), "Running") = (exit, phase) {
        let code: i32 = exit.parse().unwrap_or(1);
        report(&api, pod, if code == 0 { "Succeeded" } else { "Failed" }, code).await
    } else {
        Ok(Next::Done)
    };
    match done {
        // Gone, or looked at again when its next version is here.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Next::Done),
        done => done,
    }
}

async fn report(api: &Api<Pod>, pod: &Pod, phase: &str, code: i32) -> kube::Result<Next> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let now = Timestamp::now().to_string();
    let running = phase == "Running";
    let state = if running {
        json!({"running": {"startedAt": now}})
    } else {
        let reason = if code == 0 { "Completed" } else { "Error" };
        json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": now, "finishedAt": now}, "running": null})
    };
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let statuses: Vec<Value> = containers
        .map(|container| {
            json!({"name": container.name, "image": container.image, "imageID": "", "ready": running,
                "restartCount": 0, "started": running, "state": state})
        })
        .collect();
    let condition = |type_: &str| json!({"type": type_, "status": if running { "True" } else { "False" }, "lastTransitionTime": now});
    let number = pod.metadata.uid.as_deref().map_or(0, |uid| {
        uid.bytes()
            .fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)))
    });
    let ip = format!(
        "10.{}.{}.{}",
        128 + (number >> 16 & 127),
        number >> 8 & 255,
        1 + number % 254
    );
    let status = json!({"phase": phase, "startTime": now, "podIP": ip, "podIPs": [{"ip": ip}], "containerStatuses": statuses,
        "conditions": [condition("Ready"), condition("ContainersReady"), condition("Initialized")]});
    let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await?;
    Ok(Next::Done)
}
