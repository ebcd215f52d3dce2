//! A driver attaches so many volumes to a node and no more (upstream: `nodevolumelimits`).

use super::{claims_of, class_of, uses, volume_of};
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::PodInfo;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub struct NodeVolumeLimits;

#[derive(Clone)]
struct Limits<'a> {
    cx: Cx<'a>,
    /// Driver and volume.
    wanted: HashSet<(String, String)>,
    /// By node: what is attached there, also for pods that are gone.
    attached: Arc<HashMap<String, Vec<(String, String)>>>,
}

fn attached(objects: &Objects) -> HashMap<String, Vec<(String, String)>> {
    let mut by_node: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for attachment in objects.attachments.all() {
        let volume = attachment.spec.source.persistent_volume_name.as_deref();
        let volume = volume.and_then(|name| objects.volumes.get("", name));
        if let Some(csi) = volume.and_then(|volume| volume.spec.as_ref()?.csi.as_ref()) {
            let id = (csi.driver.clone(), csi.volume_handle.clone());
            by_node.entry(attachment.spec.node_name.clone()).or_default().push(id);
        }
    }
    by_node
}

/// The driver and a name that is the same wherever the volume is used.
fn volume_id(objects: &Objects, claim: &PersistentVolumeClaim) -> Option<(String, String)> {
    if let Some(volume) = objects.volumes.get("", volume_of(claim)) {
        let csi = volume.spec.as_ref()?.csi.as_ref()?;
        return Some((csi.driver.clone(), csi.volume_handle.clone()));
    }
    // It will be made by the class' driver.
    let class = objects.storage_classes.get("", class_of(claim))?;
    let key = super::binding::key(claim);
    Some((class.provisioner.clone(), format!("claim {key}")))
}

fn ids<'a>(objects: &'a Objects, pod: &'a PodInfo) -> impl Iterator<Item = (String, String)> {
    claims_of(objects, pod).filter_map(|claim| volume_id(objects, claim))
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        let wanted: HashSet<_> = ids(cx.objects, pod).collect();
        if wanted.is_empty() {
            return PreFilter::Skip;
        }
        PreFilter::run(Limits {
            cx,
            wanted,
            attached: Arc::new(attached(cx.objects)),
        })
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{Claim, CsiNode, PodRemoved, VolumeAttachmentRemoved};
        matches!(event, Claim | CsiNode | PodRemoved | VolumeAttachmentRemoved)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::PodRemoved(gone) => !gone.claims.is_empty(),
            Event::Claim { new, .. } => uses(pod, new),
            Event::CsiNode { old, new } => old.is_none_or(|old| old.spec != new.spec),
            Event::VolumeAttachmentRemoved => true,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Limits<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let objects = self.cx.objects;
        let Some(csi_node) = objects.csi_nodes.get("", &node.name) else {
            return Ok(());
        };
        let limits: HashMap<&str, i32> = csi_node
            .spec
            .drivers
            .iter()
            .filter_map(|driver| Some((driver.name.as_str(), driver.allocatable.as_ref()?.count?)))
            .collect();
        if !self
            .wanted
            .iter()
            .any(|(driver, _)| limits.contains_key(driver.as_str()))
        {
            return Ok(());
        }
        let mut there: HashSet<(String, String)> = node.pods.iter().flat_map(|pod| ids(objects, pod)).collect();
        there.extend(self.attached.get(&node.name).into_iter().flatten().cloned());
        for (driver, limit) in limits {
            let of_driver = |volumes: &mut dyn Iterator<Item = &(String, String)>| {
                volumes.filter(|(name, _)| name == driver).count()
            };
            let added = of_driver(&mut self.wanted.difference(&there));
            let used = of_driver(&mut there.iter());
            if added > 0 && used + added > limit.max(0) as usize {
                return Err(Refusal::unschedulable("node(s) exceed max volume count"));
            }
        }
        Ok(())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
