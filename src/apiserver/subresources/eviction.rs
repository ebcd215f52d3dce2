//! `pods/eviction`: a deletion that asks first (upstream: `pkg/registry/core/pod/storage/eviction.go`).

use crate::apiserver::admission;
use crate::apiserver::codec::accept::Shape;
use crate::apiserver::codec::body::{self, Expected};
use crate::apiserver::codec::respond::respond_value;
use crate::apiserver::codec::stored;
use crate::apiserver::context::Context;
use crate::apiserver::error::{ApiError, Subject, created_status};
use crate::apiserver::handlers::engine::{self, Update, Written, metadata};
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
/// The condition of a pod that goes for another's sake.
const TARGET: &str = "DisruptionTarget";
/// As often a pod may change between two looks at it.
const ATTEMPTS_MAX: usize = 20;
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
    admission::subresource::created(ctx, pods, "eviction", &mut eviction, options.dry_run).await?;
    let mut delete = match eviction.remove("deleteOptions") {
        Some(options) => DeleteOptions::from_body(options)?,
        None => DeleteOptions::default(),
    };
    delete.dry_run |= options.dry_run;
    evict(ctx, pods, &delete).await?;
    respond_value(
        &ctx.query,
        &ctx.headers,
        &negotiated,
        StatusCode::CREATED,
        &created_status(),
    )
    .await
}

async fn evict(ctx: &Context, pods: &Kind, wanted: &DeleteOptions) -> Result<(), ApiError> {
    for _ in 0..ATTEMPTS_MAX {
        let entry = ctx
            .storage()
            .get(pods.storage_resource, ctx.key_namespace(pods), &ctx.info.name)
            .ok_or_else(|| ctx.not_found(pods))?;
        let pod = stored::object(pods, &entry)?;
        // Who deletes a pod for what it looks like now deletes no other version of it.
        let only_this = || DeleteOptions {
            resource_version: Some(entry.revision.to_string()),
            ..wanted.clone()
        };
        if is_beyond_budgets(&pod) {
            let may_begin_to_serve = text(&pod, &["status", "phase"]) == "Pending" && !is_terminating(&pod);
            if !may_begin_to_serve || wanted.resource_version.is_some() {
                return announce_and_delete(ctx, pods, wanted.clone()).await;
            }
            match announce_and_delete(ctx, pods, only_this()).await {
                Err(error) if error.reason() == "Conflict" => continue,
                result => return result,
            }
        }
        let Spent::OutsideOf(budget) = spend(ctx, &pod, wanted.dry_run).await? else {
            return announce_and_delete(ctx, pods, wanted.clone()).await;
        };
        return match announce_and_delete(ctx, pods, only_this()).await {
            // It may be healthy by now, and then the budget counts.
            Err(error) if error.reason() == "Conflict" && wanted.resource_version.is_none() => {
                Err(still_processed(&budget))
            }
            result => result,
        };
    }
    Err(ApiError::server_timeout(pods, "evict", 1))
}

fn is_terminating(pod: &Object) -> bool {
    !text(pod, &["metadata", "deletionTimestamp"]).is_empty()
}

/// Pods that do not serve are nobody's loss.
fn is_beyond_budgets(pod: &Object) -> bool {
    matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending") || is_terminating(pod)
}

/// How an eviction gets past budgets.
enum Spent {
    /// Nothing stands in its way, or one disruption was taken.
    Paid,
    /// The pod does not count for the budget of this name, as long as it stays as it is.
    OutsideOf(String),
}

/// Takes one disruption from the pod's budget; refuses if there is none left.
async fn spend(ctx: &Context, pod: &Object, dry_run: bool) -> Result<Spent, ApiError> {
    let kind = ctx
        .server
        .registry
        .lookup("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(ApiError::unknown_resource)?;
    let budgets = budgets_of(ctx, &kind, pod)?;
    let [budget] = budgets.as_slice() else {
        return match budgets.len() {
            0 => Ok(Spent::Paid),
            _ => Err(ApiError::unclassified(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            )),
        };
    };
    let name = metadata::text(budget, "name").to_owned();
    if !is_ready(pod) && unhealthy_may_go(budget) {
        return Ok(Spent::OutsideOf(name));
    }
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
    Ok(Spent::Paid)
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

/// The numbers are those of an earlier version of the budget.
fn still_processed(budget: &str) -> ApiError {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    ApiError::too_many_requests(VIOLATES, STILL_COUNTING_RETRY_SECONDS).with_cause(CAUSE, &why, "")
}

/// Why a budget that is spent allows nothing.
fn why_spent(budget: &Object) -> String {
    let name = metadata::text(budget, "name");
    let status = |field: &str| number(budget, &["status", field]);
    let refusing = objects(budget, &["status", "conditions"])
        .map(|(_, condition)| condition)
        .find(|condition| text(condition, &["type"]) == "DisruptionAllowed")
        .filter(|condition| text(condition, &["status"]) == "False" && !text(condition, &["message"]).is_empty());
    let told = refusing.map(|condition| (text(condition, &["reason"]), text(condition, &["message"])));
    let begin = format!("The disruption budget {name} does not allow evicting pods currently");
    match told {
        // The numbers are worth nothing then.
        Some(("SyncFailed", message)) => format!("{begin} because it failed sync: {message}"),
        _ if status("currentHealthy") <= status("desiredHealthy") => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status("desiredHealthy"),
            status("currentHealthy")
        ),
        Some((reason, message)) => format!("{begin} ({reason}): {message}"),
        None => begin,
    }
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
        return Err(still_processed(name));
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
        return Err(ApiError::too_many_requests(VIOLATES, 0).with_cause(CAUSE, &why_spent(budget), ""));
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

/// Lets the pod's status say why it goes, and deletes it.
async fn announce_and_delete(ctx: &Context, pods: &Kind, mut options: DeleteOptions) -> Result<(), ApiError> {
    if !options.dry_run {
        let request = Update {
            kind: pods,
            name: &ctx.info.name,
            target: Target::Status,
            dry_run: false,
        };
        let now = metadata::timestamp(jiff::Timestamp::now());
        let mut change = |pod: &Object| {
            check_preconditions(pod, &options)?;
            Ok(announced(pod, &now))
        };
        let written = engine::update(ctx, &request, &mut change)
            .await?
            .ok_or_else(|| ctx.not_found(pods))?;
        if let (Some(version), Written::Stored(entry)) = (&mut options.resource_version, written) {
            *version = entry.revision.to_string();
        }
    }
    engine::delete(ctx, pods, &ctx.info.name, &options).await?;
    Ok(())
}

/// The same as of any deletion, in the words of an eviction.
fn check_preconditions(pod: &Object, options: &DeleteOptions) -> Result<(), ApiError> {
    let name = metadata::text(pod, "name");
    let checks = [
        ("UID", &options.uid, "uid", "deleted and then recreated"),
        (
            "ResourceVersion",
            &options.resource_version,
            "resourceVersion",
            "modified",
        ),
    ];
    for (what, wanted, member, perhaps) in checks {
        let found = metadata::text(pod, member);
        if let Some(wanted) = wanted
            .as_deref()
            .filter(|wanted| !wanted.is_empty() && *wanted != found)
        {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                 The object might have been {perhaps}"
            );
            let subject = Subject {
                group: "",
                resource: "Pod",
            };
            return Err(ApiError::conflict(subject, name, &why));
        }
    }
    Ok(())
}

fn announced(pod: &Object, now: &str) -> Object {
    let known = objects(pod, &["status", "conditions"])
        .map(|(_, condition)| condition)
        .find(|condition| text(condition, &["type"]) == TARGET && text(condition, &["status"]) == "True");
    let since = known.map_or(now, |condition| text(condition, &["lastTransitionTime"]));
    let mut condition = json!({
        "type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": since,
    });
    if let Some(generation) = at(pod, &["metadata", "generation"]) {
        condition["observedGeneration"] = generation.clone();
    }
    let mut pod = pod.clone();
    set_condition(child_or_new(&mut pod, "status"), condition);
    pod
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
            "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale"}],
        });
        let why = "The disruption budget b does not allow evicting pods currently because it failed sync: no scale";
        assert_eq!(run(failed), Err((429, why.to_owned())));
        let healthy = json!({"observedGeneration": 2, "desiredHealthy": 1, "currentHealthy": 3});
        let why = "The disruption budget b does not allow evicting pods currently";
        assert_eq!(run(healthy.clone()), Err((429, why.to_owned())));
        let mut told = healthy;
        told["conditions"] =
            json!([{"type": "DisruptionAllowed", "status": "False", "reason": "Held", "message": "by hand"}]);
        let why = "The disruption budget b does not allow evicting pods currently (Held): by hand";
        assert_eq!(run(told), Err((429, why.to_owned())));
        let never_counted = json!({"disruptionsAllowed": 5});
        let why = "The disruption budget b is still being processed by the server.";
        assert_eq!(run(never_counted), Err((429, why.to_owned())));
    }

    #[test]
    fn an_eviction_is_announced_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u", "resourceVersion": "5", "generation": 2}, "status": {}});
        let pod = pod.as_object().expect("an object").clone();
        let first = announced(&pod, "now");
        let condition = &first["status"]["conditions"][0];
        assert_eq!(
            (&condition["lastTransitionTime"], &condition["observedGeneration"]),
            (&json!("now"), &json!(2))
        );
        assert_eq!(announced(&first, "later"), first);
        let options = |uid: &str, version: &str| DeleteOptions {
            uid: Some(uid.to_owned()),
            resource_version: Some(version.to_owned()),
            ..DeleteOptions::default()
        };
        assert!(check_preconditions(&pod, &options("u", "5")).is_ok());
        let error = check_preconditions(&pod, &options("u", "4")).expect_err("another version");
        let why = "Operation cannot be fulfilled on Pod \"p\": the ResourceVersion in the precondition (4) does not match \
                   the ResourceVersion in record (5). The object might have been modified";
        assert_eq!(error.message(), why);
        assert_eq!(
            check_preconditions(&pod, &options("v", "5"))
                .expect_err("another pod")
                .reason(),
            "Conflict"
        );
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
