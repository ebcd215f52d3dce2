//! Startup, liveness and readiness probes (upstream: `pkg/kubelet/prober`).
//!
//! One task per probe of a running container; a change of its verdict goes to the pod's worker by mail.

use crate::client::events::Level;
use crate::kubelet::context::Context;
use crate::kubelet::handlers::{self, Outcome, http::Url};
use crate::kubelet::pod::{self, Role};
use crate::kubelet::record::Record;
use k8s_openapi::api::core::v1::{Container, Probe};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Upstream's `maxProbeRetries`.
const TRIES: usize = 3;
const AGENT: &str = "kube-probe/1.37";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    /// As the events of failed probes name it.
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// What the probes say, by container id. A container that is not mentioned is fine.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    pub not_started: BTreeSet<String>,
    pub not_ready: BTreeSet<String>,
    /// Containers to be killed: which probe failed, and the grace of its own if it has one.
    pub unhealthy: BTreeMap<String, (&'static str, Option<u32>)>,
}

/// Counts results: a verdict changes after so many of the same in a row.
#[derive(Debug)]
struct Counter {
    success_threshold: i32,
    failure_threshold: i32,
    last: Option<bool>,
    run: i32,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold.unwrap_or(1).max(1),
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
            last: None,
            run: 0,
        }
    }

    /// The verdict, once the threshold is reached.
    fn count(&mut self, ok: bool) -> Option<bool> {
        self.run = if self.last == Some(ok) {
            self.run.saturating_add(1)
        } else {
            1
        };
        self.last = Some(ok);
        let threshold = if ok {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.run >= threshold).then_some(ok)
    }
}

/// The probes of one pod's containers; dropping it ends them.
#[derive(Default)]
pub struct Probes {
    running: BTreeMap<String, Running>,
}

struct Running {
    /// Set when the startup probe has succeeded, or there is none.
    started: watch::Sender<bool>,
    /// Ends with it.
    _tasks: JoinSet<()>,
}

/// A running container and where its probes go.
pub struct Target {
    pub context: Arc<Context>,
    pub record: Arc<Record>,
    pub role: Role,
    pub container: Container,
    pub container_id: String,
    pub pod_ip: String,
    pub started_at: SystemTime,
    /// The API server's last word on an adopted container: (started, ready).
    pub known: Option<(bool, bool)>,
}

impl Probes {
    pub fn knows(&self, container_id: &str) -> bool {
        self.running.contains_key(container_id)
    }

    /// Begins to probe a container; until its probes say otherwise it is neither started nor ready.
    pub fn begin(&mut self, target: Target, verdicts: &mut Verdicts) {
        let (was_started, was_ready) = target.known.unwrap_or((false, false));
        let id = target.container_id.clone();
        let container = &target.container;
        let has_startup = container.startup_probe.is_some() && !was_started;
        if has_startup {
            verdicts.not_started.insert(id.clone());
        }
        if (container.readiness_probe.is_some() && !was_ready) || has_startup {
            verdicts.not_ready.insert(id.clone());
        }
        let (started, gate) = watch::channel(!has_startup);
        let startup = container.startup_probe.clone().filter(|_| has_startup);
        let kinds = [
            (Kind::Startup, startup),
            (Kind::Liveness, container.liveness_probe.clone()),
            (Kind::Readiness, container.readiness_probe.clone()),
        ];
        let target = Arc::new(target);
        let mut tasks = JoinSet::new();
        for (kind, probe) in kinds {
            if let Some(probe) = probe {
                let gate = (kind != Kind::Startup).then(|| gate.clone());
                tasks.spawn(run(target.clone(), kind, probe, gate));
            }
        }
        let running = Running { started, _tasks: tasks };
        self.running.insert(id, running);
    }

    /// Ends the probes of containers that no longer run.
    pub fn retain(&mut self, runs: impl Fn(&str) -> bool, verdicts: &mut Verdicts) {
        self.running.retain(|id, _| runs(id));
        verdicts.not_started.retain(|id| runs(id));
        verdicts.not_ready.retain(|id| runs(id));
        verdicts.unhealthy.retain(|id, _| runs(id));
    }

    /// Takes in a changed verdict.
    pub fn learn(&self, container: &Container, id: &str, kind: Kind, ok: bool, verdicts: &mut Verdicts) {
        let Some(running) = self.running.get(id) else {
            return;
        };
        match (kind, ok) {
            (Kind::Startup, true) => {
                verdicts.not_started.remove(id);
                if container.readiness_probe.is_none() {
                    verdicts.not_ready.remove(id);
                }
                running.started.send_replace(true);
            }
            (Kind::Readiness, true) => {
                verdicts.not_ready.remove(id);
            }
            (Kind::Readiness, false) => {
                verdicts.not_ready.insert(id.to_owned());
            }
            (Kind::Liveness, true) => {}
            (Kind::Startup, false) => {
                let grace = grace_seconds(container.startup_probe.as_ref());
                verdicts.unhealthy.insert(id.to_owned(), (kind.name(), grace));
            }
            (Kind::Liveness, false) => {
                let grace = grace_seconds(container.liveness_probe.as_ref());
                verdicts.unhealthy.insert(id.to_owned(), (kind.name(), grace));
            }
        }
    }
}

fn grace_seconds(probe: Option<&Probe>) -> Option<u32> {
    u32::try_from(probe?.termination_grace_period_seconds?).ok()
}

fn seconds(figure: Option<i32>, default: u64) -> Duration {
    let figure = figure
        .and_then(|figure| u64::try_from(figure).ok())
        .filter(|figure| *figure > 0);
    Duration::from_secs(figure.unwrap_or(default))
}

async fn run(target: Arc<Target>, kind: Kind, probe: Probe, gate: Option<watch::Receiver<bool>>) {
    if let Some(mut gate) = gate
        && gate.wait_for(|started| *started).await.is_err()
    {
        return;
    }
    let delay = Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or(0)).unwrap_or(0));
    let left = (target.started_at + delay)
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    tokio::time::sleep(left).await;
    let mut counter = Counter::new(&probe);
    let mut told = None;
    loop {
        let outcome = check_with_retries(&target, &probe).await;
        if let Some((reason, message)) = told_of(kind, &outcome) {
            let path = pod::field_path(target.role, &target.container.name);
            let recorder = &target.context.recorder;
            recorder.event_at(&*target.record.pod(), Some(path), Level::Warning, reason, message);
        }
        let verdict = match outcome {
            Outcome::Success | Outcome::Warning(_) => counter.count(true),
            Outcome::Failure(_) => counter.count(false),
            Outcome::Unknown(_) => None,
        };
        if verdict.is_some() && verdict != told {
            told = verdict;
            let ok = verdict == Some(true);
            target.record.post_probe(target.container_id.clone(), kind, ok);
            // A startup probe is done when it succeeds, and what failed to live is killed.
            if (kind == Kind::Startup && ok) || (kind != Kind::Readiness && !ok) {
                return;
            }
        }
        tokio::time::sleep(seconds(probe.period_seconds, 10)).await;
    }
}

/// The event of an outcome.
fn told_of(kind: Kind, outcome: &Outcome) -> Option<(&'static str, String)> {
    let kind = kind.title();
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(text) => Some(("ProbeWarning", format!("{kind} probe warning: {text}"))),
        Outcome::Failure(text) => Some(("Unhealthy", format!("{kind} probe failed: {text}"))),
        Outcome::Unknown(text) => {
            let message = format!("{kind} probe errored and resulted in unknown state: {text}");
            Some(("Unhealthy", message))
        }
    }
}

/// What could not be tried is tried again at once.
async fn check_with_retries(target: &Target, probe: &Probe) -> Outcome {
    for _ in 1..TRIES {
        match check(target, probe).await {
            Outcome::Unknown(_) => {}
            known => return known,
        }
    }
    check(target, probe).await
}

async fn check(target: &Target, probe: &Probe) -> Outcome {
    let limit = seconds(probe.timeout_seconds, 1);
    let (container, pod_ip) = (&target.container, target.pod_ip.as_str());
    let checked = async {
        if let Some(exec) = &probe.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            handlers::exec(&*target.context.runtime, &target.container_id, command).await
        } else if let Some(action) = &probe.http_get {
            handlers::http::probe(action, container, pod_ip, AGENT).await
        } else if let Some(action) = &probe.tcp_socket {
            handlers::tcp_socket(action, container, pod_ip).await
        } else if let Some(action) = &probe.grpc {
            handlers::grpc::check(action, pod_ip, AGENT, &pod::go_duration(limit)).await
        } else {
            Outcome::Unknown(format!(
                "missing probe handler for {}",
                pod::full_name(&target.record.pod())
            ))
        }
    };
    match tokio::time::timeout(limit, checked).await {
        Ok(outcome) => outcome,
        Err(_) => Outcome::Failure(timed_out(container, pod_ip, probe, limit)),
    }
}

/// Each kind of probe has its own words for it.
fn timed_out(container: &Container, pod_ip: &str, probe: &Probe, limit: Duration) -> String {
    let limit = pod::go_duration(limit);
    if let Some(exec) = &probe.exec {
        let command = exec.command.as_deref().unwrap_or_default().join(" ");
        return format!("command timed out: {command:?} timed out after {limit}");
    }
    if let Some(Ok(url)) = probe.http_get.as_ref().map(|get| Url::of(get, container, pod_ip)) {
        return format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    }
    let socket = probe.tcp_socket.as_ref();
    match socket.map(|socket| handlers::socket(socket, container, pod_ip)) {
        Some(Ok((host, port))) => format!("dial tcp {host}:{port}: i/o timeout"),
        _ => format!("timeout: health rpc did not complete within {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_in_a_row() {
        let probe = Probe {
            success_threshold: Some(2),
            failure_threshold: Some(3),
            ..Probe::default()
        };
        let mut counter = Counter::new(&probe);
        let results = [true, true, false, false, true, false, false, false, true];
        let verdicts: Vec<_> = results.into_iter().map(|ok| counter.count(ok)).collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no, None]);
    }
    #[test]
    fn what_takes_too_long() {
        let container = Container::default();
        for (probe, expected) in [
            (
                serde_json::json!({"exec": {"command": ["sleep", "10"]}}),
                "command timed out: \"sleep 10\" timed out after 2s",
            ),
            (
                serde_json::json!({"httpGet": {"port": 80, "path": "/x"}}),
                "Get \"http://10.0.0.1:80/x\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            ),
            (
                serde_json::json!({"tcpSocket": {"port": 80}}),
                "dial tcp 10.0.0.1:80: i/o timeout",
            ),
            (
                serde_json::json!({"grpc": {"port": 80}}),
                "timeout: health rpc did not complete within 2s",
            ),
        ] {
            let probe: Probe = serde_json::from_value(probe).unwrap();
            assert_eq!(
                timed_out(&container, "10.0.0.1", &probe, Duration::from_secs(2)),
                expected
            );
        }
    }
}
