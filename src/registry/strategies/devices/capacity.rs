//! Shares of a device's capacity that several claims can have (upstream: `validateRequestPolicy`).

use crate::quantity::Quantity;
use crate::registry::field::FieldError;
use crate::registry::json::{items, map, quantity};
use crate::registry::strategy::Object;
use serde_json::Value;

const VALUES_MAX: usize = 10;

/// A capacity of a device, which is `shared` or has one owner at a time.
pub fn capacity(capacity: &Value, shared: bool, path: &str) -> Vec<FieldError> {
    let policy = capacity.get("requestPolicy").and_then(Value::as_object);
    let Some(policy) = policy else { return Vec::new() };
    let path = format!("{path}.requestPolicy");
    if !shared {
        let detail = "allowMultipleAllocations must be true";
        return vec![FieldError::forbidden(path, detail)];
    }
    let all = capacity.get("value").and_then(quantity).unwrap_or(Quantity::ZERO);
    let values: Vec<Quantity> = items(policy, &["validValues"]).iter().filter_map(quantity).collect();
    let default = policy.get("default").and_then(quantity);
    let missing = |field: &str| {
        let detail = format!("required when {field} is defined");
        vec![FieldError::required(format!("{path}.default"), &detail)]
    };
    match (values.is_empty(), map(policy, &["validRange"])) {
        (false, Some(_)) => {
            let detail = "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
                same time";
            vec![FieldError::forbidden(path, detail)]
        }
        (false, None) => match default {
            None => missing("validValues"),
            Some(default) => one_of(default, all, &values, &format!("{path}.validValues")),
        },
        (true, Some(range)) => match default {
            None => missing("validRange"),
            Some(default) => within(default, all, range, &format!("{path}.validRange")),
        },
        (true, None) => Vec::new(),
    }
}

fn wrong(path: String, amount: Quantity, detail: &str) -> FieldError {
    FieldError::invalid(path, amount.to_string(), detail)
}

fn one_of(default: Quantity, all: Quantity, values: &[Quantity], path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let detail = "values must be sorted in ascending order";
        errors.push(wrong(format!("{path}[{}]", index + 1), pair[1], detail));
    }
    if values.len() > VALUES_MAX {
        errors.push(FieldError::too_many(path, values.len(), VALUES_MAX));
    } else {
        for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > all) {
            let detail = format!("option is larger than capacity value: {all}");
            errors.push(wrong(format!("{path}[{index}]"), *value, &detail));
        }
        for (index, value) in values.iter().enumerate() {
            if values[..index].contains(value) {
                errors.push(FieldError::duplicate(format!("{path}[{index}]"), value.to_string()));
            }
        }
    }
    if !values.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        errors.push(wrong(path.to_owned(), default, detail));
    }
    errors
}

fn within(default: Quantity, all: Quantity, range: &Object, path: &str) -> Vec<FieldError> {
    let bound = |field: &str| range.get(field).and_then(quantity);
    let at = |field: &str| format!("{path}.{field}");
    let Some(low) = bound("min") else {
        return vec![FieldError::required(at("min"), "required when validRange is defined")];
    };
    let mut errors = Vec::new();
    if low > all {
        let detail = format!("min is larger than capacity value: {all}");
        errors.push(wrong(at("min"), low, &detail));
    }
    if default < low {
        errors.push(wrong(
            at("default"),
            default,
            &format!("default is less than min: {low}"),
        ));
    }
    let high = bound("max");
    if let Some(high) = high {
        if low > high {
            errors.push(wrong(at("max"), low, &format!("min is larger than max: {high}")));
        }
        if high > all {
            let detail = format!("max is larger than capacity value: {all}");
            errors.push(wrong(at("max"), high, &detail));
        }
        if default > high {
            errors.push(wrong(
                at("default"),
                default,
                &format!("default is more than max: {high}"),
            ));
        }
    }
    let Some(step) = bound("step") else { return errors };
    if step.is_zero() || step.is_negative() {
        errors.push(wrong(at("step"), step, "must be greater than zero"));
        return errors;
    }
    let next = low.plus(step);
    if next > all {
        let detail = format!("one step {next} is larger than capacity value: {all}");
        errors.push(wrong(at("step"), step, &detail));
    }
    for value in [Some(default), high].into_iter().flatten() {
        let (distance, step_units) = (value.value() - low.value(), step.value());
        if step_units != 0 && distance % step_units != 0 {
            let detail = format!("value is not a multiple of a given step ({step}) from ({low})");
            errors.push(wrong(at("step"), value, &detail));
        }
    }
    errors
}
