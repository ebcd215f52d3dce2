//! What the containers of a pod need together (upstream: `AggregateContainerRequests` and `…Limits` in
//! `k8s.io/component-helpers/resource`).

use crate::quantity::Quantity;
use crate::registry::json::{map, objects, quantity, text};
use crate::registry::strategy::Object;
use std::collections::BTreeMap;

pub type Amounts = BTreeMap<String, Quantity>;

pub fn requests(spec: &Object) -> Amounts {
    aggregate(spec, "requests")
}

pub fn limits(spec: &Object) -> Amounts {
    aggregate(spec, "limits")
}

/// All that a pod asks a node for (upstream: `PodRequests`): what it says itself for all of it comes first, and what its
/// sandbox takes goes on top.
pub fn total_requests(spec: &Object) -> Amounts {
    let mut total = requests(spec);
    total.extend(amounts(spec, "requests"));
    let overhead = map(spec, &["overhead"]).into_iter().flatten();
    let overhead = overhead.filter_map(|(name, value)| Some((name.clone(), quantity(value)?)));
    add(&mut total, &overhead.collect());
    total
}

fn amounts(container: &Object, list: &str) -> Amounts {
    let entries = map(container, &["resources", list]).into_iter().flatten();
    entries
        .filter_map(|(name, value)| Some((name.clone(), quantity(value)?)))
        .collect()
}

fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = to.get(name).map_or(*amount, |before| before.plus(*amount));
        to.insert(name.clone(), sum);
    }
}

/// Containers and sidecars run side by side; other init containers run before, each beside the sidecars before it.
fn aggregate(spec: &Object, list: &str) -> Amounts {
    let (mut total, mut sidecars, mut peak) = (Amounts::new(), Amounts::new(), Amounts::new());
    for (_, container) in objects(spec, &["containers"]) {
        add(&mut total, &amounts(container, list));
    }
    for (_, container) in objects(spec, &["initContainers"]) {
        let mut needs = amounts(container, list);
        if text(container, &["restartPolicy"]) == "Always" {
            add(&mut total, &needs);
            add(&mut sidecars, &needs);
            needs = sidecars.clone();
        } else {
            add(&mut needs, &sidecars);
        }
        raise(&mut peak, needs);
    }
    raise(&mut total, peak);
    total
}

fn raise(to: &mut Amounts, others: Amounts) {
    for (name, amount) in others {
        if to.get(&name).is_none_or(|before| amount > *before) {
            to.insert(name, amount);
        }
    }
}
