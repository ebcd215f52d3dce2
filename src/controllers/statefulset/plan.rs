//! What a StatefulSet's pods lack (upstream: `stateful_set_control.go`). Pure.
//!
//! Pods of one ordinal follow each other: a pod's name is its ordinal's, so there is at most one. `OrderedReady` takes
//! one step at a time, up from the first ordinal and down from the last, and waits for each pod; `Parallel` takes them
//! all at once. Scaling comes before updating.

use super::{identity, retention};
use crate::controllers::int_or_percent::{self, Round};
use crate::controllers::pods;
use k8s_openapi::api::apps::v1::{RollingUpdateStatefulSetStrategy, StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// No more pods are created in one go.
const CREATED_AT_ONCE_MAX: usize = 500;

/// What the plan is made from.
pub struct View<'a> {
    pub set: &'a StatefulSet,
    /// The set's own.
    pub pods: &'a [Arc<Pod>],
    /// The names of the revisions.
    pub current: &'a str,
    pub update: &'a str,
    pub collisions: i32,
    pub claim: &'a dyn Fn(&str) -> Option<Arc<PersistentVolumeClaim>>,
    pub now: Timestamp,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// The pod of the ordinal, with the claims that it lacks.
    Create {
        ordinal: i32,
        at_current: bool,
    },
    /// The claims that a waiting pod lacks.
    CreateClaims(Arc<Pod>),
    /// Make labels, volumes and owners of claims of this one as they should be.
    Correct(Arc<Pod>),
    /// Make the owners of the claims of one that goes as they should be.
    CorrectClaims(Arc<Pod>),
    Delete(Arc<Pod>),
}

#[derive(Debug, Default)]
pub struct Plan {
    /// Before anything is done. [`finish`] makes of it what is written.
    pub status: StatefulSetStatus,
    /// Done in turn, and only while nothing fails.
    pub phases: Vec<Vec<Action>>,
    /// The actions of a phase may be done at the same time.
    pub together: bool,
    /// Deleted last, so that they come back at the new revision.
    pub outdated: Vec<Arc<Pod>>,
    /// When time alone changes something.
    pub again_after: Option<Duration>,
}

impl View<'_> {
    fn min_ready_seconds(&self) -> i32 {
        self.set.spec.min_ready_seconds.unwrap_or(0)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.now)
    }

    /// It cannot be counted on.
    fn is_unavailable(&self, pod: &Pod) -> bool {
        !self.is_available(pod) || pods::is_terminating(pod)
    }

    fn is_outdated(&self, pod: &Pod) -> bool {
        identity::revision_of(pod) != self.update && !pods::is_terminating(pod)
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    pods::phase(pod) == "Running" && pods::is_ready(pod)
}

fn strategy_type(set: &StatefulSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    strategy
        .and_then(|strategy| strategy.type_.as_deref())
        .unwrap_or("RollingUpdate")
}

fn rolling(set: &StatefulSet) -> Option<&RollingUpdateStatefulSetStrategy> {
    set.spec.update_strategy.as_ref()?.rolling_update.as_ref()
}

pub fn is_parallel(set: &StatefulSet) -> bool {
    set.spec.pod_management_policy.as_deref() == Some("Parallel")
}

/// Pods by ordinal: those that there should be, and those that are too many.
struct Pods {
    wanted: BTreeMap<i32, Arc<Pod>>,
    condemned: BTreeMap<i32, Arc<Pod>>,
}

pub fn plan(view: &View<'_>) -> Plan {
    let set = view.set;
    let ordinals = identity::ordinals(set);
    let with_ordinal = view
        .pods
        .iter()
        .filter_map(|pod| Some((identity::ordinal(pod)?, Arc::clone(pod))));
    let (wanted, condemned) = with_ordinal.partition(|(ordinal, _)| ordinals.contains(ordinal));
    let pods = Pods { wanted, condemned };
    let mut plan = Plan {
        status: status(view, &pods),
        together: is_parallel(set),
        again_after: becomes_available(view, &pods),
        ..Plan::default()
    };
    if set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let goes_on = scale(view, &pods, &mut plan);
    if goes_on && strategy_type(set) != "OnDelete" {
        plan.outdated = outdated(view, &pods);
    }
    plan
}

fn status(view: &View<'_>, pods: &Pods) -> StatefulSetStatus {
    let all = || pods.wanted.values().chain(pods.condemned.values());
    let count = |so: &dyn Fn(&Pod) -> bool| all().filter(|pod| so(pod)).count() as i32;
    let is_created = |pod: &Pod| !pods::phase(pod).is_empty();
    let is_at = |pod: &Pod, revision: &str| {
        is_created(pod) && !pods::is_terminating(pod) && identity::revision_of(pod) == revision
    };
    StatefulSetStatus {
        observed_generation: view.set.metadata.generation,
        replicas: count(&is_created),
        ready_replicas: Some(count(&is_running_and_ready)),
        available_replicas: Some(count(&|pod| is_running_and_ready(pod) && view.is_available(pod))),
        current_replicas: Some(count(&|pod| is_at(pod, view.current))),
        updated_replicas: Some(count(&|pod| is_at(pod, view.update))),
        current_revision: Some(view.current.to_owned()),
        update_revision: Some(view.update.to_owned()),
        collision_count: Some(view.collisions),
        conditions: view.set.status.as_ref().and_then(|status| status.conditions.clone()),
    }
}

/// When the next pod that is ready has been so for long enough.
fn becomes_available(view: &View<'_>, pods: &Pods) -> Option<Duration> {
    let all = pods.wanted.values().chain(pods.condemned.values());
    all.filter(|pod| !pods::is_terminating(pod))
        .filter_map(|pod| pods::available_in(pod, view.min_ready_seconds(), view.now))
        .filter(|left| !left.is_zero())
        .min()
}

/// Plans what brings the pods to the wanted number. Whether updating may go on.
fn scale(view: &View<'_>, pods: &Pods, plan: &mut Plan) -> bool {
    let ordered = !plan.together;
    let mut actions = Vec::new();
    let mut created = 0;
    for ordinal in identity::ordinals(view.set) {
        let may_go_on = match pods.wanted.get(&ordinal) {
            Some(pod) => keep(view, pod, ordered, &mut actions),
            None => {
                created += 1;
                create(view, ordinal, &mut actions);
                created < CREATED_AT_ONCE_MAX
            }
        };
        let missing = !pods.wanted.contains_key(&ordinal);
        if !may_go_on || (ordered && missing) {
            plan.phases.push(actions);
            return false;
        }
    }
    plan.phases.push(actions);
    let condemned = || pods.condemned.values().rev();
    let wrong = condemned().filter(|pod| !claims_are_right(view, pod));
    plan.phases.push(wrong.cloned().map(Action::CorrectClaims).collect());
    if !ordered {
        let going = condemned().filter(|pod| !pods::is_terminating(pod));
        plan.phases.push(going.cloned().map(Action::Delete).collect());
        return true;
    }
    // All that are wanted are available by now; of the others the last one goes, once those below it are available, too.
    let Some(last) = condemned().next() else { return true };
    let all_wanted = pods.wanted.values().all(|pod| !view.is_unavailable(pod));
    let first_unavailable = pods.condemned.values().find(|pod| view.is_unavailable(pod));
    let is_first_unavailable =
        all_wanted && first_unavailable.is_some_and(|first| first.metadata.name == last.metadata.name);
    let is_healthy = is_running_and_ready(last) && view.is_available(last);
    if !pods::is_terminating(last) && (is_healthy || is_first_unavailable) {
        plan.phases.push(vec![Action::Delete(last.clone())]);
    }
    false
}

fn create(view: &View<'_>, ordinal: i32, actions: &mut Vec<Action>) {
    let pod_name = identity::pod_name(view.set, ordinal);
    let is_blocked = identity::claim_names(view.set, ordinal)
        .filter_map(|name| (view.claim)(&name))
        .any(|claim| retention::blocks_creation(&claim, view.set, &pod_name));
    if !is_blocked {
        let at_current = is_made_at_current(view.set, ordinal);
        actions.push(Action::Create { ordinal, at_current });
    }
}

/// Below the partition pods keep the current revision.
fn is_made_at_current(set: &StatefulSet, ordinal: i32) -> bool {
    let position = ordinal - identity::ordinals(set).start;
    match rolling(set) {
        Some(rolling) => position < rolling.partition.unwrap_or(0),
        None => {
            let status = set.status.as_ref();
            let at_current = status.and_then(|status| status.current_replicas).unwrap_or(0);
            strategy_type(set) == "RollingUpdate" && position < at_current
        }
    }
}

/// Plans what a pod that is there needs; false: those after it have to wait.
fn keep(view: &View<'_>, pod: &Arc<Pod>, ordered: bool, actions: &mut Vec<Action>) -> bool {
    if pods::is_finished(pod) {
        if !pods::is_terminating(pod) {
            actions.push(Action::Delete(pod.clone()));
        }
        return !ordered;
    }
    if pods::phase(pod) == "Pending" && (lacks_claims(view, pod) || !claims_are_right(view, pod)) {
        actions.push(Action::CreateClaims(pod.clone()));
    }
    let is_healthy = is_running_and_ready(pod) && !view.is_unavailable(pod);
    if ordered && !is_healthy {
        return false;
    }
    let is_right = identity::identity_matches(view.set, pod)
        && identity::storage_matches(view.set, pod)
        && claims_are_right(view, pod);
    if !is_right {
        actions.push(Action::Correct(pod.clone()));
    }
    true
}

fn lacks_claims(view: &View<'_>, pod: &Pod) -> bool {
    let Some(ordinal) = identity::ordinal(pod) else {
        return false;
    };
    identity::claim_names(view.set, ordinal).any(|name| (view.claim)(&name).is_none())
}

/// The claims that are there have the owners that they should have.
fn claims_are_right(view: &View<'_>, pod: &Pod) -> bool {
    let Some(ordinal) = identity::ordinal(pod) else {
        return true;
    };
    let claims = identity::claim_names(view.set, ordinal).filter_map(|name| (view.claim)(&name));
    claims
        .into_iter()
        .all(|claim| retention::is_up_to_date(&claim, view.set, pod))
}

/// The pods that go now for the sake of the new revision: from the last one down to the partition, and never more of
/// them than may be unavailable.
fn outdated(view: &View<'_>, pods: &Pods) -> Vec<Arc<Pod>> {
    let ordinals = identity::ordinals(view.set);
    let partition = rolling(view.set).and_then(|rolling| rolling.partition).unwrap_or(0);
    let from = ordinals.start.saturating_add(partition);
    let available = pods.wanted.values().filter(|pod| !view.is_unavailable(pod)).count();
    let unavailable = ordinals.len().saturating_sub(available);
    let budget = max_unavailable(view.set).saturating_sub(unavailable);
    let candidates = pods
        .wanted
        .range(from..)
        .rev()
        .map(|(_, pod)| pod)
        .filter(|pod| view.is_outdated(pod));
    if !is_parallel(view.set) {
        return candidates.take(budget).cloned().collect();
    }
    // Who is unavailable as it is loses nothing by going first.
    let (available, unavailable): (Vec<_>, Vec<_>) = candidates.partition(|pod| !view.is_unavailable(pod));
    let chosen = unavailable.into_iter().chain(available.into_iter().take(budget));
    chosen.cloned().collect()
}

fn max_unavailable(set: &StatefulSet) -> usize {
    let wanted = rolling(set).and_then(|rolling| rolling.max_unavailable.as_ref());
    let of_all = identity::replicas(set);
    // A share that comes to nothing counts as one.
    let number = wanted.map_or(1, |wanted| {
        int_or_percent::scaled(wanted, of_all, Round::Down).unwrap_or(1).max(1)
    });
    usize::try_from(number).unwrap_or(1)
}

/// The status to write, after `deleted` of the outdated pods went.
pub fn finish(set: &StatefulSet, mut status: StatefulSetStatus, deleted: usize) -> StatefulSetStatus {
    let left = status.current_replicas.unwrap_or(0) - deleted as i32;
    status.current_replicas = Some(left.max(0));
    let replicas = identity::replicas(set);
    let is_complete = status.updated_replicas == Some(replicas)
        && status.ready_replicas == Some(replicas)
        && status.replicas == replicas;
    if strategy_type(set) == "RollingUpdate" && is_complete {
        status.current_replicas = status.updated_replicas;
        status.current_revision = status.update_revision.clone();
    }
    status
}

/// Whether `status` says something new.
pub fn differs(set: &StatefulSet, status: &StatefulSetStatus) -> bool {
    let Some(old) = &set.status else { return true };
    let observed = |status: &StatefulSetStatus| status.observed_generation.unwrap_or(0);
    let numbers = |status: &StatefulSetStatus| {
        [
            Some(status.replicas),
            status.ready_replicas,
            status.available_replicas,
            status.current_replicas,
            status.updated_replicas,
            status.collision_count,
        ]
        .map(Option::unwrap_or_default)
    };
    observed(status) > observed(old)
        || numbers(status) != numbers(old)
        || status.current_revision != old.current_revision
        || status.update_revision != old.update_revision
}

#[cfg(test)]
mod random;
#[cfg(test)]
mod tests;
