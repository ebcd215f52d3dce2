//! What runs, and what the pod's status says about it.

use super::*;
use crate::runtime::oci::user::ResolvedUser;
use crate::runtime::{ContainerState, ContainerStatus, PodIdentity, Sandbox, SandboxState};
use serde_json::{Value, json};
use std::time::Duration;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn container(name: &str, attempt: u32, exit: Option<i32>) -> ContainerStatus {
    ContainerStatus {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".to_owned(),
        name: name.to_owned(),
        attempt,
        pod_uid: "u".to_owned(),
        state: if exit.is_some() {
            ContainerState::Exited
        } else {
            ContainerState::Running
        },
        created_at: at(1),
        started_at: Some(at(1)),
        finished_at: exit.map(|_| at(2)),
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

struct World {
    pod: Pod,
    runtime: PodRuntime,
    replaced: BTreeSet<String>,
    restarts_all: bool,
    waiting: BTreeMap<String, Waiting>,
    failure: Option<PodFailure>,
    ending: bool,
    stopped: bool,
    verdicts: Verdicts,
}

impl World {
    fn new(spec: Value, containers: Vec<ContainerStatus>) -> Self {
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u", "generation": 3});
        let sandbox = Sandbox {
            id: "s".to_owned(),
            pod: PodIdentity::default(),
            state: SandboxState::Ready,
            created_at: at(0),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            ips: vec!["10.0.0.2".to_owned()],
        };
        Self {
            pod: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            runtime: PodRuntime {
                sandboxes: vec![sandbox],
                containers,
            },
            replaced: BTreeSet::new(),
            restarts_all: false,
            waiting: BTreeMap::new(),
            failure: None,
            ending: false,
            stopped: false,
            verdicts: Verdicts::default(),
        }
    }

    fn status(&self) -> PodStatus {
        compute(&Seen {
            pod: &self.pod,
            runtime: &self.runtime,
            replaced: &self.replaced,
            resize: &Resizes::default(),
            restarts_all: self.restarts_all,
            waiting: &self.waiting,
            failure: self.failure.as_ref(),
            ending: self.ending,
            stopped: self.stopped,
            messages: &BTreeMap::new(),
            recursive_readonly: false,
            verdicts: &self.verdicts,
            runtime_name: "docker",
            host_ips: &["192.168.1.1".to_owned()],
            first_seen: at(100),
            now: at(200),
        })
    }
}

fn condition(status: &PodStatus, kind: &str) -> (String, String, String) {
    let found = status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    (
        found.status.clone(),
        found.reason.clone().unwrap_or_default(),
        found.message.clone().unwrap_or_default(),
    )
}

fn verdict(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.to_owned(), reason.to_owned(), message.to_owned())
}

#[test]
fn phases() {
    let app = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]});
    for (policy, containers, phase) in [
        ("Always", vec![], "Pending"),
        ("Always", vec![container("a", 0, None)], "Pending"),
        (
            "Always",
            vec![container("a", 0, None), container("b", 0, None)],
            "Running",
        ),
        (
            "Always",
            vec![container("a", 0, Some(1)), container("b", 0, Some(0))],
            "Running",
        ),
        (
            "OnFailure",
            vec![container("a", 0, Some(1)), container("b", 0, Some(0))],
            "Running",
        ),
        (
            "OnFailure",
            vec![container("a", 0, Some(0)), container("b", 0, Some(0))],
            "Succeeded",
        ),
        (
            "Never",
            vec![container("a", 0, Some(1)), container("b", 0, Some(0))],
            "Failed",
        ),
        (
            "Never",
            vec![container("a", 0, Some(1)), container("b", 0, None)],
            "Running",
        ),
    ] {
        let status = World::new(app(policy), containers.clone()).status();
        assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {containers:?}");
    }
}

#[test]
fn a_running_pod() {
    let status = World::new(
        json!({"containers": [{"name": "c", "image": "i"}]}),
        vec![container("c", 2, None)],
    )
    .status();
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.2"));
    assert_eq!(status.host_ip.as_deref(), Some("192.168.1.1"));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.start_time, Some(pod::api_time(at(100))));
    let c = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(c.container_id.as_deref(), Some("docker://c2"));
    assert_eq!((c.ready, c.started, c.restart_count), (true, Some(true), 2));
    for kind in [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ] {
        assert_eq!(condition(&status, kind).0, "True", "{kind}");
    }
}

#[test]
fn probes_hold_a_container_back() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]}), vec![container("c", 0, None)]);
    world.verdicts.not_ready.insert("c0".to_owned());
    world.verdicts.not_started.insert("c0".to_owned());
    let status = world.status();
    let c = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!((c.ready, c.started), (false, Some(false)));
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(condition(&status, "Ready").1, "ContainersNotReady");
}

#[test]
fn a_crash_loop_is_running_and_shows_its_last_end() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]}), vec![container("c", 1, Some(3))]);
    let held = Waiting {
        reason: "CrashLoopBackOff".to_owned(),
        message: "back-off".to_owned(),
    };
    world.waiting.insert("c".to_owned(), held);
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let c = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = c.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = c.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    let expected = verdict("False", "ContainersNotReady", "containers with unready status: [c]");
    assert_eq!(condition(&status, "Ready"), expected);
}

#[test]
fn init_containers_hold_the_pod_back() {
    let spec = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "c"}]});
    let status = World::new(spec.clone(), vec![container("i", 0, Some(0))]).status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let expected = verdict(
        "False",
        "ContainersNotInitialized",
        "containers with incomplete status: [j]",
    );
    assert_eq!(condition(&status, "Initialized"), expected);
    let waiting = |status: &PodStatus| {
        let c = status.container_statuses.as_ref().unwrap()[0].clone();
        c.state.unwrap().waiting.unwrap().reason.unwrap()
    };
    assert_eq!(waiting(&status), "PodInitializing");
    assert_eq!(
        waiting(&World::new(json!({"containers": [{"name": "c"}]}), vec![]).status()),
        "ContainerCreating"
    );
    let mut never = spec;
    never["restartPolicy"] = json!("Never");
    let status = World::new(never, vec![container("i", 0, Some(1))]).status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
}

#[test]
fn final_phases_wait_for_the_last_container() {
    let spec = json!({"restartPolicy": "Never",
        "initContainers": [{"name": "s", "restartPolicy": "Always"}], "containers": [{"name": "c"}]});
    let mut world = World::new(spec, vec![container("s", 0, None), container("c", 0, Some(0))]);
    world.ending = true;
    world.pod.status = serde_json::from_value(json!({"phase": "Running"})).unwrap();
    assert_eq!(world.status().phase.as_deref(), Some("Running"));
    world.runtime.containers[0] = container("s", 0, Some(143));
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"), "sidecars do not decide");
    assert_eq!(condition(&status, "Ready"), verdict("False", "PodCompleted", ""));
}

#[test]
fn a_pod_that_the_kubelet_ended() {
    let mut world = World::new(
        json!({"containers": [{"name": "c"}]}),
        vec![container("c", 0, Some(137))],
    );
    world.ending = true;
    world.failure = Some(PodFailure {
        reason: "DeadlineExceeded",
        message: "too long".to_owned(),
        ..PodFailure::default()
    });
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(condition(&status, "ContainersReady"), verdict("False", "PodFailed", ""));
}

#[test]
fn what_never_began_has_failed_when_its_pod_is_over() {
    let apps = json!([{"name": "c"}]);
    let plain = json!({"containers": apps});
    let inits = json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": apps});
    let state = |list: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>, index: usize| {
        let state = list.as_ref().unwrap()[index].state.clone().unwrap();
        let waiting = state.waiting.and_then(|waiting| waiting.reason);
        waiting.or(state.terminated.and_then(|ended| ended.reason)).unwrap()
    };
    const UNKNOWN: &str = "ContainerStatusUnknown";
    for (spec, containers, expected_inits, expected_app) in [
        (&plain, vec![], vec![], UNKNOWN),
        (&plain, vec![container("c", 0, Some(3))], vec![], "Error"),
        (&inits, vec![], vec![UNKNOWN, "PodInitializing"], "PodInitializing"),
        (
            &inits,
            vec![container("i", 0, Some(0))],
            vec!["Completed", "PodInitializing"],
            "PodInitializing",
        ),
        (
            &inits,
            vec![container("i", 0, Some(0)), container("j", 0, Some(0))],
            vec!["Completed", "Completed"],
            UNKNOWN,
        ),
    ] {
        let mut world = World::new(spec.clone(), containers);
        (world.ending, world.stopped) = (true, true);
        let status = world.status();
        assert_eq!(status.phase.as_deref(), Some("Failed"), "{status:?}");
        assert_eq!(state(&status.container_statuses, 0), expected_app);
        for (index, expected) in expected_inits.into_iter().enumerate() {
            assert_eq!(state(&status.init_container_statuses, index), expected);
        }
    }
}

#[test]
fn what_a_pod_has_as_a_whole() {
    let both = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let limited = json!({"requests": both("100m", "1Mi"), "limits": both("200m", "2Mi")});
    let some = json!({"requests": {"cpu": "50m"}, "limits": {"memory": "3Mi"}});
    let said = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}});
    for (own, containers, phase, requests, limits) in [
        (json!(null), vec![json!({})], "Running", json!(null), json!(null)),
        (
            json!(null),
            vec![limited.clone(), some.clone()],
            "Pending",
            both("150m", "1Mi"),
            both("200m", "5Mi"),
        ),
        // The kernel knows of a limit for all of them only.
        (
            json!(null),
            vec![limited.clone(), some],
            "Running",
            both("150m", "1Mi"),
            json!({"memory": "5Mi"}),
        ),
        (said, vec![limited], "Running", both("1", "1Mi"), both("2", "2Mi")),
    ] {
        let names = ["a", "b"];
        let specs: Vec<Value> = names
            .iter()
            .zip(&containers)
            .map(|(name, resources)| json!({"name": name, "resources": resources}))
            .collect();
        let runs = names.iter().take(if phase == "Running" { containers.len() } else { 1 });
        let spec = json!({"resources": own, "containers": specs});
        let status = World::new(spec, runs.map(|name| container(name, 0, None)).collect()).status();
        assert_eq!(status.phase.as_deref(), Some(phase));
        let found = json!(status.resources.as_ref().unwrap());
        let part = |list: &str| found.get(list).cloned().unwrap_or_default();
        assert_eq!(
            (part("requests"), part("limits")),
            (requests.clone(), limits),
            "{phase}"
        );
        assert_eq!(json!(status.allocated_resources), requests);
    }
}

#[test]
fn a_pod_that_begins_anew_is_pending() {
    let rule = json!({"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}});
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "a"}, {"name": "b", "restartPolicy": "Never", "restartPolicyRules": [rule]}]});
    let mut world = World::new(spec, vec![container("a", 0, Some(137)), container("b", 0, Some(42))]);
    world.restarts_all = true;
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let expected = verdict(
        "True",
        "RestartAllContainersStarted",
        "container exited with restart policy rule",
    );
    assert_eq!(condition(&status, "AllContainersRestarting"), expected);
    world.pod.status = Some(status);
    // Forgotten and not started yet.
    (world.restarts_all, world.runtime.containers) = (false, vec![container("a", 1, None)]);
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(condition(&status, "AllContainersRestarting"), verdict("False", "", ""));
    world.runtime.containers.push(container("b", 1, None));
    assert_eq!(world.status().phase.as_deref(), Some("Running"));
    world.runtime.containers = vec![container("a", 1, Some(0)), container("b", 1, Some(0))];
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let over = verdict("False", "PodCompleted", "");
    assert_eq!(condition(&status, "AllContainersRestarting"), over);
}

#[test]
fn conditions_of_others_and_times_stay() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]}), vec![container("c", 0, None)]);
    world.pod.status = serde_json::from_value(json!({"conditions": [
        {"type": "example.com/gate", "status": "False"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:05Z"},
        {"type": "Initialized", "status": "True", "lastTransitionTime": "1970-01-01T00:00:06Z"}]}))
    .unwrap();
    world.pod.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "example.com/gate"}])).unwrap();
    let status = world.status();
    let find = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind).unwrap();
    assert_eq!(find("PodScheduled").last_transition_time, Some(pod::api_time(at(5))));
    assert_eq!(find("Initialized").last_transition_time, Some(pod::api_time(at(6))));
    assert_eq!(
        find("ContainersReady").last_transition_time,
        Some(pod::api_time(at(200)))
    );
    assert_eq!(condition(&status, "Ready").1, "ReadinessGatesNotReady");
    assert_eq!(find("example.com/gate").status, "False");
}

#[test]
fn the_same_world_is_the_same_status() {
    let mut world = World::new(json!({"containers": [{"name": "c"}]}), vec![container("c", 0, None)]);
    let status = world.status();
    world.pod.status = Some(status.clone());
    assert_eq!(patch::difference("u", &status, &world.status()), None);
}

#[test]
fn a_replaced_container_does_not_end_its_pod() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c"}]});
    let mut world = World::new(spec, vec![container("c", 0, Some(0))]);
    assert_eq!(world.status().phase.as_deref(), Some("Succeeded"));
    world.replaced.insert("c0".to_owned());
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let container = &status.container_statuses.as_ref().unwrap()[0];
    let state = container.state.as_ref().unwrap();
    assert!(state.terminated.is_none() && !container.ready, "{state:?}");
    world.ending = true;
    assert_eq!(world.status().phase.as_deref(), Some("Succeeded"));
}

#[test]
fn who_a_container_began_as_is_told_where_it_is_known() {
    let mut known = container("c", 0, None);
    known.user = Some(ResolvedUser {
        uid: 1000,
        gid: 3000,
        additional_gids: vec![3000, 4000],
    });
    let shown = |container: ContainerStatus| {
        let world = World::new(json!({"containers": [{"name": "c"}]}), vec![container]);
        json!(world.status().container_statuses.unwrap()[0].user)
    };
    assert_eq!(
        shown(known),
        json!({"linux": {"uid": 1000, "gid": 3000, "supplementalGroups": [3000, 4000]}})
    );
    assert_eq!(shown(container("c", 0, None)), json!(null));
}
