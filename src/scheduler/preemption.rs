//! Pods of lower priority make room for one of higher (upstream: `defaultpreemption`, `framework/preemption`). Pure: who
//! would have to go.

use super::configuration::args::PreemptionArgs;
use super::diagnosis::Diagnosis;
use super::framework::{Code, Refusal};
use super::node_info::NodeInfo;
use super::nominations::Nominations;
use super::plan::{Attempt, Filters, Search};
use super::pod_info::PodInfo;
use super::selector::Selector;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use rand::Rng;
use std::cmp::Reverse;
use std::collections::HashSet;
use std::sync::Arc;

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These have to go, and the pod waits for their node.
    MakeRoom { node: String, victims: Vec<String> },
    /// Not now; a nomination stays as it is.
    Wait(String),
    /// An extender failed; a nomination stays as it is.
    Failed(String),
    /// Nothing would help; a nomination is taken back.
    Nothing(String),
}

/// A node and who would have to go there.
pub struct Candidate {
    pub node: String,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many budgets that would break.
    pub violations: usize,
}

/// Who would have to go so that the pod fits somewhere. `dying` are pods that were deleted for others already.
pub fn plan(
    attempt: &Attempt<'_>,
    args: &PreemptionArgs,
    diagnosis: &Diagnosis,
    filters: Option<&Filters<'_>>,
    dying: &HashSet<String>,
    search: &mut Search,
    now: Timestamp,
) -> Outcome {
    if let Err(why) = is_eligible(attempt, diagnosis, dying) {
        return Outcome::Wait(why.to_owned());
    }
    let cache = attempt.cx.cache;
    let potential: Vec<&NodeInfo> = cache
        .nodes()
        .filter(|node| diagnosis.code(node.slot) == Code::Unschedulable)
        .collect();
    let mut failed = Diagnosis {
        nodes_count: cache.order().len(),
        others: Some(Refusal::unresolvable("Preemption is not helpful for scheduling")),
        ..Diagnosis::default()
    };
    let (Some(filters), false) = (filters, potential.is_empty()) else {
        return Outcome::Nothing(failed.message());
    };
    let budgets: Vec<Budget<'_>> = attempt
        .cx
        .objects
        .budgets
        .all()
        .map(|budget| Budget::new(budget))
        .collect();
    let enough = args.candidates(potential.len());
    let offset = search.random.random_range(0..potential.len());
    let (mut kind, mut violating) = (Vec::new(), Vec::new());
    // What an extender looks after it may have victims for.
    let others_choose = attempt.extenders.choose_victims(attempt.pod);
    for at in 0..potential.len() {
        let node = potential[(offset + at) % potential.len()];
        match victims_on(attempt, filters, node, &budgets, now) {
            Ok(candidate) if candidate.victims.is_empty() && !others_choose => {}
            Ok(candidate) => {
                let list = if candidate.violations == 0 {
                    &mut kind
                } else {
                    &mut violating
                };
                list.push(candidate);
                if !kind.is_empty() && kind.len() + violating.len() >= enough {
                    break;
                }
            }
            Err(refusal) => {
                failed.refusals.insert(node.slot, refusal);
            }
        }
    }
    kind.extend(violating);
    if kind.is_empty() {
        return Outcome::Nothing(failed.message());
    }
    match attempt.extenders.preempt(attempt.cx, attempt.pod, kind) {
        Ok(left) => match best(left, now) {
            Some(candidate) => Outcome::MakeRoom {
                node: candidate.node,
                victims: candidate.victims.iter().map(|victim| victim.uid.clone()).collect(),
            },
            None => Outcome::Wait("no candidate node for preemption".into()),
        },
        Err(error) => Outcome::Failed(error),
    }
}

fn is_eligible(attempt: &Attempt<'_>, diagnosis: &Diagnosis, dying: &HashSet<String>) -> Result<(), &'static str> {
    let pod = attempt.pod;
    if pod.spec().preemption_policy.as_deref() == Some("Never") {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let decided = attempt.nominations.node_of(&pod.uid);
    let Some(node) = decided
        .or_else(|| pod.nominated_node())
        .and_then(|name| attempt.cx.cache.node(name))
    else {
        return Ok(());
    };
    let hopeless = diagnosis
        .refusals
        .get(&node.slot)
        .is_some_and(|r| r.code == Code::Unresolvable);
    let is_leaving = |other: &Arc<PodInfo>| {
        other.priority < pod.priority && (dying.contains(&other.uid) || is_leaving_for_another(other))
    };
    if !hopeless && node.pods.iter().any(is_leaving) {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

fn is_leaving_for_another(pod: &PodInfo) -> bool {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    pod.is_terminating()
        && conditions.into_iter().flatten().any(|condition| {
            condition.type_ == "DisruptionTarget"
                && condition.status == "True"
                && condition.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// The fewest and least important pods of lower priority without which the pod would fit.
fn victims_on(
    attempt: &Attempt<'_>,
    filters: &Filters<'_>,
    node: &NodeInfo,
    budgets: &[Budget<'_>],
    now: Timestamp,
) -> Result<Candidate, Refusal> {
    let lower = |other: &&Arc<PodInfo>| other.priority < attempt.pod.priority;
    let mut potential: Vec<Arc<PodInfo>> = node.pods.iter().filter(lower).cloned().collect();
    if potential.is_empty() {
        return Err(Refusal::unresolvable("No preemption victims found for incoming pod"));
    }
    let (mut filters, mut node) = (filters.clone(), node.clone());
    for victim in &potential {
        node.remove(&victim.uid);
        filters.remove_pod(victim, &node);
    }
    filters.fits(attempt, &node).map_err(|(_, refusal)| refusal)?;
    potential.sort_by_key(|pod| importance(pod, now));
    let (violating, others) = split_by_budgets(potential, budgets);
    let mut candidate = Candidate {
        node: node.name.clone(),
        victims: Vec::new(),
        violations: 0,
    };
    // As many as possible stay, the most important and those with a budget first.
    let violating_count = violating.len();
    for (at, pod) in violating.into_iter().chain(others).enumerate() {
        node.add(pod.clone());
        filters.add_pod(&pod, &node);
        if filters.fits(attempt, &node).is_err() {
            node.remove(&pod.uid);
            filters.remove_pod(&pod, &node);
            candidate.violations += usize::from(at < violating_count);
            candidate.victims.push(pod);
        }
    }
    candidate.victims.sort_by_key(|pod| importance(pod, now));
    Ok(candidate)
}

fn started(pod: &PodInfo, now: Timestamp) -> Timestamp {
    let status = pod.pod.status.as_ref();
    status
        .and_then(|status| status.start_time.as_ref())
        .map_or(now, |time| time.0)
}

/// Lowest for the most important: by priority, then by who runs longest.
fn importance(pod: &PodInfo, now: Timestamp) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority), started(pod, now))
}

struct Budget<'a> {
    namespace: &'a str,
    selector: Selector,
    allowed: i32,
    /// Pods whose disruption the API server has counted already.
    counted: HashSet<&'a str>,
}

impl<'a> Budget<'a> {
    fn new(budget: &'a PodDisruptionBudget) -> Self {
        let status = budget.status.as_ref();
        let counted = status.and_then(|status| status.disrupted_pods.as_ref());
        Self {
            namespace: budget.metadata.namespace.as_deref().unwrap_or_default(),
            selector: Selector::new(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.and_then(|status| status.disruptions_allowed).unwrap_or(0),
            counted: counted
                .into_iter()
                .flat_map(|pods| pods.keys().map(String::as_str))
                .collect(),
        }
    }
}

/// Those whose going would break a budget, and the others; the order stays.
fn split_by_budgets(pods: Vec<Arc<PodInfo>>, budgets: &[Budget<'_>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            let concerns = !pod.labels().is_empty()
                && budget.namespace == pod.namespace
                && !budget.selector.is_empty()
                && budget.selector.matches(pod.labels())
                && !budget.counted.contains(pod.name.as_str());
            if concerns {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}

/// Fewest broken budgets, then the least important victims, then the lowest sum of priorities, then the fewest, then
/// those that have run the shortest.
fn best(candidates: Vec<Candidate>, now: Timestamp) -> Option<Candidate> {
    let rank = |candidate: &Candidate| {
        let highest = candidate.victims[0].priority;
        // So that a few negative ones are not better than one.
        let sum: i64 = candidate
            .victims
            .iter()
            .map(|v| i64::from(v.priority) + (1 << 31))
            .sum();
        let most_important = candidate.victims.iter().filter(|victim| victim.priority == highest);
        let earliest = most_important.map(|victim| started(victim, now)).min();
        (
            candidate.violations,
            highest,
            sum,
            candidate.victims.len(),
            Reverse(earliest),
        )
    };
    candidates.into_iter().min_by_key(rank)
}

/// Pods of lower priority that wait for the same node: they have to look elsewhere.
pub fn displaced(nominations: &Nominations, pod: &PodInfo, node: &str) -> Vec<Arc<PodInfo>> {
    let nominated = nominations.on(node).iter();
    nominated
        .filter(|other| other.priority < pod.priority)
        .cloned()
        .collect()
}
