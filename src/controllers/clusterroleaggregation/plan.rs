//! Which aggregated roles do not hold what their parts hold.

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use std::sync::Arc;

/// The roles that are to be written, with their new rules.
pub fn outdated(roles: &[Arc<ClusterRole>]) -> Vec<ClusterRole> {
    let mut sorted: Vec<&ClusterRole> = roles.iter().map(|role| &**role).collect();
    sorted.sort_by_key(|role| role.name_any());
    let aggregated = roles.iter().filter(|role| role.aggregation_rule.is_some());
    aggregated.filter_map(|role| updated(role, &sorted)).collect()
}

fn updated(role: &ClusterRole, sorted: &[&ClusterRole]) -> Option<ClusterRole> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in role
        .aggregation_rule
        .iter()
        .flat_map(|rule| rule.cluster_role_selectors.iter().flatten())
    {
        // A selector that makes no sense leaves the role as it is.
        let selector = Selector::try_from(selector.clone()).ok()?;
        let parts = sorted
            .iter()
            .filter(|part| part.name_any() != role.name_any() && selector.matches(part.labels()));
        for rule in parts.flat_map(|part| part.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then(|| ClusterRole {
        rules: Some(rules),
        ..role.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn role(name: &str, label: &str, aggregates: &str, resources: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<Value> = resources
            .iter()
            .map(|resource| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]}))
            .collect();
        let mut role = json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules});
        if !aggregates.is_empty() {
            role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {aggregates: "true"}}]});
        }
        Arc::new(serde_json::from_value(role).unwrap())
    }

    fn resources(role: &ClusterRole) -> Vec<String> {
        let rules = role.rules.iter().flatten();
        rules
            .flat_map(|rule| rule.resources.clone().unwrap_or_default())
            .collect()
    }

    #[test]
    fn parts_are_put_together_by_name_and_once() {
        let roles = [
            role("whole", "x", "part", &["stale"]),
            role("b", "part", "", &["pods", "secrets"]),
            role("a", "part", "", &["services", "pods"]),
            role("c", "other", "", &["nodes"]),
        ];
        let changed = outdated(&roles);
        assert_eq!(changed.len(), 1);
        assert_eq!(resources(&changed[0]), ["services", "pods", "secrets"]);
        let settled = [Arc::new(changed[0].clone()), roles[1].clone(), roles[2].clone()];
        assert!(outdated(&settled).is_empty());
    }

    #[test]
    fn a_role_is_no_part_of_itself_and_may_be_empty() {
        assert!(outdated(&[role("whole", "part", "part", &[])]).is_empty());
        let alone = outdated(&[role("whole", "part", "part", &["pods"])]);
        assert!(resources(&alone[0]).is_empty());
    }
}
