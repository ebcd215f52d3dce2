//! What a new or changed object is charged with, and whether the quota can bear it (upstream: `CheckRequest` in
//! `apiserver/pkg/admission/plugin/resourcequota/controller.go`).

use super::{Amounts, Evaluator, Measured, in_all, scopes};
use k8s_openapi::api::core::v1::ResourceQuota;
use std::collections::BTreeSet;

/// What is about to be written.
pub struct Change {
    pub evaluator: Evaluator,
    pub object: Box<dyn Measured + Send + Sync>,
    /// What is there now, of which only the growth is charged.
    pub old: Option<Box<dyn Measured + Send + Sync>>,
    /// What is true already is charged, but not refused: a status.
    pub is_status: bool,
    pub now: jiff::Timestamp,
}

/// What a change does to a quota.
#[derive(Debug, PartialEq)]
pub enum Charge {
    Nothing,
    /// The quota is being counted: whoever counts must start again, since this comes in between.
    Recount,
    /// `status.used` as it will be.
    Used(Amounts),
}

/// What a quota has against a change whatever it uses; upstream asks all quotas that before it charges the first. Err is
/// upstream's text.
pub fn objection(quota: &ResourceQuota, change: &Change) -> Result<(), String> {
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let status = quota.status.as_ref();
    let hard = status.and_then(|status| status.hard.as_ref()).into_iter().flatten();
    let restricted: Vec<&str> = hard
        .map(|(name, _)| name.as_str())
        .filter(|name| change.evaluator.tracks(name))
        .collect();
    if restricted.is_empty() || !in_all(&*change.object, &scopes(quota)) {
        return Ok(());
    }
    if let Some(why) = change.object.lacks(&restricted) {
        return Err(format!("failed quota: {name}: {why}"));
    }
    let used = status.and_then(|status| status.used.as_ref());
    if restricted
        .iter()
        .any(|resource| used.is_none_or(|used| !used.contains_key(*resource)))
    {
        let resources = restricted.join(",");
        return Err(format!("status unknown for quota: {name}, resources: {resources}"));
    }
    Ok(())
}

/// Err is upstream's text.
pub fn charge(quota: &ResourceQuota, change: &Change) -> Result<Charge, String> {
    objection(quota, change)?;
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let status = quota.status.as_ref();
    let hard = Amounts::from_api(status.and_then(|status| status.hard.as_ref()));
    let used = Amounts::from_api(status.and_then(|status| status.used.as_ref()));
    let scopes = scopes(quota);
    if !in_all(&*change.object, &scopes) {
        return Ok(Charge::Nothing);
    }
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    let uncounted = wanted.into_iter().flatten().map(|(name, _)| name.as_str());
    let uncounted = uncounted.filter(|name| change.evaluator.tracks(name) && hard.get(name).is_none());
    let otherwise = if uncounted.count() == 0 {
        Charge::Nothing
    } else {
        Charge::Recount
    };
    if !hard.names().any(|name| change.evaluator.tracks(name)) {
        return Ok(otherwise);
    }
    let usage = change.object.usage(change.now);
    let negative = usage.only(|name| usage.get(name).is_some_and(|amount| amount.is_negative()));
    if !negative.0.is_empty() {
        let names: Vec<&str> = negative.names().collect();
        return Err(format!("quota usage is negative for resource(s): {}", names.join(",")));
    }
    let before = change.old.as_ref().filter(|old| in_all(&***old, &scopes));
    let delta = match before {
        Some(old) => usage.beyond(&old.usage(change.now)),
        None => usage,
    };
    let requested = delta.only(|name| hard.get(name).is_some() && delta.get(name).is_some_and(|n| !n.is_zero()));
    if requested.0.is_empty() {
        return Ok(otherwise);
    }
    let mut after = used.clone();
    after.add(&requested);
    if !change.is_status {
        let exceeded: BTreeSet<&str> = requested
            .names()
            .filter(|name| after.get(name) > hard.get(name))
            .collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| amounts.only(|name| exceeded.contains(name)).to_string();
            return Err(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                shown(&requested),
                shown(&used),
                shown(&hard)
            ));
        }
    }
    Ok(Charge::Used(after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::{Value, json};

    fn quota(spec: Value, status: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec, "status": status})).unwrap()
    }

    fn pod(cpu: Option<&str>) -> Pod {
        let requests = cpu.map(|cpu| json!({"requests": {"cpu": cpu}}));
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": requests}]}})).unwrap()
    }

    fn change(object: impl Measured + Send + Sync + 'static) -> Change {
        Change {
            evaluator: Evaluator::of("", "pods").unwrap(),
            object: Box::new(object),
            old: None,
            is_status: false,
            now: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn charged(quota: &ResourceQuota, change: &Change) -> Result<String, String> {
        charge(quota, change).map(|charge| match charge {
            Charge::Used(used) => used.to_string(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn creations() {
        let hard = json!({"pods": "2", "requests.cpu": "1"});
        let counted = |pods: &str, cpu: &str| {
            quota(
                json!({"hard": hard}),
                json!({"hard": hard, "used": {"pods": pods, "requests.cpu": cpu}}),
            )
        };
        let small = change(pod(Some("500m")));
        for (quota, change, expected) in [
            (counted("0", "0"), &small, Ok("pods=1,requests.cpu=500m")),
            (counted("1", "500m"), &small, Ok("pods=2,requests.cpu=1")),
            (
                counted("2", "500m"),
                &small,
                Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"),
            ),
            (
                counted("2", "800m"),
                &small,
                Err(
                    "exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=2,requests.cpu=800m, \
                     limited: pods=2,requests.cpu=1",
                ),
            ),
            (
                counted("0", "0"),
                &change(pod(None)),
                Err("failed quota: q: must specify requests.cpu for: c"),
            ),
            (
                quota(json!({"hard": hard}), json!({"hard": hard})),
                &small,
                Err("status unknown for quota: q, resources: pods,requests.cpu"),
            ),
            (quota(json!({"hard": hard}), json!({})), &small, Ok("Recount")),
            (
                quota(
                    json!({"hard": {"services": "1"}}),
                    json!({"hard": {"services": "1"}, "used": {"services": "1"}}),
                ),
                &small,
                Ok("Nothing"),
            ),
            (
                quota(
                    json!({"hard": {"pods": "0"}, "scopes": ["BestEffort"]}),
                    json!({"hard": {"pods": "0"}, "used": {"pods": "0"}}),
                ),
                &small,
                Ok("Nothing"),
            ),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(charged(&quota, change), expected, "{quota:?}");
        }
    }

    #[test]
    fn changes_are_charged_by_their_growth() {
        let service = |kind: &str| -> Service {
            serde_json::from_value(json!({"spec": {"type": kind, "ports": [{"port": 1}]}})).unwrap()
        };
        let update = |from: &str, to: &str| Change {
            evaluator: Evaluator::of("", "services").unwrap(),
            old: Some(Box::new(service(from))),
            ..change(service(to))
        };
        let hard = json!({"services": "1", "services.nodeports": "1"});
        let counted = |ports: &str| {
            quota(
                json!({"hard": hard}),
                json!({"hard": hard, "used": {"services": "1", "services.nodeports": ports}}),
            )
        };
        assert_eq!(
            charged(&counted("0"), &update("ClusterIP", "NodePort")).as_deref(),
            Ok("services=1,services.nodeports=1")
        );
        assert_eq!(
            charged(&counted("1"), &update("NodePort", "ClusterIP")).as_deref(),
            Ok("Nothing")
        );
        assert_eq!(
            charged(&counted("1"), &update("ClusterIP", "NodePort")).unwrap_err(),
            "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"
        );
    }

    #[test]
    fn kinds_of_others_are_counted() {
        let evaluator = Evaluator::of("example.com", "widgets").unwrap();
        let hard = json!({"count/widgets.example.com": "1"});
        let change = Change {
            evaluator: evaluator.clone(),
            ..change(evaluator.one())
        };
        let full = quota(json!({"hard": hard}), json!({"hard": hard, "used": hard}));
        assert!(
            charge(&full, &change)
                .unwrap_err()
                .starts_with("exceeded quota: q, requested: count/widgets.example.com=1")
        );
    }
}
