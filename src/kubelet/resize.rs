//! Changing the resources of running containers (upstream: `pkg/kubelet/allocation`, `kuberuntime_manager.go`
//! `computePodResizeAction`).
//!
//! Three things may differ: what the spec asks for, what the node has granted, and what a running container has. A
//! grant is for the whole pod at once, and only if the node has room; the containers follow it one by one.

use crate::kubelet::pod::{self, Role};
use crate::kubelet::resources;
use crate::kubelet::state::{PodRuntime, is_alive};
use crate::runtime::{ContainerStatus, Resources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// When a resize that must wait for room, or that the engine refused, is tried again.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub struct Resizes {
    /// What the node has granted, by the name of the container.
    allocated: BTreeMap<String, ResourceRequirements>,
    /// What running containers have, by id.
    actuated: BTreeMap<String, ResourceRequirements>,
    /// What containers are being started with, by name.
    starting: BTreeMap<String, ResourceRequirements>,
    pub pending: Option<Pending>,
    pub progress: Option<Progress>,
    /// Containers whose change the engine refused, by id.
    refused: BTreeMap<String, SystemTime>,
    /// What the containers have together, as far as this krust has given it.
    pub of_pod: Option<Resources>,
}

/// Asked for and not granted: the condition PodResizePending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Infeasible` or `Deferred`
    pub reason: &'static str,
    pub message: String,
    pub generation: i64,
    retry_at: Option<SystemTime>,
}

/// Granted and not yet done: the condition PodResizeInProgress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub generation: i64,
    pub error: Option<String>,
}

/// What the node can give, and what its other pods have of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub used_cpu_milli: i64,
    pub used_memory_bytes: i64,
}

/// What a running container needs to have what was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Update,
    Restart,
    /// Refused a moment ago.
    Wait(SystemTime),
}

/// Reason and message of an event.
pub type News = (&'static str, String);

/// App containers and sidecars.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let sidecars = pod::init_containers(pod).filter(|(role, _)| *role == Role::Sidecar);
    sidecars.map(|(_, c)| c).chain(pod::app_containers(pod))
}

fn asked(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

impl Resizes {
    /// A new pod is granted what it asks for: the scheduler has seen to that. One that ran before krust started has
    /// what its status says.
    pub fn begin(&mut self, pod: &Pod, runtime: &PodRuntime) {
        if !self.allocated.is_empty() {
            return;
        }
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
        let statuses: Vec<_> = statuses.flatten().flatten().collect();
        for container in resizable(pod) {
            let running = runtime.latest(&container.name).filter(|latest| is_alive(latest.state));
            let known = statuses.iter().find(|status| status.name == container.name);
            let known = known.and_then(|status| status.resources.clone());
            let granted = known.filter(|_| running.is_some()).unwrap_or_else(|| asked(container));
            if let Some(running) = running {
                self.actuated.insert(running.id.clone(), granted.clone());
            }
            self.allocated.insert(container.name.clone(), granted);
        }
    }

    /// Grants what the spec asks for, if it is something new and there is room.
    pub fn allocate(&mut self, pod: &Pod, room: impl FnOnce() -> Room, now: SystemTime) -> Option<News> {
        let differs = resizable(pod).any(|c| self.allocated.get(&c.name).is_some_and(|known| *known != asked(c)));
        if !differs {
            self.pending = None;
            return None;
        }
        let generation = pod.metadata.generation.unwrap_or_default();
        if let Some(pending) = &self.pending
            && pending.generation == generation
            && pending.retry_at.is_none_or(|at| at > now)
        {
            return None;
        }
        if let Err((reason, message)) = fits(pod, room()) {
            let text = format!("Pod resize {reason}: {}", summary(pod, generation, &message));
            let news = self
                .pending
                .as_ref()
                .is_none_or(|known| (known.reason, &known.message, known.generation) != (reason, &message, generation));
            self.pending = Some(Pending {
                reason,
                message,
                generation,
                retry_at: (reason == "Deferred").then(|| now + RETRY),
            });
            let reason = match reason {
                "Deferred" => "ResizeDeferred",
                _ => "ResizeInfeasible",
            };
            return news.then_some((reason, text));
        }
        for container in resizable(pod) {
            self.allocated.insert(container.name.clone(), asked(container));
        }
        self.pending = None;
        self.refused.clear();
        self.progress = Some(Progress {
            generation,
            error: None,
        });
        Some((
            "ResizeStarted",
            format!("Pod resize started: {}", summary(pod, generation, "")),
        ))
    }

    /// When [`Resizes::allocate`] is to be asked again.
    pub fn due(&self) -> Option<SystemTime> {
        self.pending.as_ref().and_then(|pending| pending.retry_at)
    }

    /// The end of a resize, when every running container has what was granted.
    pub fn complete(&mut self, pod: &Pod, runtime: &PodRuntime) -> Option<News> {
        let progress = self.progress.as_ref()?;
        let done = resizable(pod).all(|c| {
            let latest = runtime.latest(&c.name).filter(|latest| is_alive(latest.state));
            latest.is_none_or(|latest| self.actuated.get(&latest.id) == self.allocated.get(&c.name))
        });
        if !done || !self.starting.is_empty() {
            return None;
        }
        let text = format!("Pod resize completed: {}", summary(pod, progress.generation, ""));
        self.progress = None;
        Some(("ResizeCompleted", text))
    }

    /// The container with what was granted to it.
    pub fn granted(&self, container: &Container) -> Container {
        let mut container = container.clone();
        if let Some(granted) = self.allocated.get(&container.name) {
            container.resources = Some(granted.clone());
        }
        container
    }

    /// The pod with what was granted to its containers.
    pub fn granted_pod(&self, pod: &Pod) -> Pod {
        let mut pod = pod.clone();
        if let Some(spec) = &mut pod.spec {
            let init = spec.init_containers.iter_mut().flatten();
            for container in init.chain(&mut spec.containers) {
                *container = self.granted(container);
            }
        }
        pod
    }

    /// What the pod's status says that a container has: (has, was granted).
    pub fn shown(
        &self,
        id: &str,
        container: &Container,
    ) -> (Option<ResourceRequirements>, Option<ResourceRequirements>) {
        let granted = self
            .allocated
            .get(&container.name)
            .cloned()
            .or(container.resources.clone());
        (self.actuated.get(id).cloned().or(granted.clone()), granted)
    }

    pub fn starts(&mut self, container: &Container) {
        self.starting.insert(container.name.clone(), asked(container));
    }

    /// The start of the container ended; with the id of what runs now, if it does.
    pub fn started(&mut self, name: &str, id: Option<&str>) {
        if let (Some(resources), Some(id)) = (self.starting.remove(name), id) {
            self.actuated.insert(id.to_owned(), resources);
        }
    }

    /// The engine has changed the container, or refused to.
    pub fn updated(
        &mut self,
        pod: &Pod,
        id: &str,
        given: ResourceRequirements,
        result: Result<(), String>,
        now: SystemTime,
    ) -> Option<News> {
        match result {
            Ok(()) => {
                self.refused.remove(id);
                self.actuated.insert(id.to_owned(), given);
                if let Some(progress) = self.progress.as_mut().filter(|_| self.refused.is_empty()) {
                    progress.error = None;
                }
                None
            }
            Err(error) => {
                self.refused.insert(id.to_owned(), now + RETRY);
                let generation = pod.metadata.generation.unwrap_or_default();
                let text = format!("Pod resize error: {}", summary(pod, generation, &error));
                let progress = self.progress.get_or_insert(Progress {
                    generation,
                    error: None,
                });
                let news = progress.error.as_ref() != Some(&error);
                progress.error = Some(error);
                news.then_some(("ResizeError", text))
            }
        }
    }

    /// What the running container needs; None if it has what was granted.
    pub fn need(&self, container: &Container, running: &ContainerStatus, now: SystemTime) -> Option<Need> {
        let (has, granted) = (self.actuated.get(&running.id)?, self.allocated.get(&container.name)?);
        if has == granted {
            return None;
        }
        let changed = |resource: &str| {
            let one = |r: &ResourceRequirements| {
                let figure = |list: &Option<BTreeMap<String, _>>| list.as_ref().and_then(|l| l.get(resource)).cloned();
                (figure(&r.requests), figure(&r.limits))
            };
            one(has) != one(granted)
        };
        let mut policies = container.resize_policy.iter().flatten();
        if policies.any(|policy| policy.restart_policy == "RestartContainer" && changed(&policy.resource_name)) {
            return Some(Need::Restart);
        }
        match self.refused.get(&running.id) {
            Some(at) if *at > now => Some(Need::Wait(*at)),
            _ => Some(Need::Update),
        }
    }
}

fn fits(pod: &Pod, room: Room) -> Result<(), (&'static str, String)> {
    let (cpu, memory) = (
        resources::pod_request(pod, "cpu"),
        resources::pod_request(pod, "memory"),
    );
    if memory > room.memory_bytes {
        let capacity = room.memory_bytes;
        let message = format!("Node didn't have enough capacity: memory, requested: {memory}, capacity: {capacity}");
        return Err(("Infeasible", message));
    }
    if cpu > room.cpu_milli {
        let capacity = room.cpu_milli;
        let message = format!("Node didn't have enough capacity: cpu, requested: {cpu}, capacity: {capacity}");
        return Err(("Infeasible", message));
    }
    for (resource, wanted, used, capacity) in [
        ("cpu", cpu, room.used_cpu_milli, room.cpu_milli),
        ("memory", memory, room.used_memory_bytes, room.memory_bytes),
    ] {
        if wanted.saturating_add(used) > capacity {
            let message = format!(
                "Node didn't have enough resource: {resource}, requested: {wanted}, used: {used}, capacity: {capacity}"
            );
            return Err(("Deferred", message));
        }
    }
    Ok(())
}

/// What events say of the pod's containers.
fn summary(pod: &Pod, generation: i64, error: &str) -> String {
    #[derive(Serialize)]
    struct One<'a> {
        name: &'a str,
        resources: ResourceRequirements,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<One<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        containers: Vec<One<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    fn one(container: &Container) -> One<'_> {
        One {
            name: &container.name,
            resources: asked(container),
        }
    }
    let summary = Summary {
        init_containers: pod::init_containers(pod).map(|(_, c)| one(c)).collect(),
        containers: pod::app_containers(pod).iter().map(one).collect(),
        generation,
        error,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::ContainerState;
    use serde_json::{Value, json};

    const ROOM: Room = Room {
        cpu_milli: 2000,
        memory_bytes: 1 << 30,
        used_cpu_milli: 500,
        used_memory_bytes: 0,
    };

    fn pod(generation: i64, cpu: &str, policy: Value) -> Pod {
        let resources = json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": generation},
            "spec": {"containers": [{"name": "c", "resources": resources, "resizePolicy": policy}]},
        }))
        .unwrap()
    }

    fn running(id: &str) -> ContainerStatus {
        let now = SystemTime::UNIX_EPOCH;
        ContainerStatus {
            id: id.to_owned(),
            sandbox_id: "s".to_owned(),
            name: "c".to_owned(),
            attempt: 0,
            pod_uid: "u".to_owned(),
            state: ContainerState::Running,
            created_at: now,
            started_at: Some(now),
            finished_at: None,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            tty: false,
        }
    }

    fn container(pod: &Pod) -> &Container {
        &pod::app_containers(pod)[0]
    }

    #[test]
    fn granted_then_given() {
        let now = SystemTime::UNIX_EPOCH;
        let (before, after) = (pod(1, "100m", json!([])), pod(2, "200m", json!([])));
        let runtime = PodRuntime {
            sandboxes: Vec::new(),
            containers: vec![running("c0")],
        };
        let mut resizes = Resizes::default();
        resizes.begin(&before, &PodRuntime::default());
        resizes.starts(&resizes.granted(container(&before)));
        resizes.started("c", Some("c0"));
        assert_eq!(resizes.allocate(&before, || ROOM, now), None);
        assert_eq!(resizes.need(container(&before), &running("c0"), now), None);
        let (reason, text) = resizes.allocate(&after, || ROOM, now).unwrap();
        assert_eq!(reason, "ResizeStarted");
        assert_eq!(
            text,
            r#"Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"cpu":"200m"},"requests":{"cpu":"200m"}}}],"generation":2}"#
        );
        assert_eq!(resizes.need(container(&after), &running("c0"), now), Some(Need::Update));
        assert_eq!(resizes.complete(&after, &runtime), None);
        // The engine refuses at first.
        let given = asked(container(&after));
        let refused = resizes.updated(&after, "c0", given.clone(), Err("busy".to_owned()), now);
        assert_eq!(refused.unwrap().0, "ResizeError");
        let wait = Some(Need::Wait(now + RETRY));
        assert_eq!(resizes.need(container(&after), &running("c0"), now), wait);
        assert_eq!(
            resizes.need(container(&after), &running("c0"), now + RETRY),
            Some(Need::Update)
        );
        assert_eq!(resizes.updated(&after, "c0", given, Ok(()), now), None);
        assert_eq!(resizes.progress.as_ref().unwrap().error, None);
        assert_eq!(resizes.complete(&after, &runtime).unwrap().0, "ResizeCompleted");
        assert_eq!(resizes.progress, None);
    }

    #[test]
    fn without_room_it_waits_or_never_comes() {
        let now = SystemTime::UNIX_EPOCH;
        let mut resizes = Resizes::default();
        resizes.begin(&pod(1, "100m", json!([])), &PodRuntime::default());
        let (reason, _) = resizes.allocate(&pod(2, "1800m", json!([])), || ROOM, now).unwrap();
        assert_eq!(reason, "ResizeDeferred");
        let pending = resizes.pending.clone().unwrap();
        assert_eq!(
            pending.message,
            "Node didn't have enough resource: cpu, requested: 1800, used: 500, capacity: 2000"
        );
        assert_eq!(
            resizes.allocate(&pod(2, "1800m", json!([])), || panic!("too soon"), now),
            None
        );
        let free = Room {
            used_cpu_milli: 0,
            ..ROOM
        };
        let later = resizes.allocate(&pod(2, "1800m", json!([])), || free, now + RETRY);
        assert_eq!(later.unwrap().0, "ResizeStarted");
        let (reason, _) = resizes.allocate(&pod(3, "5", json!([])), || ROOM, now).unwrap();
        assert_eq!((reason, resizes.due()), ("ResizeInfeasible", None));
        // Taking the wish back ends it.
        assert_eq!(resizes.allocate(&pod(4, "1800m", json!([])), || ROOM, now), None);
        assert_eq!(resizes.pending, None);
    }

    #[test]
    fn the_policy_may_ask_for_a_restart() {
        let now = SystemTime::UNIX_EPOCH;
        for (resource, need) in [("cpu", Need::Restart), ("memory", Need::Update)] {
            let policy = json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]);
            let mut resizes = Resizes::default();
            resizes.begin(&pod(1, "100m", json!([])), &PodRuntime::default());
            resizes.starts(&resizes.granted(container(&pod(1, "100m", json!([])))));
            resizes.started("c", Some("c0"));
            let after = pod(2, "200m", policy);
            resizes.allocate(&after, || ROOM, now);
            assert_eq!(
                resizes.need(container(&after), &running("c0"), now),
                Some(need),
                "{resource}"
            );
        }
    }
}
