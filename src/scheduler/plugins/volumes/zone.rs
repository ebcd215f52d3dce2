//! Volumes with a zone or region are reached from that zone or region only (upstream: `volumezone`).

use super::{class_of, not_found, uses, volume_of};
use crate::scheduler::framework::{Cx, Event, EventKind, Filter, Plugin, PreFilter, Refusal, Verdict};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::selector::labels_of;
use k8s_openapi::api::core::v1::PersistentVolume;

const LABELS: [&str; 4] = [
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

pub struct VolumeZone;

/// A label and the values that will do.
type Topology = (&'static str, Vec<String>);

#[derive(Clone)]
struct Zones(Vec<Topology>);

fn newer_name(label: &'static str) -> &'static str {
    match label {
        "failure-domain.beta.kubernetes.io/zone" => "topology.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region" => "topology.kubernetes.io/region",
        other => other,
    }
}

/// Several zones have `__` between them.
fn topologies(volume: &PersistentVolume) -> Vec<Topology> {
    let labels = labels_of(&volume.metadata.labels);
    let values = |value: &String| value.split("__").map(str::to_owned).collect();
    let found = LABELS
        .iter()
        .filter_map(|label| Some((*label, values(labels.get(*label)?))));
    found.collect()
}

fn find(cx: Cx<'_>, pod: &PodInfo) -> Result<Vec<Topology>, Refusal> {
    let mut all = Vec::new();
    let named = pod.claims.iter().filter(|(_, own)| !own);
    for (name, _) in named {
        let Some(claim) = cx.objects.claims.get(&pod.namespace, name) else {
            return Err(Refusal::unresolvable(not_found("persistentvolumeclaim", name)));
        };
        let volume = volume_of(claim);
        if volume.is_empty() {
            let class = class_of(claim);
            if class.is_empty() {
                return Err(Refusal::unresolvable(
                    "PersistentVolumeClaim had no pv name and storageClass name",
                ));
            }
            let Some(found) = cx.objects.storage_classes.get("", class) else {
                return Err(Refusal::unresolvable(not_found("storageclass.storage.k8s.io", class)));
            };
            match found.volume_binding_mode.as_deref() {
                Some("WaitForFirstConsumer") => continue,
                Some(_) => return Err(Refusal::unresolvable("PersistentVolume had no name")),
                None => {
                    let reason = format!("VolumeBindingMode not set for StorageClass {class:?}");
                    return Err(Refusal::unresolvable(reason));
                }
            }
        }
        let Some(volume) = cx.objects.volumes.get("", volume) else {
            return Err(Refusal::unresolvable(not_found("persistentvolume", volume)));
        };
        all.extend(topologies(volume));
    }
    Ok(all)
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }
    fn pre_filter<'a>(&'a self, cx: Cx<'a>, pod: &'a PodInfo) -> PreFilter<'a> {
        match find(cx, pod) {
            Ok(zones) if zones.is_empty() => PreFilter::Skip,
            Ok(zones) => PreFilter::run(Zones(zones)),
            Err(refusal) => PreFilter::Reject(refusal),
        }
    }
    fn listens(&self, event: EventKind) -> bool {
        use EventKind::{Claim, NodeAdded, NodeChanged, StorageClass, Volume};
        matches!(event, Claim | NodeAdded | NodeChanged | StorageClass | Volume)
    }
    fn may_help(&self, _: Cx<'_>, pod: &PodInfo, event: &Event<'_>) -> bool {
        match event {
            Event::Claim { new, .. } => uses(pod, new),
            Event::Volume { old, new } => old.is_none_or(|old| topologies(old) != topologies(new)),
            Event::StorageClass { old, new } => {
                old.is_none() && new.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
            }
            Event::NodeAdded(_) => true,
            Event::NodeChanged { what, .. } => what.labels,
            _ => false,
        }
    }
}

impl<'a> Filter<'a> for Zones {
    fn filter(&self, node: &NodeInfo) -> Verdict {
        let labels = node.labels();
        // Without any such label there is but one zone.
        if !LABELS.iter().any(|label| labels.contains_key(*label)) {
            return Ok(());
        }
        let within = |(label, values): &Topology| {
            let own = labels.get(*label).or_else(|| labels.get(newer_name(label)));
            own.is_some_and(|own| values.contains(own))
        };
        if self.0.iter().all(within) {
            Ok(())
        } else {
            Err(Refusal::unresolvable("node(s) had no available volume zone"))
        }
    }
    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}
