//! Fields of features that are off by default (upstream: `dropDisabledFields` of `pkg/registry/resource/*/strategy.go`
//! and the gates' defaults in 1.37): DRADerivedAttributes, DRAOptionalNodeOperations, DRAPartitionableDevicesType,
//! DRANodeAllocatableResources, DRAListTypeAttributes and DRADeviceCompatibilityGroups. An object that has one already
//! keeps it.

use crate::registry::json::map;
use crate::registry::strategy::Object;
use serde_json::Value;

/// Where a field of one feature stands: `*` is every item of a list or every value of a map.
type Path = &'static [&'static str];

const CLAIM: &[&[Path]] = &[
    &[
        &["spec", "devices", "requests", "*", "exactly", "derivedAttributes"],
        &[
            "spec",
            "devices",
            "requests",
            "*",
            "firstAvailable",
            "*",
            "derivedAttributes",
        ],
    ],
    &[&["status", "allocation", "devices", "results", "*", "skipNodeOperations"]],
];

const SLICE: &[&[Path]] = &[
    &[&["spec", "skipNodeOperations"]],
    &[&["spec", "partitionTypeAttribute"]],
    &[&["spec", "devices", "*", "nodeAllocatableResources"]],
    &[
        &["spec", "devices", "*", "attributes", "*", "bools"],
        &["spec", "devices", "*", "attributes", "*", "ints"],
        &["spec", "devices", "*", "attributes", "*", "strings"],
        &["spec", "devices", "*", "attributes", "*", "versions"],
    ],
    &[&["spec", "devices", "*", "consumesCounters", "*", "compatibilityGroups"]],
];

pub fn drop_from_claim(claim: &mut Object, old: Option<&Object>) {
    drop(CLAIM, claim, old);
}

/// A template's spec is a claim.
pub fn drop_from_template(template: &mut Object, old: Option<&Object>) {
    if let Some(Value::Object(claim)) = template.get_mut("spec") {
        drop(CLAIM, claim, old.and_then(|old| map(old, &["spec"])));
    }
}

pub fn drop_from_slice(slice: &mut Object, old: Option<&Object>) {
    drop(SLICE, slice, old);
}

fn drop(features: &[&[Path]], object: &mut Object, old: Option<&Object>) {
    for paths in features {
        let used = old.is_some_and(|old| paths.iter().any(|path| has(old, path)));
        if !used {
            paths.iter().for_each(|path| remove(object, path));
        }
    }
}

fn has(object: &Object, path: &[&str]) -> bool {
    match path {
        [] => true,
        [field] => object.contains_key(*field),
        [field, "*", rest @ ..] => match object.get(*field) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_object).any(|item| has(item, rest)),
            Some(Value::Object(values)) => values
                .values()
                .filter_map(Value::as_object)
                .any(|value| has(value, rest)),
            _ => false,
        },
        [field, rest @ ..] => object
            .get(*field)
            .and_then(Value::as_object)
            .is_some_and(|child| has(child, rest)),
    }
}

fn remove(object: &mut Object, path: &[&str]) {
    match path {
        [] => {}
        [field] => {
            object.remove(*field);
        }
        [field, "*", rest @ ..] => match object.get_mut(*field) {
            Some(Value::Array(items)) => {
                items
                    .iter_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(|item| remove(item, rest));
            }
            Some(Value::Object(values)) => {
                values
                    .values_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(|value| remove(value, rest));
            }
            _ => {}
        },
        [field, rest @ ..] => {
            if let Some(Value::Object(child)) = object.get_mut(*field) {
                remove(child, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_off_goes_unless_it_was_there() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let slice = |on: bool| {
            let mut slice = json!({"spec": {"driver": "d", "devices": [
                {"name": "a", "attributes": {"x": {"int": 1}}, "consumesCounters": [{"counterSet": "c"}]}]}});
            if on {
                slice["spec"]["skipNodeOperations"] = json!(["x"]);
                slice["spec"]["partitionTypeAttribute"] = json!("x");
                let device = &mut slice["spec"]["devices"][0];
                device["nodeAllocatableResources"] = json!({});
                device["attributes"]["x"]["strings"] = json!(["s"]);
                device["consumesCounters"][0]["compatibilityGroups"] = json!(["g"]);
            }
            object(slice)
        };
        let mut new = slice(true);
        drop_from_slice(&mut new, None);
        assert_eq!(new, slice(false));
        let mut kept = slice(true);
        drop_from_slice(&mut kept, Some(&slice(true)));
        assert_eq!(kept, slice(true));
        let mut changed = slice(true);
        drop_from_slice(&mut changed, Some(&slice(false)));
        assert_eq!(changed, slice(false));

        let claim = json!({"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "c", "derivedAttributes": []}},
            {"name": "f", "firstAvailable": [{"name": "s", "derivedAttributes": []}]}]}});
        let bare = json!({"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "c"}}, {"name": "f", "firstAvailable": [{"name": "s"}]}]}});
        let mut new = object(json!({"spec": claim}));
        drop_from_claim(&mut new, None);
        assert_eq!(Value::Object(new), json!({"spec": bare}));
        let mut new = object(json!({"spec": {"spec": claim}}));
        drop_from_template(&mut new, None);
        assert_eq!(Value::Object(new), json!({"spec": {"spec": bare}}));
    }
}
