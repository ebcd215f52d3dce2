//! Deployments and their replica sets in a world where caches lag, notices get lost or come twice, writes fail or
//! conflict, controllers start anew at any moment, and users change their minds: the plans of both controllers, run
//! with many seeds.

use super::plan::{self, Observed};
use super::replica_sets::replicas;
use super::sizes::Sizes;
use super::{status, tests};
use crate::client::ObjectKey;
use crate::client::informer::{Informer, Watched};
use crate::controllers::expectations::Expectations;
use crate::controllers::ownership::{self, Claim};
use crate::controllers::replicaset::kinds::Replicated;
use crate::controllers::replicaset::plan::{self as set_plan, Seen, Step};
use crate::controllers::{pod_template, pods};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The objects of one kind as the API server has them, and all that ever happened to them.
struct Kind<K> {
    objects: BTreeMap<String, K>,
    log: Vec<(K, bool)>,
}

impl<K: Watched> Kind<K> {
    fn new() -> Self {
        Self {
            objects: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn put(&mut self, revision: u64, mut object: K) -> K {
        object.meta_mut().resource_version = Some(revision.to_string());
        self.objects.insert(object.name_any(), object.clone());
        self.log.push((object.clone(), true));
        object
    }

    fn remove(&mut self, revision: u64, name: &str) {
        if let Some(mut object) = self.objects.remove(name) {
            object.meta_mut().resource_version = Some(revision.to_string());
            self.log.push((object, false));
        }
    }
}

/// A cache that has seen the first so many entries of a log.
struct View<K> {
    cache: Informer<K>,
    at: usize,
}

impl<K: Watched> View<K> {
    /// One that has just listed everything.
    fn fresh(kind: &Kind<K>) -> Self {
        let cache = Informer::unfed();
        for object in kind.objects.values() {
            cache.apply(object.clone());
        }
        Self {
            cache,
            at: kind.log.len(),
        }
    }

    fn advance(&mut self, kind: &Kind<K>, most: usize) {
        for (object, is_there) in kind.log.iter().skip(self.at).take(most) {
            if *is_there {
                self.cache.apply(object.clone());
            } else {
                self.cache.delete(object);
            }
            self.at += 1;
        }
    }
}

/// A write that did not come about, or whose writer did not live to see it.
struct Failed;

struct World {
    random: StdRng,
    /// Pods fail, and are taken by users.
    rough: bool,
    /// Writes fail and controllers start anew.
    faults: bool,
    revision: u64,
    now: Timestamp,
    deployments: Kind<Deployment>,
    sets: Kind<ReplicaSet>,
    pods: Kind<Pod>,
    // What the controller of deployments sees.
    its_deployment: View<Deployment>,
    its_sets: View<ReplicaSet>,
    its_pods: View<Pod>,
    // What the controller of replica sets sees.
    their_sets: View<ReplicaSet>,
    their_pods: View<Pod>,
    expectations: Expectations,
    writes: usize,
    /// The most pods that any size of the deployment has allowed.
    allowed: i32,
    /// What happened, for the one who looks into a failure.
    trace: Vec<String>,
}

const FOREIGN: &str = "foreign";

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (deployments, sets, pods) = (Kind::new(), Kind::new(), Kind::new());
        let (rough, faults) = (random.random_bool(0.5), random.random_bool(0.7));
        let mut world = Self {
            rough,
            faults,
            revision: 0,
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            its_deployment: View::fresh(&deployments),
            its_sets: View::fresh(&sets),
            its_pods: View::fresh(&pods),
            their_sets: View::fresh(&sets),
            their_pods: View::fresh(&pods),
            deployments,
            sets,
            pods,
            random,
            expectations: Expectations::default(),
            writes: 0,
            allowed: 0,
            trace: Vec::new(),
        };
        let recreate = world.random.random_bool(0.25);
        let mut strategy = json!({"type": "Recreate"});
        if !recreate {
            let (surge, unavailable) = (world.random.random_range(0..4), world.random.random_range(0..4));
            let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
            strategy = json!({
                "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            });
        }
        let deployment = json!({
            "metadata": {"namespace": "n", "name": "web", "uid": "d", "generation": 1},
            "spec": {
                "replicas": world.random.random_range(0..12), "selector": {"matchLabels": {"app": "web"}},
                "template": tests::template("0"), "strategy": strategy, "progressDeadlineSeconds": 600,
                "revisionHistoryLimit": world.random.random_range(0..3),
            },
        });
        let revision = world.next();
        world
            .deployments
            .put(revision, serde_json::from_value(deployment).unwrap());
        world.allowed = Sizes::of(world.deployment()).max_total();
        // Pods that look like ours but are somebody else's, or nobody's with other labels.
        for (name, labels, owner) in [("theirs", "web", true), ("loose", "other", false)] {
            let mut pod = json!({"metadata": {"namespace": "n", "name": name, "uid": name,
                "labels": {"app": labels, "pod-template-hash": "x"}}, "status": {"phase": "Running"}});
            if owner {
                pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
                    "name": FOREIGN, "uid": FOREIGN, "controller": true}]);
            }
            let revision = world.next();
            world.pods.put(revision, serde_json::from_value(pod).unwrap());
        }
        world
    }

    fn next(&mut self) -> u64 {
        self.revision += 1;
        self.writes += 1;
        self.revision
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.random_bool(probability)
    }

    /// Before a write: it may fail, and the controller may end.
    fn risk(&mut self) -> Result<(), Failed> {
        if self.faults && self.chance(0.04) {
            if self.chance(0.5) {
                self.restart();
            }
            return Err(Failed);
        }
        Ok(())
    }

    /// After a write: the controller may end before it hears of it.
    fn shock(&mut self) -> Result<(), Failed> {
        if self.faults && self.chance(0.02) {
            self.restart();
            return Err(Failed);
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.trace.push("restart".to_owned());
        self.its_deployment = View::fresh(&self.deployments);
        self.its_sets = View::fresh(&self.sets);
        self.its_pods = View::fresh(&self.pods);
        self.their_sets = View::fresh(&self.sets);
        self.their_pods = View::fresh(&self.pods);
        self.expectations = Expectations::default();
    }

    fn deployment(&self) -> &Deployment {
        &self.deployments.objects["web"]
    }

    fn total(&self) -> i32 {
        self.sets.objects.values().map(replicas).sum()
    }

    /// The pods of a set that serve, of those that it is to keep.
    fn serving(&self) -> i32 {
        let of = |set: &ReplicaSet| {
            let uid = set.uid().unwrap();
            let ready = self.pods.objects.values().filter(|pod| {
                let controller = ownership::controller_of(&pod.metadata);
                controller.is_some_and(|owner| owner.uid == uid) && pods::is_active(pod) && pods::is_ready(pod)
            });
            i32::try_from(ready.count()).unwrap().min(replicas(set))
        };
        self.sets.objects.values().map(of).sum()
    }

    fn put_set(&mut self, set: ReplicaSet, is_new: bool) -> Result<ReplicaSet, Failed> {
        self.risk()?;
        let name = set.name_any();
        let known = self.sets.objects.get(&name);
        if is_new && known.is_some() {
            return Err(Failed);
        }
        let mut set = set;
        if let Some(known) = known {
            if known.metadata.resource_version != set.metadata.resource_version {
                return Err(Failed);
            }
            if known.spec != set.spec {
                *set.metadata.generation.get_or_insert_default() += 1;
            }
            set.status = known.status.clone();
        } else if is_new {
            set.metadata.uid = Some(format!("{name}-{}", self.revision));
            set.metadata.generation = Some(1);
            set.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
        } else {
            return Err(Failed);
        }
        let revision = self.next();
        self.trace
            .push(format!("{} is to have {}", set.name_any(), replicas(&set)));
        let set = self.sets.put(revision, set);
        self.shock()?;
        Ok(set)
    }

    fn see_all_sets(&mut self) {
        self.its_sets.advance(&self.sets, usize::MAX);
    }

    fn sync_deployment(&mut self) -> Result<(), Failed> {
        let Some(deployment) = self.its_deployment.cache.get("n", "web") else {
            return Ok(());
        };
        let sets = self.its_sets.cache.controlled_by("d");
        let with_pods: BTreeSet<String> = sets
            .iter()
            .filter_map(|set| set.uid())
            .filter(|uid| {
                self.its_pods
                    .cache
                    .controlled_by(uid)
                    .iter()
                    .any(|pod| !pods::is_finished(pod))
            })
            .collect();
        let observed = Observed {
            deployment: &deployment,
            sets: &sets,
            with_pods,
        };
        let plan = plan::plan(&observed, self.now);
        let sizes = Sizes::of(&deployment);
        let seen = sets.iter().map(|set| {
            let status = set.status.clone().unwrap_or_default();
            let available = status.available_replicas.unwrap_or(0);
            format!(
                "{} {} of {} serve, {} wanted",
                set.name_any(),
                available,
                status.replicas,
                replicas(set)
            )
        });
        let seen: Vec<String> = seen.collect();
        self.trace
            .push(format!("deployment of {} sees {seen:?}", sizes.replicas));
        let updating = deployment.spec.paused != Some(true)
            && sizes.rolling
            && !super::sizes::is_scaled(
                sets.iter()
                    .map(|set| super::replica_sets::Set::new(set))
                    .collect::<Vec<_>>()
                    .iter(),
                sizes,
            );
        let known: i32 = sets
            .iter()
            .map(|set| super::replica_sets::Set::new(set).available())
            .sum();
        for update in plan.update {
            let (before, serving) = (self.total(), self.serving());
            let set = self.put_set(update.set, false)?;
            assert!(set.uid().is_some());
            let after = self.total();
            assert!(
                after <= before || after <= sizes.max_total(),
                "{after} pods are more than {} and the surge of {}",
                sizes.replicas,
                sizes.surge
            );
            if updating && !self.rough {
                // Pods may have become ready unseen: those count for nothing.
                let least = sizes.min_available().min(serving).min(known);
                assert!(self.serving() >= least, "{} pods are less than {least}", self.serving());
            }
            self.see_all_sets();
        }
        if let Some(set) = plan.create {
            let name = set.name_any();
            if let Some(known) = self.sets.objects.get(&name) {
                assert!(plan::is_wanted(&deployment, known), "a name is taken");
            } else {
                let before = self.total();
                self.put_set(set, true)?;
                assert!(self.total() <= sizes.max_total().max(before), "a new set is too large");
            }
            self.see_all_sets();
        }
        for set in plan.delete {
            self.risk()?;
            let owned = self.pods.objects.values().filter(|pod| {
                let controller = ownership::controller_of(&pod.metadata);
                controller.is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref()) && pods::is_active(pod)
            });
            assert_eq!(owned.count(), 0, "a set with pods is deleted");
            let revision = self.next();
            self.sets.remove(revision, &set.name_any());
        }
        if let Some(written) = plan.status {
            self.risk()?;
            let known = self.deployment();
            if known.metadata.resource_version != written.metadata.resource_version {
                return Err(Failed);
            }
            let mut known = known.clone();
            known.metadata.annotations = written.metadata.annotations;
            known.status = written.status;
            let revision = self.next();
            self.deployments.put(revision, known);
            self.shock()?;
            self.its_deployment.advance(&self.deployments, usize::MAX);
        }
        Ok(())
    }

    fn sync_set(&mut self, name: &str) -> Result<(), Failed> {
        let key = ObjectKey::new("n", name);
        let Some(set) = self.their_sets.cache.get_key(&key) else {
            self.expectations.forget(&key);
            return Ok(());
        };
        if !self.expectations.fulfilled(&key, &self.their_pods.cache) {
            return Ok(());
        }
        let uid = set.uid().unwrap();
        let selector = set.selector();
        let mut active = Vec::new();
        let mut terminating = 0;
        for pod in self.their_pods.cache.list() {
            let claim = ownership::claim(&set.metadata, &selector, &pod.metadata);
            if !pods::is_active(&pod) {
                terminating += usize::from(claim == Claim::Ours && !pods::is_finished(&pod));
                continue;
            }
            match claim {
                Claim::Foreign => {}
                Claim::Ours => active.push(pod),
                Claim::Adopt | Claim::Release => {
                    self.risk()?;
                    let Some(known) = self.pods.objects.get(&pod.name_any()) else {
                        continue;
                    };
                    let mut known = known.clone();
                    if claim == Claim::Adopt {
                        // The API server has no two controllers of one object.
                        if ownership::controller_of(&known.metadata).is_some_and(|owner| owner.uid != uid) {
                            return Err(Failed);
                        }
                        known.metadata.owner_references = Some(vec![ownership::controller_ref(&*set)]);
                    } else {
                        known
                            .metadata
                            .owner_references
                            .get_or_insert_default()
                            .retain(|owner| owner.uid != uid);
                    }
                    let revision = self.next();
                    let known = self.pods.put(revision, known);
                    if claim == Claim::Adopt {
                        active.push(Arc::new(known));
                    }
                }
            }
        }
        let step = set_plan::step(&*set, &active, Vec::new, self.now);
        self.trace
            .push(format!("{name} sees {} of {} pods", active.len(), replicas(&set)));
        let result = self.act(&key, &set, step);
        let seen = Seen {
            active: &active,
            terminating,
            failure: result.as_ref().err().map(|_| "refused"),
        };
        let (status, _) = set_plan::status(&*set, &seen, self.now);
        if !set_plan::same(&set.status(), &status) {
            self.risk()?;
            let Some(known) = self.sets.objects.get(name) else {
                return Ok(());
            };
            if known.metadata.resource_version != set.metadata.resource_version {
                return Err(Failed);
            }
            let mut known = known.clone();
            self.trace.push(format!(
                "{name} counts {} ready of {}",
                status.ready_replicas.unwrap_or(0),
                status.replicas
            ));
            known.status = Some(status);
            let revision = self.next();
            self.sets.put(revision, known);
            self.their_sets.advance(&self.sets, usize::MAX);
        }
        result
    }

    fn act(&mut self, key: &ObjectKey, set: &ReplicaSet, step: Step) -> Result<(), Failed> {
        match step {
            Step::Nothing => {}
            Step::Create(count) => {
                for _ in 0..count {
                    self.risk()?;
                    self.check_recreate(set);
                    let mut pod = pods::from_template(set, set.template().unwrap());
                    let revision = self.next();
                    let name = format!("{}-{revision}", key.name);
                    pod.metadata.name = Some(name.clone());
                    pod.metadata.uid = Some(name);
                    pod.status = serde_json::from_value(json!({"phase": "Pending"})).unwrap();
                    let pod = self.pods.put(revision, pod);
                    self.shock()?;
                    self.expectations.written(key, &pod);
                }
                let (uid, selector) = (set.uid().unwrap(), set.selector());
                let active = self.pods.objects.values().filter(|pod| {
                    let claim = ownership::claim(&set.metadata, &selector, &pod.metadata);
                    pods::is_active(pod)
                        && claim == Claim::Ours
                        && ownership::controller_of(&pod.metadata).unwrap().uid == uid
                });
                assert!(
                    active.count() <= usize::try_from(replicas(set)).unwrap(),
                    "pods are made twice"
                );
                let active = self.pods.objects.values().filter(|pod| {
                    let owner = ownership::controller_of(&pod.metadata);
                    pods::is_active(pod) && owner.is_some_and(|owner| owner.uid != FOREIGN)
                });
                let active = i32::try_from(active.count()).unwrap();
                // Pods that somebody takes out and brings back are more for a while.
                assert!(
                    self.rough || active <= self.allowed,
                    "{active} pods are more than {}",
                    self.allowed
                );
            }
            Step::Delete(gone) => {
                for pod in gone {
                    self.risk()?;
                    let owner = ownership::controller_of(&pod.metadata).unwrap();
                    assert_eq!(Some(&owner.uid), set.metadata.uid.as_ref(), "not ours to delete");
                    let Some(known) = self.pods.objects.get(&pod.name_any()) else {
                        continue;
                    };
                    let mut known = known.clone();
                    if known.metadata.deletion_timestamp.is_none() {
                        known.metadata.deletion_timestamp =
                            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now));
                        let revision = self.next();
                        self.trace
                            .push(format!("{} goes, ready: {}", known.name_any(), pods::is_ready(&known)));
                        self.pods.put(revision, known);
                    }
                    self.shock()?;
                    self.expectations.deleted(key, &*pod);
                }
            }
        }
        Ok(())
    }

    /// Where pods are recreated, none of the new template is made beside one of an old template. An old set that still
    /// seems to be wanted may replace its own.
    fn check_recreate(&self, set: &ReplicaSet) {
        let template = &self.deployment().spec.template;
        let of_it = |set: &ReplicaSet| pod_template::same(set.spec.template.as_ref().unwrap(), template);
        if Sizes::of(self.deployment()).rolling || !of_it(set) {
            return;
        }
        for pod in self.pods.objects.values().filter(|pod| !pods::is_finished(pod)) {
            let owner = ownership::controller_of(&pod.metadata).map(|owner| owner.uid.clone());
            let old = self.sets.objects.values().find(|set| set.uid() == owner);
            assert!(old.is_none_or(of_it), "{} runs beside a new pod", pod.name_any());
        }
    }

    /// What nodes do: pods get ready, and those that go are gone.
    fn nodes(&mut self, share: f64) {
        let names: Vec<String> = self.pods.objects.keys().cloned().collect();
        for name in names {
            if !self.chance(share) {
                continue;
            }
            let mut pod = self.pods.objects[&name].clone();
            if pods::is_terminating(&pod) {
                let revision = self.next();
                self.pods.remove(revision, &name);
                continue;
            }
            let fails = self.rough && share < 1.0 && self.chance(0.1);
            if pods::is_finished(&pod) || (pods::is_ready(&pod) && !fails) {
                continue;
            }
            let status = if fails {
                json!({"phase": if self.chance(0.3) { "Failed" } else { "Running" }})
            } else {
                json!({"phase": "Running", "conditions": [
                    {"type": "Ready", "status": "True", "lastTransitionTime": self.now.to_string()}]})
            };
            self.trace.push(format!("{name} is {status}"));
            pod.status = serde_json::from_value(status).unwrap();
            let revision = self.next();
            self.pods.put(revision, pod);
        }
    }

    fn change_deployment(&mut self, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::to_value(self.deployment()).unwrap();
        change(&mut value["spec"]);
        let mut deployment: Deployment = serde_json::from_value(value).unwrap();
        if deployment.spec != self.deployment().spec {
            *deployment.metadata.generation.get_or_insert_default() += 1;
        }
        let revision = self.next();
        self.trace.push(format!(
            "the user wants {}",
            serde_json::to_value(&deployment.spec).unwrap()
        ));
        self.allowed = self.allowed.max(Sizes::of(&deployment).max_total());
        self.deployments.put(revision, deployment);
    }

    fn user(&mut self) {
        match self.random.random_range(0..10) {
            0..4 => {
                let image = self.random.random_range(0..5).to_string();
                self.change_deployment(|spec| spec["template"] = tests::template(&image));
            }
            4 | 5 => {
                let replicas = self.random.random_range(0..12);
                self.change_deployment(|spec| spec["replicas"] = json!(replicas));
            }
            6 => self.change_deployment(|spec| spec["paused"] = json!(spec["paused"] != json!(true))),
            // Somebody writes to a set, without meaning.
            7 => {
                let names: Vec<String> = self.sets.objects.keys().cloned().collect();
                if let Some(name) = names.first() {
                    let set = self.sets.objects[name].clone();
                    let revision = self.next();
                    self.sets.put(revision, set);
                }
            }
            _ if !self.rough => {}
            // A pod is taken out for a look, or comes back.
            8 => self.relabel("web", "debug"),
            _ => self.relabel("debug", "web"),
        }
    }

    fn relabel(&mut self, from: &str, to: &str) {
        let found = self.pods.objects.values().find(|pod| {
            pod.labels().get("app").is_some_and(|app| app == from)
                && !matches!(pod.name_any().as_str(), "theirs" | "loose")
        });
        if let Some(mut pod) = found.cloned() {
            pod.labels_mut().insert("app".to_owned(), to.to_owned());
            let revision = self.next();
            self.pods.put(revision, pod);
        }
    }

    fn lag(&mut self) {
        let mut most = || {
            if self.random.random_bool(0.3) {
                usize::MAX
            } else {
                self.random.random_range(0..3)
            }
        };
        let (a, b, c, d, e) = (most(), most(), most(), most(), most());
        self.its_deployment.advance(&self.deployments, a);
        self.its_sets.advance(&self.sets, b);
        self.its_pods.advance(&self.pods, c);
        self.their_sets.advance(&self.sets, d);
        self.their_pods.advance(&self.pods, e);
    }

    fn step(&mut self) {
        self.now += SignedDuration::from_secs(self.random.random_range(0..5));
        match self.random.random_range(0..12) {
            0 => self.user(),
            1..3 => self.nodes(0.4),
            3..6 => self.lag(),
            6..9 => drop(self.sync_deployment()),
            _ => {
                let names: Vec<String> = self.sets.objects.keys().cloned().collect();
                if let Some(name) = names.get(self.random.random_range(0..names.len().max(1))) {
                    let _ = self.sync_set(name);
                }
            }
        }
        self.nobody_elses();
    }

    /// What is not ours stays as it is.
    fn nobody_elses(&self) {
        let theirs = &self.pods.objects["theirs"];
        assert_eq!(ownership::controller_of(&theirs.metadata).unwrap().uid, FOREIGN);
        assert!(ownership::controller_of(&self.pods.objects["loose"].metadata).is_none());
        for name in ["theirs", "loose"] {
            assert!(self.pods.objects[name].metadata.deletion_timestamp.is_none());
        }
    }

    /// Nothing comes in the way any more.
    fn settle(&mut self) {
        self.faults = false;
        self.change_deployment(|spec| spec["paused"] = json!(false));
        for round in 0.. {
            let before = self.writes;
            self.now += SignedDuration::from_secs(1);
            for view in [true, false] {
                let _ = view;
                self.its_deployment.advance(&self.deployments, usize::MAX);
                self.its_sets.advance(&self.sets, usize::MAX);
                self.its_pods.advance(&self.pods, usize::MAX);
                self.their_sets.advance(&self.sets, usize::MAX);
                self.their_pods.advance(&self.pods, usize::MAX);
                let _ = self.sync_deployment();
                for name in self.sets.objects.keys().cloned().collect::<Vec<_>>() {
                    let _ = self.sync_set(&name);
                }
            }
            self.nodes(1.0);
            if self.writes == before {
                return;
            }
            assert!(round < 200, "there is no end to it");
        }
    }

    fn check_end(&self) {
        let deployment = self.deployment();
        let wanted = deployment.spec.replicas.unwrap();
        let of_it =
            |set: &&ReplicaSet| pod_template::same(set.spec.template.as_ref().unwrap(), &deployment.spec.template);
        let new: Vec<&ReplicaSet> = self.sets.objects.values().filter(of_it).collect();
        assert_eq!(new.len(), 1, "one set of the template");
        assert_eq!(replicas(new[0]), wanted);
        assert_eq!(self.total(), wanted);
        assert_eq!(self.serving(), wanted);
        let old = self.sets.objects.len() - 1;
        let limit = usize::try_from(deployment.spec.revision_history_limit.unwrap()).unwrap();
        assert!(old <= limit, "{old} old sets are kept");
        let status = deployment.status.as_ref().unwrap();
        assert!(status::is_complete(deployment, status), "{status:?}");
        assert_eq!(status::reason(status, "Progressing"), Some("NewReplicaSetAvailable"));
        let revision = |annotations: &BTreeMap<String, String>| annotations[super::replica_sets::REVISION].clone();
        assert_eq!(revision(deployment.annotations()), revision(new[0].annotations()));
        // All pods that are ours and live belong to the set.
        let selector = new[0].selector();
        let live = self.pods.objects.values().filter(|pod| {
            pods::is_active(pod) && ownership::claim(&new[0].metadata, &selector, pod.meta()) != Claim::Foreign
        });
        assert_eq!(i32::try_from(live.count()).unwrap(), wanted);
    }
}

#[test]
fn all_comes_right_whatever_happens() {
    let one = std::env::var("KRUST_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse::<u64>().ok());
    let seeds = one.map_or(0..300, |seed| seed..seed + 1);
    for seed in seeds {
        let mut world = World::new(seed);
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..150 {
                world.step();
            }
            world.settle();
            world.check_end();
        }));
        if let Err(panic) = run {
            let last = world.trace.len().saturating_sub(120);
            eprintln!("{}\nseed {seed}", world.trace[last..].join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}
