//! The objects of flow control that every cluster has, and what the status of all of them says (upstream:
//! `pkg/registry/flowcontrol/{ensurer,rest}` and the status updates of `flowcontrol/apf_controller.go`).

use super::{FLOW_SCHEMAS, PRIORITY_LEVELS, read};
use crate::apiserver::ApiServer;
use crate::apiserver::error::ApiError;
use crate::apiserver::following;
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::handlers::patch;
use crate::apiserver::own_objects::{self, Plan};
use crate::registry::json::{integer, objects, text};
use crate::registry::priority_and_fairness::{
    AUTO_UPDATE, EXEMPT, FLOW_SCHEMA, GROUP, PRIORITY_LEVEL, Standard, standard,
};
use crate::registry::strategy::{Object, Target};
use crate::storage::StorageError;
use futures_util::future::join_all;
use poem::Body;
use poem::http::{HeaderValue, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// Who owns what the server makes of the objects, and who its status, as upstream has it.
const PRODUCER: &str = "api-priority-and-fairness-config-producer-v1";
const CONSUMER: &str = "api-priority-and-fairness-config-consumer-v1";
/// How often levels lend one another seats.
const LEND_EVERY: Duration = Duration::from_secs(10);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Follows the objects, for as long as the store is open.
pub async fn run(server: Arc<ApiServer>) {
    let trouble = "changes of flow schemas are not heard of for the moment";
    following::keep(trouble, RETRY, || follow(server.clone())).await;
}

async fn follow(server: Arc<ApiServer>) -> Result<(), StorageError> {
    let (_, mut schemas) = server.storage.list_and_watch(FLOW_SCHEMAS, None)?;
    let (_, mut levels) = server.storage.list_and_watch(PRIORITY_LEVELS, None)?;
    let mut lend = tokio::time::interval(LEND_EVERY);
    lend.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        server.flow_control.refresh(&server.storage);
        let failed = !tend(&server).await;
        loop {
            tokio::select! {
                changed = schemas.next() => { changed?; break }
                changed = levels.next() => { changed?; break }
                () = tokio::time::sleep(RETRY), if failed => break,
                _ = lend.tick() => server.flow_control.lend(),
            }
        }
    }
}

/// Makes what is missing; before the first request is served.
pub async fn create(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    // Side by side, so that they share commits: a schema may come before its level.
    let made = join_all(standard().map(|standard| async move { ensure(server, &standard).await })).await;
    made.into_iter().collect::<Result<(), _>>()?;
    server.flow_control.refresh(&server.storage);
    Ok(())
}

async fn ensure(server: &Arc<ApiServer>, standard: &Standard) -> Result<(), ApiError> {
    own_objects::ensure(server, GROUP, &standard.object, PRODUCER, |known| plan(standard, known)).await
}

/// Brings all objects to what they should be; false if some could not be written.
async fn tend(server: &Arc<ApiServer>) -> bool {
    let kept = join_all(standard().map(|standard| async move { ensure(server, &standard).await })).await;
    let mut results = kept;
    for (kind, resource) in [(FLOW_SCHEMA, FLOW_SCHEMAS), (PRIORITY_LEVEL, PRIORITY_LEVELS)] {
        let stored: Vec<Object> = read(&server.storage, resource);
        for object in stored.iter().filter(|object| is_left_over(kind, object)) {
            let name = metadata::text(object, "name");
            results.push(own_objects::delete(server, GROUP, kind, name).await);
        }
    }
    let stored: Vec<Object> = read(&server.storage, FLOW_SCHEMAS);
    let told = stored.iter().filter_map(|schema| {
        let level = text(schema, &["spec", "priorityLevelConfiguration", "name"]);
        condition(schema, level, server.flow_control.has_level(level)).map(|condition| (schema, condition))
    });
    results.extend(join_all(told.map(|(schema, condition)| tell(server, schema, condition))).await);
    let mut whole = true;
    for error in results.into_iter().filter_map(Result::err) {
        // It was deleted meanwhile, which is an event of its own.
        if error.reason() != "NotFound" {
            tracing::warn!(%error, "an object of flow control is not as it should be");
            whole = false;
        }
    }
    whole
}

/// What is to happen to an object that every cluster has.
fn plan(standard: &Standard, known: Option<&Object>) -> Plan {
    let Some(known) = known else {
        return Plan::Create;
    };
    let annotation = annotation(known);
    let ours = standard.mandatory
        || match annotation {
            Some(ours) => ours,
            // Nobody has said anything, nor changed anything.
            None => integer(known, &["metadata", "generation"]) == Some(1),
        };
    let spec = &standard.object["spec"];
    let respect = ours && !same_spec(standard, known.get("spec"), spec);
    if annotation == Some(ours) && !respect {
        return Plan::Nothing;
    }
    let mut updated = known.clone();
    let annotations = metadata::of_mut(&mut updated)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    annotations[AUTO_UPDATE] = json!(ours.to_string());
    if respect {
        updated.insert("spec".into(), spec.clone());
    }
    Plan::Update(updated)
}

/// The seats of the exempt level are the users' own affair.
fn same_spec(standard: &Standard, known: Option<&Value>, wanted: &Value) -> bool {
    let Some(known) = known else { return false };
    if (standard.kind, standard.name) == (PRIORITY_LEVEL, EXEMPT) {
        return known["type"] == wanted["type"] && known["limited"].is_null();
    }
    known == wanted
}

/// As Go reads booleans.
fn annotation(object: &Object) -> Option<bool> {
    match text(object, &["metadata", "annotations", AUTO_UPDATE]) {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The server of another version made it, and looked after it.
fn is_left_over(kind: &str, object: &Object) -> bool {
    let name = metadata::text(object, "name");
    let known = standard().any(|standard| standard.kind == kind && standard.name == name);
    !known && annotation(object) == Some(true)
}

/// What is to be said of the level that a schema names; None if it says so already.
fn condition(schema: &Object, level: &str, is_there: bool) -> Option<Value> {
    let (status, reason, end) = match is_there {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let said = objects(schema, &["status", "conditions"])
        .map(|(_, condition)| condition)
        .find(|condition| text(condition, &["type"]) == "Dangling");
    let same = said.is_some_and(|said| {
        (
            text(said, &["status"]),
            text(said, &["reason"]),
            text(said, &["message"]),
        ) == (status, reason, &message)
    });
    (!same).then(|| json!({"type": "Dangling", "status": status, "reason": reason, "message": message}))
}

async fn tell(server: &Arc<ApiServer>, schema: &Object, mut condition: Value) -> Result<(), ApiError> {
    let name = metadata::text(schema, "name");
    let kind = own_objects::kind(server, GROUP, FLOW_SCHEMA)?;
    let mut ctx = own_objects::context(server, &kind, "", name, CONSUMER);
    let apply = HeaderValue::from_static("application/apply-patch+yaml");
    ctx.headers.insert(header::CONTENT_TYPE, apply);
    condition["lastTransitionTime"] = json!(metadata::timestamp(jiff::Timestamp::now()));
    let body = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": FLOW_SCHEMA,
        // So that one that is gone is not made again.
        "metadata": {"name": name, "uid": metadata::text(schema, "uid")},
        "status": {"conditions": [condition]},
    });
    patch::handle(&ctx, &kind, Target::Status, Body::from_string(body.to_string())).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &str, name: &str) -> Standard {
        let mut all = standard();
        all.find(|standard| (standard.kind, standard.name) == (kind, name))
            .unwrap()
    }

    fn stored(standard: &Standard, generation: u64, annotation: Option<&str>, change: bool) -> Object {
        let mut object = standard.object.clone();
        object["metadata"]["generation"] = json!(generation);
        object["metadata"]["annotations"] = annotation.map_or(Value::Null, |text| json!({AUTO_UPDATE: text}));
        if change {
            object["spec"]["matchingPrecedence"] = json!(77);
        }
        object
    }

    #[test]
    fn suggested_objects_are_the_users_once_they_say_so() {
        let standard = found(FLOW_SCHEMA, "service-accounts");
        // Generation, annotation, changed; what becomes of annotation and spec, if anything.
        let rows = [
            (1, Some("true"), false, None),
            (2, Some("true"), true, Some(("true", false))),
            (2, Some("false"), true, None),
            (1, None, true, Some(("true", false))),
            (2, None, true, Some(("false", true))),
            (2, Some("nonsense"), true, Some(("false", true))),
            (1, Some("f"), true, None),
        ];
        for (generation, annotation, change, wanted) in rows {
            let known = stored(&standard, generation, annotation, change);
            let got = match plan(&standard, Some(&known)) {
                Plan::Nothing => None,
                Plan::Update(updated) => Some((
                    text(&updated, &["metadata", "annotations", AUTO_UPDATE]).to_owned(),
                    updated["spec"]["matchingPrecedence"] == 77,
                )),
                other => panic!("{other:?}"),
            };
            let wanted = wanted.map(|(annotation, changed): (&str, bool)| (annotation.to_owned(), changed));
            assert_eq!(got, wanted, "{generation} {annotation:?}");
        }
        assert_eq!(plan(&standard, None), Plan::Create);
    }

    #[test]
    fn mandatory_objects_are_as_they_are() {
        let standard = found(FLOW_SCHEMA, "catch-all");
        let known = stored(&standard, 5, Some("false"), true);
        let Plan::Update(updated) = plan(&standard, Some(&known)) else {
            panic!("it stays changed")
        };
        assert_eq!(updated["spec"], standard.object["spec"]);
        assert_eq!(text(&updated, &["metadata", "annotations", AUTO_UPDATE]), "true");
        let standard = found(PRIORITY_LEVEL, EXEMPT);
        let mut known = standard.object.clone();
        known["spec"]["exempt"]["nominalConcurrencyShares"] = json!(10);
        assert_eq!(plan(&standard, Some(&known)), Plan::Nothing);
    }

    #[test]
    fn what_other_versions_made_goes() {
        let object = |name: &str, annotation: &str| {
            let object = json!({"metadata": {"name": name, "annotations": {AUTO_UPDATE: annotation}}});
            object.as_object().cloned().unwrap()
        };
        assert!(is_left_over(FLOW_SCHEMA, &object("endpoint-controller", "true")));
        assert!(!is_left_over(FLOW_SCHEMA, &object("endpoint-controller", "false")));
        assert!(!is_left_over(FLOW_SCHEMA, &object("probes", "true")));
        assert!(is_left_over(PRIORITY_LEVEL, &object("probes", "true")));
    }

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let mut schema = Object::new();
        let dangling = condition(&schema, "l", false).unwrap();
        assert_eq!(
            dangling,
            json!({"type": "Dangling", "status": "True", "reason": "NotFound", "message":
                "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"})
        );
        schema.insert("status".into(), json!({"conditions": [dangling]}));
        assert_eq!(condition(&schema, "l", false), None);
        assert_eq!(condition(&schema, "l", true).unwrap()["reason"], "Found");
    }
}
