//! Randomised runs of Jobs against a small model of the API server and the nodes: views that lag, calls that fail,
//! conflicts, restarts at any moment, and people who interfere. What must hold is checked all along and at the end.

use super::back_off::BackOff;
use super::conditions;
use super::plan::{Done, Observed, decide};
use super::pod::{self, FINALIZER};
use super::template::pod_of;
use super::track::account;
use crate::controllers::dice::Dice;
use crate::controllers::pods::{is_active, is_finished, is_ready, is_terminating, phase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

/// The controller process or a call of it ended here.
#[derive(Debug, PartialEq)]
enum Stop {
    Failed,
    Crashed,
}

type Call<T> = Result<T, Stop>;

#[derive(Clone)]
enum Event {
    Job(Box<Job>),
    Pod(Box<Pod>),
    Gone(String),
}

struct World {
    seed: u64,
    dice: Dice,
    now: Timestamp,
    job: Job,
    pods: BTreeMap<String, Pod>,
    /// All that happened; the revision is the place.
    log: Vec<Event>,
    created: usize,
    /// Pods that the controller removed without counting them.
    dropped: BTreeSet<String>,
    /// How many of the calls fail, none for 0.
    trouble: u64,
    // The controller's process.
    job_view: Job,
    view: BTreeMap<String, Arc<Pod>>,
    seen: usize,
    written: usize,
    back_off: BackOff,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| {
            dice.below(2);
        });
        let completions = 1 + dice.below(6);
        let mut spec = json!({
            "parallelism": 1 + dice.below(4), "backoffLimit": 1000,
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}},
        });
        match dice.below(6) {
            0 => {}
            1 => spec["completions"] = json!(completions),
            2 => {
                spec["completions"] = json!(completions);
                spec["backoffLimit"] = json!(dice.below(3));
            }
            mode => {
                spec["completionMode"] = json!("Indexed");
                spec["completions"] = json!(completions);
                if mode == 4 {
                    spec["backoffLimitPerIndex"] = json!(dice.below(3));
                    if dice.one_in(2) {
                        spec["maxFailedIndexes"] = json!(dice.below(completions));
                    }
                }
                if mode == 5 {
                    spec["successPolicy"] = json!({"rules": [{"succeededCount": 1 + dice.below(completions)}]});
                }
            }
        }
        if dice.one_in(3) {
            spec["podReplacementPolicy"] = json!("Failed");
        }
        if dice.one_in(4) {
            let mut rules =
                vec![json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]})];
            if spec.get("backoffLimitPerIndex").is_some() {
                rules.push(json!({"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [2]}}));
            }
            if dice.one_in(3) {
                rules.push(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [3]}}));
            }
            spec["podFailurePolicy"] = json!({"rules": rules});
        }
        let meta = json!({"name": "j", "namespace": "n", "uid": "job", "resourceVersion": "0"});
        let job: Job = serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap();
        let trouble = [0, 4, 12][dice.below(3) as usize];
        Self {
            seed,
            now: "2024-01-01T00:00:00Z".parse().unwrap(),
            log: vec![Event::Job(Box::new(job.clone()))],
            job_view: job.clone(),
            job,
            pods: BTreeMap::new(),
            created: 0,
            dropped: BTreeSet::new(),
            trouble,
            view: BTreeMap::new(),
            seen: 1,
            written: 0,
            back_off: BackOff::default(),
            dice,
        }
    }

    fn spec<T>(&self, field: impl Fn(&k8s_openapi::api::batch::v1::JobSpec) -> T) -> T {
        field(self.job.spec.as_ref().unwrap())
    }

    fn is_indexed(&self) -> bool {
        self.spec(|spec| spec.completion_mode.is_some())
    }

    fn store_job(&mut self, mut job: Job) {
        job.metadata.resource_version = Some(self.log.len().to_string());
        self.job = job.clone();
        self.log.push(Event::Job(Box::new(job)));
    }

    /// What stays nowhere: a pod that goes and that nothing holds.
    fn store_pod(&mut self, pod: Pod) {
        let name = pod.metadata.name.clone().unwrap();
        let held = pod
            .metadata
            .finalizers
            .as_ref()
            .is_some_and(|finalizers| !finalizers.is_empty());
        if is_terminating(&pod) && !held && is_finished(&pod) {
            self.pods.remove(&name);
            self.log.push(Event::Gone(name));
        } else {
            self.pods.insert(name, pod.clone());
            self.log.push(Event::Pod(Box::new(pod)));
        }
        self.check();
    }

    /// Never more than asked for, never two of an index.
    fn check(&self) {
        let active: Vec<&Pod> = self.pods.values().filter(|pod| is_active(pod)).collect();
        let parallelism = self.spec(|spec| spec.parallelism.unwrap()).max(4) as usize;
        assert!(
            active.len() <= parallelism,
            "seed {}: {} are active",
            self.seed,
            active.len()
        );
        if self.is_indexed() {
            let indexes: BTreeSet<Option<i32>> = active.iter().map(|pod| pod::index(pod)).collect();
            assert_eq!(
                indexes.len(),
                active.len(),
                "seed {}: two active pods of an index",
                self.seed
            );
        }
    }

    /// Whether this call fails, or is the last of the process.
    fn call(&mut self) -> Call<()> {
        if self.trouble > 0 && self.dice.one_in(self.trouble * 4) {
            return Err(Stop::Crashed);
        }
        if self.trouble > 0 && self.dice.one_in(self.trouble) {
            return Err(Stop::Failed);
        }
        Ok(())
    }

    /// It was done, but the process ends before it hears of it.
    fn answer(&mut self) -> Call<()> {
        self.written = self.log.len();
        if self.trouble > 0 && self.dice.one_in(self.trouble * 4) {
            return Err(Stop::Crashed);
        }
        Ok(())
    }

    fn catch_up(&mut self, to: usize) {
        for event in &self.log[self.seen.min(to)..to] {
            match event.clone() {
                Event::Job(job) => self.job_view = *job,
                Event::Pod(pod) => {
                    self.view.insert(pod.metadata.name.clone().unwrap(), Arc::new(*pod));
                }
                Event::Gone(name) => {
                    self.view.remove(&name);
                }
            }
        }
        self.seen = self.seen.max(to);
    }

    fn restart(&mut self) {
        self.back_off = BackOff::default();
        self.written = 0;
        self.catch_up(self.log.len());
    }

    fn create(&mut self, pod: &Pod) -> Call<()> {
        self.call()?;
        let mut pod = pod.clone();
        self.created += 1;
        let name = format!("p{}", self.created);
        pod.metadata.uid = Some(name.clone());
        pod.metadata.name = Some(name);
        pod.metadata.creation_timestamp = Some(Time(self.now));
        pod.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            ..PodStatus::default()
        });
        self.store_pod(pod);
        self.answer()
    }

    fn delete(&mut self, name: &str) {
        let Some(mut pod) = self.pods.get(name).cloned() else {
            return;
        };
        pod.metadata.deletion_timestamp.get_or_insert(Time(self.now));
        self.store_pod(pod);
    }

    fn untrack(&mut self, name: &str) {
        if let Some(mut pod) = self.pods.get(name).cloned() {
            pod.metadata
                .finalizers
                .iter_mut()
                .for_each(|all| all.retain(|one| one != FINALIZER));
            self.store_pod(pod);
        }
    }

    fn write_status(&mut self, job: &Job, status: &JobStatus) -> Call<Job> {
        self.call()?;
        if job.metadata.resource_version != self.job.metadata.resource_version {
            return Err(Stop::Failed);
        }
        let mut job = self.job.clone();
        job.status = Some(status.clone());
        self.store_job(job);
        self.answer()?;
        Ok(self.job.clone())
    }

    /// One sync of the controller. Returns when it wants to come again.
    fn sync(&mut self) -> Call<Option<SignedDuration>> {
        let job = self.job_view.clone();
        if conditions::finished(&job).is_some() || self.seen < self.written {
            return Ok(None);
        }
        let pods: Vec<Arc<Pod>> = self.view.values().cloned().collect();
        let decision = decide(Observed {
            job: &job,
            pods: &pods,
            back_off: self.back_off,
            now: self.now,
        });
        let (moves, again) = (decision.moves.clone(), decision.again);
        let (mut done, mut failed) = (Done::default(), false);
        for pod in &moves.delete {
            match self.delete_for_controller(pod, moves.uncounted) {
                Ok(()) => {
                    done.deleted += 1;
                    done.deleted_ready += i32::from(is_ready(pod));
                }
                Err(Stop::Failed) => failed = true,
                Err(Stop::Crashed) => return Err(Stop::Crashed),
            }
        }
        for new in &moves.create {
            match self.create(&pod_of(&job, new)) {
                Ok(()) => done.created += 1,
                Err(Stop::Failed) => failed = true,
                Err(Stop::Crashed) => return Err(Stop::Crashed),
            }
        }
        let mut account = account(decision, done);
        let mut stored = job;
        if stored.status.as_ref() != Some(&account.status) {
            stored = self.write_status(&stored, &account.status)?;
            self.back_off = account.back_off;
        }
        let mut untracked = HashSet::new();
        for pod in account.untrack.clone() {
            match self.call() {
                Ok(()) => {
                    self.untrack(pod.metadata.name.as_deref().unwrap());
                    self.answer()?;
                    untracked.insert(pod::uid(&pod).to_owned());
                }
                Err(Stop::Failed) => failed = true,
                Err(Stop::Crashed) => return Err(Stop::Crashed),
            }
        }
        account.settle(&untracked);
        if stored.status.as_ref() != Some(&account.status) {
            self.write_status(&stored, &account.status)?;
        }
        if failed { Err(Stop::Failed) } else { Ok(again) }
    }

    fn delete_for_controller(&mut self, pod: &Pod, uncounted: bool) -> Call<()> {
        let name = pod.metadata.name.as_deref().unwrap();
        if uncounted {
            self.call()?;
            // Whether it is counted is decided by which of both writes comes first.
            let noted = self
                .job
                .status
                .as_ref()
                .and_then(|status| status.uncounted_terminated_pods.clone());
            let noted = noted.unwrap_or_default();
            let lists = noted.succeeded.iter().chain(&noted.failed).flatten();
            if pod::is_tracked(pod) && !lists.into_iter().any(|uid| uid == name) {
                self.dropped.insert(name.to_owned());
            }
            self.untrack(name);
            self.answer()?;
        }
        self.call()?;
        self.delete(name);
        self.answer()
    }

    /// Something happens on a node: pods start, end and go.
    fn node(&mut self, calm: bool) {
        let names: Vec<String> = self.pods.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = &names[self.dice.below(names.len() as u64) as usize];
        let mut pod = self.pods[name].clone();
        let end = match (phase(&pod), is_terminating(&pod)) {
            ("Pending", false) => "Running",
            ("Running", false) if calm || !self.dice.one_in(3) => "Succeeded",
            ("Succeeded" | "Failed", _) => return,
            (_, true) if self.dice.one_in(4) => "Succeeded",
            _ => "Failed",
        };
        let code = self.dice.below(3) as i32 + 1;
        let disrupted = self.dice.one_in(3);
        let mut status = json!({"phase": end});
        if end == "Failed" {
            status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "finishedAt": Time(self.now)}}}]);
            if disrupted {
                status["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
            }
        }
        if end == "Running" && self.dice.one_in(2) {
            status["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        }
        pod.status = serde_json::from_value(status).unwrap();
        self.store_pod(pod);
    }

    fn people(&mut self) {
        let mut job = self.job.clone();
        let spec = job.spec.as_mut().unwrap();
        match self.dice.below(4) {
            0 => spec.suspend = Some(self.dice.one_in(2)),
            1 => spec.parallelism = Some(self.dice.below(5) as i32),
            _ => {
                let names: Vec<String> = self.pods.keys().cloned().collect();
                if !names.is_empty() {
                    let name = names[self.dice.below(names.len() as u64) as usize].clone();
                    self.delete(&name);
                }
                return;
            }
        }
        self.store_job(job);
    }

    /// Until the Job is over, with trouble first and then in peace.
    fn run(&mut self) {
        for step in 0..6000 {
            let calm = step > 600;
            if step == 601 {
                self.trouble = 0;
                let mut job = self.job.clone();
                let spec = job.spec.as_mut().unwrap();
                (spec.suspend, spec.parallelism) = (Some(false), Some(3));
                self.store_job(job);
            }
            let behind = self.log.len() - self.seen;
            let to = self.seen + self.dice.below(behind as u64 + 1) as usize;
            self.catch_up(if calm { self.log.len() } else { to });
            match self.dice.below(6) {
                0..=2 => self.node(calm),
                3 if !calm && self.dice.one_in(3) => self.people(),
                4 if self.dice.one_in(10) => self.now += SignedDuration::from_secs(self.dice.below(700) as i64),
                _ => match self.sync() {
                    Err(Stop::Crashed) => self.restart(),
                    Err(Stop::Failed) => {}
                    Ok(again) => {
                        let wait = again.filter(|_| calm).unwrap_or(SignedDuration::from_secs(1));
                        self.now += wait;
                    }
                },
            }
            if calm && conditions::finished(&self.job).is_some() {
                return;
            }
        }
        let shown =
            json!({"job": self.job, "pods": self.pods.values().map(|pod| &pod.metadata.name).collect::<Vec<_>>()});
        panic!("seed {}: the Job never ended: {shown:#}", self.seed);
    }

    fn check_the_end(&self) {
        let status = self.job.status.clone().unwrap();
        let seed = self.seed;
        let shown = || -> Value { json!({"seed": seed, "job": self.job}) };
        let held = self.pods.values().filter(|pod| pod::is_tracked(pod)).count();
        assert_eq!(held, 0, "{:#}: finalizers are left", shown());
        assert_eq!((status.active, status.terminating), (None, Some(0)), "{:#}", shown());
        let noted = status.uncounted_terminated_pods.clone().unwrap();
        assert!(noted.succeeded.is_none() && noted.failed.is_none(), "{:#}", shown());
        let complete = conditions::finished(&self.job).unwrap().type_ == conditions::COMPLETE;
        assert_eq!(status.completion_time.is_some(), complete);
        let (succeeded, failed) = (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0));
        let completions = self.spec(|spec| spec.completions);
        let by_policy = self.spec(|spec| spec.success_policy.is_some());
        if let Some(completions) = completions {
            assert!(succeeded <= completions, "{:#}", shown());
            if complete && !by_policy {
                assert_eq!(succeeded, completions, "{:#}: not as many as asked for", shown());
            }
        }
        if self.is_indexed() {
            let text = status.completed_indexes.clone().unwrap_or_default();
            let indexes = super::indexes::Indexes::parse(&text, completions.unwrap());
            assert_eq!(indexes.len(), succeeded, "{:#}", shown());
        }
        // No pod was counted twice; and none was missed, but for those that a rule ignores and those that still go when
        // the Job succeeds.
        let all = (self.created - self.dropped.len()) as i32;
        let counted = succeeded + failed;
        let only_failed = self.spec(|spec| spec.pod_replacement_policy.is_some());
        if by_policy || only_failed || self.spec(|spec| spec.pod_failure_policy.is_some()) {
            assert!(counted <= all, "{:#}: {counted} of {all} were counted", shown());
        } else {
            assert_eq!(counted, all, "{:#}: {counted} of {all} were counted", shown());
        }
    }
}

#[test]
fn whatever_happens_each_pod_counts_once() {
    for seed in 1..=600 {
        let mut world = World::new(seed);
        world.run();
        world.check_the_end();
    }
}
