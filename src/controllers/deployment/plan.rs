//! What a deployment needs next, of what is known of it and its replica sets. Pure (upstream:
//! `pkg/controller/deployment`: `sync.go`, `rolling.go`, `recreate.go`, `rollback.go`).

use super::replica_sets::{self, Set};
use super::sizes::{self, Sizes};
use super::status;
use crate::controllers::pod_template::{self, HASH_LABEL};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::{Resource, ResourceExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NAME_BYTES_MAX: usize = 253;

/// What is known.
pub struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// Those that it controls.
    pub sets: &'a [Arc<ReplicaSet>],
    /// The sets that have pods which have not ended, by uid; looked at only where none may be left (Recreate).
    pub with_pods: BTreeSet<String>,
}

#[derive(Debug, PartialEq)]
pub struct Event {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

/// A replica set to be written, and the size that it had.
#[derive(Debug)]
pub struct Update {
    pub set: ReplicaSet,
    pub from: i32,
}

impl Update {
    /// What to tell when it is done.
    pub fn event(&self) -> Option<Event> {
        scaled(&self.set.name_any(), self.from, replica_sets::replicas(&self.set))
    }
}

pub fn scaled(name: &str, from: i32, to: i32) -> Option<Event> {
    let direction = if from < to { "up" } else { "down" };
    (from != to).then(|| Event {
        warning: false,
        reason: "ScalingReplicaSet",
        message: format!("Scaled {direction} replica set {name} from {from} to {to}"),
    })
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    pub events: Vec<Event>,
    /// The deployment with the template of an older revision: nothing else is done then.
    pub rollback: Option<Deployment>,
    pub update: Vec<Update>,
    pub create: Option<ReplicaSet>,
    pub delete: Vec<ReplicaSet>,
    /// The deployment with its new status and revision; None if they stay.
    pub status: Option<Deployment>,
    /// When to look again, if nothing happens before.
    pub check_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let deployment = observed.deployment;
    let spec = &deployment.spec;
    if spec.selector == LabelSelector::default() {
        return selects_all(deployment);
    }
    let mut sets: Vec<Set> = observed.sets.iter().map(|set| Set::new(set)).collect();
    replica_sets::oldest_first(&mut sets);
    let new = replica_sets::current(deployment, &sets).map(|index| sets.remove(index));
    let mut work = Work {
        observed,
        sizes: Sizes::of(deployment),
        paused: spec.paused == Some(true),
        new,
        old: sets,
        annotations: deployment.annotations().clone(),
        status: deployment.status.clone().unwrap_or_default(),
        plan: Plan::default(),
        now,
    };
    work.note_new();
    if deployment.metadata.deletion_timestamp.is_some() {
        return work.finish(false);
    }
    status::note_pause(deployment, &mut work.status, now);
    if work.paused {
        work.scale();
        work.clean_up();
        return work.finish(false);
    }
    if let Some(revision) = rollback_to(deployment) {
        return work.roll_back(revision);
    }
    if sizes::is_scaled(work.old.iter().chain(&work.new), work.sizes) {
        work.scale();
        return work.finish(false);
    }
    if work.sizes.rolling {
        work.roll();
    } else {
        work.recreate();
    }
    work.finish(true)
}

struct Work<'a> {
    observed: &'a Observed<'a>,
    sizes: Sizes,
    paused: bool,
    /// The set with the deployment's template.
    new: Option<Set<'a>>,
    /// The others, the oldest first.
    old: Vec<Set<'a>>,
    /// The deployment's.
    annotations: BTreeMap<String, String>,
    status: DeploymentStatus,
    plan: Plan,
    now: Timestamp,
}

impl<'a> Work<'a> {
    fn next_revision(&self) -> i64 {
        replica_sets::max_revision(&self.old).saturating_add(1)
    }

    /// Keeps the new set's annotations and the deployment's revision in step.
    fn note_new(&mut self) {
        let (deployment, revision) = (self.observed.deployment, self.next_revision());
        let Some(new) = &mut self.new else { return };
        replica_sets::annotate(&mut new.annotations, deployment.annotations(), revision);
        new.min_ready_seconds = deployment.spec.min_ready_seconds.unwrap_or(0);
        if let Some(revision) = new.annotations.get(replica_sets::REVISION) {
            self.annotations
                .insert(replica_sets::REVISION.to_owned(), revision.clone());
        }
        let unknown = status::condition(&self.status, status::PROGRESSING).is_none();
        if unknown && status::deadline(deployment).is_some() {
            let message = format!("Found new replica set \"{}\"", new.is.name_any());
            status::set(
                &mut self.status,
                status::PROGRESSING,
                "True",
                status::FOUND,
                message,
                self.now,
            );
        }
    }

    /// A change of the deployment's size, or of a paused deployment.
    fn scale(&mut self) {
        let sizes = self.sizes;
        let all = || self.old.iter().chain(&self.new);
        let grows = all().map(|set| set.replicas).sum::<i32>() < sizes.max_total();
        if grows && all().any(Set::may_exceed) {
            return;
        }
        let active = self.old.iter().filter(|set| set.is_active()).count()
            + usize::from(self.new.as_ref().is_some_and(Set::is_active));
        if active <= 1 {
            if let Some(only) = self.only_or_latest(active) {
                only.replicas = sizes.replicas;
                only.note_sizes(sizes.replicas, sizes.max_total());
            }
            return;
        }
        // An old set with pods was adopted beside a new one that has all.
        if self.new.as_ref().is_some_and(|new| sizes::is_saturated(new, sizes)) {
            for set in self.old.iter_mut().filter(|set| set.is_active()) {
                set.replicas = 0;
                set.note_sizes(sizes.replicas, sizes.max_total());
            }
            return;
        }
        if !sizes.rolling {
            return;
        }
        let is_new = self.new.is_some();
        let mut all: Vec<Set> = self.old.drain(..).chain(self.new.take()).collect();
        let new_name = is_new.then(|| all.last().map(|set| set.is.name_any())).flatten();
        let (mut active, idle): (Vec<Set>, Vec<Set>) = all.drain(..).partition(Set::is_active);
        sizes::spread(&mut active, sizes, self.status.replicas.unwrap_or(0));
        for set in &mut active {
            set.note_sizes(sizes.replicas, sizes.max_total());
        }
        for set in active.into_iter().chain(idle) {
            if new_name.as_ref() == Some(&set.is.name_any()) {
                self.new = Some(set);
            } else {
                self.old.push(set);
            }
        }
        replica_sets::oldest_first(&mut self.old);
    }

    /// The only set with pods; if none has any, the new one, or else the youngest.
    fn only_or_latest(&mut self, active: usize) -> Option<&mut Set<'a>> {
        let old = match active {
            0 if self.new.is_some() => None,
            0 => self.old.len().checked_sub(1),
            _ => self.old.iter().position(Set::is_active),
        };
        match old {
            Some(index) => self.old.get_mut(index),
            None => self.new.as_mut(),
        }
    }

    fn roll(&mut self) {
        let crowded = self.crowded();
        let Some(new) = &mut self.new else {
            return self.create();
        };
        let sizes = self.sizes;
        if new.replicas != sizes.replicas {
            let total = self.old.iter().map(|set| set.replicas).sum::<i32>() + new.replicas;
            let size = if new.replicas > sizes.replicas {
                sizes.replicas
            } else if crowded {
                new.replicas
            } else {
                sizes.room_for(new.replicas, total)
            };
            if size != new.replicas {
                new.replicas = size;
                new.note_sizes(sizes.replicas, sizes.max_total());
                return;
            }
        }
        let before: Vec<i32> = self.old.iter().map(|set| set.replicas).collect();
        if self.old.iter().any(Set::is_active) && sizes::shrink_old(&mut self.old, new, sizes) {
            for (set, before) in self.old.iter_mut().zip(before) {
                if set.replicas != before {
                    set.note_sizes(sizes.replicas, sizes.max_total());
                }
            }
            return;
        }
        self.clean_up_if_complete();
    }

    /// Whether there may be more pods than the sizes of the sets say, so that more would be too many.
    fn crowded(&self) -> bool {
        self.old.iter().chain(&self.new).any(Set::may_exceed)
    }

    /// All old pods end before the first new one is made.
    fn recreate(&mut self) {
        let sizes = self.sizes;
        let mut shrunk = false;
        for set in self.old.iter_mut().filter(|set| set.is_active()) {
            set.replicas = 0;
            set.note_sizes(sizes.replicas, sizes.max_total());
            shrunk = true;
        }
        if shrunk || self.old_pods_run() {
            return;
        }
        let Some(new) = &mut self.new else {
            return self.create();
        };
        if new.replicas != sizes.replicas {
            new.replicas = sizes.replicas;
            new.note_sizes(sizes.replicas, sizes.max_total());
        }
        self.clean_up_if_complete();
    }

    fn old_pods_run(&self) -> bool {
        let runs = |set: &Set<'_>| {
            let uid = set.is.uid().unwrap_or_default();
            // Its controller may be about to make pods as long as it has not seen that none are wanted.
            !set.is_seen() || replica_sets::counted(set.is) > 0 || self.observed.with_pods.contains(&uid)
        };
        self.old.iter().any(runs)
    }

    fn create(&mut self) {
        let deployment = self.observed.deployment;
        let spec = &deployment.spec;
        let (sizes, revision) = (self.sizes, self.next_revision());
        let mut template = spec.template.clone();
        let hash = pod_template::hash(&template, self.status.collision_count);
        let labels = with_hash(template.metadata.get_or_insert_default().labels.take(), &hash);
        template.metadata.get_or_insert_default().labels = Some(labels.clone());
        let mut selector = spec.selector.clone();
        selector.match_labels = Some(with_hash(selector.match_labels.take(), &hash));
        let total = self.old.iter().map(|set| set.replicas).sum();
        // It grows when there is room.
        let replicas = if sizes.rolling && self.crowded() {
            0
        } else {
            sizes.room_for(0, total)
        };
        let mut annotations = BTreeMap::new();
        replica_sets::annotate(&mut annotations, deployment.annotations(), revision);
        annotations.insert(replica_sets::DESIRED_REPLICAS.to_owned(), sizes.replicas.to_string());
        annotations.insert(replica_sets::MAX_REPLICAS.to_owned(), sizes.max_total().to_string());
        let name = set_name(&deployment.name_any(), &hash);
        let message = format!("Created new replica set \"{name}\"");
        self.plan.create = Some(ReplicaSet {
            metadata: ObjectMeta {
                // The same at every attempt, so that one that seems to have failed is not made twice.
                name: Some(name),
                namespace: deployment.namespace(),
                labels: Some(labels),
                annotations: Some(annotations),
                owner_references: deployment.controller_owner_ref(&()).map(|owner| {
                    vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
                        block_owner_deletion: Some(true),
                        ..owner
                    }]
                }),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(replicas),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            },
            status: None,
        });
        self.annotations
            .insert(replica_sets::REVISION.to_owned(), revision.to_string());
        if status::deadline(deployment).is_some() {
            status::set(
                &mut self.status,
                status::PROGRESSING,
                "True",
                status::CREATED,
                message,
                self.now,
            );
        }
    }

    fn clean_up_if_complete(&mut self) {
        let deployment = self.observed.deployment;
        let status = deployment.status.as_ref();
        if status.is_some_and(|status| status::is_complete(deployment, status)) {
            self.clean_up();
        }
    }

    /// Of the sets without pods, only so many of the latest revisions are kept.
    fn clean_up(&mut self) {
        let limit = self.observed.deployment.spec.revision_history_limit;
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else {
            return;
        };
        let mut kept: Vec<&Set> = self
            .old
            .iter()
            .filter(|set| set.is.metadata.deletion_timestamp.is_none())
            .collect();
        let limit = usize::try_from(limit).unwrap_or(0);
        let Some(excess) = kept.len().checked_sub(limit) else {
            return;
        };
        replica_sets::earliest_revision_first(&mut kept);
        let idle = |set: &&&Set<'_>| set.is_seen() && set.replicas == 0 && replica_sets::counted(set.is) == 0;
        let idle = kept.iter().take(excess).filter(idle);
        self.plan.delete = idle.map(|set| set.is.clone()).collect();
    }

    /// The way back that clients of old API versions ask for by an annotation; 0 is the last revision.
    fn roll_back(mut self, revision: i64) -> Plan {
        let deployment = self.observed.deployment;
        let warning = |reason, message| Event {
            warning: true,
            reason,
            message,
        };
        let mut target = deployment.clone();
        let revision = match revision {
            0 => replica_sets::last_revision(self.old.iter().chain(&self.new)),
            revision => revision,
        };
        let mut all = self.old.iter().chain(&self.new);
        let found = all.find(|set| revision != 0 && set.revision() == Some(revision));
        let event = match found {
            None if revision == 0 => {
                let message = "Unable to find last revision.".to_owned();
                warning("DeploymentRollbackRevisionNotFound", message)
            }
            None => {
                let message = "Unable to find the revision to rollback to.".to_owned();
                warning("DeploymentRollbackRevisionNotFound", message)
            }
            Some(set) => {
                let template = without_hash(set.is.spec.template.clone().unwrap_or_default());
                let name = deployment.name_any();
                if pod_template::same(&deployment.spec.template, &template) {
                    let message =
                        format!("The rollback revision contains the same template as current deployment \"{name}\"");
                    warning("DeploymentRollbackTemplateUnchanged", message)
                } else {
                    target.spec.template = template;
                    let annotations = replica_sets::rolled_back(deployment.annotations(), &set.annotations);
                    target.metadata.annotations = Some(annotations);
                    Event {
                        warning: false,
                        reason: "DeploymentRollback",
                        message: format!("Rolled back deployment \"{name}\" to revision {revision}"),
                    }
                }
            }
        };
        target.annotations_mut().remove(replica_sets::ROLLBACK_TO);
        self.plan.events.push(event);
        self.plan.rollback = Some(target);
        self.plan
    }

    fn finish(mut self, in_rollout: bool) -> Plan {
        let deployment = self.observed.deployment;
        let before = deployment.status.clone().unwrap_or_default();
        let (new, now) = (self.new.as_ref(), self.now);
        let mut counts = status::count(deployment, self.status, new, &self.old, now);
        if in_rollout {
            let created = self.plan.create.as_ref().map(ResourceExt::name_any);
            let name = new.map(|new| new.is.name_any()).or(created);
            status::note_progress(deployment, &before, &mut counts, name.as_deref(), now);
            status::note_failure(&mut counts, new, &self.old);
            self.plan.check_after = status::check_after(deployment, &counts, now);
        }
        let written = |set: &Set<'_>| {
            let from = replica_sets::replicas(set.is);
            set.changed().map(|set| Update { set, from })
        };
        self.plan.update = new.into_iter().chain(&self.old).filter_map(written).collect();
        if !status::same(&before, &counts) || self.annotations != *deployment.annotations() {
            self.plan.status = Some(with_status(deployment, self.annotations, counts));
        }
        self.plan
    }
}

fn with_status(deployment: &Deployment, annotations: BTreeMap<String, String>, status: DeploymentStatus) -> Deployment {
    let mut deployment = deployment.clone();
    deployment.metadata.annotations = Some(annotations);
    deployment.status = Some(status);
    deployment
}

fn selects_all(deployment: &Deployment) -> Plan {
    let mut plan = Plan::default();
    plan.events.push(Event {
        warning: true,
        reason: "SelectingAll",
        message: "This deployment is selecting all pods. A non-empty selector is required.".to_owned(),
    });
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        status.observed_generation = deployment.metadata.generation;
        plan.status = Some(with_status(deployment, deployment.annotations().clone(), status));
    }
    plan
}

fn rollback_to(deployment: &Deployment) -> Option<i64> {
    deployment.annotations().get(replica_sets::ROLLBACK_TO)?.parse().ok()
}

fn with_hash(labels: Option<BTreeMap<String, String>>, hash: &str) -> BTreeMap<String, String> {
    let mut labels = labels.unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    labels
}

fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    if let Some(labels) = template.metadata.as_mut().and_then(|metadata| metadata.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    template
}

/// The deployment's name and the hash; a name that is too long is cut.
fn set_name(deployment: &str, hash: &str) -> String {
    let most = NAME_BYTES_MAX - 1 - hash.len();
    let mut end = deployment.len().min(most);
    while !deployment.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{hash}", &deployment[..end])
}

/// The status to be written when the new set could not be made.
pub fn create_failed(plan: &Plan, observed: &Observed<'_>, error: &str, now: Timestamp) -> (Event, Option<Deployment>) {
    let deployment = observed.deployment;
    let name = plan.create.as_ref().map(ResourceExt::name_any).unwrap_or_default();
    let message = format!("Failed to create new replica set \"{name}\": {error}");
    let event = Event {
        warning: true,
        reason: status::CREATE_FAILED,
        message: message.clone(),
    };
    let before = deployment.status.clone().unwrap_or_default();
    let mut after = before.clone();
    if status::deadline(deployment).is_some() {
        let reason = status::CREATE_FAILED;
        status::set(&mut after, status::PROGRESSING, "False", reason, message, now);
    }
    let changed = !status::same(&before, &after);
    let annotations = deployment.annotations().clone();
    (event, changed.then(|| with_status(deployment, annotations, after)))
}

/// Whether a set that has the wanted name is the wanted one: made by an attempt whose answer got lost.
pub fn is_wanted(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let controller = set
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let ours = controller.is_some_and(|owner| Some(&owner.uid) == deployment.metadata.uid.as_ref());
    let template = set.spec.template.as_ref();
    ours && template.is_some_and(|template| pod_template::same(template, &deployment.spec.template))
}

/// The status that makes the next attempt take another name.
pub fn collided(deployment: &Deployment) -> Deployment {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
    with_status(deployment, deployment.annotations().clone(), status)
}
