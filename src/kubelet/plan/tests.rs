//! Situations and what is done in them.

use super::*;
use crate::kubelet::state::{FailureKind, PodRuntime, StartFailure, Step, StepFailure};
use crate::runtime::{ContainerState, ContainerStatus, PodIdentity, Sandbox, SandboxState};
use serde_json::{Value, json};
use std::time::Duration;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "p", "namespace": "ns", "uid": "u"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn one(restart_policy: &str) -> Pod {
    pod(json!({"restartPolicy": restart_policy, "containers": [{"name": "c", "image": "i"}]}))
}

fn sandbox(attempt: u32, state: SandboxState) -> Sandbox {
    Sandbox {
        id: format!("s{attempt}"),
        pod: PodIdentity {
            attempt,
            uid: "u".to_owned(),
            ..PodIdentity::default()
        },
        state,
        created_at: at(0),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        ips: vec!["10.0.0.2".to_owned()],
    }
}

/// `exit`: None runs, else it ended at 10 s.
fn container(name: &str, attempt: u32, exit: Option<i32>) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}{attempt}"),
        sandbox_id: "s0".to_owned(),
        name: name.to_owned(),
        attempt,
        pod_uid: "u".to_owned(),
        state: if exit.is_some() {
            ContainerState::Exited
        } else {
            ContainerState::Running
        },
        created_at: at(0),
        started_at: Some(at(0)),
        finished_at: exit.map(|_| at(10)),
        exit_code: exit.unwrap_or(0),
        reason: String::new(),
        message: String::new(),
        image: "i".to_owned(),
        image_ref: "i@sha256:0".to_owned(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        tty: false,
        user: None,
    }
}

fn memory(sandbox_state: Option<SandboxState>, containers: Vec<ContainerStatus>) -> Memory {
    let mut memory = Memory::new(PodRuntime {
        sandboxes: sandbox_state.map(|state| sandbox(0, state)).into_iter().collect(),
        containers,
    });
    memory.volumes_ready = true;
    memory
}

fn ready(containers: Vec<ContainerStatus>) -> Memory {
    memory(Some(SandboxState::Ready), containers)
}

fn create_sandbox(attempt: u32, replaces: Option<&str>) -> Action {
    Action::CreateSandbox {
        attempt,
        replaces: replaces.map(str::to_owned),
    }
}

fn start(name: &str, attempt: u32) -> Action {
    Action::StartContainer {
        name: name.to_owned(),
        attempt,
        replaces: None,
    }
}

fn kill(id: &str, grace_seconds: u32, reason: KillReason) -> Action {
    Action::KillContainer {
        id: id.to_owned(),
        name: id.trim_end_matches(char::is_numeric).to_owned(),
        grace_seconds,
        reason,
    }
}

fn run(pod: &Pod, memory: &Memory) -> Plan {
    plan(pod, memory, Intent::Run, at(11))
}

fn stop(pod: &Pod, memory: &Memory) -> Plan {
    let intent = Intent::Stop {
        grace_seconds: 30,
        since: at(1),
    };
    plan(pod, memory, intent, at(11))
}

#[test]
fn volumes_then_sandbox_then_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let mut memory = memory(None, vec![]);
    memory.volumes_ready = false;
    assert_eq!(run(&pod, &memory).actions, [Action::PrepareVolumes]);
    memory.in_flight.insert(Step::Volumes);
    assert_eq!(run(&pod, &memory).actions, []);
    memory.in_flight.clear();
    memory.volumes_ready = true;
    assert_eq!(run(&pod, &memory).actions, [create_sandbox(0, None)]);
    memory.in_flight.insert(Step::Sandbox);
    assert_eq!(run(&pod, &memory).actions, []);
    memory.in_flight.clear();
    memory.runtime.put_sandbox(sandbox(0, SandboxState::Ready));
    assert_eq!(run(&pod, &memory).actions, [start("a", 0), start("b", 0)]);
    memory.in_flight.insert(Step::Start("a".to_owned()));
    assert_eq!(run(&pod, &memory).actions, [start("b", 0)]);
}

#[test]
fn failed_steps_wait_for_their_time() {
    let mut memory = memory(None, vec![]);
    memory.sandbox_failure = Some(StepFailure { retry_at: at(20) });
    let plan = run(&one("Always"), &memory);
    assert_eq!((plan.actions, plan.wake_at), (vec![], Some(at(20))));
    memory.sandbox_failure = Some(StepFailure { retry_at: at(11) });
    assert_eq!(run(&one("Always"), &memory).actions, [create_sandbox(0, None)]);
}

#[test]
fn restart_policies() {
    let again = vec![start("c", 1)];
    for (policy, code, actions, finished) in [
        ("Always", 0, again.clone(), false),
        ("Always", 1, again.clone(), false),
        ("OnFailure", 1, again, false),
        ("OnFailure", 0, vec![Action::StopSandbox { id: "s0".to_owned() }], true),
        ("Never", 1, vec![Action::StopSandbox { id: "s0".to_owned() }], true),
    ] {
        let plan = run(&one(policy), &ready(vec![container("c", 0, Some(code))]));
        assert_eq!((plan.actions, plan.finished), (actions, finished), "{policy} {code}");
    }
}

#[test]
fn crash_loops_back_off_from_the_end() {
    let mut memory = ready(vec![container("c", 1, Some(1))]);
    memory.crash_back_off.advance("c i", at(0), at(0));
    let plan = run(&one("Always"), &memory);
    assert_eq!(plan.actions, []);
    assert_eq!(plan.wake_at, Some(at(20)));
    let waiting = &plan.waiting["c"];
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(
        waiting.message,
        "back-off 10s restarting failed container=c pod=p_ns(u)"
    );
    let later = super::plan(&one("Always"), &memory, Intent::Run, at(20));
    assert_eq!(later.actions, [start("c", 2)]);
}

#[test]
fn images_that_cannot_be_pulled_back_off() {
    let mut memory = ready(vec![]);
    let failure = StartFailure {
        kind: FailureKind::ImagePull,
        reason: "ErrImagePull".to_owned(),
        message: "no such host".to_owned(),
        image: "i".to_owned(),
        // One of its volumes.
        wanted: "v".to_owned(),
        at: at(11),
        retry_at: Some(at(21)),
    };
    memory.start_failures.insert("c".to_owned(), failure);
    let first = run(&one("Always"), &memory);
    assert_eq!(
        (first.waiting["c"].reason.as_str(), first.wake_at),
        ("ErrImagePull", Some(at(12)))
    );
    assert_eq!(first.actions, []);
    let then = super::plan(&one("Always"), &memory, Intent::Run, at(13));
    assert_eq!(then.waiting["c"].reason, "ImagePullBackOff");
    assert_eq!(
        then.waiting["c"].message,
        "Back-off pulling image \"v\": ErrImagePull: no such host"
    );
    assert_eq!(then.wake_at, Some(at(21)));
    let due = super::plan(&one("Always"), &memory, Intent::Run, at(21));
    assert_eq!(due.actions, [start("c", 0)]);
    assert_eq!(
        due.waiting["c"].reason, "ImagePullBackOff",
        "still shown while it is tried"
    );
    let changed = pod(json!({"containers": [{"name": "c", "image": "other"}]}));
    assert_eq!(
        run(&changed, &memory).actions,
        [start("c", 0)],
        "a new image is tried at once"
    );
}

#[test]
fn init_containers_run_one_after_another() {
    let pod = pod(json!({"initContainers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "c"}]}));
    assert_eq!(run(&pod, &ready(vec![])).actions, [start("a", 0)]);
    assert_eq!(run(&pod, &ready(vec![container("a", 0, None)])).actions, []);
    assert_eq!(
        run(&pod, &ready(vec![container("a", 0, Some(0))])).actions,
        [start("b", 0)]
    );
    assert_eq!(
        run(&pod, &ready(vec![container("a", 0, Some(1))])).actions,
        [start("a", 1)]
    );
    let done = vec![container("a", 0, Some(0)), container("b", 0, Some(0))];
    assert_eq!(run(&pod, &ready(done)).actions, [start("c", 0)]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}], "containers": [{"name": "c"}]});
    let plan = run(&pod(spec), &ready(vec![container("a", 0, Some(1))]));
    assert!(plan.finished);
    assert_eq!(plan.actions, [Action::StopSandbox { id: "s0".to_owned() }]);
}

#[test]
fn sidecars_start_before_and_end_after_the_others() {
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
        "containers": [{"name": "c"}]});
    let pod = pod(spec);
    assert_eq!(run(&pod, &ready(vec![])).actions, [start("s", 0)]);
    let running = || vec![container("s", 0, None), container("t", 0, None)];
    assert_eq!(run(&pod, &ready(running())).actions, [start("c", 0)]);
    // A sidecar that ends is started again, also beside a running app container.
    let lost = vec![
        container("s", 0, Some(0)),
        container("t", 0, None),
        container("c", 0, None),
    ];
    assert_eq!(run(&pod, &ready(lost)).actions, [start("s", 1)]);
    // When the app container is done the sidecars go, the last one first.
    let mut all = running();
    all.push(container("c", 0, Some(0)));
    let plan = run(&pod, &ready(all.clone()));
    assert!(plan.finished);
    assert_eq!(plan.actions, [kill("t0", 30, KillReason::Stopping)]);
    // A deletion: the app container first.
    all[2] = container("c", 0, None);
    assert_eq!(stop(&pod, &ready(all)).actions, [kill("c0", 30, KillReason::Stopping)]);
    let left = vec![
        container("s", 0, None),
        container("t", 0, Some(0)),
        container("c", 0, Some(0)),
    ];
    assert_eq!(
        stop(&pod, &ready(left)).actions,
        [kill("s0", 20, KillReason::Stopping)],
        "what is left of the grace"
    );
}

#[test]
fn stopping() {
    let pod = one("Always");
    let mut memory = ready(vec![container("c", 0, None)]);
    assert_eq!(stop(&pod, &memory).actions, [kill("c0", 30, KillReason::Stopping)]);
    memory.kill_grace.insert("c0".to_owned(), 30);
    assert_eq!(stop(&pod, &memory).actions, []);
    let sooner = Intent::Stop {
        grace_seconds: 1,
        since: at(1),
    };
    assert_eq!(
        plan(&pod, &memory, sooner, at(11)).actions,
        [kill("c0", 1, KillReason::Stopping)]
    );
    let ended = ready(vec![container("c", 0, Some(143))]);
    let plan = stop(&pod, &ended);
    assert_eq!(plan.actions, [Action::StopSandbox { id: "s0".to_owned() }]);
    assert!(!plan.stopped);
    let quiet = self::memory(Some(SandboxState::NotReady), vec![container("c", 0, Some(143))]);
    assert!(stop(&pod, &quiet).stopped);
    let mut starting = self::memory(Some(SandboxState::NotReady), vec![]);
    starting.in_flight.insert(Step::Start("c".to_owned()));
    assert!(
        !stop(&pod, &starting).stopped,
        "what is being started has to be awaited"
    );
}

#[test]
fn a_lost_sandbox_is_made_again() {
    let pod = pod(json!({"initContainers": [{"name": "a"}], "containers": [{"name": "c"}]}));
    let lost = |containers| memory(Some(SandboxState::NotReady), containers);
    let plan = run(&pod, &lost(vec![container("a", 0, Some(0)), container("c", 0, None)]));
    assert_eq!(plan.actions, [kill("c0", 30, KillReason::SandboxChanged)]);
    let ended = vec![container("a", 0, Some(0)), container("c", 0, Some(137))];
    assert_eq!(run(&pod, &lost(ended.clone())).actions, [create_sandbox(1, Some("s0"))]);
    // In the new sandbox the init containers run again.
    let mut memory = lost(ended);
    memory.runtime.put_sandbox(sandbox(1, SandboxState::Ready));
    assert_eq!(run(&pod, &memory).actions, [start("a", 1)]);
}

#[test]
fn a_lost_sandbox_of_a_finished_pod_is_not() {
    let ended = vec![container("c", 0, Some(0))];
    let plan = run(&one("Never"), &memory(Some(SandboxState::NotReady), ended));
    assert!(plan.finished && plan.stopped);
    assert_eq!(plan.actions, []);
}

#[test]
fn adopted_containers_are_left_alone() {
    let plan = run(&one("Always"), &ready(vec![container("c", 3, None)]));
    assert_eq!(plan, Plan::default());
}

#[test]
fn a_container_that_was_created_but_not_started_is_replaced() {
    let created = ContainerStatus {
        state: ContainerState::Created,
        ..container("c", 2, None)
    };
    let expected = Action::StartContainer {
        name: "c".to_owned(),
        attempt: 2,
        replaces: Some("c2".to_owned()),
    };
    assert_eq!(run(&one("Always"), &ready(vec![created])).actions, [expected]);
}

#[test]
fn the_count_goes_on_when_the_runtime_forgot_the_container() {
    let mut pod = one("Always");
    pod.status = serde_json::from_value(json!({"containerStatuses": [
        {"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 4, "containerID": "docker://x"}]}))
    .unwrap();
    assert_eq!(run(&pod, &ready(vec![])).actions, [start("c", 5)]);
}

#[test]
fn a_changed_definition_replaces_the_container_whatever_the_policy() {
    let hash = "io.kubernetes.container.hash".to_owned();
    let mut running = container("c", 0, None);
    running.annotations.insert(hash.clone(), "another".to_owned());
    let plan = run(&one("Never"), &ready(vec![running]));
    assert_eq!(plan.actions, [kill("c0", 30, KillReason::DefinitionChanged)]);
    let mut ended = container("c", 0, Some(143));
    ended.annotations.insert(hash, "another".to_owned());
    let mut memory = ready(vec![ended]);
    memory.replaced.insert("c0".to_owned());
    assert_eq!(run(&one("Never"), &memory).actions, [start("c", 1)]);
}

#[test]
fn unhealthy_containers_are_killed() {
    let mut memory = ready(vec![container("c", 0, None)]);
    memory.verdicts.unhealthy.insert("c0".to_owned(), ("liveness", None));
    assert_eq!(
        run(&one("Always"), &memory).actions,
        [kill("c0", 30, KillReason::Unhealthy("liveness"))]
    );
    memory.verdicts.unhealthy.insert("c0".to_owned(), ("startup", Some(3)));
    assert_eq!(
        run(&one("Always"), &memory).actions,
        [kill("c0", 3, KillReason::Unhealthy("startup"))]
    );
}

#[test]
fn one_dead_container_is_kept() {
    let containers = vec![
        container("c", 0, Some(1)),
        container("c", 1, Some(1)),
        container("c", 2, None),
    ];
    let plan = run(&one("Always"), &ready(containers));
    assert_eq!(plan.actions, [Action::RemoveContainer { id: "c0".to_owned() }]);
}

#[test]
fn ephemeral_containers_run_once() {
    let spec = json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "e", "image": "d"}]});
    let pod = pod(spec);
    assert_eq!(
        run(&pod, &ready(vec![container("c", 0, None)])).actions,
        [start("e", 0)]
    );
    let both = vec![container("c", 0, None), container("e", 0, Some(1))];
    assert_eq!(run(&pod, &ready(both)).actions, []);
}

#[test]
fn deadlines() {
    let mut pod = pod(json!({"activeDeadlineSeconds": 5, "containers": []}));
    assert_eq!(deadline(&pod, at(0)), Ok(None), "not before it has started");
    let start_time = pod::api_time(at(0));
    pod.status.get_or_insert_default().start_time = Some(start_time);
    assert_eq!(deadline(&pod, at(4)), Ok(Some(at(5))));
    assert_eq!(deadline(&pod, at(5)).unwrap_err().reason, "DeadlineExceeded");
}

#[test]
fn one_end_may_restart_all() {
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always", "restartPolicyRules": [rule]}],
        "containers": [{"name": "a"}, {"name": "b"}]}));
    let mut memory = ready(vec![
        container("i", 0, Some(0)),
        container("s", 0, Some(7)),
        container("a", 0, None),
        container("b", 0, Some(0)),
    ]);
    let advance = |memory: &mut Memory| {
        restart::advance(&pod, memory);
        memory.restarts_all
    };
    assert!(!advance(&mut memory), "another code");
    memory.runtime.containers[1] = container("s", 0, Some(42));
    assert!(advance(&mut memory));
    // Without grace, whatever else is under way.
    assert_eq!(run(&pod, &memory).actions, [kill("a0", 0, KillReason::RestartingAll)]);
    memory.runtime.put_container(container("a", 0, Some(137)));
    memory.in_flight.insert(Step::Start("b".to_owned()));
    assert_eq!(run(&pod, &memory).actions, []);
    memory.in_flight.clear();
    let cause = Some("s".to_owned());
    let planned = run(&pod, &memory);
    let [Action::StartOver { cause: found, ids }] = planned.actions.as_slice() else {
        panic!("{planned:?}");
    };
    assert_eq!((found, ids.len()), (&cause, 4));
    // Too soon again: as a crash, it waits.
    memory.crash_back_off.advance("s ", at(10), at(10));
    memory.crash_back_off.advance("s ", at(10), at(10));
    let waits = run(&pod, &memory);
    assert_eq!(
        (waits.actions.len(), waits.waiting["s"].reason.as_str()),
        (0, "CrashLoopBackOff")
    );
    // Nothing is left: it begins with the first one, and the count goes on.
    memory.runtime.containers.clear();
    memory.next_attempts.insert("i".to_owned(), 1);
    assert!(!advance(&mut memory));
    assert_eq!(run(&pod, &memory).actions, [start("i", 1)]);
}
