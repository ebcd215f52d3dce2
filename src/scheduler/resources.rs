//! What pods request and nodes offer (upstream: `component-helpers/resource`, `framework.Resource`).

use crate::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use std::collections::BTreeMap;

/// Amounts by resource name: cpu in millicores, the others in whole units. Zero entries are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(BTreeMap<String, i64>);

impl Amounts {
    fn from_api(list: Option<&BTreeMap<String, ApiQuantity>>) -> Self {
        let amounts = list.into_iter().flatten().filter_map(|(name, quantity)| {
            // The API server has validated it; what does not parse counts as nothing.
            let quantity: Quantity = quantity.0.parse().ok()?;
            let amount = if name == "cpu" {
                quantity.milli_value()
            } else {
                quantity.value()
            };
            (amount != 0).then(|| (name.clone(), amount))
        });
        Self(amounts.collect())
    }

    /// What the node lets pods use.
    pub fn allocatable(node: &Node) -> Self {
        Self::from_api(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
    }

    /// The effective request: max(apps + sidecars, each init container + the sidecars before it) + overhead.
    pub fn requested_by(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let request = |container: &Container| {
            Self::from_api(
                container
                    .resources
                    .as_ref()
                    .and_then(|resources| resources.requests.as_ref()),
            )
        };
        let mut running = Self::default();
        for container in &spec.containers {
            running.add(&request(container));
        }
        let mut sidecars = Self::default();
        let mut starting = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let own = request(container);
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
        let of_pod = Self::from_api(
            spec.resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref()),
        );
        for (name, amount) in of_pod.0 {
            running.0.insert(name, amount);
        }
        running.add(&Self::from_api(spec.overhead.as_ref()));
        running
    }

    pub fn get(&self, name: &str) -> i64 {
        self.0.get(name).copied().unwrap_or(0)
    }
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let entry = self.0.entry(name.clone()).or_default();
            *entry = entry.saturating_add(*amount);
        }
    }
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            if let Some(entry) = self.0.get_mut(name) {
                *entry = entry.saturating_sub(*amount);
            }
        }
    }
    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let entry = self.0.entry(name.clone()).or_default();
            *entry = (*entry).max(*amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
        ];
        for (containers, init, millicores) in cases {
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"containers": containers, "initContainers": init}})).unwrap();
            assert_eq!(Amounts::requested_by(&pod).get("cpu"), millicores);
        }
    }
}
