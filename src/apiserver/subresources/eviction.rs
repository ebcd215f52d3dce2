//! `pods/eviction`: a deletion that asks first (upstream: `pkg/registry/core/pod/storage/eviction.go`).

use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject, created_status};
use crate::apiserver::handlers::engine::{self, Update, metadata};
use crate::apiserver::options::{DeleteOptions, WriteOptions};
use crate::registry::columns::selector_text;
use crate::registry::json::{at, child_or_new, items, map, number, objects, text};
use crate::registry::selector::LabelSelector;
use crate::registry::strategy::{Object, Target};
use crate::registry::{Kind, metadata_index, schema};
use k8s_openapi::api::policy::v1::Eviction;
use poem::http::StatusCode;
use poem::{Body, Response};
use serde_json::{Value, json};
use std::sync::Arc;

const BUDGETS: &str = "poddisruptionbudgets.policy";
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
/// The reason of the cause that names the budget.
const CAUSE: &str = "DisruptionBudget";
/// More evictions than this that the controller has not seen end the trust in its numbers.
const DISRUPTED_PODS_MAX: usize = 2000;
const STILL_COUNTING_RETRY_SECONDS: u32 = 10;

pub async fn handle(ctx: &Context, pods: &Kind, request_body: Body) -> Result<Response, ApiError> {
    let options = WriteOptions::create(&ctx.query)?;
    let negotiated = ctx.negotiate(Shape::Plain)?;
    let expected = Expected {
        custom: None,
        group: "policy",
        version: "v1",
        kind: "Eviction",
        definition: schema::type_definition::<Eviction>(),
    };
    let mut eviction = body::read_object(ctx, &expected, request_body, options.field_validation).await?;
    if metadata::text(&eviction, "name") != ctx.info.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    metadata::check_namespace(pods, metadata::text(&eviction, "namespace"), ctx.key_namespace(pods))?;
    let mut delete = match eviction.remove("deleteOptions") {
        Some(options) => DeleteOptions::from_body(options)?,
        None => DeleteOptions::default(),
    };
    delete.dry_run |= options.dry_run;
    let entry = ctx
        .storage()
        .get(pods.storage_resource, ctx.key_namespace(pods), &ctx.info.name)
        .ok_or_else(|| ctx.not_found(pods))?;
    let pod = stored::object(pods, &entry)?;
    if !is_beyond_budgets(&pod) {
        spend(ctx, &pod, delete.dry_run).await?;
        if !delete.dry_run {
            announce(ctx, pods).await?;
        }
    }
    engine::delete(ctx, pods, &ctx.info.name, &delete).await?;
    respond_value(
        &ctx.query,
        &ctx.headers,
        &negotiated,
        StatusCode::CREATED,
        &created_status(),
    )
    .await
}

/// Pods that do not serve are nobody's loss.
fn is_beyond_budgets(pod: &Object) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || !text(pod, &["metadata", "deletionTimestamp"]).is_empty()
}

/// Takes one disruption from the pod's budget; refuses if there is none left.
async fn spend(ctx: &Context, pod: &Object, dry_run: bool) -> Result<(), ApiError> {
    let kind = ctx
        .server
        .registry
        .lookup("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(ApiError::unknown_resource)?;
    let budgets = budgets_of(ctx, &kind, pod)?;
    let [budget] = budgets.as_slice() else {
        return match budgets.len() {
            0 => Ok(()),
            _ => Err(ApiError::unclassified(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )),
        };
    };
    if !is_counted(budget) {
        ctx.warnings
            .add("PodDisruptionBudgets are stored, but not enforced: no disruption controller is running");
        return Ok(());
    }
    if !is_ready(pod) && unhealthy_may_go(budget) {
        return Ok(());
    }
    let name = metadata::text(budget, "name").to_owned();
    let request = Update {
        kind: &kind,
        name: &name,
        target: Target::Status,
        dry_run,
    };
    let now = metadata::timestamp(jiff::Timestamp::now());
    engine::update(ctx, &request, &mut |budget| decrement(budget, &ctx.info.name, &now))
        .await?
        .ok_or_else(|| ApiError::not_found(&*kind, &name))?;
    Ok(())
}

/// The budgets that select the pod.
fn budgets_of(ctx: &Context, kind: &Arc<Kind>, pod: &Object) -> Result<Vec<Object>, ApiError> {
    let labels = metadata_index(pod).labels;
    let snapshot = ctx
        .storage()
        .list(BUDGETS, Some(&ctx.info.namespace), None)
        .map_err(|error| ApiError::from_storage(error, kind))?;
    let mut found = Vec::new();
    for entry in &snapshot.entries {
        let budget = stored::object(kind, entry)?;
        let Some(selector) = at(&budget, &["spec", "selector"]).filter(|selector| !selector.is_null()) else {
            continue;
        };
        let text = selector_text(Some(selector));
        let parsed = LabelSelector::parse(if text == "<none>" { "" } else { &text });
        if parsed.is_ok_and(|selector| selector.matches_labels(&labels)) {
            found.push(budget);
        }
    }
    Ok(found)
}

/// A controller has written the budget's numbers at least once.
fn is_counted(budget: &Object) -> bool {
    number(budget, &["status", "observedGeneration"]) > 0
}

fn is_ready(pod: &Object) -> bool {
    objects(pod, &["status", "conditions"])
        .any(|(_, condition)| text(condition, &["type"]) == "Ready" && text(condition, &["status"]) == "True")
}

/// A pod that is not ready counts for nothing, where the budget says so or is met without it.
fn unhealthy_may_go(budget: &Object) -> bool {
    let (current, desired) = (
        number(budget, &["status", "currentHealthy"]),
        number(budget, &["status", "desiredHealthy"]),
    );
    text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow" || (desired > 0 && current >= desired)
}

/// The budget after one disruption more.
fn decrement(budget: &Object, pod: &str, now: &str) -> Result<Object, ApiError> {
    let name = metadata::text(budget, "name");
    let forbidden = |why: &str| {
        let subject = Subject {
            group: "policy",
            resource: "poddisruptionbudget",
        };
        Err(ApiError::forbidden(subject, name, why))
    };
    let status = |field: &str| number(budget, &["status", field]);
    if status("observedGeneration") < number(budget, &["metadata", "generation"]) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::too_many_requests(VIOLATES, STILL_COUNTING_RETRY_SECONDS).with_cause(CAUSE, &why, ""));
    }
    let allowed = status("disruptionsAllowed");
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    let disrupted = map(budget, &["status", "disruptedPods"]).map_or(0, |pods| pods.len());
    if disrupted > DISRUPTED_PODS_MAX {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        let failed = objects(budget, &["status", "conditions"])
            .map(|(_, condition)| condition)
            .find(|condition| text(condition, &["type"]) == "DisruptionAllowed")
            .filter(|condition| text(condition, &["reason"]) == "SyncFailed");
        let why = match failed {
            Some(condition) => format!(
                "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
                text(condition, &["message"])
            ),
            None => format!(
                "The disruption budget {name} needs {} healthy pods and has {} currently",
                status("desiredHealthy"),
                status("currentHealthy")
            ),
        };
        return Err(ApiError::too_many_requests(VIOLATES, 0).with_cause(CAUSE, &why, ""));
    }
    let mut budget = budget.clone();
    let observed = number(&budget, &["status", "observedGeneration"]);
    let status = child_or_new(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    child_or_new(status, "disruptedPods").insert(pod.to_owned(), json!(now));
    if allowed == 1 {
        let condition = json!({
            "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
            "observedGeneration": observed, "lastTransitionTime": now,
        });
        set_condition(status, condition);
    }
    Ok(budget)
}

/// Puts a condition in the place of the one of its type, or at the end.
fn set_condition(status: &mut Object, condition: Value) {
    let mut conditions = items(status, &["conditions"]).to_vec();
    match conditions.iter_mut().find(|other| other["type"] == condition["type"]) {
        Some(other) => *other = condition,
        None => conditions.push(condition),
    }
    status.insert("conditions".into(), conditions.into());
}

/// Lets the pod's status say why it goes.
async fn announce(ctx: &Context, pods: &Kind) -> Result<(), ApiError> {
    let request = Update {
        kind: pods,
        name: &ctx.info.name,
        target: Target::Status,
        dry_run: false,
    };
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null,
        "lastTransitionTime": metadata::timestamp(jiff::Timestamp::now()),
    });
    let mut change = |pod: &Object| {
        let mut pod = pod.clone();
        set_condition(child_or_new(&mut pod, "status"), condition.clone());
        Ok(pod)
    };
    engine::update(ctx, &request, &mut change)
        .await?
        .ok_or_else(|| ctx.not_found(pods))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(status: Value) -> Object {
        let budget = json!({"metadata": {"name": "b", "generation": 2}, "spec": {}, "status": status});
        budget.as_object().expect("an object").clone()
    }

    /// What is left and who is on the way, or why not.
    fn run(status: Value) -> Result<(Value, Value), (u16, String)> {
        match decrement(&budget(status), "p", "now") {
            Ok(budget) => Ok((
                budget["status"]["disruptionsAllowed"].clone(),
                budget["status"]["disruptedPods"].clone(),
            )),
            Err(error) => {
                let status = error.status();
                let why = status["details"]["causes"][0]["message"].as_str();
                Err((error.code().as_u16(), why.unwrap_or(error.message()).to_owned()))
            }
        }
    }

    #[test]
    fn a_budget_is_spent_one_by_one() {
        let status = json!({"observedGeneration": 2, "disruptionsAllowed": 2, "disruptedPods": {"q": "then"}});
        assert_eq!(run(status), Ok((json!(1), json!({"q": "then", "p": "now"}))));
        let last = decrement(
            &budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1})),
            "p",
            "now",
        );
        let last = last.expect("one is left");
        assert_eq!(last["status"]["conditions"][0]["reason"], "InsufficientPods");
    }

    #[test]
    fn a_spent_or_stale_budget_refuses() {
        let none = json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 3});
        let why = "The disruption budget b needs 3 healthy pods and has 3 currently";
        assert_eq!(run(none), Err((429, why.to_owned())));
        let stale = json!({"observedGeneration": 1, "disruptionsAllowed": 1});
        let why = "The disruption budget b is still being processed by the server.";
        assert_eq!(run(stale), Err((429, why.to_owned())));
        let negative = json!({"observedGeneration": 2, "disruptionsAllowed": -1});
        let why = "poddisruptionbudget.policy \"b\" is forbidden: pdb disruptions allowed is negative";
        assert_eq!(run(negative), Err((403, why.to_owned())));
        let failed = json!({
            "observedGeneration": 2,
            "conditions": [{"type": "DisruptionAllowed", "reason": "SyncFailed", "message": "no scale"}],
        });
        let why = "The disruption budget b does not allow evicting pods currently because it failed sync: no scale";
        assert_eq!(run(failed), Err((429, why.to_owned())));
    }

    #[test]
    fn unhealthy_pods_may_go_where_the_budget_is_met_without_them() {
        assert!(unhealthy_may_go(&budget(
            json!({"desiredHealthy": 1, "currentHealthy": 1})
        )));
        assert!(!unhealthy_may_go(&budget(
            json!({"desiredHealthy": 2, "currentHealthy": 1})
        )));
        assert!(!unhealthy_may_go(&budget(json!({}))));
        let mut always = budget(json!({}));
        child_or_new(&mut always, "spec").insert("unhealthyPodEvictionPolicy".into(), json!("AlwaysAllow"));
        assert!(unhealthy_may_go(&always));
    }
}
