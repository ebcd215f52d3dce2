//! When a Job has failed, and when it has succeeded early (upstream: `validatePodFailurePolicy`,
//! `validateSuccessPolicy`).

use super::job::is_indexed;
use crate::registry::field::{ErrorType, FieldError};
use crate::registry::formats::label_key;
use crate::registry::json::{at, child, children, default_text, integer, items, map, number, objects, text};
use crate::registry::strategies::pod::validate::{containers_of, invalid};
use crate::registry::strategy::Object;
use crate::registry::validation::non_negative;
use serde_json::Value;
use std::collections::BTreeSet;

const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const INDEXES_BYTES_MAX: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];

/// A condition that is not said to be anything is meant to be true.
pub fn default(spec: &mut Object) {
    let Some(policy) = child(spec, "podFailurePolicy") else {
        return;
    };
    for rule in children(policy, "rules") {
        for condition in children(rule, "onPodConditions") {
            default_text(condition, "status", "True");
        }
    }
}

/// An error that shows no value.
pub fn wrong(path: &str, detail: &str) -> FieldError {
    FieldError {
        kind: ErrorType::Invalid,
        path: path.to_owned(),
        body: format!("Invalid value: {detail}"),
    }
}

pub fn failure(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(policy) = map(spec, &["podFailurePolicy"]) else {
        return Vec::new();
    };
    let rules: Vec<(usize, &Object)> = objects(policy, &["rules"]).collect();
    let mut errors = Vec::new();
    if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    let empty = Object::new();
    let pod = map(spec, &["template", "spec"]).unwrap_or(&empty);
    let containers = containers_of(pod, "");
    let names: Vec<&str> = containers
        .iter()
        .map(|(_, container)| text(container, &["name"]))
        .collect();
    for (index, rule) in rules {
        let path = format!("{path}.rules[{index}]");
        match text(rule, &["action"]) {
            "" => {
                let shown: Vec<String> = ACTIONS.iter().map(|action| format!("{action:?}")).collect();
                let detail = format!("valid values: [{}]", shown.join(" "));
                errors.push(FieldError::required(format!("{path}.action"), &detail));
            }
            "FailIndex" if !spec.contains_key("backoffLimitPerIndex") => {
                let detail = "requires the backoffLimitPerIndex to be set";
                errors.push(FieldError::invalid(format!("{path}.action"), "FailIndex", detail));
            }
            action if !ACTIONS.contains(&action) => {
                errors.push(FieldError::not_supported(format!("{path}.action"), action, &ACTIONS));
            }
            _ => {}
        }
        let codes = map(rule, &["onExitCodes"]);
        let conditions: Vec<(usize, &Object)> = objects(rule, &["onPodConditions"]).collect();
        if let Some(codes) = codes {
            errors.extend(exit_codes(codes, &names, &format!("{path}.onExitCodes")));
        }
        if conditions.len() > RULES_MAX {
            let path = format!("{path}.onPodConditions");
            errors.push(FieldError::too_many(path, conditions.len(), RULES_MAX));
        }
        for (index, condition) in &conditions {
            let path = format!("{path}.onPodConditions[{index}]");
            let (kind, status) = (text(condition, &["type"]), text(condition, &["status"]));
            errors.extend(invalid(&format!("{path}.type"), kind, &label_key(kind)));
            let statuses = ["False", "True", "Unknown"];
            if status.is_empty() {
                let detail = "valid values: [\"False\" \"True\" \"Unknown\"]";
                errors.push(FieldError::required(format!("{path}.status"), detail));
            } else if !statuses.contains(&status) {
                errors.push(FieldError::not_supported(format!("{path}.status"), status, &statuses));
            }
        }
        match (codes.is_some(), conditions.is_empty()) {
            (true, false) => {
                errors.push(wrong(
                    &path,
                    "specifying both OnExitCodes and OnPodConditions is not supported",
                ));
            }
            (false, true) => {
                errors.push(wrong(
                    &path,
                    "specifying one of OnExitCodes and OnPodConditions is required",
                ));
            }
            _ => {}
        }
    }
    errors
}

fn exit_codes(codes: &Object, containers: &[&str], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let (operator, operators) = (text(codes, &["operator"]), ["In", "NotIn"]);
    if operator.is_empty() {
        let detail = "valid values: [\"In\" \"NotIn\"]";
        errors.push(FieldError::required(format!("{path}.operator"), detail));
    } else if !operators.contains(&operator) {
        errors.push(FieldError::not_supported(
            format!("{path}.operator"),
            operator,
            &operators,
        ));
    }
    if let Some(name) = at(codes, &["containerName"]).and_then(Value::as_str)
        && !containers.contains(&name)
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{path}.containerName"), name, detail));
    }
    let (path, values) = (format!("{path}.values"), items(codes, &["values"]));
    let numbers: Vec<i64> = values.iter().filter_map(Value::as_i64).collect();
    if values.is_empty() {
        errors.push(FieldError::invalid(
            path.as_str(),
            values.to_vec(),
            "at least one value is required",
        ));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(FieldError::too_many(path.as_str(), values.len(), EXIT_CODES_MAX));
    }
    let mut seen = BTreeSet::new();
    for (index, code) in numbers.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if *code == 0 && operator == "In" {
            errors.push(FieldError::invalid(
                path.as_str(),
                0,
                "must not be 0 for the In operator",
            ));
        }
        if !seen.insert(code) {
            errors.push(FieldError::duplicate(path, *code));
        }
    }
    if numbers.windows(2).any(|pair| pair[0] > pair[1]) {
        errors.push(FieldError::invalid(path, values.to_vec(), "must be ordered"));
    }
    errors
}

pub fn success(spec: &Object, path: &str) -> Vec<FieldError> {
    let Some(policy) = map(spec, &["successPolicy"]) else {
        return Vec::new();
    };
    if !is_indexed(spec) {
        let detail = "requires indexed completion mode";
        return vec![FieldError::invalid(path, policy.clone(), detail)];
    }
    let rules: Vec<(usize, &Object)> = objects(policy, &["rules"]).collect();
    let mut errors = Vec::new();
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(format!("{path}.rules"), detail));
    } else if rules.len() > RULES_MAX {
        errors.push(FieldError::too_many(format!("{path}.rules"), rules.len(), RULES_MAX));
    }
    let completions = number(spec, &["completions"]);
    for (index, rule) in rules {
        let path = format!("{path}.rules[{index}]");
        let listed = at(rule, &["succeededIndexes"]).and_then(Value::as_str);
        let count = integer(rule, &["succeededCount"]);
        if listed.is_none() && count.is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(path.as_str(), detail));
        }
        let mut total = None;
        if let Some(listed) = listed {
            let path = format!("{path}.succeededIndexes");
            if listed.len() > INDEXES_BYTES_MAX {
                errors.push(FieldError::too_long(path.as_str(), INDEXES_BYTES_MAX));
            }
            match count_indexes(listed, completions) {
                Ok(found) => total = Some(found),
                Err(problem) => {
                    let detail = format!("error parsing succeededIndexes: {problem}");
                    errors.push(FieldError::invalid(path, listed, &detail));
                }
            }
        }
        if let Some(count) = count {
            let path = format!("{path}.succeededCount");
            errors.extend(non_negative(rule.get("succeededCount"), &path));
            if count > completions {
                let detail =
                    format!("must be less than or equal to {completions} (the number of specified completions)");
                errors.push(FieldError::invalid(path.as_str(), count, &detail));
            }
            if let Some(total) = total.filter(|total| count > *total) {
                let detail = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes \
                     field)"
                );
                errors.push(FieldError::invalid(path, count, &detail));
            }
        }
    }
    errors
}

/// How many indexes a text like `1,3-5` names, all below `completions` and in order.
pub fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let mut last: Option<i64> = None;
    let mut total = 0;
    for part in text.split(',') {
        let parse = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))
        };
        let ends: Vec<&str> = part.split('-').collect();
        if ends.len() > 2 {
            return Err(format!(
                "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
            ));
        }
        let low = parse(ends[0])?;
        if low >= completions {
            return Err(format!("too large index: {:?}", ends[0]));
        }
        if let Some(last) = last.filter(|last| *last >= low) {
            return Err(format!("non-increasing order, previous: {last}, current: {low}"));
        }
        let high = match ends.get(1) {
            None => low,
            Some(text) => parse(text)?,
        };
        if high >= completions {
            return Err(format!("too large index: {:?}", ends.last().unwrap_or(&"")));
        }
        if ends.len() == 2 && low >= high {
            return Err(format!("non-increasing order, previous: {low}, current: {high}"));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        assert_eq!(count_indexes("0,2-4,6", 7), Ok(5));
        assert_eq!(count_indexes("", 7), Ok(0));
        assert_eq!(count_indexes("7", 7), Err("too large index: \"7\"".to_owned()));
        let order = "non-increasing order, previous: 3, current: 2";
        assert_eq!(count_indexes("3,2", 7), Err(order.to_owned()));
    }
}
