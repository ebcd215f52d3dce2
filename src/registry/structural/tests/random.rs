//! Properties that hold for every schema and every object: generated ones, from fixed seeds.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const NAMES: [&str; 5] = ["a", "b", "c.d", "kind", "spec"];

fn schema(random: &mut StdRng, depth: usize) -> Value {
    let pick = random.random_range(0..if depth == 0 { 5 } else { 9 });
    let mut schema = match pick {
        0 => json!({"type": "string", "maxLength": random.random_range(0..4)}),
        1 => json!({"type": "integer", "minimum": random.random_range(-2..3)}),
        2 => json!({"type": "number"}),
        3 => json!({"type": "boolean"}),
        4 => json!({"x-kubernetes-int-or-string": true}),
        5 => {
            json!({"type": "array", "items": schema(random, depth - 1), "x-kubernetes-list-type": (if random.random_bool(0.5) { "atomic" } else { "set" })})
        }
        6 => json!({"type": "object", "additionalProperties": schema(random, depth - 1)}),
        _ => {
            let mut properties = serde_json::Map::new();
            for name in NAMES {
                if random.random_bool(0.6) {
                    properties.insert(name.to_owned(), schema(random, depth - 1));
                }
            }
            let mut object = json!({"type": "object", "properties": properties});
            if random.random_bool(0.2) {
                object["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            if random.random_bool(0.2) {
                object["x-kubernetes-embedded-resource"] = true.into();
            }
            if random.random_bool(0.3) {
                object["required"] = json!([NAMES[random.random_range(0..NAMES.len())]]);
            }
            object
        }
    };
    if random.random_bool(0.2) {
        schema["nullable"] = true.into();
    }
    if random.random_bool(0.3) {
        schema["default"] = value(random, 2);
    }
    if random.random_bool(0.1) {
        schema["anyOf"] = json!([{"minProperties": 1}, {"minLength": 1}, {"not": {"required": ["a"]}}]);
    }
    schema
}

fn value(random: &mut StdRng, depth: usize) -> Value {
    match random.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => random.random_bool(0.5).into(),
        2 => random.random_range(-3..4).into(),
        3 => 1.5.into(),
        4 => "x".into(),
        5 => "some text".into(),
        6 => (0..random.random_range(0..3))
            .map(|_| value(random, depth - 1))
            .collect(),
        _ => {
            let mut members = serde_json::Map::new();
            for name in NAMES.iter().chain(&["metadata", "unknown"]) {
                if random.random_bool(0.5) {
                    members.insert(name.to_string(), value(random, depth - 1));
                }
            }
            members.into()
        }
    }
}

#[test]
fn every_schema_prunes_and_defaults_once_and_for_all() {
    let mut random = StdRng::seed_from_u64(7);
    let (mut dropped_any, mut failed_any) = (0, 0);
    for _ in 0..3000 {
        let schema = compiled(&with_spec(schema(&mut random, 3)));
        let mut new = object(json!({"apiVersion": "a/v1", "kind": "K", "spec": value(&mut random, 4)}));
        dropped_any += usize::from(!schema.prune(&mut new).is_empty());
        let once = new.clone();
        assert_eq!(schema.prune(&mut new), [""; 0]);
        assert_eq!(new, once);

        schema.default(&mut new);
        let once = new.clone();
        schema.default(&mut new);
        assert_eq!(new, once);

        // What was decoded along the definition is what pruning leaves.
        let definition = schema.definition("com.example.v1.K");
        let decoded = crate::registry::schema::prune(&definition, Value::Object(once.clone()));
        if let Ok(mut decoded) = decoded {
            schema.prune(&mut decoded.object);
            let mut expected = once.clone();
            schema.prune(&mut expected);
            assert_eq!(decoded.object, expected);
        }

        let errors = schema.validate(&new, None);
        failed_any += usize::from(!errors.is_empty());
        // Nothing changed, so no value that the schema knows is held against the object.
        for error in schema.validate(&new, Some(&new)) {
            assert!(errors.contains(&error), "{error}");
        }
    }
    assert!(dropped_any > 300 && failed_any > 300, "{dropped_any} {failed_any}");
}
