//! What pods request and nodes offer (upstream: `component-helpers/resource`, `framework.Resource`).

use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

/// What a container without a request is counted as when nodes are scored: a tenth of a core and 200 MB.
const CPU_MILLI_DEFAULT: i64 = 100;
const MEMORY_DEFAULT: i64 = 200 * 1024 * 1024;

type List = BTreeMap<String, ApiQuantity>;

/// Amounts: cpu in millicores, the others in whole units. Names without an amount are left out of `others`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    pub pods: i64,
    /// Extended resources, huge pages and attachable volumes, by name.
    others: Vec<(String, i64)>,
}

impl Amounts {
    pub fn from_api(list: Option<&List>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // The API server has validated it; what does not parse counts as nothing.
            let Ok(quantity) = quantity.0.parse::<Quantity>() else {
                continue;
            };
            let amount = if name == "cpu" {
                quantity.milli_value()
            } else {
                quantity.value()
            };
            amounts.set(name, amount);
        }
        amounts
    }

    /// What the node lets pods use.
    pub fn allocatable(node: &Node) -> Self {
        Self::from_api(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
    }

    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self
                .others
                .iter()
                .find(|(other, _)| other == name)
                .map_or(0, |(_, amount)| *amount),
        }
    }

    fn entry(&mut self, name: &str) -> &mut i64 {
        match name {
            "cpu" => &mut self.cpu,
            "memory" => &mut self.memory,
            "ephemeral-storage" => &mut self.ephemeral_storage,
            "pods" => &mut self.pods,
            _ => {
                let at = match self.others.iter().position(|(other, _)| other == name) {
                    Some(at) => at,
                    None => {
                        self.others.push((name.to_owned(), 0));
                        self.others.len() - 1
                    }
                };
                &mut self.others[at].1
            }
        }
    }

    pub fn set(&mut self, name: &str, amount: i64) {
        if amount != 0 || self.get(name) != 0 {
            *self.entry(name) = amount;
        }
    }

    /// The names beyond cpu, memory, ephemeral-storage and pods.
    pub fn others(&self) -> impl Iterator<Item = (&str, i64)> {
        self.others
            .iter()
            .filter(|(_, amount)| *amount != 0)
            .map(|(name, amount)| (name.as_str(), *amount))
    }

    pub fn names(&self) -> impl Iterator<Item = (&str, i64)> {
        let basic = [
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("ephemeral-storage", self.ephemeral_storage),
            ("pods", self.pods),
        ];
        basic
            .into_iter()
            .filter(|(_, amount)| *amount != 0)
            .chain(self.others())
    }

    pub fn is_zero(&self) -> bool {
        self.names().next().is_none()
    }

    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.memory = self.memory.saturating_add(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_add(other.ephemeral_storage);
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.others {
            let entry = self.entry(name);
            *entry = entry.saturating_add(*amount);
        }
    }

    pub fn subtract(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_sub(other.cpu);
        self.memory = self.memory.saturating_sub(other.memory);
        self.ephemeral_storage = self.ephemeral_storage.saturating_sub(other.ephemeral_storage);
        self.pods = self.pods.saturating_sub(other.pods);
        for (name, amount) in &other.others {
            let entry = self.entry(name);
            *entry = entry.saturating_sub(*amount);
        }
        self.others.retain(|(_, amount)| *amount != 0);
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in other.names() {
            let entry = self.entry(name);
            *entry = (*entry).max(amount);
        }
    }
}

/// What a pod asks of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The effective request, which must fit.
    pub real: Amounts,
    /// The same, where containers without a request for cpu or memory count for a little: what nodes are scored by.
    pub scored: Amounts,
}

impl Requests {
    /// The effective request: max(apps + sidecars, each init container + the sidecars before it), unless the pod as a
    /// whole says what it requests; plus overhead. While a container is resized in place, what it has and what it is
    /// promised count, too.
    pub fn of(pod: &Pod) -> Self {
        Self {
            real: effective(pod, false),
            scored: effective(pod, true),
        }
    }
}

fn effective(pod: &Pod, with_defaults: bool) -> Amounts {
    let Some(spec) = &pod.spec else {
        return Amounts::default();
    };
    let status = pod.status.as_ref();
    let statuses = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let init_statuses = status
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default();
    let of_pod = spec
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    let whole = |name: &str| of_pod.is_some_and(|list| list.contains_key(name));
    let infeasible = is_infeasible(pod);
    let request = |container: &Container, statuses: &[ContainerStatus]| {
        let mut amounts = of_container(container, statuses, infeasible);
        if with_defaults {
            let asked = container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref());
            let asks = |name: &str| asked.is_some_and(|list| list.contains_key(name)) || whole(name);
            if !asks("cpu") && amounts.cpu == 0 {
                amounts.cpu = CPU_MILLI_DEFAULT;
            }
            if !asks("memory") && amounts.memory == 0 {
                amounts.memory = MEMORY_DEFAULT;
            }
        }
        amounts
    };
    let mut running = Amounts::default();
    for container in &spec.containers {
        running.add(&request(container, statuses));
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for container in spec.init_containers.iter().flatten() {
        let own = request(container, init_statuses);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            let mut alone = sidecars.clone();
            alone.add(&own);
            starting.raise_to(&alone);
        }
    }
    running.raise_to(&starting);
    // What the pod says as a whole comes in place of what its containers say.
    if let Some(list) = of_pod {
        let mut said = Amounts::from_api(Some(list));
        if !infeasible {
            said.raise_to(&Amounts::from_api(
                status.and_then(|status| status.allocated_resources.as_ref()),
            ));
            let actual = status.and_then(|status| status.resources.as_ref());
            said.raise_to(&Amounts::from_api(
                actual.and_then(|resources| resources.requests.as_ref()),
            ));
        }
        for name in list.keys() {
            running.set(name, said.get(name));
        }
    }
    running.add(&Amounts::from_api(spec.overhead.as_ref()));
    running
}

/// What is wanted, promised and in use: the highest of them, but what the node can never give does not count.
fn of_container(container: &Container, statuses: &[ContainerStatus], infeasible: bool) -> Amounts {
    let wanted = || {
        let resources = container.resources.as_ref();
        Amounts::from_api(resources.and_then(|resources| resources.requests.as_ref()))
    };
    let Some(status) = statuses.iter().find(|status| status.name == container.name) else {
        return wanted();
    };
    let allocated = Amounts::from_api(status.allocated_resources.as_ref());
    let actual = status
        .resources
        .as_ref()
        .and_then(|resources| resources.requests.as_ref());
    if status.allocated_resources.is_none() && actual.is_none() {
        return wanted();
    }
    let mut amounts = if infeasible { Amounts::default() } else { wanted() };
    amounts.raise_to(&allocated);
    amounts.raise_to(&Amounts::from_api(actual));
    if amounts.is_zero() { wanted() } else { amounts }
}

fn is_infeasible(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "PodResizePending" && condition.reason.as_deref() == Some("Infeasible"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn effective_request() {
        let container = |cpu: &str, restart: Option<&str>| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}, "restartPolicy": restart});
        let cases = [
            (vec![container("100m", None), container("1", None)], vec![], 1100),
            (vec![container("100m", None)], vec![container("2", None)], 2000),
            (
                vec![container("100m", None)],
                vec![container("50m", Some("Always")), container("2", None)],
                2050,
            ),
            (
                vec![container("3", None)],
                vec![container("50m", Some("Always")), container("2", None)],
                3050,
            ),
            (
                vec![container("1", None)],
                vec![container("2", None), container("50m", Some("Always"))],
                2000,
            ),
        ];
        for (containers, init, millicores) in cases {
            let pod = pod(json!({"spec": {"containers": containers, "initContainers": init}}));
            assert_eq!(Requests::of(&pod).real.cpu, millicores);
        }
    }

    #[test]
    fn the_pod_as_a_whole_and_its_overhead() {
        let pod = pod(json!({"spec": {
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1Gi", "example.com/x": "2"}}}],
            "resources": {"requests": {"cpu": "3"}},
            "overhead": {"cpu": "100m", "memory": "1Mi"},
        }}));
        let requests = Requests::of(&pod);
        assert_eq!(requests.real.cpu, 3100);
        assert_eq!(requests.real.memory, (1 << 30) + (1 << 20));
        assert_eq!(requests.real.others().collect::<Vec<_>>(), [("example.com/x", 2)]);
        assert_eq!(requests.scored, requests.real);
    }

    #[test]
    fn nothing_requested_counts_a_little_in_scores_only() {
        let pod = pod(json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "0", "memory": "1Gi"}}},
        ]}}));
        let requests = Requests::of(&pod);
        assert_eq!((requests.real.cpu, requests.real.memory), (0, 1 << 30));
        assert_eq!(
            (requests.scored.cpu, requests.scored.memory),
            (100, (1 << 30) + MEMORY_DEFAULT)
        );
    }

    #[test]
    fn while_a_container_is_resized_the_highest_counts() {
        let resized = |wanted: &str, allocated: &str, actual: &str, reason: &str| {
            pod(json!({
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": wanted}}}]},
                "status": {
                    "conditions": [{"type": "PodResizePending", "status": "True", "reason": reason}],
                    "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                        "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actual}}}],
                },
            }))
        };
        for (wanted, allocated, actual, reason, expected) in [
            ("1", "1", "1", "", 1000),
            ("2", "1", "1", "Deferred", 2000),
            ("9", "1", "1", "Infeasible", 1000),
            ("1", "1", "3", "", 3000),
            ("1", "2", "1", "", 2000),
        ] {
            let pod = resized(wanted, allocated, actual, reason);
            assert_eq!(
                Requests::of(&pod).real.cpu,
                expected,
                "{wanted} {allocated} {actual} {reason}"
            );
        }
    }

    #[test]
    fn sums_come_back_to_zero() {
        let amounts = Amounts::from_api(Some(
            &serde_json::from_value(json!({"cpu": "1", "hugepages-2Mi": "4Mi"})).unwrap(),
        ));
        let mut sum = Amounts::default();
        sum.add(&amounts);
        sum.add(&amounts);
        assert_eq!(sum.get("hugepages-2Mi"), 8 << 20);
        sum.subtract(&amounts);
        sum.subtract(&amounts);
        assert_eq!(sum, Amounts::default());
    }
}
