//! One ConversionReview and its answer.

use crate::apiserver::webhook_client;
use crate::registry::custom::WebhookConversion;
use crate::registry::json::{go_type, items, map, text};
use crate::registry::strategy::Object;
use crate::registry::validation;
use crate::storage::Storage;
use serde_json::{Value, json};
use std::time::Duration;

/// What a webhook may change of the metadata.
const OPEN: [&str; 2] = ["labels", "annotations"];

/// Has objects converted to the version `wanted`. Err is upstream's text.
pub async fn exchange(
    storage: &Storage,
    webhook: &WebhookConversion,
    timeout: Duration,
    objects: Vec<Object>,
    wanted: &str,
) -> Result<Vec<Object>, String> {
    let version = webhook
        .review_version
        .ok_or("no supported conversion review versions")?;
    let uid = uuid::Uuid::new_v4().to_string();
    let review = json!({
        "kind": "ConversionReview", "apiVersion": version,
        "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": objects},
    });
    let of = of_kind(&objects);
    let answer = webhook_client::exchange(storage, &webhook.client, timeout, &review).await;
    let answer = answer.map_err(|why| format!("conversion webhook for {of} failed: {why}"))?;
    let converted =
        converted(&answer, version, &uid).map_err(|why| format!("conversion webhook for {of} failed: {why}"))?;
    if converted.len() != objects.len() {
        return Err(format!(
            "conversion webhook for {of} returned {} objects, expected {}",
            converted.len(),
            objects.len()
        ));
    }
    let is_single = objects.len() == 1;
    let pairs = objects.iter().zip(converted).enumerate();
    pairs
        .map(|(index, (original, converted))| {
            checked(original, converted, wanted).map_err(|why| match (is_single, why) {
                (true, Wrong::Version(why)) => {
                    format!("conversion webhook for {of} returned invalid object at index 0: {why}")
                }
                (true, Wrong::Object(why)) => format!("conversion webhook for {of} returned invalid object: {why}"),
                (true, Wrong::Metadata(why)) => format!("conversion webhook for {of} returned invalid metadata: {why}"),
                (false, Wrong::Version(why) | Wrong::Object(why)) => {
                    format!("conversion webhook for {of} returned invalid converted object at index {index}: {why}")
                }
                (false, Wrong::Metadata(why)) => {
                    format!("conversion webhook for {of} returned invalid metadata in object at index {index}: {why}")
                }
            })
        })
        .collect()
}

/// `group/version, Kind=kind` of what is converted.
fn of_kind(objects: &[Object]) -> String {
    let empty = Object::new();
    let first = objects.first().unwrap_or(&empty);
    format!("{}, Kind={}", text(first, &["apiVersion"]), text(first, &["kind"]))
}

fn converted(answer: &Object, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    // Neither type nor uid were asked of the older version.
    let is_strict = version.ends_with("/v1");
    let (api_version, kind) = (text(answer, &["apiVersion"]), text(answer, &["kind"]));
    if is_strict && (api_version != version || kind != "ConversionReview") {
        let slash = if api_version.contains('/') { "" } else { "/" };
        return Err(format!(
            "expected webhook response of {version}, Kind=ConversionReview, got {slash}{api_version}, Kind={kind}"
        ));
    }
    let response = map(answer, &["response"]).ok_or("no response provided")?;
    let got = text(response, &["uid"]);
    if is_strict && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    match (
        text(response, &["result", "status"]),
        text(response, &["result", "message"]),
    ) {
        ("Success", _) => Ok(items(response, &["convertedObjects"]).to_vec()),
        (status, "") => Err(format!("response.result.status was '{status}', not 'Success'")),
        (_, message) => Err(message.to_owned()),
    }
}

/// What is wrong with a converted object.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Version(String),
    Object(String),
    Metadata(String),
}

/// The converted object with the metadata that it had before, but for what may be changed.
fn checked(original: &Object, converted: Value, wanted: &str) -> Result<Object, Wrong> {
    let Value::Object(mut converted) = converted else {
        return Err(Wrong::Object("it is no object".to_owned()));
    };
    let of = |object: &Object, path: &[&str]| text(object, path).to_owned();
    let (version, kind) = (of(&converted, &["apiVersion"]), of(&converted, &["kind"]));
    if version != wanted {
        let why = format!("invalid groupVersion (expected {wanted}, received {version})");
        return Err(Wrong::Version(why));
    }
    let expected = of(original, &["kind"]);
    if kind != expected {
        return Err(Wrong::Version(format!(
            "invalid kind (expected {expected}, received {kind})"
        )));
    }
    for (field, name) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (before, after) = (of(original, &["metadata", field]), of(&converted, &["metadata", field]));
        if before != after {
            return Err(Wrong::Object(format!("must have the same {name}: {before} != {after}")));
        }
    }
    let answered = match converted.get_mut("metadata") {
        None => return Err(Wrong::Metadata("missing metadata in converted object".to_owned())),
        Some(Value::Object(metadata)) => std::mem::take(metadata),
        Some(other) => {
            let why = format!("invalid metadata of type {} in converted object", go_type(other));
            return Err(Wrong::Metadata(why));
        }
    };
    let empty = Object::new();
    let before = map(original, &["metadata"]).unwrap_or(&empty);
    let mut metadata = before.clone();
    for field in OPEN {
        match answered.get(field) {
            None | Some(Value::Null) => {
                metadata.shift_remove(field);
            }
            Some(Value::Object(given)) => {
                check_texts(field, given)?;
                if before.get(field).and_then(Value::as_object) != Some(given) {
                    check_rules(field, given)?;
                }
                metadata.insert(field.to_owned(), Value::Object(given.clone()));
            }
            Some(other) => {
                let why = format!(
                    "invalid metadata.{field} of type {} in converted object",
                    go_type(other)
                );
                return Err(Wrong::Metadata(why));
            }
        }
    }
    converted.insert("metadata".to_owned(), Value::Object(metadata));
    Ok(converted)
}

fn check_texts(field: &str, given: &Object) -> Result<(), Wrong> {
    let mut wrong = given.iter().filter(|(_, value)| !value.is_string());
    match wrong.next() {
        None => Ok(()),
        Some((key, value)) => Err(Wrong::Metadata(format!(
            "metadata.{field}[{key}] must be a string, but is {} in converted object",
            go_type(value)
        ))),
    }
}

fn check_rules(field: &str, given: &Object) -> Result<(), Wrong> {
    let errors = match field {
        "labels" => validation::labels(given, "metadata.labels"),
        _ => validation::annotations(given, "metadata.annotation"),
    };
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match &texts[..] {
        [] => Ok(()),
        [one] => Err(Wrong::Metadata(one.clone())),
        many => Err(Wrong::Metadata(format!("[{}]", many.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "apiextensions.k8s.io/v1";

    fn object(value: Value) -> Object {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn answers_are_held_to_their_version() {
        let read = |answer: Value, version: &str| converted(&object(answer), version, "u").map(|all| all.len());
        let review = |response: Value| json!({"apiVersion": V1, "kind": "ConversionReview", "response": response});
        let ok = json!({"uid": "u", "result": {"status": "Success"}, "convertedObjects": [{}]});
        assert_eq!(read(review(ok.clone()), V1), Ok(1));
        assert_eq!(
            read(json!({"response": ok}), V1),
            Err(format!(
                "expected webhook response of {V1}, Kind=ConversionReview, got /, Kind="
            ))
        );
        let failed = |response: Value| read(review(response), V1).unwrap_err();
        assert_eq!(failed(json!({"uid": "v"})), "expected response.uid=\"u\", got \"v\"");
        assert_eq!(
            failed(json!({"uid": "u", "result": {"status": "Failure"}})),
            "response.result.status was 'Failure', not 'Success'"
        );
        assert_eq!(
            failed(json!({"uid": "u", "result": {"status": "Failure", "message": "no"}})),
            "no"
        );
        let old = json!({"response": {"result": {"status": "Success"}, "convertedObjects": []}});
        assert_eq!(read(old, "apiextensions.k8s.io/v1beta1"), Ok(0));
        assert_eq!(
            read(json!({}), "apiextensions.k8s.io/v1beta1"),
            Err("no response provided".to_owned())
        );
    }

    #[test]
    fn only_labels_and_annotations_of_the_metadata_may_change() {
        let original = object(json!({
            "apiVersion": "g/v1", "kind": "K",
            "metadata": {"name": "n", "uid": "u", "generation": 2, "labels": {"a": "b"}},
        }));
        let check = |more: Value| {
            let mut answer = json!({"apiVersion": "g/v2", "kind": "K", "host": "h"});
            let mut metadata = json!({"name": "n", "uid": "u"});
            for (field, value) in more.as_object().unwrap() {
                match value.as_object() {
                    Some(members) => members.iter().for_each(|(key, value)| metadata[key] = value.clone()),
                    None => answer[field] = value.clone(),
                }
            }
            answer["metadata"] = metadata;
            checked(&original, answer, "g/v2")
        };
        let plain = check(json!({})).unwrap();
        assert_eq!(plain["metadata"], json!({"name": "n", "uid": "u", "generation": 2}));
        assert_eq!(plain["host"], "h");
        let labelled = check(json!({"metadata": {"labels": {"c": "d"}, "generation": 9}})).unwrap();
        assert_eq!(labelled["metadata"]["labels"], json!({"c": "d"}));
        assert_eq!(labelled["metadata"]["generation"], 2);
        for (more, expected) in [
            (
                json!({"apiVersion": "g/v1"}),
                Wrong::Version("invalid groupVersion (expected g/v2, received g/v1)".to_owned()),
            ),
            (
                json!({"kind": "L"}),
                Wrong::Version("invalid kind (expected K, received L)".to_owned()),
            ),
            (
                json!({"metadata": {"uid": "w"}}),
                Wrong::Object("must have the same UID: u != w".to_owned()),
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                Wrong::Metadata("metadata.labels[a] must be a string, but is int64 in converted object".to_owned()),
            ),
        ] {
            assert_eq!(check(more).unwrap_err(), expected);
        }
    }
}
