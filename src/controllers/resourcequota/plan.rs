//! What a quota's status should say. Pure.

use crate::usage::{Amounts, Evaluator};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};

/// The kinds that can use what the quota limits, as group and resource, of all that only count by their number.
pub fn counted_kinds(quota: &ResourceQuota) -> Vec<(String, String)> {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let names = hard.into_iter().flatten().map(|(name, _)| name.as_str());
    names.filter_map(counted_kind).collect()
}

fn counted_kind(name: &str) -> Option<(String, String)> {
    let (group, resource) = match name.strip_prefix("count/") {
        Some(kind) => match kind.split_once('.') {
            Some((resource, group)) => (group, resource),
            None => ("", kind),
        },
        None => ("", name),
    };
    let evaluator = Evaluator::of(group, resource)?;
    (evaluator.only_counts() && evaluator.tracks(name)).then(|| (group.to_owned(), resource.to_owned()))
}

/// Whether objects that `evaluator` counts can use what the quota limits.
pub fn concerns(quota: &ResourceQuota, evaluator: &Evaluator) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    hard.into_iter().flatten().any(|(name, _)| evaluator.tracks(name))
}

/// The status by what was counted; None if the quota says so already. `counted` has a figure for each resource of
/// which anybody knows; what is known of others is kept.
pub fn status(quota: &ResourceQuota, counted: &Amounts) -> Option<ResourceQuotaStatus> {
    let wanted = quota
        .spec
        .as_ref()
        .and_then(|spec| spec.hard.clone())
        .unwrap_or_default();
    let told = quota.status.as_ref();
    let of = |part: fn(&ResourceQuotaStatus) -> Option<&_>| Amounts::from_api(told.and_then(part));
    let (told_hard, told_used) = (of(|status| status.hard.as_ref()), of(|status| status.used.as_ref()));
    let hard = Amounts::from_api(Some(&wanted));
    let mut used = told_used.only(|name| hard.get(name).is_some());
    for (name, amount) in &counted.0 {
        if hard.get(name).is_some() {
            used.set(name, *amount);
        }
    }
    let is_there = told.is_some_and(|status| status.hard.is_some() && status.used.is_some());
    if is_there && hard == told_hard && used == told_used {
        return None;
    }
    Some(ResourceQuotaStatus {
        hard: Some(wanted),
        used: Some(used.to_api()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn quota(hard: Value, status: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": status})).unwrap()
    }

    #[test]
    fn situations() {
        let mut counted = Amounts::default();
        counted.count("pods", 2);
        counted.count("services", 0);
        let hard = json!({"pods": "5", "count/unknown.example.com": "1"});
        let table = [
            // Nothing is said yet, also where nothing is used.
            (
                hard.clone(),
                json!({}),
                Some(json!({"hard": hard, "used": {"pods": "2"}})),
            ),
            (json!({}), json!({}), Some(json!({"hard": {}, "used": {}}))),
            // As it should be, however it is written.
            (
                json!({"pods": "5"}),
                json!({"hard": {"pods": "5000m"}, "used": {"pods": "2"}}),
                None,
            ),
            // Used changed, the limit changed, a limit went.
            (
                json!({"pods": "5"}),
                json!({"hard": {"pods": "5"}, "used": {"pods": "3"}}),
                Some(json!({"hard": {"pods": "5"}, "used": {"pods": "2"}})),
            ),
            (
                json!({"pods": "6"}),
                json!({"hard": {"pods": "5"}, "used": {"pods": "2"}}),
                Some(json!({"hard": {"pods": "6"}, "used": {"pods": "2"}})),
            ),
            (
                json!({"pods": "5"}),
                json!({"hard": {"pods": "5", "secrets": "1"}, "used": {"pods": "2", "secrets": "1"}}),
                Some(json!({"hard": {"pods": "5"}, "used": {"pods": "2"}})),
            ),
            // What nobody can count keeps its figure.
            (
                hard.clone(),
                json!({"hard": hard, "used": {"pods": "2", "count/unknown.example.com": "1"}}),
                None,
            ),
        ];
        for (hard, told, expected) in table {
            let status = status(&quota(hard, told.clone()), &counted);
            assert_eq!(
                status.map(|status| serde_json::to_value(status).unwrap()),
                expected,
                "{told}"
            );
        }
    }

    #[test]
    fn kinds_that_only_count() {
        let quota = quota(
            json!({"pods": "1", "secrets": "1", "count/pods": "1", "count/deployments.apps": "1", "cpu": "1",
                "count/widgets.a.example.com": "1", "services.nodeports": "1", "count/configmaps": "2"}),
            json!({}),
        );
        let kinds = counted_kinds(&quota);
        let named: Vec<(&str, &str)> = kinds.iter().map(|(group, resource)| (&**group, &**resource)).collect();
        assert_eq!(
            named,
            [
                ("", "configmaps"),
                ("apps", "deployments"),
                ("a.example.com", "widgets"),
                ("", "secrets")
            ]
        );
        assert!(concerns(&quota, &Evaluator::of("", "services").unwrap()));
        assert!(!concerns(&quota, &Evaluator::of("", "persistentvolumeclaims").unwrap()));
    }
}
