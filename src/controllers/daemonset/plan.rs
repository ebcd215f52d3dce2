//! Where pods of a DaemonSet are missing, too many or out of date
//! (upstream: `daemon_controller.go`, `daemon/update.go`). Pure.

use super::backoff::{Backoff, Place};
use super::eligibility::{Eligibility, Fit};
use super::pods as daemon_pods;
use crate::client::events::Level;
use crate::controllers::int_or_percent::{self, NotAPercentage, Round};
use crate::controllers::pods;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// No more pods are created, and no more deleted, in one go.
pub const BURST: usize = 250;

/// What the plan is made from.
pub struct View<'a> {
    pub set: &'a DaemonSet,
    pub nodes: &'a [Arc<Node>],
    /// The set's own.
    pub pods: &'a [Arc<Pod>],
    /// Of the set's template.
    pub hash: &'a str,
    pub now: Timestamp,
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub level: Level,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// The nodes that get a pod.
    pub create_on: Vec<String>,
    pub delete: Vec<Arc<Pod>>,
    pub notices: Vec<Notice>,
    /// When time alone changes something.
    pub again_after: Option<Duration>,
}

type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<Pod>>>;

impl View<'_> {
    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        daemon_pods::is_up_to_date(self.set, self.hash, pod)
    }

    /// Pods that are over and going hold no place.
    fn by_node(&self) -> ByNode<'_> {
        let mut by_node = ByNode::new();
        for pod in self.pods {
            if pods::is_finished(pod) && pods::is_terminating(pod) {
                continue;
            }
            if let Some(node) = daemon_pods::target_node(pod) {
                by_node.entry(node).or_default().push(pod);
            }
        }
        by_node
    }
}

/// Assigned ones first, then by age and name.
fn oldest_first(pods: &mut [&Arc<Pod>]) {
    pods.sort_by_cached_key(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (!daemon_pods::is_assigned(pod), created, pod.name_any())
    });
}

/// Brings pods to the nodes that lack one and takes them from those that should have none; where all is in place,
/// goes on with a rolling update.
pub fn plan(view: &View<'_>, backoff: &mut Backoff) -> Result<Plan, NotAPercentage> {
    let eligibility = Eligibility::of(view.set);
    let by_node = view.by_node();
    let fits: Vec<(&Arc<Node>, Fit)> = view.nodes.iter().map(|node| (node, eligibility.fit(node))).collect();
    let mut plan = Plan {
        again_after: becomes_available(view),
        ..Plan::default()
    };
    let surges = max_surge(view.set, 1)? > 0;
    for (node, fit) in &fits {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        place(view, (name, *fit), by_node.get(name), surges, backoff, &mut plan);
    }
    // A pod for a node that is no more is never scheduled, so nobody else would remove it.
    let known: BTreeMap<&str, Fit> = fits
        .iter()
        .map(|(node, fit)| (node.metadata.name.as_deref().unwrap_or_default(), *fit))
        .collect();
    let lost = by_node
        .iter()
        .filter(|(node, _)| !known.contains_key(*node))
        .flat_map(|(_, pods)| pods);
    let lost = lost.filter(|pod| !daemon_pods::is_assigned(pod) && !pods::is_terminating(pod));
    plan.delete.extend(lost.map(|pod| Arc::clone(pod)));
    if plan.create_on.is_empty() && plan.delete.is_empty() && is_rolling(view.set) {
        roll(view, &known, &by_node, &mut plan)?;
    }
    plan.create_on.truncate(BURST);
    plan.delete.truncate(BURST);
    Ok(plan)
}

fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("RollingUpdate")
}

/// What one node lacks or has too much of.
fn place(
    view: &View<'_>,
    (node, fit): (&str, Fit),
    there: Option<&Vec<&Arc<Pod>>>,
    surges: bool,
    backoff: &mut Backoff,
    plan: &mut Plan,
) {
    let Some(there) = there else {
        if fit.should_run {
            plan.create_on.push(node.to_owned());
        }
        return;
    };
    let staying = there.iter().filter(|pod| !pods::is_terminating(pod));
    if !fit.may_stay {
        plan.delete.extend(staying.map(|pod| Arc::clone(pod)));
        return;
    }
    let mut running: Vec<&Arc<Pod>> = Vec::new();
    for pod in staying {
        match pods::phase(pod) {
            "Failed" => replace_failed(view, node, pod, backoff, plan),
            "Succeeded" => {
                let message = format!(
                    "Found succeeded daemon pod {}/{} on node {node}, will try to delete it",
                    pod.namespace().unwrap_or_default(),
                    pod.name_any()
                );
                plan.notices.push(Notice {
                    level: Level::Normal,
                    reason: "SucceededDaemonPod",
                    message,
                });
                plan.delete.push(Arc::clone(pod));
            }
            _ => running.push(pod),
        }
    }
    oldest_first(&mut running);
    if !surges {
        plan.delete.extend(running.into_iter().skip(1).cloned());
    } else if running.is_empty() {
        // Those that go need not be waited for.
        if fit.should_run {
            plan.create_on.push(node.to_owned());
        }
    } else {
        thin_out(view, &running, plan);
    }
}

/// A surging set may have two pods on a node: an old one that is ready, and a new one that is not available yet.
fn thin_out(view: &View<'_>, running: &[&Arc<Pod>], plan: &mut Plan) {
    let (mut new, mut old): (Option<&Arc<Pod>>, Option<&Arc<Pod>>) = (None, None);
    for pod in running {
        let place = if view.is_new(pod) { &mut new } else { &mut old };
        match place {
            None => *place = Some(pod),
            Some(_) => plan.delete.push(Arc::clone(pod)),
        }
    }
    if let (Some(new), Some(old)) = (new, old)
        && (!pods::is_ready(old) || view.is_available(new))
    {
        plan.delete.push(Arc::clone(old));
    }
}

fn replace_failed(view: &View<'_>, node: &str, pod: &Arc<Pod>, backoff: &mut Backoff, plan: &mut Plan) {
    let place = Place {
        set: view.set.uid().unwrap_or_default(),
        generation: view
            .set
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            .unwrap_or(0),
        node: node.to_owned(),
    };
    match backoff.try_replace(&place, view.now) {
        Ok(()) => {
            let message = format!(
                "Found failed daemon pod {}/{} on node {node}, will try to kill it",
                pod.namespace().unwrap_or_default(),
                pod.name_any()
            );
            plan.notices.push(Notice {
                level: Level::Warning,
                reason: "FailedDaemonPod",
                message,
            });
            plan.delete.push(Arc::clone(pod));
        }
        Err(left) => plan.again_after = Some(plan.again_after.map_or(left, |other| other.min(left))),
    }
}

fn rolling_number(
    set: &DaemonSet,
    of: impl Fn(&k8s_openapi::api::apps::v1::RollingUpdateDaemonSet) -> Option<&IntOrString>,
    desired: i32,
) -> Result<i32, NotAPercentage> {
    let rolling = set.spec.update_strategy.as_ref();
    let rolling = rolling.and_then(|strategy| strategy.rolling_update.as_ref());
    match rolling.and_then(of) {
        Some(number) if is_rolling(set) => int_or_percent::scaled(number, desired, Round::Up),
        _ => Ok(0),
    }
}

fn max_surge(set: &DaemonSet, desired: i32) -> Result<i32, NotAPercentage> {
    rolling_number(set, |rolling| rolling.max_surge.as_ref(), desired)
}

fn max_unavailable(set: &DaemonSet, desired: i32) -> Result<i32, NotAPercentage> {
    rolling_number(set, |rolling| rolling.max_unavailable.as_ref(), desired)
}

/// The pods of one node that stay: at most one of each kind, or else the node is sorted out first.
struct Pair<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

fn pair<'a>(view: &View<'_>, there: &[&'a Arc<Pod>]) -> Option<Pair<'a>> {
    let mut pair = Pair { new: None, old: None };
    for pod in there.iter().filter(|pod| !pods::is_terminating(pod)) {
        let place = if view.is_new(pod) { &mut pair.new } else { &mut pair.old };
        if place.replace(pod).is_some() {
            return None;
        }
    }
    Some(pair)
}

/// One step of a rolling update.
fn roll(
    view: &View<'_>,
    known: &BTreeMap<&str, Fit>,
    by_node: &ByNode<'_>,
    plan: &mut Plan,
) -> Result<(), NotAPercentage> {
    let none = Vec::new();
    let mut places: BTreeMap<&str, &Vec<&Arc<Pod>>> = by_node.iter().map(|(node, pods)| (*node, pods)).collect();
    let mut desired = 0;
    for (node, fit) in known {
        if fit.should_run {
            desired += 1;
            places.entry(node).or_insert(&none);
        }
    }
    let surge = max_surge(view.set, desired)?;
    let mut unavailable = max_unavailable(view.set, desired)?;
    if desired > 0 && surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    if surge == 0 {
        roll_by_deleting(view, &places, unavailable, plan);
    } else {
        roll_by_surging(view, &places, known, (desired, surge), plan);
    }
    Ok(())
}

/// Deletes as many old pods as may be unavailable; new ones come in their place.
fn roll_by_deleting(view: &View<'_>, places: &BTreeMap<&str, &Vec<&Arc<Pod>>>, max: i32, plan: &mut Plan) {
    let mut unavailable = 0;
    let mut candidates = Vec::new();
    for there in places.values() {
        match pair(view, there) {
            None
            | Some(
                Pair { new: None, old: None }
                | Pair {
                    new: Some(_),
                    old: Some(_),
                },
            ) => unavailable += 1,
            Some(Pair { new: Some(new), .. }) => unavailable += i32::from(!view.is_available(new)),
            // Nothing is lost with it.
            Some(Pair { old: Some(old), .. }) if !view.is_available(old) => {
                plan.delete.push(Arc::clone(old));
                unavailable += 1;
            }
            Some(Pair { old: Some(old), .. }) => candidates.push(Arc::clone(old)),
        }
    }
    let budget = usize::try_from(max - unavailable).unwrap_or(0);
    plan.delete.extend(candidates.into_iter().take(budget));
}

/// Creates new pods beside the old ones, which go once the new ones are available.
fn roll_by_surging(
    view: &View<'_>,
    places: &BTreeMap<&str, &Vec<&Arc<Pod>>>,
    known: &BTreeMap<&str, Fit>,
    (desired, max): (i32, i32),
    plan: &mut Plan,
) {
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut misplaced) = (Vec::new(), Vec::new());
    for (node, there) in places {
        let Some(Pair { new, old }) = pair(view, there) else {
            surging += 1;
            continue;
        };
        available += i32::from(old.or(new).is_some_and(|pod| view.is_available(pod)));
        let Some(old) = old else { continue };
        let should_run = known.get(node).is_some_and(|fit| fit.should_run);
        match new {
            None if !view.is_available(old) && !should_run => plan.delete.push(Arc::clone(old)),
            None if !view.is_available(old) => plan.create_on.push((*node).to_owned()),
            None if !should_run => misplaced.push(Arc::clone(old)),
            None => candidates.push((*node).to_owned()),
            Some(new) if view.is_available(new) => plan.delete.push(Arc::clone(old)),
            Some(_) => surging += 1,
        }
    }
    // Where a pod no longer belongs it goes only when as many as are wanted are available elsewhere.
    let spare = usize::try_from(available - desired).unwrap_or(0);
    plan.delete.extend(misplaced.into_iter().take(spare));
    let budget = usize::try_from(max - surging).unwrap_or(0);
    plan.create_on.extend(candidates.into_iter().take(budget));
}

/// When the next pod that is ready has been so for long enough.
fn becomes_available(view: &View<'_>) -> Option<Duration> {
    view.pods
        .iter()
        .filter(|pod| !pods::is_terminating(pod))
        .filter_map(|pod| pods::available_in(pod, view.min_ready_seconds(), view.now))
        .filter(|left| !left.is_zero())
        .min()
}

/// What the set's status should say.
pub fn status(view: &View<'_>) -> DaemonSetStatus {
    let eligibility = Eligibility::of(view.set);
    let mut by_node = view.by_node();
    let old = view.set.status.clone().unwrap_or_default();
    let mut status = DaemonSetStatus {
        observed_generation: view.set.metadata.generation,
        collision_count: old.collision_count,
        conditions: old.conditions,
        ..DaemonSetStatus::default()
    };
    let (mut available, mut updated) = (0, 0);
    for node in view.nodes {
        let there = by_node.get_mut(node.metadata.name.as_deref().unwrap_or_default());
        let should_run = eligibility.fit(node).should_run;
        status.desired_number_scheduled += i32::from(should_run);
        let Some(there) = there else { continue };
        if !should_run {
            status.number_misscheduled += 1;
            continue;
        }
        status.current_number_scheduled += 1;
        oldest_first(there);
        let Some(pod) = there.first() else { continue };
        status.number_ready += i32::from(pods::is_ready(pod));
        available += i32::from(view.is_available(pod));
        updated += i32::from(view.is_new(pod));
    }
    status.number_available = Some(available);
    status.updated_number_scheduled = Some(updated);
    status.number_unavailable = Some(status.desired_number_scheduled - available);
    status
}

/// Whether `status` says something new.
pub fn differs(set: &DaemonSet, status: &DaemonSetStatus) -> bool {
    let Some(old) = &set.status else { return true };
    let numbers = |status: &DaemonSetStatus| {
        [
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_misscheduled,
            status.number_ready,
            status.updated_number_scheduled.unwrap_or(0),
            status.number_available.unwrap_or(0),
            status.number_unavailable.unwrap_or(0),
        ]
    };
    numbers(status) != numbers(old) || old.observed_generation < set.metadata.generation
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
