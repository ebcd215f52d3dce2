//! Volumes that are bound must be reachable from the node; for claims that wait for a pod, one must be found or made there
//! (upstream: `volumebinding`).

use super::{SELECTED_NODE, annotation, class_of, class_of_volume, is_bound, not_found, reach, uses, volume_of};
use crate::quantity::Quantity;
use crate::scheduler::framework::{Code, Cx, Event, EventKind, Filter, Plugin, PreFilter, Reason, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::objects::Objects;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::{Labels, NodeTerms, Selector, labels_of};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use std::sync::Arc;

pub struct VolumeBinding;

/// A volume, and from where it can be reached.
type Reach = (Arc<PersistentVolume>, Option<NodeTerms>);

/// A pod's claims by what is to be done about them.
#[derive(Default)]
struct Claims {
    /// The volumes of claims that are bound; None for one that is not there.
    bound: Vec<Option<Reach>>,
    /// The node decides. The smallest first.
    waiting: Vec<Waiting>,
}

struct Waiting {
    claim: Arc<PersistentVolumeClaim>,
    /// It was decided that it is made for this node.
    node: Option<String>,
    /// Volumes that would do: the one that was made for it, else the smallest first.
    volumes: Vec<Reach>,
}

#[derive(Clone)]
struct Reachable<'a> {
    cx: Cx<'a>,
    claims: Arc<Claims>,
}

/// What is to be done about claims before the pod can be bound to the node.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    pub volumes: Vec<(Arc<PersistentVolumeClaim>, Arc<PersistentVolume>)>,
    pub provisions: Vec<Arc<PersistentVolumeClaim>>,
}

impl Bindings {
    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.provisions.is_empty()
    }
}

pub fn key(claim: &PersistentVolumeClaim) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}/{}", part(&claim.metadata.namespace), part(&claim.metadata.name))
}

fn find(objects: &Objects, pod: &PodInfo) -> Result<Claims, Refusal> {
    let mut claims = Claims::default();
    let mut immediate = false;
    for (name, own) in &pod.claims {
        let Some(claim) = objects.claims.get(&pod.namespace, name) else {
            return Err(Refusal::unresolvable(if *own {
                format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
            } else {
                not_found("persistentvolumeclaim", name)
            }));
        };
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Lost") {
            let volume = volume_of(claim);
            return Err(Refusal::unresolvable(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            )));
        }
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(Refusal::unresolvable(format!(
                "persistentvolumeclaim {name:?} is being deleted"
            )));
        }
        if *own && !is_controlled_by(claim, pod) {
            return Err(Refusal::unresolvable(format!(
                "PVC {}/{name} was not created for pod {} (pod is not owner)",
                pod.namespace,
                pod.key()
            )));
        }
        if is_bound(claim) {
            let volume = objects.volumes.get("", volume_of(claim));
            claims.bound.push(volume.map(|volume| (volume.clone(), reach(volume))));
        } else if volume_of(claim).is_empty() && waits_for_consumer(objects, claim) {
            let assumed = objects.assumed.nodes.get(&key(claim)).map(String::as_str);
            let node = assumed.or(annotation(claim, SELECTED_NODE)).map(str::to_owned);
            claims.waiting.push(Waiting {
                claim: claim.clone(),
                volumes: if node.is_none() {
                    candidates(objects, claim)
                } else {
                    Vec::new()
                },
                node,
            });
        } else {
            immediate = true;
        }
    }
    if immediate {
        return Err(Refusal::unresolvable(
            "pod has unbound immediate PersistentVolumeClaims",
        ));
    }
    claims.waiting.sort_by_key(|waiting| requested(&waiting.claim));
    Ok(claims)
}

fn is_controlled_by(claim: &PersistentVolumeClaim, pod: &PodInfo) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    let mut controllers = owners.filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| owner.uid == pod.uid)
}

fn waits_for_consumer(objects: &Objects, claim: &PersistentVolumeClaim) -> bool {
    let class = objects.storage_classes.get("", class_of(claim));
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// What has to be done on this node, or why it cannot be.
pub fn decide(cx: Cx<'_>, pod: &PodInfo, node: &NodeInfo) -> Result<Bindings, Refusal> {
    let claims = find(cx.objects, pod)?;
    on_node(cx.objects, &claims, node)
}

fn on_node(objects: &Objects, claims: &Claims, info: &NodeInfo) -> Result<Bindings, Refusal> {
    let Some(node) = &info.node else {
        return Ok(Bindings::default());
    };
    let mut reasons: Vec<Reason> = Vec::new();
    let (mut exist, mut reachable) = (true, true);
    let is_there = |terms: &Option<NodeTerms>| terms.as_ref().is_none_or(|terms| terms.matches(node));
    for bound in &claims.bound {
        match bound {
            None => exist = false,
            Some((_, terms)) => reachable &= is_there(terms),
        }
    }
    let mut bindings = Bindings::default();
    let (mut satisfied, mut enough) = (true, true);
    let mut to_provision: Vec<&Arc<PersistentVolumeClaim>> = Vec::new();
    let mut taken: Vec<&Arc<PersistentVolume>> = Vec::new();
    for waiting in &claims.waiting {
        if let Some(selected) = &waiting.node {
            satisfied &= *selected == info.name;
            to_provision.push(&waiting.claim);
            continue;
        }
        let free = |volume: &Arc<PersistentVolume>| !taken.iter().any(|other| Arc::ptr_eq(other, volume));
        let mut volumes = waiting.volumes.iter();
        match volumes.find(|(volume, terms)| free(volume) && is_there(terms)) {
            Some((volume, _)) => {
                taken.push(volume);
                bindings.volumes.push((waiting.claim.clone(), volume.clone()));
            }
            None => to_provision.push(&waiting.claim),
        }
    }
    if satisfied {
        for claim in to_provision {
            match can_provision(objects, claim, node)? {
                Provision::Yes => bindings.provisions.push(claim.clone()),
                Provision::No => satisfied = false,
                Provision::NoRoom => enough = false,
            }
        }
    }
    let said = [
        (reachable, "node(s) didn't match PersistentVolume's node affinity"),
        (satisfied, "node(s) didn't find available persistent volumes to bind"),
        (enough, "node(s) did not have enough free storage"),
        (
            exist,
            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        ),
    ];
    reasons.extend(
        said.iter()
            .filter(|(fine, _)| !fine)
            .map(|(_, reason)| Reason::from(*reason)),
    );
    if reasons.is_empty() {
        Ok(bindings)
    } else {
        Err(Refusal {
            code: Code::Unresolvable,
            reasons,
        })
    }
}

fn amount(text: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    text.and_then(|text| text.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    amount(requests.and_then(|requests| requests.get("storage")))
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    amount(capacity.and_then(|capacity| capacity.get("storage")))
}

/// The volume that was made for the claim, else the free ones that would do, the smallest first.
fn candidates(objects: &Objects, claim: &PersistentVolumeClaim) -> Vec<Reach> {
    let claim_key = key(claim);
    let Some(spec) = claim.spec.as_ref() else {
        return Vec::new();
    };
    let selector = spec.selector.as_ref().map(|selector| Selector::new(Some(selector)));
    let wanted = requested(claim);
    let mut found: Vec<(Quantity, &Arc<PersistentVolume>)> = Vec::new();
    for volume in objects.volumes.all() {
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let Some(of_volume) = volume.spec.as_ref() else {
            continue;
        };
        let assumed = objects.assumed.volumes.get(name);
        let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".into());
        let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
        let size = capacity(volume);
        if assumed.is_some_and(|other| *other != claim_key)
            || class_of_volume(volume) != class_of(claim)
            || volume.metadata.deletion_timestamp.is_some()
            || size < wanted
            || mode(&of_volume.volume_mode) != mode(&spec.volume_mode)
            || attributes(&of_volume.volume_attributes_class_name) != attributes(&spec.volume_attributes_class_name)
        {
            continue;
        }
        if let Some(reference) = &of_volume.claim_ref {
            let same_uid = |uid: &String| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref();
            if reference.namespace == claim.metadata.namespace
                && reference.name == claim.metadata.name
                && reference.uid.as_ref().is_none_or(same_uid)
            {
                return vec![(volume.clone(), reach(volume))];
            }
            continue;
        }
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let modes = of_volume.access_modes.as_deref().unwrap_or_default();
        let has_modes = spec.access_modes.iter().flatten().all(|mode| modes.contains(mode));
        let labels = labels_of(&volume.metadata.labels);
        if has_modes
            && matches!(phase, None | Some("" | "Available"))
            && selector.as_ref().is_none_or(|selector| selector.matches(labels))
        {
            found.push((size, volume));
        }
    }
    found.sort_by_key(|(size, _)| *size);
    found
        .into_iter()
        .map(|(_, volume)| (volume.clone(), reach(volume)))
        .collect()
}

enum Provision {
    Yes,
    No,
    NoRoom,
}

fn can_provision(objects: &Objects, claim: &PersistentVolumeClaim, node: &Node) -> Result<Provision, Refusal> {
    let name = class_of(claim);
    let Some(class) = objects.storage_classes.get("", name) else {
        return Err(Refusal::error(format!(
            "failed to find storage class {name:?}: storageclass.storage.k8s.io {name:?} not found"
        )));
    };
    if matches!(class.provisioner.as_str(), "" | "kubernetes.io/no-provisioner") {
        return Ok(Provision::No);
    }
    if !allows(class.allowed_topologies.as_deref(), labels_of(&node.metadata.labels)) {
        return Ok(Provision::No);
    }
    Ok(if has_room(objects, class, claim, node) {
        Provision::Yes
    } else {
        Provision::NoRoom
    })
}

fn allows(terms: Option<&[TopologySelectorTerm]>, labels: &Labels) -> bool {
    let Some(terms) = terms.filter(|terms| !terms.is_empty()) else {
        return true;
    };
    terms.iter().any(|term| {
        let mut expressions = term.match_label_expressions.iter().flatten();
        expressions.all(|e| labels.get(&e.key).is_some_and(|value| e.values.contains(value)))
    })
}

/// Drivers that tell their capacity must have told of enough.
fn has_room(objects: &Objects, class: &StorageClass, claim: &PersistentVolumeClaim, node: &Node) -> bool {
    let wanted = requested(claim);
    let driver = objects.csi_drivers.get("", &class.provisioner);
    let tells = driver.is_some_and(|driver| driver.spec.storage_capacity == Some(true));
    if wanted.is_zero() || !tells {
        return true;
    }
    let labels = labels_of(&node.metadata.labels);
    objects.capacities.all().any(|capacity| {
        Some(capacity.storage_class_name.as_str()) == class.metadata.name.as_deref()
            && limit_of(capacity).is_some_and(|limit| limit >= wanted)
            && capacity
                .node_topology
                .as_ref()
                .is_some_and(|topology| Selector::new(Some(topology)).matches(labels))
    })
}

fn limit_of(capacity: &CSIStorageCapacity) -> Option<Quantity> {
    let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
    limit.and_then(|limit| limit.0.parse().ok())
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        if pod.claims.is_empty() {
            return PreFilter::Skip;
        }
        match find(cx.objects, pod) {
            Ok(claims) => PreFilter::run(Reachable {
                cx,
                claims: Arc::new(claims),
            }),
            Err(refusal) => PreFilter::Reject(refusal),
        }
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{Claim, CsiDriver, CsiNode, NodeAdded, NodeChanged, StorageCapacity, StorageClass, Volume};
        matches!(
            event,
            Claim | CsiDriver | CsiNode | NodeAdded | NodeChanged | StorageCapacity | StorageClass | Volume
        )
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Claim { new, .. } => uses(pod, new),
            Event::Volume { .. } | Event::NodeAdded(_) | Event::CsiDriver => true,
            Event::NodeChanged { what, .. } => what.labels,
            Event::StorageClass { old, new } => old.is_none_or(|old| old.allowed_topologies != new.allowed_topologies),
            Event::CsiNode { old, .. } => old.is_none(),
            Event::StorageCapacity { old, new } => match (old.and_then(limit_of), limit_of(new)) {
                (Some(old), Some(new)) => new > old,
                (None, new) => new.is_some(),
                (_, None) => false,
            },
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Reachable<'a> {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        on_node(self.cx.objects, &self.claims, node).map(|_| ())
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
