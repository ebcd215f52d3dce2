//! Changing the resources of running containers, and of pods as a whole (upstream: `pkg/kubelet/allocation`,
//! `kuberuntime_manager.go` `computePodResizeAction`).
//!
//! Three things may differ: what the spec asks for, what the node has granted, and what a running container has. A
//! grant is for the whole pod at once, and only if the node has room; the containers follow it one by one, and what they
//! have together goes up before them and down after them.

use crate::kubelet::pod;
use crate::kubelet::resources;
use crate::kubelet::state::PodRuntime;
use crate::runtime::{ContainerStatus, Resources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// When a resize that must wait for room, or that the engine refused, is tried again.
const RETRY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default)]
pub struct Resizes {
    /// What the node has granted; None before it has granted anything.
    allocated: Option<Allocated>,
    /// What running containers have, by id.
    actuated: BTreeMap<String, Given>,
    /// What the control group of the containers was last given for.
    actuated_pod: Option<ResourceRequirements>,
    /// What containers are being started with, by name.
    starting: BTreeMap<String, Given>,
    pub pending: Option<Pending>,
    pub progress: Option<Progress>,
    /// Containers and sandboxes whose change the engine refused, by id.
    refused: BTreeMap<String, SystemTime>,
    /// What the containers have together, as far as this krust has given it.
    pub shared: Option<Resources>,
}

#[derive(Clone, Debug, Default)]
struct Allocated {
    of_pod: Option<ResourceRequirements>,
    /// By the name of the container.
    containers: BTreeMap<String, ResourceRequirements>,
}

/// What a container was started with or changed to.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub own: ResourceRequirements,
    /// What the pod as a whole had then: it counts for containers that say nothing.
    pub of_pod: Option<ResourceRequirements>,
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

/// All but ephemeral ones.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let init = pod::init_containers(pod).map(|(_, container)| container);
    init.chain(pod::app_containers(pod))
}

fn asked(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

fn same(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> bool {
    let none = ResourceRequirements::default();
    resources::same(one.unwrap_or(&none), other.unwrap_or(&none))
}

impl Allocated {
    fn as_asked(pod: &Pod) -> Self {
        Self {
            of_pod: pod::spec(pod).resources.clone(),
            containers: resizable(pod).map(|c| (c.name.clone(), asked(c))).collect(),
        }
    }

    fn is_of(&self, container: &Container) -> bool {
        let known = self.containers.get(&container.name);
        known.is_none_or(|known| same(Some(known), container.resources.as_ref()))
    }

    fn is_as_asked(&self, pod: &Pod) -> bool {
        let of_pod = same(self.of_pod.as_ref(), pod::spec(pod).resources.as_ref());
        of_pod && resizable(pod).all(|container| self.is_of(container))
    }
}

/// What the pod as a whole had when its status was written: it names more than the pod does.
fn known_of_pod(pod: &Pod) -> Option<ResourceRequirements> {
    let asked = pod::spec(pod).resources.as_ref()?;
    let Some(known) = pod.status.as_ref().and_then(|status| status.resources.as_ref()) else {
        return Some(asked.clone());
    };
    type List = Option<BTreeMap<String, Quantity>>;
    let names = |list: &List, known: &List| -> List {
        let had = |name: &String| Some((name.clone(), known.as_ref()?.get(name)?.clone()));
        list.as_ref().map(|list| list.keys().filter_map(had).collect())
    };
    Some(ResourceRequirements {
        requests: names(&asked.requests, &known.requests),
        limits: names(&asked.limits, &known.limits),
        ..asked.clone()
    })
}

impl Resizes {
    /// A new pod is granted what it asks for: the scheduler has seen to that. One that ran before krust started has
    /// what its status says.
    pub fn begin(&mut self, pod: &Pod, runtime: &PodRuntime) {
        if self.allocated.is_some() {
            return;
        }
        let mut allocated = Allocated::as_asked(pod);
        if runtime.running().next().is_some() {
            allocated.of_pod = known_of_pod(pod);
        }
        let statuses = pod
            .status
            .iter()
            .flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
        let statuses: Vec<_> = statuses.flatten().flatten().collect();
        for container in resizable(pod) {
            let Some(running) = runtime.alive(&container.name) else {
                continue;
            };
            let known = statuses.iter().find(|status| status.name == container.name);
            let known = known.and_then(|status| status.resources.clone());
            let own = known.unwrap_or_else(|| asked(container));
            allocated.containers.insert(container.name.clone(), own.clone());
            let given = Given {
                own,
                of_pod: allocated.of_pod.clone(),
            };
            self.actuated.insert(running.id.clone(), given);
        }
        self.actuated_pod.clone_from(&allocated.of_pod);
        self.allocated = Some(allocated);
    }

    /// Grants what the spec asks for, if it is something new and there is room. `bounded`: whether what the containers have
    /// together can be changed.
    pub fn allocate(
        &mut self,
        pod: &Pod,
        room: impl FnOnce() -> Room,
        bounded: impl FnOnce() -> bool,
        now: SystemTime,
    ) -> Option<News> {
        let allocated = self.allocated.as_ref()?;
        if allocated.is_as_asked(pod) {
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
        let for_pod = !same(allocated.of_pod.as_ref(), pod::spec(pod).resources.as_ref());
        let possible = match for_pod && !bounded() {
            true => Err(("Infeasible", NOT_BOUNDED.to_owned())),
            false => fits(pod, room()),
        };
        if let Err((reason, message)) = possible {
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
        self.allocated = Some(Allocated::as_asked(pod));
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

    /// Whether every running container has what was granted.
    fn is_settled(&self, pod: &Pod, runtime: &PodRuntime) -> bool {
        let settled = resizable(pod).all(|container| {
            let latest = runtime.alive(&container.name);
            latest.is_none_or(|latest| self.has_granted(container, &latest.id))
        });
        settled && self.starting.is_empty()
    }

    /// What the containers are to have together now that each has what was granted; None while it is too early, or if they
    /// have it.
    pub fn shared_need(&self, pod: &Pod, runtime: &PodRuntime, now: SystemTime) -> Option<Resources> {
        self.progress.as_ref()?;
        let sandbox = runtime.ready_sandbox()?;
        let refused = self.refused.get(&sandbox.id).is_some_and(|at| *at > now);
        if refused || !self.is_settled(pod, runtime) {
            return None;
        }
        let wanted = resources::for_pod(&self.granted_pod(pod));
        (self.shared.as_ref() != Some(&wanted)).then_some(wanted)
    }

    /// The end of a resize, when every running container has what was granted, and all together, too.
    pub fn complete(&mut self, pod: &Pod, runtime: &PodRuntime) -> Option<News> {
        let progress = self.progress.as_ref()?;
        let together = runtime.ready_sandbox().is_none()
            || self.shared.as_ref() == Some(&resources::for_pod(&self.granted_pod(pod)));
        if !together || !self.is_settled(pod, runtime) {
            return None;
        }
        let text = format!("Pod resize completed: {}", summary(pod, progress.generation, ""));
        self.progress = None;
        self.actuated_pod = self.allocated.as_ref().and_then(|allocated| allocated.of_pod.clone());
        Some(("ResizeCompleted", text))
    }

    /// The container with what was granted to it.
    pub fn granted(&self, container: &Container) -> Container {
        let mut container = container.clone();
        if let Some(granted) = self.granted_to(&container.name) {
            container.resources = Some(granted.clone());
        }
        container
    }

    fn granted_to(&self, name: &str) -> Option<&ResourceRequirements> {
        self.allocated.as_ref()?.containers.get(name)
    }

    fn granted_to_pod(&self) -> Option<&ResourceRequirements> {
        self.allocated.as_ref()?.of_pod.as_ref()
    }

    /// The pod with what was granted to it.
    pub fn granted_pod<'a>(&self, pod: &'a Pod) -> Cow<'a, Pod> {
        let asked = |allocated: &Allocated| allocated.is_as_asked(pod);
        if self.allocated.as_ref().is_none_or(asked) {
            return Cow::Borrowed(pod);
        }
        Cow::Owned(with(pod, self.granted_to_pod(), |name| self.granted_to(name)))
    }

    /// The pod with what its containers have.
    pub fn actuated_pod<'a>(&self, pod: &'a Pod, runtime: &PodRuntime) -> Cow<'a, Pod> {
        if self.progress.is_none() {
            return self.granted_pod(pod);
        }
        let has = |name: &str| {
            let running = runtime.alive(name);
            let given = running.and_then(|running| self.actuated.get(&running.id));
            given.map(|given| &given.own).or_else(|| self.granted_to(name))
        };
        Cow::Owned(with(pod, self.actuated_pod.as_ref(), has))
    }

    /// What the pod's status says that a container has: (has, was granted).
    pub fn shown(
        &self,
        id: &str,
        container: &Container,
    ) -> (Option<ResourceRequirements>, Option<ResourceRequirements>) {
        let granted = self.granted_to(&container.name).cloned();
        let granted = granted.or_else(|| container.resources.clone());
        let has = self.actuated.get(id).map(|given| given.own.clone());
        (has.or_else(|| granted.clone()), granted)
    }

    /// What the container is given when it gets what was granted.
    pub fn to_give(&self, container: &Container) -> Given {
        Given {
            own: asked(&self.granted(container)),
            of_pod: self.granted_to_pod().cloned(),
        }
    }

    pub fn starts(&mut self, container: &Container) {
        let given = self.to_give(container);
        self.starting.insert(container.name.clone(), given);
    }

    /// The start of the container ended; with the id of what runs now, if it does.
    pub fn started(&mut self, name: &str, id: Option<&str>) {
        if let (Some(given), Some(id)) = (self.starting.remove(name), id) {
            self.actuated.insert(id.to_owned(), given);
        }
    }

    /// The engine has changed the container, or refused to.
    pub fn updated(
        &mut self,
        pod: &Pod,
        id: &str,
        given: Given,
        result: Result<(), String>,
        now: SystemTime,
    ) -> Option<News> {
        if result.is_ok() {
            self.actuated.insert(id.to_owned(), given);
        } else {
            // Perhaps the group was changed before.
            self.shared = None;
        }
        self.tried(pod, id, result, now)
    }

    /// The engine has changed what the containers have together, or refused to.
    pub fn limited(
        &mut self,
        pod: &Pod,
        sandbox: &str,
        given: Resources,
        result: Result<(), String>,
        now: SystemTime,
    ) -> Option<News> {
        if result.is_ok() {
            self.shared = Some(given);
        }
        self.tried(pod, sandbox, result, now)
    }

    fn tried(&mut self, pod: &Pod, id: &str, result: Result<(), String>, now: SystemTime) -> Option<News> {
        match result {
            Ok(()) => {
                self.refused.remove(id);
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

    fn has_granted(&self, container: &Container, id: &str) -> bool {
        let (Some(has), Some(granted)) = (self.actuated.get(id), self.granted_to(&container.name)) else {
            return true;
        };
        let follows = resources::follows_pod(&self.granted(container));
        resources::same(&has.own, granted) && (!follows || same(has.of_pod.as_ref(), self.granted_to_pod()))
    }

    /// What the running container needs; None if it has what was granted.
    pub fn need(&self, container: &Container, running: &ContainerStatus, now: SystemTime) -> Option<Need> {
        if self.has_granted(container, &running.id) {
            return None;
        }
        let (has, granted) = (self.actuated.get(&running.id)?, self.granted_to(&container.name)?);
        let changed = |resource: &str| {
            let one = |r: &ResourceRequirements| {
                let figure = |list: &Option<BTreeMap<String, _>>| list.as_ref().and_then(|l| l.get(resource)).cloned();
                (figure(&r.requests), figure(&r.limits))
            };
            one(&has.own) != one(granted)
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

    /// When what the engine refused is tried again.
    pub fn retry_at(&self, sandbox: &str) -> Option<SystemTime> {
        self.progress.as_ref()?;
        self.refused.get(sandbox).copied()
    }

    /// Limits of memory that go down: of the pod as a whole (None) or of a container by name, with whose usage they are
    /// compared.
    pub fn decreases(&self, pod: &Pod, runtime: &PodRuntime) -> Vec<Decrease> {
        let (before, after) = (self.actuated_pod(pod, runtime), self.granted_pod(pod));
        let goes_down = |before: u64, after: u64| after != 0 && (before == 0 || after < before);
        let ids: Vec<String> = runtime.running().map(|c| c.id.clone()).collect();
        let of_pod = |pod: &Pod| resources::for_pod(pod).memory_limit_bytes;
        let mut found = Vec::new();
        if goes_down(of_pod(&before), of_pod(&after)) {
            found.push(Decrease {
                container: None,
                limit_bytes: of_pod(&after),
                ids,
            });
        }
        for (old, new) in resizable(&before).zip(resizable(&after)) {
            let limit = |pod: &Pod, container: &Container| resources::memory_limit_bytes(pod, container);
            let (old, limit) = (limit(&before, old), limit(&after, new));
            if let Some(running) = runtime.alive(&new.name).filter(|_| goes_down(old, limit)) {
                found.push(Decrease {
                    container: Some(new.name.clone()),
                    limit_bytes: limit,
                    ids: vec![running.id.clone()],
                });
            }
        }
        found
    }
}

/// A limit of memory that goes down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decrease {
    pub container: Option<String>,
    pub limit_bytes: u64,
    pub ids: Vec<String>,
}

/// Why limits cannot go down to less than what is used; `used` says what a container uses, by id (upstream:
/// `validateMemoryResizeAction`).
pub fn too_low(decreases: &[Decrease], used: impl Fn(&str) -> Option<u64>) -> Option<String> {
    let refusals = decreases.iter().filter_map(|decrease| {
        let used: u64 = decrease.ids.iter().filter_map(|id| used(id)).sum();
        let limit = decrease.limit_bytes;
        let subject = match &decrease.container {
            None => "pod".to_owned(),
            Some(name) => format!("container {name:?}"),
        };
        (used >= limit)
            .then(|| format!("attempting to set {subject} memory limit ({limit}) below current usage ({used})"))
    });
    let refusals: Vec<String> = refusals.collect();
    let listed = match refusals.as_slice() {
        [] => return None,
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    Some(format!("cannot decrease memory limits: {listed}"))
}

fn with<'a>(
    pod: &Pod,
    of_pod: Option<&ResourceRequirements>,
    of_container: impl Fn(&str) -> Option<&'a ResourceRequirements>,
) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.resources = of_pod.cloned();
        let init = spec.init_containers.iter_mut().flatten();
        for container in init.chain(&mut spec.containers) {
            if let Some(own) = of_container(&container.name) {
                container.resources = Some(own.clone());
            }
        }
    }
    pod
}

/// Of an engine that has no control group for the containers of a pod.
const NOT_BOUNDED: &str = "the container engine does not limit the containers of this pod together";

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
    use crate::runtime::{ContainerState, PodIdentity, Sandbox, SandboxState};
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
            user: None,
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
        resizes.starts(container(&before));
        resizes.started("c", Some("c0"));
        assert_eq!(resizes.allocate(&before, || ROOM, || true, now), None);
        assert_eq!(resizes.need(container(&before), &running("c0"), now), None);
        let (reason, text) = resizes.allocate(&after, || ROOM, || true, now).unwrap();
        assert_eq!(reason, "ResizeStarted");
        assert_eq!(
            text,
            r#"Pod resize started: {"containers":[{"name":"c","resources":{"limits":{"cpu":"200m"},"requests":{"cpu":"200m"}}}],"generation":2}"#
        );
        assert_eq!(resizes.need(container(&after), &running("c0"), now), Some(Need::Update));
        assert_eq!(resizes.complete(&after, &runtime), None);
        // The engine refuses at first.
        let given = resizes.to_give(container(&after));
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
        let (reason, _) = resizes
            .allocate(&pod(2, "1800m", json!([])), || ROOM, || true, now)
            .unwrap();
        assert_eq!(reason, "ResizeDeferred");
        let pending = resizes.pending.clone().unwrap();
        assert_eq!(
            pending.message,
            "Node didn't have enough resource: cpu, requested: 1800, used: 500, capacity: 2000"
        );
        assert_eq!(
            resizes.allocate(&pod(2, "1800m", json!([])), || panic!("too soon"), || true, now),
            None
        );
        let free = Room {
            used_cpu_milli: 0,
            ..ROOM
        };
        let later = resizes.allocate(&pod(2, "1800m", json!([])), || free, || true, now + RETRY);
        assert_eq!(later.unwrap().0, "ResizeStarted");
        let (reason, _) = resizes
            .allocate(&pod(3, "5", json!([])), || ROOM, || true, now)
            .unwrap();
        assert_eq!((reason, resizes.due()), ("ResizeInfeasible", None));
        // Taking the wish back ends it.
        assert_eq!(
            resizes.allocate(&pod(4, "1800m", json!([])), || ROOM, || true, now),
            None
        );
        assert_eq!(resizes.pending, None);
    }

    #[test]
    fn the_policy_may_ask_for_a_restart() {
        let now = SystemTime::UNIX_EPOCH;
        for (resource, need) in [("cpu", Need::Restart), ("memory", Need::Update)] {
            let policy = json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]);
            let mut resizes = Resizes::default();
            resizes.begin(&pod(1, "100m", json!([])), &PodRuntime::default());
            resizes.starts(container(&pod(1, "100m", json!([]))));
            resizes.started("c", Some("c0"));
            let after = pod(2, "200m", policy);
            resizes.allocate(&after, || ROOM, || true, now);
            assert_eq!(
                resizes.need(container(&after), &running("c0"), now),
                Some(need),
                "{resource}"
            );
        }
    }

    fn sandbox() -> Sandbox {
        Sandbox {
            id: "s".to_owned(),
            pod: PodIdentity::default(),
            state: SandboxState::Ready,
            created_at: SystemTime::UNIX_EPOCH,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            ips: Vec::new(),
        }
    }

    /// A pod that says something of itself, and a container that says nothing.
    fn whole(generation: i64, memory: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": generation},
            "spec": {
                "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
                "initContainers": [{"name": "i"}],
                "containers": [{"name": "c"}],
            },
            "status": {"qosClass": "Burstable"},
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_as_a_whole() {
        let now = SystemTime::UNIX_EPOCH;
        let runtime = PodRuntime {
            sandboxes: vec![sandbox()],
            containers: vec![running("c0")],
        };
        let mut resizes = Resizes::default();
        let (before, less) = (whole(1, "64Mi"), whole(2, "32Mi"));
        resizes.begin(&before, &PodRuntime::default());
        resizes.shared = Some(resources::for_pod(&before));
        resizes.starts(container(&before));
        resizes.started("c", Some("c0"));
        // The same amount in other words is none.
        assert_eq!(resizes.allocate(&whole(2, "65536Ki"), || ROOM, || true, now), None);
        let refused = resizes.allocate(&less, || panic!("not asked"), || false, now);
        assert_eq!(refused.unwrap().0, "ResizeInfeasible");
        resizes.pending = None;
        assert_eq!(
            resizes.allocate(&less, || ROOM, || true, now).unwrap().0,
            "ResizeStarted"
        );
        let mib = |count: u64| count << 20;
        let decreases = resizes.decreases(&less, &runtime);
        let told: Vec<_> = decreases
            .iter()
            .map(|one| (one.container.as_deref(), one.limit_bytes))
            .collect();
        assert_eq!(told, [(None, mib(32)), (Some("c"), mib(32))]);
        // The container follows first, the group at last.
        assert_eq!(resizes.shared_need(&less, &runtime, now), None);
        assert_eq!(resizes.need(container(&less), &running("c0"), now), Some(Need::Update));
        let given = resizes.to_give(container(&less));
        resizes.updated(&less, "c0", given, Ok(()), now);
        assert_eq!(resizes.complete(&less, &runtime), None);
        let together = resizes.shared_need(&less, &runtime, now).unwrap();
        assert_eq!(together.memory_limit_bytes, mib(32));
        assert_eq!(limit_of(&resizes.actuated_pod(&less, &runtime)), "64Mi");
        let failed = resizes.limited(&less, "s", together.clone(), Err("busy".to_owned()), now);
        assert_eq!(failed.unwrap().0, "ResizeError");
        assert_eq!(resizes.shared_need(&less, &runtime, now), None);
        assert_eq!(resizes.retry_at("s"), Some(now + RETRY));
        resizes.limited(&less, "s", together, Ok(()), now + RETRY);
        assert_eq!(resizes.complete(&less, &runtime).unwrap().0, "ResizeCompleted");
        assert_eq!(limit_of(&resizes.actuated_pod(&less, &runtime)), "32Mi");
    }

    fn limit_of(pod: &Pod) -> String {
        let resources = pod::spec(pod).resources.clone().unwrap();
        resources.limits.unwrap()["memory"].0.clone()
    }

    #[test]
    fn a_later_krust_knows_what_was_granted() {
        let now = SystemTime::UNIX_EPOCH;
        let mut pod = whole(2, "128Mi");
        let known = json!({"resources": {"requests": {"cpu": "0", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}});
        pod.status = Some(serde_json::from_value(known).unwrap());
        let runtime = PodRuntime {
            sandboxes: vec![sandbox()],
            containers: vec![running("c0")],
        };
        let mut resizes = Resizes::default();
        resizes.begin(&pod, &runtime);
        assert_eq!(limit_of(&resizes.granted_pod(&pod)), "64Mi");
        assert_eq!(
            resizes.allocate(&pod, || ROOM, || true, now).unwrap().0,
            "ResizeStarted"
        );
        assert_eq!(limit_of(&resizes.granted_pod(&pod)), "128Mi");
    }

    #[test]
    fn memory_that_is_used_stays() {
        let decrease = |container: Option<&str>, limit_bytes: u64| Decrease {
            container: container.map(str::to_owned),
            limit_bytes,
            ids: vec!["a".to_owned()],
        };
        let used = |_: &str| Some(2000);
        let both = [decrease(None, 1000), decrease(Some("c"), 2000)];
        assert_eq!(too_low(&[decrease(None, 2001)], used), None);
        assert_eq!(
            too_low(&both[..1], used).unwrap(),
            "cannot decrease memory limits: attempting to set pod memory limit (1000) below current usage (2000)"
        );
        assert_eq!(
            too_low(&both, used).unwrap(),
            "cannot decrease memory limits: [attempting to set pod memory limit (1000) below current usage (2000), \
             attempting to set container \"c\" memory limit (2000) below current usage (2000)]"
        );
    }
}
