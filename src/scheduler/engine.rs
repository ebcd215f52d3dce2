//! The scheduler without its calls: takes in what happens, decides about one pod at a time, and says what is to be done
//! (upstream: `schedule_one.go`, `eventhandlers.go`).

use super::cache::{Cache, NodeEvent, PodEvent};
use super::configuration::Configuration;
use super::devices::extended;
use super::diagnosis::Diagnosis;
use super::extenders::{EXTENDER, Extenders};
use super::framework::{Cx, Event, Refusal, is_worth_a_try};
use super::nominations::Nominations;
use super::objects::{Allocation, Objects};
use super::plan::{Attempt, Choice, Search};
use super::plugins::dynamic_resources;
use super::plugins::volumes::binding::{self, Bindings};
use super::pod_info::PodInfo;
use super::preemption::{self, Outcome};
use super::profile::{Profile, Timeouts};
use super::queue::{Popped, Queue};
use crate::client::pods::{is_finished, node_name};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

/// What is to be done. Each is reported back, but for reports.
#[derive(Debug)]
pub enum Action {
    Bind {
        pod: Arc<PodInfo>,
        node: String,
        bindings: Bindings,
        /// Claims for devices that get some by this.
        claims: Vec<Arc<ResourceClaim>>,
        timeouts: Timeouts,
    },
    /// Take the devices away from a claim that nobody uses.
    Deallocate(Arc<ResourceClaim>),
    /// Tell why there is no node.
    Report(Report),
    /// Take the victims away, and let those look elsewhere who wait for the same node.
    Preempt {
        pod: Arc<PodInfo>,
        node: String,
        victims: Vec<Arc<PodInfo>>,
        displaced: Vec<Arc<PodInfo>>,
    },
}

#[derive(Debug)]
pub struct Report {
    pub pod: Arc<PodInfo>,
    /// `Unschedulable` or `SchedulerError`.
    pub reason: &'static str,
    pub message: String,
    /// The node to be nominated, or none any more; None: as it is.
    pub nominate: Option<Option<String>>,
    /// Only time has passed since the last attempt: the same message is no news.
    pub by_time: bool,
}

enum Decision {
    Bind(String, Needs, Timeouts),
    NoNodes,
    Error(String),
    /// And the claim that is to give its devices back.
    Nothing(Diagnosis, Option<Outcome>, Option<Arc<ResourceClaim>>),
}

/// What has to be done about volumes and devices before a pod is bound.
#[derive(Default)]
struct Needs {
    bindings: Bindings,
    claims: Vec<Arc<ResourceClaim>>,
}

fn needs(cx: Cx<'_>, profile: &Profile, pod: &PodInfo, node: &str) -> Result<Needs, Box<Diagnosis>> {
    let mut needs = Needs::default();
    let Some(node) = cx.cache.node(node) else {
        return Ok(needs);
    };
    let refused = |plugin: &'static str| {
        move |refusal: Refusal| {
            let mut diagnosis = Diagnosis {
                nodes_count: 1,
                ..Diagnosis::default()
            };
            diagnosis.plugins.insert(plugin);
            diagnosis.refusals.insert(node.slot, refusal);
            Box::new(diagnosis)
        }
    };
    if !pod.claims.is_empty() && profile.filter("VolumeBinding").is_some() {
        needs.bindings = binding::decide(cx, pod, node).map_err(refused("VolumeBinding"))?;
    }
    if profile.filter("DynamicResources").is_some() && dynamic_resources::concerns(cx, pod) {
        needs.claims = dynamic_resources::decide(cx, pod, node).map_err(refused("DynamicResources"))?;
    }
    Ok(needs)
}

pub struct Engine {
    pub cache: Cache,
    pub objects: Objects,
    pub queue: Queue,
    pub extenders: Arc<Extenders>,
    nominations: Nominations,
    profiles: HashMap<String, Profile>,
    search: Search,
    /// Pods that were deleted to make room and are still there.
    dying: HashSet<String>,
    /// Pods whose binding is under way, as they are now.
    in_flight: HashMap<String, Arc<PodInfo>>,
}

impl Engine {
    pub fn new(configuration: &Configuration, seed: u64) -> Self {
        let profiles = configuration.profiles().into_iter();
        Self {
            cache: Cache::default(),
            objects: Objects::default(),
            queue: Queue::new(configuration.backoff_first, configuration.backoff_last),
            extenders: Arc::default(),
            nominations: Nominations::default(),
            profiles: profiles
                .map(|profile| (profile.scheduler_name.clone(), profile))
                .collect(),
            search: Search {
                start: 0,
                random: StdRng::seed_from_u64(seed),
            },
            dying: HashSet::new(),
            in_flight: HashMap::new(),
        }
    }

    pub fn on_node(&mut self, old: Option<&Node>, new: Option<Arc<Node>>, now: Instant) {
        match (old, new) {
            (old, Some(node)) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                let event = self.cache.put_node(node);
                if event == NodeEvent::Nothing {
                    return;
                }
                let Some(node) = self.cache.node(&name).cloned() else {
                    return;
                };
                match (event, old) {
                    (NodeEvent::Changed(what), Some(old)) => {
                        self.happened(&Event::NodeChanged { old, node: &node, what }, now);
                    }
                    _ => self.happened(&Event::NodeAdded(&node), now),
                }
            }
            (Some(old), None) => {
                self.cache.remove_node(old.metadata.name.as_deref().unwrap_or_default());
                self.happened(&Event::NodeRemoved(old), now);
            }
            (None, None) => {}
        }
    }

    pub fn on_pod(&mut self, old: Option<&Pod>, new: Option<Arc<Pod>>, now: Instant) {
        let Some(pod) = new else {
            if let Some(old) = old {
                self.pod_is_gone(old.metadata.uid.as_deref().unwrap_or_default(), now);
            }
            return;
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if node_name(&pod).is_some() {
            self.queue.remove(&uid);
            self.in_flight.remove(&uid);
            if self.nominations.node_of(&uid).is_some() {
                // Somebody else has bound it.
                let info = PodInfo::new(pod.clone());
                self.withdraw(&info, node_name(&pod), now);
            }
            match self.cache.put_pod(pod) {
                PodEvent::Added(pod) => self.happened(&Event::PodAdded(&pod), now),
                PodEvent::Changed { old, new } => self.happened(&Event::PodChanged { old: &old, new: &new }, now),
                PodEvent::Removed(pod) => {
                    self.dying.remove(&uid);
                    self.happened(&Event::PodRemoved(&pod), now);
                }
                PodEvent::Nothing => {}
            }
            return;
        }
        let info = Arc::new(PodInfo::new(pod));
        if !self.profiles.contains_key(info.scheduler_name()) || is_finished(&info.pod) || info.is_terminating() {
            self.pod_waits_no_more(&info, now);
            return;
        }
        if self.cache.is_assumed(&uid) {
            self.in_flight.insert(uid, info);
            return;
        }
        if info
            .spec()
            .scheduling_gates
            .as_ref()
            .is_some_and(|gates| !gates.is_empty())
        {
            self.queue.remove(&uid);
            return;
        }
        let before = self.nominations.node_of(&uid).map(str::to_owned);
        self.nominations.update(self.queue.get(&uid).map(|old| &**old), &info);
        if before.is_some() && before.as_deref() != self.nominations.node_of(&uid) {
            self.happened(&Event::PodRemoved(&info), now);
        }
        let again = old.is_none_or(|old| is_worth_a_try(old, &info.pod));
        self.queue.put(info, again);
    }

    fn pod_is_gone(&mut self, uid: &str, now: Instant) {
        self.objects.assumed.allocations.remove(&extended::temporary_uid(uid));
        let waited = self.queue.get(uid).cloned();
        self.queue.remove(uid);
        self.in_flight.remove(uid);
        self.dying.remove(uid);
        match (self.cache.remove_pod(uid), waited) {
            (Some(pod), _) => self.happened(&Event::PodRemoved(&pod), now),
            (None, Some(pod)) => self.withdraw(&pod, None, now),
            (None, None) => {}
        }
        self.nominations.remove(uid);
    }

    /// It is going away, has ended, or belongs to another scheduler.
    fn pod_waits_no_more(&mut self, pod: &PodInfo, now: Instant) {
        self.queue.remove(&pod.uid);
        self.in_flight.remove(&pod.uid);
        self.withdraw(pod, None, now);
    }

    /// The pod needs the room no more that was kept for it, unless it takes it: others may want it.
    fn withdraw(&mut self, pod: &PodInfo, takes: Option<&str>, now: Instant) {
        let Some(kept) = self.nominations.node_of(&pod.uid) else {
            return;
        };
        let is_taken = takes == Some(kept);
        self.nominations.remove(&pod.uid);
        if !is_taken {
            self.happened(&Event::PodRemoved(pod), now);
        }
    }

    /// Wakes the pods that the event may help.
    pub fn happened(&mut self, event: &Event<'_>, now: Instant) {
        let (cache, objects, profiles) = (&self.cache, &self.objects, &self.profiles);
        let cx = Cx { cache, objects };
        let kind = event.kind();
        let listens = |name: &str| {
            let mut plugins = profiles.values().filter_map(|profile| profile.filter(name));
            name == EXTENDER || plugins.any(|plugin| plugin.listens(kind))
        };
        let helps = |pod: &PodInfo, name: &'static str| {
            let plugin = profiles
                .get(pod.scheduler_name())
                .and_then(|profile| profile.filter(name));
            // A plug-in that is not there any more cannot say no.
            plugin.is_none_or(|plugin| plugin.listens(kind) && plugin.may_help(cx, pod, event))
        };
        self.queue.happened(now, listens, helps);
    }

    /// Decides about the next pod that waits, if there is one.
    pub fn step(&mut self, now: Instant) -> Option<Vec<Action>> {
        let Popped { pod, by_time } = self.queue.pop(now)?;
        if self.cache.is_placed(&pod.uid) {
            return Some(Vec::new());
        }
        let Some(decision) = self.decide(&pod) else {
            return Some(Vec::new());
        };
        let mut report = Report {
            pod: pod.clone(),
            reason: "Unschedulable",
            message: String::new(),
            nominate: Some(None),
            by_time,
        };
        let (mut room, mut freed) = (None, None);
        match decision {
            Decision::Bind(node, needs, timeouts) => {
                self.withdraw(&pod, Some(&node), now);
                return Some(vec![self.assume(pod, node, needs, timeouts)]);
            }
            Decision::NoNodes => {
                report.message = "no nodes available to schedule pods".into();
                self.queue.refuse(pod.clone(), BTreeSet::new(), now);
            }
            Decision::Error(message) => {
                (report.reason, report.message) = ("SchedulerError", message);
                self.queue.retry(pod.clone(), now);
            }
            Decision::Nothing(diagnosis, Some(Outcome::MakeRoom { node, victims }), claim) => {
                freed = claim;
                report.message = diagnosis.message();
                report.nominate = Some(Some(node.clone()));
                self.withdraw(&pod, Some(&node), now);
                room = Some(self.make_room(&pod, node, &victims));
                self.queue.refuse(pod.clone(), diagnosis.plugins, now);
            }
            Decision::Nothing(diagnosis, outcome, claim) => {
                freed = claim;
                report.message = diagnosis.message();
                if matches!(outcome, Some(Outcome::Wait(_) | Outcome::Failed(_))) {
                    report.nominate = None;
                }
                self.queue.refuse(pod.clone(), diagnosis.plugins, now);
            }
        }
        if report.nominate == Some(None) {
            self.withdraw(&pod, None, now);
        }
        let freed = freed.map(Action::Deallocate);
        Some(
            std::iter::once(Action::Report(report))
                .chain(freed)
                .chain(room)
                .collect(),
        )
    }

    /// None if no profile is for the pod.
    fn decide(&mut self, pod: &Arc<PodInfo>) -> Option<Decision> {
        self.cache.refresh();
        if self.cache.order().is_empty() {
            return Some(Decision::NoNodes);
        }
        let profile = self.profiles.get(pod.scheduler_name())?;
        let cx = Cx {
            cache: &self.cache,
            objects: &self.objects,
        };
        let attempt = Attempt {
            cx,
            profile,
            pod,
            nominations: &self.nominations,
            extenders: &self.extenders,
        };
        let (mut diagnosis, filters) = match attempt.choose(&mut self.search) {
            Choice::Node(node) => match needs(cx, profile, pod, &node) {
                Ok(needs) => return Some(Decision::Bind(node, needs, profile.timeouts)),
                Err(diagnosis) => (*diagnosis, None),
            },
            Choice::Error(message) => return Some(Decision::Error(message)),
            Choice::Nothing(diagnosis, filters) => (diagnosis, filters),
        };
        let outcome = profile.preemption.as_ref().map(|args| {
            let (dying, search, now) = (&self.dying, &mut self.search, Timestamp::now());
            preemption::plan(&attempt, args, &diagnosis, filters.as_ref(), dying, search, now)
        });
        let devices = profile.dynamic_resources;
        let devices = devices.then(|| dynamic_resources::after(cx, pod, &diagnosis, profile.timeouts.devices));
        let (said, freed) = devices.unzip();
        // Where room is made nothing more is said, and an error is said alone.
        if let Some(Outcome::Failed(why)) = &outcome {
            diagnosis.after = format!("preemption: {why}");
        } else if !matches!(outcome, Some(Outcome::MakeRoom { .. })) {
            let preemption = match &outcome {
                Some(Outcome::Wait(why) | Outcome::Nothing(why)) => Some(format!("preemption: {why}")),
                _ => None,
            };
            let said = said.map(str::to_owned);
            diagnosis.after = said.into_iter().chain(preemption).collect::<Vec<_>>().join(", ");
        }
        Some(Decision::Nothing(diagnosis, outcome, freed.flatten()))
    }

    fn assume(&mut self, pod: Arc<PodInfo>, node: String, needs: Needs, timeouts: Timeouts) -> Action {
        let Needs { bindings, claims } = needs;
        self.cache.assume(pod.clone(), &node);
        self.in_flight.insert(pod.uid.clone(), pod.clone());
        for (claim, volume) in &bindings.volumes {
            let name = volume.metadata.name.clone().unwrap_or_default();
            self.objects.assumed.volumes.insert(name, binding::key(claim));
        }
        for claim in &bindings.provisions {
            self.objects.assumed.nodes.insert(binding::key(claim), node.clone());
        }
        for claim in &claims {
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            let allocation = Allocation {
                claim: claim.clone(),
                is_written: false,
            };
            self.objects.assumed.allocations.insert(uid, allocation);
        }
        Action::Bind {
            pod,
            node,
            bindings,
            claims,
            timeouts,
        }
    }

    fn make_room(&mut self, pod: &Arc<PodInfo>, node: String, victims: &[String]) -> Action {
        let displaced = preemption::displaced(&self.nominations, pod, &node);
        let on_node = self.cache.node(&node).map(|node| node.pods.clone()).unwrap_or_default();
        let victims: Vec<_> = on_node.into_iter().filter(|pod| victims.contains(&pod.uid)).collect();
        self.dying.extend(victims.iter().map(|victim| victim.uid.clone()));
        for other in &displaced {
            self.nominations.remove(&other.uid);
        }
        self.nominations.set(pod.clone(), &node);
        self.queue.hold(&pod.uid);
        Action::Preempt {
            pod: pod.clone(),
            node,
            victims,
            displaced,
        }
    }

    fn forget_bindings(&mut self, bindings: &Bindings) {
        for (_, volume) in &bindings.volumes {
            let name = volume.metadata.name.as_deref().unwrap_or_default();
            self.objects.assumed.volumes.remove(name);
        }
        for claim in &bindings.provisions {
            self.objects.assumed.nodes.remove(&binding::key(claim));
        }
    }

    /// The API has bound the pod; the watch will tell, if it has not yet.
    pub fn bound(&mut self, bindings: &Bindings) {
        self.forget_bindings(bindings);
    }

    /// The binding has failed.
    pub fn not_bound(
        &mut self,
        uid: &str,
        bindings: &Bindings,
        claims: &[Arc<ResourceClaim>],
        message: String,
        now: Instant,
    ) -> Option<Action> {
        self.forget_bindings(bindings);
        for claim in claims {
            let uid = claim.metadata.uid.as_deref().unwrap_or_default();
            let allocations = &mut self.objects.assumed.allocations;
            if allocations.get(uid).is_some_and(|allocation| allocation.is_written) {
                continue;
            }
            allocations.remove(uid);
            let (old, new) = (Some(&**claim), None);
            self.happened(&Event::ResourceClaim { old, new }, now);
        }
        if let Some(pod) = self.cache.forget(uid) {
            self.happened(&Event::PodRemoved(&pod), now);
        }
        // Bound after all, or gone, if it is not there.
        let pod = self.in_flight.remove(uid)?;
        self.queue.retry(pod.clone(), now);
        Some(Action::Report(Report {
            pod,
            reason: "SchedulerError",
            message,
            nominate: Some(None),
            by_time: false,
        }))
    }

    /// The deletion of victims has ended; `failed` are those that are still there.
    pub fn room_was_made(&mut self, uid: &str, failed: &[String], displaced: &[Arc<PodInfo>], now: Instant) {
        for victim in failed {
            self.dying.remove(victim);
        }
        self.queue.release(uid, !failed.is_empty(), now);
        for other in displaced {
            self.queue.wake(&other.uid, now);
        }
    }
}
