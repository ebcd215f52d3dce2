//! Made-up objects of every kind, along its schema, for property tests.

use super::shape::{element, is_empty};
use super::{Definition, Node, Property};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Below this only what must be there is made, so that recursive types end.
const DEPTH_MAX: usize = 9;

/// Makes objects as they are after a body was read: nothing in them is the same as absent.
pub struct Maker {
    pub random: StdRng,
    /// `definition.property` of all that was ever made.
    pub met: BTreeSet<String>,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            met: BTreeSet::new(),
        }
    }

    /// An object of `definition`; `depth` is 0 at the top.
    pub fn object(&mut self, definition: &Arc<Definition>, depth: usize) -> Map<String, Value> {
        let body = definition.object();
        let mut names: Vec<&String> = body.properties.keys().collect();
        names.sort_unstable();
        let mut object = Map::new();
        for name in names {
            let property = &body.properties[name];
            if property.wire.is_empty() {
                continue;
            }
            let required = body.required.contains(name);
            if !required && !is_always_there(property) && !self.picks(property, depth) {
                continue;
            }
            let value = self.value(&property.node, property.go_type, property.omit_empty, depth + 1);
            let is_struct = matches!(property.node, Node::Object(_)) && !property.go_type.starts_with('*');
            if required || !(is_struct && is_empty(&value)) {
                self.met.insert(format!("{}.{name}", definition.name));
                object.insert(name.clone(), value);
            }
        }
        object
    }

    fn picks(&mut self, property: &Property, depth: usize) -> bool {
        let deep = depth >= DEPTH_MAX && !is_scalar(&property.node);
        !deep && self.random.random_bool(0.4)
    }

    fn value(&mut self, node: &Node, go_type: &'static str, non_empty: bool, depth: usize) -> Value {
        let (item, item_type) = element(node, go_type);
        let count = if depth > DEPTH_MAX {
            1
        } else {
            self.random.random_range(1..3)
        };
        match node {
            Node::Object(definition) => Value::Object(self.object(definition, depth)),
            Node::List(_) => (0..count)
                .map(|_| self.value(item, item_type, false, depth + 1))
                .collect(),
            Node::Map(_) => {
                let entry = |n: usize| (format!("k{n}"), self.value(item, item_type, false, depth + 1));
                Value::Object((0..count).map(entry).collect())
            }
            Node::Either(definition, other) => match self.random.random_bool(0.5) || depth > DEPTH_MAX {
                true => self.value(other, "", true, depth + 1),
                false => Value::Object(self.object(definition, depth)),
            },
            scalar => self.scalar(scalar, non_empty),
        }
    }

    fn scalar(&mut self, node: &Node, non_empty: bool) -> Value {
        let zero = !non_empty && self.random.random_bool(0.2);
        match node {
            Node::String if zero => json!(""),
            Node::String => json!(["a", "some text", "ä\u{1F600}\"\n", "0"][self.random.random_range(0..4)]),
            Node::Bytes => json!(["AA==", "aGVsbG8=", "//8="][self.random.random_range(0..3)]),
            Node::Int32 | Node::IntOrString if zero => json!(0),
            Node::Int32 => json!([1, -1, i32::MAX, i32::MIN, 443][self.random.random_range(0..5)]),
            Node::Int64 if zero => json!(0),
            Node::Int64 => json!([1, -1, i64::MAX, i64::MIN, 300][self.random.random_range(0..5)]),
            Node::IntOrString => [json!(-7), json!("http"), json!("25%")][self.random.random_range(0..3)].clone(),
            Node::Double => [json!(1), json!(-0.5), json!(1e300)][self.random.random_range(0..3)].clone(),
            Node::Boolean => json!(!zero),
            Node::Time => json!(["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][self.random.random_range(0..2)]),
            Node::MicroTime => json!("2026-01-02T03:04:05.600007Z"),
            Node::Quantity => json!(["0", "100m", "1Gi", "-2"][self.random.random_range(0..4)]),
            _ => json!({"a": [1, "x", null, {"b": true}], "f:c": {}}),
        }
    }
}

/// What Go writes even when it is zero, so that it is there after reading.
fn is_always_there(property: &Property) -> bool {
    !property.go_type.starts_with('*')
        && !property.omit_empty
        && !matches!(
            property.node,
            Node::Time | Node::MicroTime | Node::Any | Node::List(_) | Node::Map(_) | Node::Bytes
        )
}

fn is_scalar(node: &Node) -> bool {
    !matches!(node, Node::Object(_) | Node::List(_) | Node::Map(_) | Node::Either(..))
}
