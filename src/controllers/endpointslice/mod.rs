//! Keeps the EndpointSlices of Services with a selector (upstream: `pkg/controller/endpointslice`).
//!
//! - [`desired`]: which endpoints a Service is to have.
//! - [`hints`]: for which zone or node they are, [`topology`]: by the processors there.
//! - [`plan`]: which slices to write for that.
//! - [`write`]: the calls, which the mirroring controller makes in the same way.

pub mod desired;
mod hints;
mod plan;
mod topology;
pub mod write;

use super::Context;
use super::service_endpoints::{Members, Seen, selector};
use crate::client::ObjectKey;
use crate::client::endpoint_slices::service_of;
use crate::client::events::{Level, Recorder};
use crate::client::informer::{Change, Index, Informer};
use crate::client::work_queue::{Next, WorkQueue};
use crate::managed_by::ENDPOINT_SLICE_CONTROLLER as MANAGER;
use desired::ZONE;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use parking_lot::Mutex;
use plan::{Observed, plan};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use write::{WriteError, Writer, is_managed_by};

const NAME: &str = "endpointslice-controller";
const WORKERS: usize = 5;

struct Controller {
    services: Informer<Service>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    members: Members,
    by_service: Index<EndpointSlice>,
    seen: Mutex<HashMap<ObjectKey, Seen>>,
    /// The Services whose endpoints have hints by the processors of zones.
    hinted: Mutex<HashSet<ObjectKey>>,
    writer: Writer,
    recorder: Recorder,
}

/// Runs until the context's shutdown.
pub async fn run(ctx: &Context) {
    let informers = &ctx.informers;
    let (services, pods) = (informers.of::<Service>(), informers.of::<Pod>());
    let (nodes, slices) = (informers.of::<Node>(), informers.of::<EndpointSlice>());
    let controller = Controller {
        members: Members::new(&services, &pods),
        by_service: slices.index(|slice| {
            let ours = service_of(slice).filter(|_| is_managed_by(slice, MANAGER));
            ours.map(|service| service.to_string()).into_iter().collect()
        }),
        services,
        nodes,
        slices,
        seen: Mutex::default(),
        hinted: Mutex::default(),
        writer: Writer::new(ctx.client(NAME)),
        recorder: ctx.recorder_as(NAME, "endpoint-slice-controller"),
    };
    let queue = WorkQueue::new("endpointslice");
    controller.subscribe(&queue, &pods);
    let synced = async {
        tokio::join!(
            controller.services.synced(),
            pods.synced(),
            controller.nodes.synced(),
            controller.slices.synced()
        );
    };
    if !ctx.caught_up(synced).await {
        return;
    }
    queue.run(WORKERS, &ctx.shutdown, |key| controller.sync(key)).await;
}

impl Controller {
    fn subscribe(&self, queue: &WorkQueue<ObjectKey>, pods: &Informer<Pod>) {
        let add = |queue: &WorkQueue<ObjectKey>| {
            let queue = queue.clone();
            move |key: ObjectKey| queue.add(key)
        };
        let tell = add(queue);
        self.services.on_change(move |change| {
            change
                .object()
                .into_iter()
                .for_each(|service| tell(ObjectKey::of(&**service)));
        });
        self.members.feed(queue);
        let tell = add(queue);
        self.slices.on_change(move |change| {
            let ours = change.each().filter(|slice| is_managed_by(slice, MANAGER));
            ours.filter_map(|slice| service_of(slice)).for_each(&tell);
        });
        // Endpoints say in which zone their node is, and wait until it is known.
        let on_node = pods.index(|pod| {
            pod.spec
                .as_ref()
                .and_then(|spec| spec.node_name.clone())
                .into_iter()
                .collect()
        });
        let (services, tell) = (self.services.clone(), add(queue));
        self.nodes.on_change(move |change: &Change<Node>| {
            let weight = |node: &Option<Arc<Node>>| node.as_ref().and_then(|node| topology::weight(node));
            if weight(&change.old) != weight(&change.new) {
                let all = services.list().into_iter();
                let hinted = all.filter(|service| topology::is_wanted(service));
                hinted.for_each(|service| tell(ObjectKey::of(&*service)));
            }
        });
        let (members, tell) = (self.members.clone(), add(queue));
        self.nodes.on_change(move |change: &Change<Node>| {
            let zone = |node: &Arc<Node>| node.labels().get(ZONE).cloned();
            let same = matches!((&change.old, &change.new), (Some(old), Some(new)) if zone(old) == zone(new));
            let Some(node) = change.object().filter(|_| !same) else {
                return;
            };
            for pod in on_node.get(&node.name_any()) {
                let services = members.services_of(&pod.namespace().unwrap_or_default(), pod.labels());
                services.into_iter().for_each(&tell);
            }
        });
    }

    async fn sync(&self, key: ObjectKey) -> Result<Next, WriteError> {
        let Some(service) = self.services.get_key(&key) else {
            // Its slices go with it: they are its dependents.
            self.seen.lock().remove(&key);
            self.writer.forget(&key);
            self.hinted.lock().remove(&key);
            self.members.forget(&key);
            return Ok(Next::Done);
        };
        if selector(&service).is_none() {
            return Ok(Next::Done);
        }
        if !self.writer.is_seen(&key, &self.slices) {
            return Ok(Next::Retry);
        }
        let pods = self.members.pods_of(&service);
        let mut slices = self.by_service.get(&key.to_string());
        slices.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        let trigger = self.seen.lock().entry(key.clone()).or_default().look(&service, &pods);
        let plan = plan(&Observed {
            service: &service,
            pods: &pods,
            node: &|name| self.nodes.get("", name),
            zones: &|| topology::Zones::of(&self.nodes.list()),
            slices: &slices,
            trigger,
        });
        let failed = |what: String| {
            let message = format!("Error updating Endpoint Slices for Service {key}: {what}");
            self.recorder
                .event(&*service, Level::Warning, "FailedToUpdateEndpointSlices", message);
        };
        self.tell_of_hints(&key, &service, &plan.topology);
        let written = self.writer.write(&key, &plan.create, &plan.update, &plan.delete).await;
        for (pod, node) in &plan.without_node {
            failed(format!("skipping Pod {pod} for Service {key}: Node {node} Not Found"));
        }
        match written {
            Ok(()) => Ok(Next::Done),
            Err(error) => {
                if !matches!(&error.source, kube::Error::Api(status) if status.code == 409) {
                    failed(error.to_string());
                }
                Err(error)
            }
        }
    }

    /// Says when hints by the processors of zones begin and end, and why there are none.
    fn tell_of_hints(&self, key: &ObjectKey, service: &Service, outcomes: &[(&'static str, Result<(), String>)]) {
        let tell = |level, reason, message: &str, family: &str| {
            let message = format!("{message}, addressType: {family}");
            self.recorder.event(service, level, reason, message);
        };
        let (enabled, disabled) = ("TopologyAwareHintsEnabled", "TopologyAwareHintsDisabled");
        let mut hinted = self.hinted.lock();
        if outcomes.is_empty() {
            if hinted.remove(key) {
                for family in desired::address_types(service) {
                    tell(Level::Warning, disabled, topology::DISABLED, family);
                }
            }
            return;
        }
        for (family, outcome) in outcomes {
            match outcome {
                Ok(()) if hinted.insert(key.clone()) => tell(Level::Normal, enabled, topology::ENABLED, family),
                Ok(()) => {}
                Err(why) => {
                    hinted.remove(key);
                    tell(Level::Warning, disabled, why, family);
                }
            }
        }
    }
}
