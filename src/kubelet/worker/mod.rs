//! One task per pod: looks, plans, acts, reports (upstream: `pkg/kubelet/pod_workers.go`).
//!
//! The loop itself only does quick things. What takes time (pulling, starting, stopping, writing the status) runs
//! in tasks of the worker's own, whose outcome comes back into the loop, so that a deletion is never stuck behind
//! a pull.

mod execute;
mod finish;
mod look;
mod report;
mod start;

use crate::client::events::Level;
use crate::kubelet::back_off::BackOff;
use crate::kubelet::context::Context;
use crate::kubelet::objects::Versions;
use crate::kubelet::plan::{self, Intent, Plan, PodFailure};
use crate::kubelet::probes::Probes;
use crate::kubelet::record::{Record, SeenContainer, View};
use crate::kubelet::resize::{Given, News, Room};
use crate::kubelet::sandbox::SandboxError;
use crate::kubelet::state::{Memory, PodRuntime, Step};
use crate::kubelet::volumes::{VolumeError, Watches};
use crate::kubelet::{node_shutdown, pod, resources, status};
use crate::runtime::{ContainerStatus, Resources, RuntimeError, Sandbox};
use execute::Killed;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use report::Reporter;
use start::StartError;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Volumes and sandboxes that fail are tried again after this, doubling.
const STEP_RETRY_FIRST: Duration = Duration::from_millis(500);
const STEP_RETRY_MAX: Duration = Duration::from_secs(60);

/// The outcome of a step that ran beside the loop.
enum Done {
    Volumes(Result<Versions, VolumeError>),
    /// The volumes of a running pod were brought up to date.
    Refreshed(Result<Versions, VolumeError>),
    Sandbox(Result<Sandbox, SandboxError>),
    SandboxStopped(String, Result<(), RuntimeError>),
    Removed(String, Result<(), RuntimeError>),
    Started(String, Result<ContainerStatus, StartError>),
    Killed(Killed),
    /// The container, what it was to be given, and whether it was.
    Resized(String, Given, Result<(), String>),
    /// The sandbox, what its containers were to have together, and whether they have it.
    Limited(String, Resources, Result<(), String>),
    /// The status was written; the pod as the server has it now.
    Reported(Result<Box<Pod>, kube::Error>),
    /// The final status is written and the pod deleted from the API.
    Deleted(Result<(), kube::Error>),
    /// Nothing of the pod is left on the node.
    Cleaned(Result<(), String>),
}

pub struct Worker {
    context: Arc<Context>,
    record: Arc<Record>,
    /// The newest pod known, from the watch or from the answer to a write.
    pod: Arc<Pod>,
    /// The API server does not have it any more.
    gone: bool,
    memory: Memory,
    /// Why the kubelet ended the pod.
    failure: Option<PodFailure>,
    stopping_since: Option<SystemTime>,
    first_seen: SystemTime,
    /// Termination messages by container id.
    messages: BTreeMap<String, String>,
    probes: Probes,
    step_back_off: BackOff,
    /// Something that volumes show has changed since they were written.
    stale_volumes: bool,
    /// Not all that has changed could be brought into them.
    refresh_failed: bool,
    /// What they were made of, until it is watched.
    written: Versions,
    watches: Watches,
    /// Waiting reasons of the last plan, by container name.
    held_back: BTreeMap<String, String>,
    /// What the runtime could not be asked about, and when to ask again.
    look_again: BTreeMap<String, SystemTime>,
    reporter: Reporter,
    finishing: finish::Finishing,
    /// Cancelled when the pod is to end: a pull stops, a start goes no further.
    starts: CancellationToken,
    tasks: JoinSet<Done>,
    steps: HashMap<Id, Step>,
}

impl Worker {
    /// `runtime` is what was found of the pod when krust started; empty for a new pod.
    pub fn new(context: Arc<Context>, record: Arc<Record>, runtime: PodRuntime) -> Self {
        let pod = record.pod();
        let mut memory = Memory::new(runtime);
        memory.restarts_all = plan::restart::was_begun(&pod);
        Self {
            context,
            pod,
            record,
            gone: false,
            memory,
            failure: None,
            stopping_since: None,
            first_seen: SystemTime::now(),
            messages: BTreeMap::new(),
            probes: Probes::default(),
            step_back_off: BackOff::new(STEP_RETRY_FIRST, STEP_RETRY_MAX),
            stale_volumes: false,
            refresh_failed: false,
            written: Versions::default(),
            watches: Watches::default(),
            held_back: BTreeMap::new(),
            look_again: BTreeMap::new(),
            reporter: Reporter::default(),
            finishing: finish::Finishing::default(),
            starts: CancellationToken::new(),
            tasks: JoinSet::new(),
            steps: HashMap::new(),
        }
    }

    /// Refuses to run the pod: it fails without having started.
    pub fn reject(&mut self, failure: PodFailure) {
        self.fail(failure);
    }

    /// Runs until nothing of the pod is left, or `shutdown`: then the containers are left running.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.look_at_adopted().await;
        loop {
            self.read_mail().await;
            self.probe();
            let now = SystemTime::now();
            let intent = self.intent(now);
            if intent != Intent::Run {
                self.starts.cancel();
            }
            if intent == Intent::Run {
                self.resize(now);
                plan::restart::advance(&self.pod, &mut self.memory);
            }
            let plan = plan::plan(&self.pod, &self.memory, intent, now);
            let ending = plan.finished || intent != Intent::Run;
            let status = self.status(&plan, ending, now);
            self.publish(&plan, &status);
            self.announce(&plan);
            self.report_when_due(&status, ending);
            self.execute(&plan);
            if !ending {
                self.refresh_volumes();
            }
            if plan.stopped && self.finish(&status) {
                return;
            }
            let look_again = self.look_again.values().min().copied();
            let wakes = [
                plan.wake_at,
                self.reporter.due(),
                self.finishing.due(),
                self.memory.resize.due(),
                self.retries_limit(now),
                self.deadline(now),
                look_again,
            ];
            let wake = wakes.into_iter().flatten().min();
            tokio::select! {
                () = self.record.wait() => {}
                Some(done) = self.tasks.join_next_with_id() => self.settle(done).await,
                () = sleep_until(wake) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Grants changed resources if the node has room for them; tells of what was granted and given.
    fn resize(&mut self, now: SystemTime) {
        let memory = &mut self.memory;
        memory.resize.begin(&self.pod, &memory.runtime);
        let room = || {
            let others = self.context.pods.all().into_iter();
            let others = others
                .filter(|record| record.uid != self.record.uid)
                .map(|record| record.pod());
            let others: Vec<_> = others.filter(|pod| !pod::is_finished(pod)).collect();
            let used = |resource: &str| others.iter().map(|pod| resources::pod_granted(pod, resource)).sum();
            let figures = &self.context.figures;
            Room {
                cpu_milli: figures.cpu_milli,
                memory_bytes: figures.memory_bytes,
                used_cpu_milli: used("cpu"),
                used_memory_bytes: used("memory"),
            }
        };
        let bounded = || {
            let sandbox = memory.runtime.ready_sandbox();
            sandbox.is_none_or(|sandbox| self.context.runtime.bounds_together(&sandbox.id))
        };
        let granted = memory.resize.allocate(&self.pod, room, bounded, now);
        let together = memory.resize.shared_need(&self.pod, &memory.runtime, now);
        let completed = memory.resize.complete(&self.pod, &memory.runtime);
        self.tell_of_resize(granted);
        if let Some(together) = together {
            self.limit_pod(together);
        }
        self.tell_of_resize(completed);
    }

    /// When the control group that the engine did not change is tried again.
    fn retries_limit(&self, now: SystemTime) -> Option<SystemTime> {
        let sandbox = self.memory.runtime.ready_sandbox()?;
        self.memory.resize.retry_at(&sandbox.id).filter(|at| *at > now)
    }

    fn tell_of_resize(&self, news: Option<News>) {
        let Some((reason, message)) = news else {
            return;
        };
        let level = match reason {
            "ResizeStarted" | "ResizeCompleted" => Level::Normal,
            _ => Level::Warning,
        };
        self.context.recorder.event_at(&*self.pod, None, level, reason, message);
    }

    /// Whether the pod is to run or to end, and since when.
    fn intent(&mut self, now: SystemTime) -> Intent {
        let may_expire = self.failure.is_none() && !self.gone && !pod::is_finished(&self.pod);
        if may_expire && let Err(failure) = plan::deadline(&self.pod, now) {
            self.fail(failure);
        }
        let ends = self.gone
            || self.failure.is_some()
            || self.pod.metadata.deletion_timestamp.is_some()
            || pod::is_finished(&self.pod);
        match ends {
            true => Intent::Stop {
                grace_seconds: self.grace_seconds(),
                since: *self.stopping_since.get_or_insert(now),
            },
            false => Intent::Run,
        }
    }

    fn grace_seconds(&self) -> u32 {
        let own = pod::grace_seconds(&self.pod);
        let of_failure = self.failure.as_ref().and_then(|failure| failure.grace_seconds);
        of_failure.map_or(own, |seconds| seconds.min(own))
    }

    /// The kubelet ends the pod: it will be Failed.
    fn fail(&mut self, failure: PodFailure) {
        let level = match failure.reason {
            "DeadlineExceeded" => Some(Level::Normal),
            // Only the events of its containers tell, as upstream.
            node_shutdown::ENDED => None,
            _ => Some(Level::Warning),
        };
        if let Some(level) = level {
            // The event is the reason alone, as upstream.
            let message = failure.message.as_str();
            let message = message.strip_prefix("Pod was rejected: ").unwrap_or(message);
            let annotations = failure.annotations.clone();
            self.context
                .recorder
                .annotated(&*self.pod, annotations, level, failure.reason, message.to_owned());
        }
        self.failure = Some(failure);
    }

    fn deadline(&self, now: SystemTime) -> Option<SystemTime> {
        plan::deadline(&self.pod, now)
            .ok()
            .flatten()
            .filter(|_| !pod::is_finished(&self.pod))
    }

    fn status(&self, plan: &Plan, ending: bool, now: SystemTime) -> PodStatus {
        status::compute(&status::Seen {
            pod: &self.pod,
            runtime: &self.memory.runtime,
            replaced: &self.memory.replaced,
            resize: &self.memory.resize,
            restarts_all: self.memory.restarts_all,
            waiting: &plan.waiting,
            failure: self.failure.as_ref(),
            ending,
            stopped: plan.stopped && ending,
            messages: &self.messages,
            recursive_readonly: self.context.features.recursive_readonly_mounts,
            verdicts: &self.memory.verdicts,
            runtime_name: &self.context.runtime_name,
            host_ips: &self.context.host_ips,
            first_seen: self.first_seen,
            now,
        })
    }

    /// Shows the manager and the kubelet's HTTPS API what is there.
    fn publish(&self, plan: &Plan, status: &PodStatus) {
        let mut sandboxes: Vec<&Sandbox> = self.memory.runtime.sandboxes.iter().collect();
        sandboxes.sort_by_key(|s| std::cmp::Reverse(s.pod.attempt));
        let containers = self.memory.runtime.containers.iter().map(|c| SeenContainer {
            id: c.id.clone(),
            name: c.name.clone(),
            attempt: c.attempt,
            state: c.state,
            tty: c.tty,
        });
        let statuses = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let waiting = statuses.into_iter().flatten().flatten().filter_map(|status| {
            let reason = status.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
            Some((status.name.clone(), reason))
        });
        let mut waiting: BTreeMap<String, String> = waiting.collect();
        waiting.extend(
            plan.waiting
                .iter()
                .map(|(name, held)| (name.clone(), held.reason.clone())),
        );
        self.record.set_view(View {
            pod: self.pod.clone(),
            sandboxes: sandboxes.into_iter().map(|s| s.id.clone()).collect(),
            containers: containers.collect(),
            waiting,
            over: plan.stopped && self.is_told(),
        });
    }

    /// Whether the API knows how the pod ended, or nobody can tell it.
    fn is_told(&self) -> bool {
        self.gone
            || self.finishing.is_deleted()
            || (pod::is_finished(&self.pod) && self.pod.metadata.deletion_timestamp.is_none())
            || self.record.api_uid().is_none()
    }

    /// Events for back-offs that have just begun.
    fn announce(&mut self, plan: &Plan) {
        for (name, waiting) in &plan.waiting {
            if self.held_back.get(name) == Some(&waiting.reason) {
                continue;
            }
            let Some((role, container)) = pod::find_container(&self.pod, name) else {
                continue;
            };
            let event = |level, reason, message| {
                let path = Some(pod::field_path(role, name));
                self.context.recorder.event_at(&*self.pod, path, level, reason, message);
            };
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let pod = pod::full_name(&self.pod);
                    let message = format!("Back-off restarting failed container {name} in pod {pod}");
                    event(Level::Warning, "BackOff", message);
                }
                "ImagePullBackOff" => {
                    let failure = self.memory.start_failures.get(name);
                    let own = container.image.as_deref().unwrap_or_default();
                    let wanted = failure.map_or(own, |failure| failure.wanted.as_str());
                    // A volume's image is the pod's.
                    let path = (wanted == own).then(|| pod::field_path(role, name));
                    let text = format!("Back-off pulling image {wanted:?}");
                    let recorder = &self.context.recorder;
                    recorder.event_at(&*self.pod, path, Level::Normal, "BackOff", text);
                    event(Level::Warning, "Failed", "Error: ImagePullBackOff".to_owned());
                }
                _ => {}
            }
        }
        let reasons = plan
            .waiting
            .iter()
            .map(|(name, waiting)| (name.clone(), waiting.reason.clone()));
        self.held_back = reasons.collect();
    }

    /// Takes the outcome of a step into the memory.
    async fn settle(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        if let Some(step) = self.steps.remove(&id) {
            self.memory.in_flight.remove(&step);
        }
        match done {
            Ok((_, done)) => self.learn(done).await,
            // A bug: the step is planned again, at the pace of the retries.
            Err(error) => {
                tracing::error!(pod = pod::full_name(&self.pod), %error, "A step of a pod's worker broke off");
                tokio::time::sleep(STEP_RETRY_FIRST).await;
            }
        }
    }
}

async fn sleep_until(at: Option<SystemTime>) {
    match at {
        Some(at) => tokio::time::sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
        None => std::future::pending().await,
    }
}
