//! What a plug-in is: rules about a pod and nodes, and what may change their verdict (upstream: `kube-scheduler/framework`).

use super::cache::Cache;
use super::node_info::{NodeChange, NodeInfo};
use super::objects::Objects;
use super::pod_info::PodInfo;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::api::storage::v1::{CSINode, CSIStorageCapacity, StorageClass};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// The best score of a node.
pub const SCORE_MAX: i64 = 100;

pub type Reason = Cow<'static, str>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Taking pods away might help.
    Unschedulable,
    /// Taking pods away will not help.
    Unresolvable,
    /// Something is wrong that has nothing to do with the node.
    Error,
}

/// Why a node cannot take the pod, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub reasons: Vec<Reason>,
}

impl Refusal {
    pub fn unschedulable(reason: impl Into<Reason>) -> Self {
        Self {
            code: Code::Unschedulable,
            reasons: vec![reason.into()],
        }
    }
    pub fn unresolvable(reason: impl Into<Reason>) -> Self {
        Self {
            code: Code::Unresolvable,
            reasons: vec![reason.into()],
        }
    }
    pub fn error(reason: impl Into<Reason>) -> Self {
        Self {
            code: Code::Error,
            reasons: vec![reason.into()],
        }
    }
    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }
}

pub type Verdict = Result<(), Refusal>;

/// What a cycle sees. Nothing of it changes while the cycle runs.
#[derive(Clone, Copy)]
pub struct Cx<'a> {
    pub cache: &'a Cache,
    pub objects: &'a Objects,
}

/// What a plug-in says before nodes are looked at.
pub enum PreFilter<'a> {
    /// The rule does not concern the pod.
    Skip,
    /// No node will do.
    Reject(Refusal),
    Run {
        filter: Box<dyn Filter<'a> + 'a>,
        /// Only these nodes can do.
        nodes: Option<BTreeSet<String>>,
    },
}

impl<'a> PreFilter<'a> {
    pub fn run(filter: impl Filter<'a> + 'a) -> Self {
        Self::Run {
            filter: Box::new(filter),
            nodes: None,
        }
    }
}

/// A rule, made ready for one pod.
pub trait Filter<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict;
    /// As if the pod stood on the node.
    fn add_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
    /// As if the pod were gone from the node.
    fn remove_pod(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a>;
}

/// An opinion, made ready for one pod and the nodes that can take it.
pub trait Score {
    fn score(&self, node: &NodeInfo) -> i64;
    /// Brings the scores of all nodes, in the order of the nodes, to 0 … [`SCORE_MAX`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

pub trait Plugin: Send + Sync {
    fn name(&self) -> &'static str;
    fn pre_filter<'a>(&'a self, _cx: Cx<'a>, _pod: &'a PodInfo) -> PreFilter<'a> {
        PreFilter::Skip
    }
    fn pre_score<'a>(&'a self, _cx: Cx<'a>, _pod: &'a PodInfo, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
        None
    }
    /// Which events are worth a look.
    fn listens(&self, event: EventKind) -> bool;
    /// Whether a pod that this plug-in has refused may be placed after the event.
    fn may_help(&self, cx: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool;
}

/// Higher is better, or the reverse; as a share of the highest (upstream: `DefaultNormalizeScore`).
pub fn normalize_by_highest(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        if highest == 0 {
            *score = if reverse { SCORE_MAX } else { *score };
            continue;
        }
        let share = SCORE_MAX * *score / highest;
        *score = if reverse { SCORE_MAX - share } else { share };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    NodeAdded,
    NodeChanged,
    NodeRemoved,
    PodAdded,
    PodChanged,
    PodRemoved,
    Claim,
    Volume,
    StorageClass,
    CsiNode,
    CsiDriver,
    StorageCapacity,
    VolumeAttachmentRemoved,
    ResourceClaim,
    ResourceSlice,
    DeviceClass,
}

/// What has happened. Pods are those on nodes.
pub enum Event<'a> {
    NodeAdded(&'a NodeInfo),
    NodeChanged {
        old: &'a Node,
        node: &'a NodeInfo,
        what: NodeChange,
    },
    NodeRemoved(&'a Node),
    PodAdded(&'a PodInfo),
    PodChanged {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    PodRemoved(&'a PodInfo),
    Claim {
        old: Option<&'a PersistentVolumeClaim>,
        new: &'a PersistentVolumeClaim,
    },
    Volume {
        old: Option<&'a PersistentVolume>,
        new: &'a PersistentVolume,
    },
    StorageClass {
        old: Option<&'a StorageClass>,
        new: &'a StorageClass,
    },
    CsiNode {
        old: Option<&'a CSINode>,
        new: &'a CSINode,
    },
    CsiDriver,
    StorageCapacity {
        old: Option<&'a CSIStorageCapacity>,
        new: &'a CSIStorageCapacity,
    },
    VolumeAttachmentRemoved,
    ResourceClaim {
        old: Option<&'a ResourceClaim>,
        new: Option<&'a ResourceClaim>,
    },
    ResourceSlice,
    DeviceClass,
}

impl Event<'_> {
    pub fn kind(&self) -> EventKind {
        match self {
            Event::NodeAdded(_) => EventKind::NodeAdded,
            Event::NodeChanged { .. } => EventKind::NodeChanged,
            Event::NodeRemoved(_) => EventKind::NodeRemoved,
            Event::PodAdded(_) => EventKind::PodAdded,
            Event::PodChanged { .. } => EventKind::PodChanged,
            Event::PodRemoved(_) => EventKind::PodRemoved,
            Event::Claim { .. } => EventKind::Claim,
            Event::Volume { .. } => EventKind::Volume,
            Event::StorageClass { .. } => EventKind::StorageClass,
            Event::CsiNode { .. } => EventKind::CsiNode,
            Event::CsiDriver => EventKind::CsiDriver,
            Event::StorageCapacity { .. } => EventKind::StorageCapacity,
            Event::VolumeAttachmentRemoved => EventKind::VolumeAttachmentRemoved,
            Event::ResourceClaim { .. } => EventKind::ResourceClaim,
            Event::ResourceSlice => EventKind::ResourceSlice,
            Event::DeviceClass => EventKind::DeviceClass,
        }
    }
}

/// A change of a waiting pod that is worth a try: anything a plug-in reads, but not what the scheduler itself writes.
pub fn is_worth_a_try(old: &Pod, new: &Pod) -> bool {
    let claims = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|status| status.resource_claim_statuses.clone())
    };
    old.spec != new.spec || old.metadata.labels != new.metadata.labels || claims(old) != claims(new)
}
