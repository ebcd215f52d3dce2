//! Selectors of devices, for the scheduler (upstream: `dynamic-resource-allocation/cel`). The scheduler knows the devices,
//! the API server's side knows CEL: they meet here.

use crate::registry::cel::{CALL_COST_MAX, Environment, Error, Program, Type, Value, compile};
use crate::scheduler::devices::Expressions;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Compiled expressions that are kept.
const PROGRAMS_MAX: usize = 1000;

#[derive(Default)]
pub struct DeviceExpressions {
    programs: Mutex<HashMap<String, Arc<Program>>>,
}

impl DeviceExpressions {
    fn program(&self, expression: &str) -> Result<Arc<Program>, String> {
        let mut programs = self.programs.lock();
        if let Some(program) = programs.get(expression) {
            return Ok(program.clone());
        }
        let environment = Environment::default().with("device", Type::Dyn);
        let program = compile(expression, &environment).map_err(|error| format!("CEL compile error: {error}"))?;
        if programs.len() >= PROGRAMS_MAX {
            programs.clear();
        }
        let program = Arc::new(program);
        programs.insert(expression.to_owned(), program.clone());
        Ok(program)
    }
}

impl Expressions for DeviceExpressions {
    fn holds(&self, expression: &str, driver: &str, device: &Device) -> Result<bool, String> {
        let program = self.program(expression)?;
        let find = |name: &str| (name == "device").then(|| value_of(driver, device));
        let (result, _) = program.evaluate(&find, CALL_COST_MAX);
        match result {
            Ok(Value::Bool(holds)) => Ok(holds),
            Ok(_) => Err("CEL expression did not evaluate to a bool".into()),
            Err(error) => Err(format!("CEL runtime error: {error}")),
        }
    }
}

fn text(text: &str) -> Value<'static> {
    Value::from(text.to_owned())
}

fn map(members: impl IntoIterator<Item = (String, Value<'static>)>) -> Result<Value<'static>, Error> {
    let mut entries = crate::registry::cel::Entries::default();
    for (key, value) in members {
        entries.set(text(&key), value)?;
    }
    Ok(Value::map(entries))
}

/// `device.driver`, `device.attributes[DOMAIN].NAME`, `device.capacity[DOMAIN].NAME`.
fn value_of(driver: &str, device: &Device) -> Result<Value<'static>, Error> {
    // Names without a domain are the driver's own; the driver's domain is always there.
    let by_domain = |members: Vec<(&String, Value<'static>)>| {
        let mut domains: BTreeMap<String, Vec<(String, Value<'static>)>> = BTreeMap::new();
        domains.entry(driver.to_owned()).or_default();
        for (name, value) in members {
            let (domain, short) = name.split_once('/').unwrap_or((driver, name));
            domains
                .entry(domain.to_owned())
                .or_default()
                .push((short.to_owned(), value));
        }
        let maps: Result<Vec<_>, Error> = domains
            .into_iter()
            .map(|(domain, members)| Ok((domain, map(members)?)))
            .collect();
        map(maps?)
    };
    let attributes = device.attributes.iter().flatten();
    let attributes = attributes.filter_map(|(name, attribute)| Some((name, attribute_of(attribute)?)));
    let capacity = device.capacity.iter().flatten();
    let capacity = capacity.filter_map(|(name, capacity)| {
        let quantity = capacity.value.0.parse().ok()?;
        Some((name, Value::Quantity(quantity)))
    });
    map([
        ("driver".to_owned(), text(driver)),
        (
            "allowMultipleAllocations".to_owned(),
            Value::Bool(device.allow_multiple_allocations == Some(true)),
        ),
        ("attributes".to_owned(), by_domain(attributes.collect())?),
        ("capacity".to_owned(), by_domain(capacity.collect())?),
    ])
}

fn attribute_of(attribute: &DeviceAttribute) -> Option<Value<'static>> {
    let whole = attribute
        .bool
        .map(Value::Bool)
        .or_else(|| attribute.int.map(Value::Int));
    let words = || {
        attribute
            .string
            .as_ref()
            .or(attribute.version.as_ref())
            .map(|word| text(word))
    };
    whole.or_else(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_of_devices() {
        let device: Device = serde_json::from_value(json!({
            "name": "gpu-0",
            "attributes": {"model": {"string": "a100"}, "other.example/index": {"int": 3}, "healthy": {"bool": true}},
            "capacity": {"memory": {"value": "40Gi"}},
        }))
        .unwrap();
        let expressions = DeviceExpressions::default();
        for (expression, expected) in [
            ("device.driver == 'gpu.example'", Ok(true)),
            ("device.driver == 'other'", Ok(false)),
            ("device.attributes['gpu.example'].model == 'a100'", Ok(true)),
            ("device.attributes['other.example'].index > 2", Ok(true)),
            ("device.attributes['gpu.example'].healthy", Ok(true)),
            ("'missing' in device.attributes['gpu.example']", Ok(false)),
            (
                "device.capacity['gpu.example'].memory.compareTo(quantity('10Gi')) >= 0",
                Ok(true),
            ),
            (
                "device.capacity['gpu.example'].memory.isGreaterThan(quantity('80Gi'))",
                Ok(false),
            ),
            ("device.attributes['gpu.example'].missing == 1", Err(())),
            ("'text'", Err(())),
            ("nonsense(", Err(())),
        ] {
            let held = expressions.holds(expression, "gpu.example", &device);
            assert_eq!(held.clone().map_err(|_| ()), expected, "{expression}: {held:?}");
        }
    }
}
