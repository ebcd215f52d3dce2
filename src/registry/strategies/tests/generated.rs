//! A property that holds for every kind, over objects made at random from the kinds' schemas, from fixed seeds.

use crate::registry::Registry;
use crate::registry::schema::{self, Definition, Node};
use crate::registry::strategy::Object;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use std::sync::Arc;

/// Deep enough for a pod's volumes in the template of a CronJob's job.
const DEPTH_MAX: usize = 12;
const OBJECTS_PER_KIND: usize = 40;
/// What defaults and rules look at, and what they do not know.
const WORDS: [&str; 22] = [
    "",
    "a",
    "a-b.example.com/c",
    "Always",
    "ClusterIP",
    "None",
    "NodePort",
    "LoadBalancer",
    "ExternalName",
    "RollingUpdate",
    "OnDelete",
    "Indexed",
    "Resource",
    "Utilization",
    "Localhost",
    "TCP",
    "IPv6",
    "10.0.0.1",
    "fd00::/64",
    "*/5 * * * *",
    "cpu",
    "/dev/a:latest",
];
const QUANTITIES: [&str; 5] = ["0", "1", "1500m", "0.5Gi", "1.0001"];

fn pick<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[random.random_range(0..from.len())]
}

fn object(random: &mut StdRng, definition: &Arc<Definition>, depth: usize) -> Object {
    let mut names: Vec<&String> = definition.object().properties.keys().collect();
    names.sort();
    // Large types are made thin, or objects would grow without end.
    let share = (6.0 / names.len().max(1) as f64).clamp(0.2, 0.6);
    let share = if depth < 3 { 0.8 } else { share };
    let mut object = Object::new();
    for name in names {
        if random.random_bool(share) {
            let node = &definition.object().properties[name].node;
            object.insert(name.clone(), value(random, node, depth + 1));
        }
    }
    object
}

fn value(random: &mut StdRng, node: &Node, depth: usize) -> Value {
    let few = if depth > DEPTH_MAX {
        0
    } else {
        random.random_range(0..3)
    };
    match node {
        Node::Object(definition) if depth <= DEPTH_MAX => object(random, definition, depth).into(),
        Node::Object(_) => json!({}),
        Node::Map(node) => {
            let words: Vec<&str> = (0..few).map(|_| pick(random, &WORDS)).collect();
            let members = words
                .iter()
                .map(|word| (word.to_string(), value(random, node, depth + 1)));
            Value::Object(members.collect())
        }
        Node::List(node) => (0..few).map(|_| value(random, node, depth + 1)).collect(),
        Node::String => pick(random, &WORDS).into(),
        Node::Bytes => "eA==".into(),
        Node::Time => "2026-01-01T00:00:00Z".into(),
        Node::MicroTime => "2026-01-01T00:00:00.000000Z".into(),
        Node::Int32 | Node::Int64 => random.random_range(-2..4).into(),
        Node::Double => 1.5.into(),
        Node::Boolean => random.random_bool(0.5).into(),
        Node::IntOrString if random.random_bool(0.5) => random.random_range(-2..4).into(),
        Node::IntOrString => pick(random, &["25%", "http", ""]).into(),
        Node::Quantity => pick(random, &QUANTITIES).into(),
        Node::Any => json!({"a": "b"}),
        Node::Either(definition, _) if random.random_bool(0.5) && depth <= DEPTH_MAX => {
            object(random, definition, depth).into()
        }
        Node::Either(_, node) => value(random, node, depth + 1),
    }
}

/// Two objects of every kind that can be written, and the kind.
fn for_all(seed: u64, check: impl Fn(&crate::registry::Kind, Object, Object)) {
    let mut random = StdRng::seed_from_u64(seed);
    for kind in Registry::builtin().kinds() {
        let definition = schema::definition(&kind);
        for _ in 0..OBJECTS_PER_KIND {
            let first = object(&mut random, &definition, 0);
            check(&kind, first, object(&mut random, &definition, 0));
        }
    }
}

#[test]
fn defaults_are_set_once_and_for_all() {
    for_all(11, |kind, mut once, _| {
        kind.strategy.default(&mut once);
        let mut twice = once.clone();
        kind.strategy.default(&mut twice);
        assert_eq!(twice, once, "{} {}", kind.group_version(), kind.kind);
    });
}
