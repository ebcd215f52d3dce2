//! The quality-of-service class of a pod (upstream: `pkg/apis/core/helper/qos`).

use crate::quantity::Quantity;
use crate::registry::json::{map, objects, quantity};
use crate::registry::strategy::Object;
use std::collections::BTreeMap;

/// The resources that decide.
const COMPUTE: [&str; 2] = ["cpu", "memory"];

type Totals = BTreeMap<&'static str, Quantity>;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(spec: &Object) -> &'static str {
    let (mut requests, mut limits, mut guaranteed) = (Totals::new(), Totals::new(), true);
    let pod_level = map(spec, &["resources"]).filter(|resources| !resources.is_empty());
    let containers = objects(spec, &["containers"]).chain(objects(spec, &["initContainers"]));
    // Resources of the whole pod, where given, count instead of those of its containers.
    let sources: Vec<Option<&Object>> = match pod_level {
        Some(resources) => vec![Some(resources)],
        None => containers
            .map(|(_, container)| map(container, &["resources"]))
            .collect(),
    };
    for resources in sources {
        add(&mut requests, resources, "requests");
        let found = add(&mut limits, resources, "limits");
        guaranteed &= found == COMPUTE.len();
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the amounts above zero, and says how many resources had one.
fn add(totals: &mut Totals, resources: Option<&Object>, list: &str) -> usize {
    let Some(list) = resources.and_then(|resources| map(resources, &[list])) else {
        return 0;
    };
    let mut found = 0;
    for name in COMPUTE {
        let Some(amount) = list.get(name).and_then(quantity) else {
            continue;
        };
        if amount > Quantity::ZERO {
            let total = totals.entry(name).or_insert(Quantity::ZERO);
            *total = total.plus(amount);
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn class_of(resources: &[Value]) -> &'static str {
        let containers: Vec<Value> = resources.iter().map(|r| json!({"name": "c", "resources": r})).collect();
        let spec = json!({ "containers": containers });
        class(spec.as_object().expect("an object"))
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let full = json!({"requests": both, "limits": both});
        assert_eq!(class_of(&[json!({})]), "BestEffort");
        assert_eq!(class_of(&[json!({"requests": {"cpu": "0"}})]), "BestEffort");
        assert_eq!(class_of(&[json!({"requests": {"example.com/gpu": "1"}})]), "BestEffort");
        assert_eq!(class_of(std::slice::from_ref(&full)), "Guaranteed");
        assert_eq!(class_of(&[full.clone(), full.clone()]), "Guaranteed");
        assert_eq!(class_of(&[full.clone(), json!({})]), "Burstable");
        assert_eq!(class_of(&[json!({"requests": {"cpu": "1"}})]), "Burstable");
        assert_eq!(
            class_of(&[json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})]),
            "Burstable"
        );
        let less = json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both});
        assert_eq!(class_of(&[less]), "Burstable");
    }

    #[test]
    fn pod_level_resources_take_precedence() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let spec = json!({"containers": [{"name": "c"}], "resources": {"requests": both, "limits": both}});
        assert_eq!(class(spec.as_object().expect("an object")), "Guaranteed");
    }
}
