//! The Node object and its heartbeats (upstream: `kubelet_node_status.go`, `component-helpers/.../lease`).

pub mod figures;
pub mod status;

use crate::client::events::{Level, Recorder};
use crate::kubelet::eviction::Pressures;
use crate::kubelet::node_shutdown::NodeShutdown;
use crate::kubelet::{KubeletError, KubeletOptions};
use crate::runtime::Runtime;
use figures::{Machine, Usage};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use status::Facts;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

const LEASE_NAMESPACE: &str = "kube-node-lease";
const LEASE_SECONDS: i32 = 40;
/// How often the figures are looked at, and the lease is renewed.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// An unchanged status is written this often.
const REPORT_MAX: Duration = Duration::from_secs(300);
/// How often the list of images is read.
const IMAGES_EVERY: Duration = Duration::from_secs(60);
/// Between tries to reach the API server at the start, doubled up to [`HEARTBEAT`].
const RETRY_FIRST: Duration = Duration::from_millis(50);

pub struct NodeAgent {
    nodes: Api<Node>,
    leases: Api<Lease>,
    runtime: Arc<dyn Runtime>,
    recorder: Recorder,
    node_shutdown: Arc<NodeShutdown>,
    pressures: Arc<Pressures>,
    data_dir: PathBuf,
    /// Where the engine's images are, if that can be seen.
    image_directory: Option<PathBuf>,
    facts: Facts,
    images_at: Instant,
    reported: Option<Reported>,
}

struct Reported {
    node: Node,
    at: Instant,
}

impl NodeAgent {
    pub async fn new(
        options: &KubeletOptions,
        recorder: Recorder,
        node_shutdown: Arc<NodeShutdown>,
        pressures: Arc<Pressures>,
    ) -> Result<Self, KubeletError> {
        let address = options.node_ip.unwrap_or_else(figures::default_address);
        let image_directory = options.runtime.image_directory().await.ok();
        let image_directory = image_directory.filter(|directory| directory.exists());
        let usage = Usage::read(&options.data_dir, image_directory.as_deref());
        let now = pressures.of_node(&usage);
        let mut agent = Self {
            nodes: Api::all(options.client.clone()),
            leases: Api::namespaced(options.client.clone(), LEASE_NAMESPACE),
            runtime: options.runtime.clone(),
            recorder,
            node_shutdown,
            pressures,
            data_dir: options.data_dir.clone(),
            facts: Facts {
                name: options.node_name.clone(),
                address,
                machine: Machine::read(),
                pressures: now,
                usage,
                runtime: Ok(options.runtime.version().await?),
                images: Vec::new(),
                kubelet_version: options.version.clone(),
                kubelet_port: options.listen.port(),
                pods_max: options.pods_max,
                thresholds: options.eviction.thresholds.clone(),
                shutting_down: false,
                features: options.runtime.features().await?,
            },
            image_directory,
            images_at: Instant::now(),
            reported: None,
        };
        // Without its images the node is ready as well: they follow with the first change.
        agent.facts.images = agent.runtime.list_images().await.unwrap_or_default();
        Ok(agent)
    }

    pub fn image_directory(&self) -> Option<&PathBuf> {
        self.image_directory.as_ref()
    }

    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub fn address(&self) -> IpAddr {
        self.facts.address
    }

    /// The scheme of container ids; it was asked for at the start.
    pub fn runtime_name(&self) -> &str {
        self.facts.runtime.as_ref().map_or("", |version| version.name.as_str())
    }

    /// Registers at once, then keeps status and lease fresh until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut delay = RETRY_FIRST;
        while let Err(error) = self.register().await {
            tracing::warn!(node = self.facts.name, error = %chain(&error), "The node could not be registered; trying again");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = shutdown.cancelled() => return,
            }
            delay = (delay * 2).min(HEARTBEAT);
        }
        let mut ticks = interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let node_shutdown = self.node_shutdown.clone();
        loop {
            // The first tick is at once: the lease must be there soon after the node.
            tokio::select! {
                _ = ticks.tick() => {}
                () = node_shutdown.begun.cancelled(), if !self.facts.shutting_down => self.begin_shutdown(),
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.renew_lease().await {
                tracing::warn!(node = self.facts.name, error = %chain(&error), "The node's lease could not be renewed");
            }
            self.look().await;
            if let Err(error) = self.report().await {
                tracing::warn!(node = self.facts.name, error = %chain(&error), "The node's status could not be written");
            } else if self.facts.shutting_down {
                node_shutdown.told.cancel();
            }
        }
    }

    /// The next report says so.
    fn begin_shutdown(&mut self) {
        self.facts.shutting_down = true;
        let text = "Shutdown manager detected shutdown event";
        if let Some(reported) = &self.reported {
            self.recorder
                .about(reference(&reported.node), Level::Normal, "NodeShutdown", text);
        }
    }

    fn error(&self, operation: &'static str, source: kube::Error) -> KubeletError {
        KubeletError::Api {
            operation,
            subject: format!("node {:?}", self.facts.name),
            source: Box::new(source),
        }
    }

    /// Creates the Node, or makes the one that is there ours again.
    async fn register(&mut self) -> Result<(), KubeletError> {
        let wanted = status::node(&self.facts, SystemTime::now());
        let node = match self.nodes.create(&PostParams::default(), &wanted).await {
            Ok(node) => {
                tracing::info!(node = self.facts.name, "Registered the node");
                node
            }
            Err(kube::Error::Api(answer)) if answer.code == 409 => {
                let change =
                    json!({"metadata": {"labels": wanted.metadata.labels, "annotations": wanted.metadata.annotations}});
                let (parameters, patch) = (PatchParams::default(), Patch::Strategic(change));
                let patched = self.nodes.patch(&self.facts.name, &parameters, &patch).await;
                patched.map_err(|source| self.error("reconcile", source))?
            }
            Err(source) => return Err(self.error("register", source)),
        };
        self.recorder
            .about(reference(&node), Level::Normal, "Starting", "Starting kubelet.");
        let stored = node.status.clone().unwrap_or_default();
        self.reported = Some(Reported {
            node,
            at: Instant::now(),
        });
        let wanted = status::status(&self.facts, Some(&stored), SystemTime::now());
        if status::changed(&stored, &wanted) {
            self.write(wanted).await?;
        }
        Ok(())
    }

    /// Reads what may have changed.
    async fn look(&mut self) {
        self.facts.usage = Usage::read(&self.data_dir, self.image_directory.as_deref());
        self.facts.pressures = self.pressures.of_node(&self.facts.usage);
        // The version may be remembered by the backend; the list of images asks the engine.
        if self.facts.runtime.is_ok() && self.images_at.elapsed() < IMAGES_EVERY {
            return;
        }
        let answer = tokio::try_join!(self.runtime.list_images(), self.runtime.version());
        self.facts.runtime = match answer {
            Ok((images, version)) => {
                self.images_at = Instant::now();
                self.facts.images = images;
                Ok(version)
            }
            Err(error) => Err(error.to_string()),
        };
    }

    async fn report(&mut self) -> Result<(), KubeletError> {
        let Some(reported) = &self.reported else {
            return self.register().await;
        };
        let old = reported.node.status.clone().unwrap_or_default();
        let new = status::status(&self.facts, Some(&old), SystemTime::now());
        if status::changed(&old, &new) || reported.at.elapsed() >= REPORT_MAX {
            self.write(new).await?;
        }
        Ok(())
    }

    async fn write(&mut self, status: NodeStatus) -> Result<(), KubeletError> {
        let patch = Patch::Strategic(json!({"status": status}));
        let written = self
            .nodes
            .patch_status(&self.facts.name, &PatchParams::default(), &patch)
            .await;
        match written {
            Ok(node) => {
                self.reported = Some(Reported {
                    node,
                    at: Instant::now(),
                });
                Ok(())
            }
            Err(source) => {
                // Somebody deleted the Node: the next heartbeat registers it again.
                if matches!(&source, kube::Error::Api(answer) if answer.code == 404) {
                    self.reported = None;
                }
                Err(self.error("write the status of", source))
            }
        }
    }

    async fn renew_lease(&self) -> Result<(), KubeletError> {
        let now = MicroTime(Timestamp::now());
        let change = json!({"spec": {"renewTime": now, "holderIdentity": self.facts.name, "leaseDurationSeconds": LEASE_SECONDS}});
        let patch = Patch::Merge(change);
        match self
            .leases
            .patch(&self.facts.name, &PatchParams::default(), &patch)
            .await
        {
            Err(kube::Error::Api(answer)) if answer.code == 404 => {}
            Err(source) => return Err(self.error("renew the lease of", source)),
            Ok(_) => return Ok(()),
        }
        let owner = self
            .reported
            .as_ref()
            .and_then(|reported| reported.node.metadata.uid.clone());
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.facts.name.clone()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                owner_references: owner.map(|uid| {
                    vec![OwnerReference {
                        api_version: "v1".to_owned(),
                        kind: "Node".to_owned(),
                        name: self.facts.name.clone(),
                        uid,
                        ..OwnerReference::default()
                    }]
                }),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.facts.name.clone()),
                lease_duration_seconds: Some(LEASE_SECONDS),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        };
        let created = self.leases.create(&PostParams::default(), &lease).await;
        created
            .map(|_| ())
            .map_err(|source| self.error("create the lease of", source))
    }
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// How the kubelet's events name its node. Upstream's knows the node by name before it has a uid.
fn reference(node: &Node) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".to_owned()),
        name: node.metadata.name.clone(),
        uid: node.metadata.name.clone(),
        ..ObjectReference::default()
    }
}
