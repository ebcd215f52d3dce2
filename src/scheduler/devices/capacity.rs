//! How much of a device's capacity a request consumes (upstream: `structured/internal/…/consumable_capacity.go`). Pure.

use super::taken::{Amounts, add};
use crate::quantity::{Format, Quantity};
use k8s_openapi::api::resource::v1::{CapacityRequestPolicyRange, CapacityRequirements, Device, DeviceCapacity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

fn read(text: &Text) -> Quantity {
    text.0.parse().unwrap_or(Quantity::ZERO)
}

/// What the request consumes of each capacity of the device; None if it asks for what the device does not have, or not so.
pub fn consumed(request: Option<&CapacityRequirements>, device: &Device) -> Option<Amounts> {
    let requested = request.and_then(|request| request.requests.as_ref());
    let has = |name: &String| device.capacity.as_ref().is_some_and(|all| all.contains_key(name));
    if requested.is_some_and(|requested| !requested.keys().all(has)) {
        return None;
    }
    let mut amounts = Amounts::new();
    for (name, capacity) in device.capacity.iter().flatten() {
        let asked = requested.and_then(|requested| requested.get(name)).map(read);
        amounts.insert(name.clone(), one(asked, capacity)?);
    }
    Some(amounts)
}

/// None if the policy does not allow it.
fn one(asked: Option<Quantity>, capacity: &DeviceCapacity) -> Option<Quantity> {
    let policy = capacity.request_policy.as_ref();
    let default = policy.and_then(|policy| policy.default.as_ref()).map(read);
    let Some(asked) = asked else {
        return allowed(default.unwrap_or_else(|| read(&capacity.value)), capacity);
    };
    let Some(policy) = policy else { return Some(asked) };
    let rounded = match (&policy.valid_range, &policy.valid_values) {
        (Some(range), _) => round_up(asked, range),
        (None, Some(values)) => values.iter().map(read).find(|value| asked <= *value).unwrap_or(asked),
        (None, None) => asked,
    };
    allowed(rounded, capacity)
}

fn allowed(amount: Quantity, capacity: &DeviceCapacity) -> Option<Quantity> {
    let Some(policy) = &capacity.request_policy else {
        return Some(amount);
    };
    if policy.default.as_ref().is_some_and(|default| read(default) == amount) {
        return Some(amount);
    }
    let fits = match (&policy.valid_range, &policy.valid_values) {
        (Some(range), _) => {
            let below = range.max.as_ref().is_none_or(|max| amount <= read(max));
            below && steps(amount, range).is_none_or(|(_, rest, _)| rest == 0)
        }
        (None, Some(values)) => values.is_empty() || values.iter().any(|value| read(value) == amount),
        (None, None) => true,
    };
    fits.then_some(amount)
}

/// Whole steps from the minimum, what is left of one, and the step; in thousandths.
fn steps(amount: Quantity, range: &CapacityRequestPolicyRange) -> Option<(i64, i64, i64)> {
    let step = range
        .step
        .as_ref()
        .map(|step| read(step).milli_value())
        .filter(|step| *step > 0)?;
    let above = amount.minus(read(&range.min)).milli_value();
    Some((above / step, above % step, step))
}

fn round_up(asked: Quantity, range: &CapacityRequestPolicyRange) -> Quantity {
    let min = read(&range.min);
    if asked < min {
        return min;
    }
    match steps(asked, range) {
        None | Some((_, 0, _)) => asked,
        Some((whole, _, step)) => {
            let milli = min.milli_value().saturating_add((whole + 1).saturating_mul(step));
            if milli % 1000 == 0 {
                Quantity::from_units(milli / 1000, Format::BinarySi)
            } else {
                Quantity::from_milli(milli)
            }
        }
    }
}

/// Whether the device has so much beside what is consumed of it.
pub fn is_enough<'a>(device: &Device, wanted: &Amounts, others: impl Iterator<Item = &'a Amounts>) -> bool {
    let mut sums = wanted.clone();
    for (name, amount) in others.flatten() {
        add(&mut sums, name, *amount);
    }
    let capacities = device.capacity.iter().flatten();
    capacities.into_iter().all(|(name, capacity)| {
        let sum = sums.get(name);
        sum.is_none_or(|sum| *sum <= read(&capacity.value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn amounts() {
        for (policy, asked, expected) in [
            (json!(null), None, Some("10Gi")),
            (json!(null), Some("3Gi"), Some("3Gi")),
            (json!({"default": "2Gi"}), None, Some("2Gi")),
            (json!({"default": "2Gi"}), Some("5Gi"), Some("5Gi")),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi"}}),
                Some("500Mi"),
                Some("1Gi"),
            ),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi", "max": "4Gi"}}),
                Some("5Gi"),
                None,
            ),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi"}}),
                Some("4Gi"),
                Some("5Gi"),
            ),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi", "max": "4Gi"}}),
                Some("4Gi"),
                None,
            ),
            (
                json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi"}}),
                Some("3Gi"),
                Some("3Gi"),
            ),
            (
                json!({"default": "200m", "validRange": {"min": "200m", "step": "100m"}}),
                Some("250m"),
                Some("300m"),
            ),
            (
                json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]}),
                Some("2Gi"),
                Some("4Gi"),
            ),
            (
                json!({"default": "1Gi", "validValues": ["1Gi", "4Gi"]}),
                Some("5Gi"),
                None,
            ),
        ] {
            let mut capacity = json!({"value": "10Gi"});
            if policy != Value::Null {
                capacity["requestPolicy"] = policy.clone();
            }
            let device: Device =
                serde_json::from_value(json!({"name": "d", "capacity": {"memory": capacity}})).unwrap();
            let request = asked.map(|asked| -> CapacityRequirements {
                serde_json::from_value(json!({"requests": {"memory": asked}})).unwrap()
            });
            let amount = consumed(request.as_ref(), &device).map(|all| all["memory"].to_string());
            assert_eq!(amount.as_deref(), expected, "{policy} {asked:?}");
            let other: CapacityRequirements = serde_json::from_value(json!({"requests": {"cores": "1"}})).unwrap();
            assert_eq!(consumed(Some(&other), &device), None, "there are no cores");
        }
    }

    #[test]
    fn shares_add_up() {
        let device: Device =
            serde_json::from_value(json!({"name": "d", "capacity": {"memory": {"value": "10Gi"}}})).unwrap();
        let amount = |text: &str| Amounts::from([("memory".to_owned(), text.parse().unwrap())]);
        let (four, six, seven) = (amount("4Gi"), amount("6Gi"), amount("7Gi"));
        assert!(is_enough(&device, &four, [&six].into_iter()));
        assert!(!is_enough(&device, &four, [&seven].into_iter()));
        assert!(!is_enough(&device, &four, [&four, &four].into_iter()));
        assert!(!is_enough(&device, &amount("11Gi"), std::iter::empty()));
    }
}
