//! Volumes that only one pod or one node may use at a time (upstream: `volumerestrictions`).

use super::{not_found, uses};
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use k8s_openapi::api::core::v1::Volume;

pub struct VolumeRestrictions;

#[derive(Clone)]
struct Alone<'a> {
    pod: &'a PodInfo,
    /// Claims that no other pod may use.
    exclusive: Vec<&'a str>,
    /// Pods that use one of them.
    users: i64,
    has_disks: bool,
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.rbd.is_some()
        || volume.iscsi.is_some()
}

/// The same disk, and not read-only on both sides.
fn conflict(a: &Volume, b: &Volume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        return a.pd_name == b.pd_name && !read_only;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        return a.iqn == b.iqn && !read_only;
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        let monitor = a.monitors.iter().any(|monitor| b.monitors.contains(monitor));
        return monitor && a.pool == b.pool && a.image == b.image && !read_only;
    }
    false
}

fn conflicts(pod: &PodInfo, other: &PodInfo) -> bool {
    let disks = pod.volumes().iter().filter(|volume| is_disk(volume));
    disks
        .into_iter()
        .any(|volume| other.volumes().iter().any(|other| conflict(volume, other)))
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        let has_disks = pod.volumes().iter().any(is_disk);
        let mut exclusive = Vec::new();
        for (name, _) in pod.claims.iter().filter(|(_, own)| !own) {
            let Some(claim) = cx.objects.claims.get(&pod.namespace, name) else {
                return PreFilter::Reject(Refusal::unresolvable(not_found("persistentvolumeclaim", name)));
            };
            let modes = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_ref());
            if modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
                exclusive.push(name.as_str());
            }
        }
        if exclusive.is_empty() && !has_disks {
            return PreFilter::Skip;
        }
        let users = exclusive
            .iter()
            .map(|name| i64::from(cx.cache.claim_users(&pod.namespace, name)));
        PreFilter::run(Alone {
            pod,
            users: users.sum(),
            exclusive,
            has_disks,
        })
    }
    fn listens(&self, event: EventKind) -> bool {
        matches!(event, EventKind::PodRemoved | EventKind::Claim)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::PodRemoved(gone) => {
                let shares = gone.namespace == pod.namespace && gone.claims.iter().any(|c| pod.claims.contains(c));
                shares || conflicts(pod, gone)
            }
            Event::Claim { new, .. } => uses(pod, new),
            _ => false,
        }
    }
}

impl Alone<'_> {
    fn shared(&self, other: &PodInfo) -> i64 {
        if other.namespace != self.pod.namespace {
            return 0;
        }
        let shared = other
            .claims
            .iter()
            .filter(|(name, _)| self.exclusive.contains(&name.as_str()));
        shared.count() as i64
    }
}

impl<'a> Filter<'a> for Alone<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        if self.has_disks && node.pods.iter().any(|other| conflicts(self.pod, other)) {
            return Err(Refusal::unschedulable("node(s) had no available disk"));
        }
        if self.users > 0 {
            return Err(Refusal::unschedulable(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            ));
        }
        Ok(())
    }
    fn add_pod(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.users += self.shared(pod);
    }
    fn remove_pod(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.users -= self.shared(pod);
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
