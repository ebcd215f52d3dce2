//! Extenders have a say about who makes room (upstream: `framework/preemption`, callExtenders).

use super::{Extender, Extenders, ignored, wire};
use crate::scheduler::framework::Cx;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::preemption::Candidate;
use std::collections::HashSet;
use std::sync::Arc;

impl Extenders {
    /// Whether one of them may add victims where the scheduler itself knows of none.
    pub fn choose_victims(&self, pod: &PodInfo) -> bool {
        self.that_concern(pod).any(|extender| extender.preempt.is_some())
    }

    /// What the extenders make of the candidates. One without victims is left out in the end.
    pub fn preempt(&self, cx: Cx<'_>, pod: &PodInfo, mut candidates: Vec<Candidate>) -> Result<Vec<Candidate>, String> {
        for extender in self.that_concern(pod) {
            if extender.preempt.is_none() || candidates.is_empty() {
                continue;
            }
            match self.ask_for_victims(cx, extender, pod, &candidates) {
                Ok(next) => candidates = next,
                Err(error) if extender.ignorable => ignored(extender, &error),
                Err(error) => return Err(error),
            }
        }
        candidates.retain(|candidate| !candidate.victims.is_empty());
        Ok(candidates)
    }

    fn ask_for_victims(
        &self,
        cx: Cx<'_>,
        extender: &Extender,
        pod: &PodInfo,
        candidates: &[Candidate],
    ) -> Result<Vec<Candidate>, String> {
        let Some(call) = &extender.preempt else {
            return Ok(Vec::new());
        };
        let shown = candidates.iter().map(|candidate| {
            let pods = candidate.victims.iter().map(|victim| &**victim).collect();
            (candidate.node.as_str(), pods, candidate.violations)
        });
        let answer = self.ask(call, wire::preemption(pod, shown, extender.node_cache_capable))?;
        let mut next = Vec::new();
        for victims in wire::preempted(&answer)? {
            next.push(candidate(cx, extender, victims)?);
        }
        // Nobody has to go where nobody had to before: the next may find somebody.
        let empty = candidates.iter().filter(|candidate| candidate.victims.is_empty());
        let empty: HashSet<&str> = empty.map(|candidate| candidate.node.as_str()).collect();
        let is_odd = |candidate: &Candidate| candidate.victims.is_empty() && !empty.contains(candidate.node.as_str());
        if !extender.ignorable
            && let Some(odd) = next.iter().find(|candidate| is_odd(candidate))
        {
            return Err(format!("expected at least one victim pod on node {:?}", odd.node));
        }
        next.retain(|candidate| !is_odd(candidate));
        Ok(next)
    }
}

fn candidate(cx: Cx<'_>, extender: &Extender, victims: wire::Victims) -> Result<Candidate, String> {
    let wire::Victims { node, uids, violations } = victims;
    let Some(info) = cx.cache.node(&node) else {
        return Err(format!("nodeinfo not found for node name {node:?}"));
    };
    let find = |uid: &String| {
        let pod: Option<&Arc<PodInfo>> = info.pods.iter().find(|pod| pod.uid == *uid);
        pod.cloned().ok_or_else(|| {
            format!(
                "extender: {} claims to preempt pod (UID: &{{{uid}}}) on node: {node}, but the pod is not found on that node",
                extender.url
            )
        })
    };
    Ok(Candidate {
        victims: uids.iter().map(find).collect::<Result<_, _>>()?,
        violations: usize::try_from(violations).unwrap_or(0),
        node,
    })
}
