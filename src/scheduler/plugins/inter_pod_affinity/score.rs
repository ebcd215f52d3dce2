//! Preferred terms: the pod's own, and those of pods that are there.

use super::{ByKey, at_key};
use crate::scheduler::configuration::args::InterPodAffinityArgs;
use crate::scheduler::framework::{Cx, SCORE_MAX, Score};
use crate::scheduler::index::CarriedKind;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;

pub struct Nearness {
    by_key: ByKey,
}

impl Nearness {
    /// None if nobody prefers anything about this pod.
    pub fn new(cx: Cx<'_>, pod: &PodInfo, args: &InterPodAffinityArgs) -> Option<Self> {
        let mut by_key = ByKey::new();
        let own = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
        if !own && args.ignore_preferred_terms_of_existing_pods {
            return None;
        }
        let own_labels = cx.cache.namespace_labels(&pod.namespace);
        for (carried, by_slot) in cx.cache.carriers().iter() {
            let weight = match carried.kind {
                CarriedKind::Required => args.hard_pod_affinity_weight,
                CarriedKind::RequiredAnti => 0,
                CarriedKind::Preferred(weight) => weight,
                CarriedKind::PreferredAnti(weight) => -weight,
            };
            if weight != 0 && carried.term.matches(pod, own_labels) {
                let by_domain = at_key(&mut by_key, cx, &carried.term.topology_key);
                for (slot, count) in by_slot {
                    by_domain.add(*slot, i64::from(*count) * weight);
                }
            }
        }
        let preferred = pod.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let shunned = pod.anti_affinity.preferred.iter().map(|(weight, term)| (-weight, term));
        for (weight, term) in preferred.chain(shunned) {
            let by_domain = at_key(&mut by_key, cx, &term.topology_key);
            by_domain.add_matching(cx, std::slice::from_ref(term), weight);
        }
        by_key.retain(|_, by_domain| !by_domain.is_zero());
        (!by_key.is_empty()).then_some(Self { by_key })
    }
}

impl Score for Nearness {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.by_key
            .values()
            .filter_map(|by_domain| by_domain.get(node.slot))
            .sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (Some(lowest), Some(highest)) = (scores.iter().copied().min(), scores.iter().copied().max()) else {
            return;
        };
        for score in scores {
            *score = if highest > lowest {
                (SCORE_MAX as f64 * ((*score - lowest) as f64 / (highest - lowest) as f64)) as i64
            } else {
                0
            };
        }
    }
}
