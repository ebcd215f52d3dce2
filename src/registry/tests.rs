//! Rules that hold for every row, and that no input makes a strategy panic.

use super::row::review_verbs;
use super::strategy::{Object, Target};
use super::{Kind, Registry, index_of, schema, validation};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const OBJECTS_PER_KIND: usize = 60;
const DEPTH_MAX: usize = 12;

#[test]
fn definitions_have_upstreams_names() {
    for kind in Registry::builtin().kinds() {
        let group = match kind.group.split('.').next() {
            Some("") | None => "core",
            Some(group) => group,
        };
        let package = match group {
            "apiextensions" => "apiextensions-apiserver.pkg.apis.apiextensions",
            "apiregistration" => "kube-aggregator.pkg.apis.apiregistration",
            "metrics" => "metrics.pkg.apis.metrics",
            group => &format!("api.{group}"),
        };
        let expected = format!("io.k8s.{package}.{}.{}", kind.version, kind.kind);
        assert_eq!(kind.definition, expected);
    }
}

#[test]
fn rows_are_consistent() {
    let registry = Registry::builtin();
    let mut seen = BTreeSet::new();
    for kind in registry.kinds() {
        let row = format!("{}/{}", kind.group_version(), kind.resource);
        assert!(seen.insert(row.clone()), "{row} stands twice in the table");
        assert!(kind.verbs.is_sorted(), "{row}: {:?}", kind.verbs);
        assert!(
            kind.subresources.iter().map(|sub| sub.name).is_sorted(),
            "{row}: subresources"
        );
        for subresource in &kind.subresources {
            assert!(subresource.verbs.is_sorted(), "{row}/{}", subresource.name);
        }
        let own_version = kind.group_version() == kind.storage_group_version;
        if own_version {
            assert_eq!(kind.storage_resource, kind.group_resource(), "{row}");
        }
        if kind.verbs != review_verbs() {
            let stored = registry.lookup_storage(kind.storage_resource);
            let stored = stored.unwrap_or_else(|| panic!("{row} is stored nowhere"));
            assert_eq!(stored.group_version(), kind.storage_group_version, "{row}");
        }
        let found = registry
            .lookup(kind.group, kind.version, kind.resource)
            .expect("a row is found by resource");
        assert_eq!(found.kind, kind.kind);
        let found = registry
            .lookup_kind(kind.group, kind.version, kind.kind)
            .expect("a row is found by kind");
        assert_eq!(found.resource, kind.resource);
    }
}

#[test]
fn groups_stand_in_upstreams_order() {
    let registry = Registry::builtin();
    let groups: Vec<&str> = registry.groups().iter().map(|group| group.name).collect();
    let head = [
        "",
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
    ];
    assert_eq!(groups.get(..head.len()), Some(head.as_slice()));
    assert!(registry.groups().iter().all(|group| !group.versions.is_empty()));
}

#[test]
fn unknown_kinds_are_not_found() {
    let registry = Registry::builtin();
    assert!(registry.lookup("apps", "v1beta1", "deployments").is_none());
    assert!(registry.lookup_kind("", "v1", "pods").is_none());
}

#[test]
fn every_column_has_a_cell() {
    for kind in Registry::builtin().kinds() {
        let columns = kind.strategy.columns();
        let cells = kind.strategy.cells(&Object::new(), 0);
        assert_eq!(columns.len(), cells.len(), "{}", kind.kind);
        assert!(
            cells.iter().all(|cell| !cell.is_object() && !cell.is_array()),
            "{}: {cells:?}",
            kind.kind
        );
    }
}

#[test]
fn selectable_fields_are_indexed_under_their_alias() {
    for kind in Registry::builtin().kinds() {
        let indexed: Vec<&str> = kind
            .strategy
            .fields(&Object::new())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        for field in kind.strategy.selectable_fields() {
            // Accepted and never matched by a value: upstream does not index it either.
            let without_value = *field == "status.podIPs";
            let alias = kind.strategy.field_alias(field);
            assert!(without_value || indexed.contains(&alias), "{} {field}", kind.kind);
        }
    }
}

/// A value of the shape of `node`, now and then of another.
fn generate(random: &mut StdRng, node: &schema::Node, depth: usize) -> Value {
    use schema::Node;
    if depth > DEPTH_MAX || random.random_ratio(1, 40) {
        return junk(random, depth);
    }
    let text = |random: &mut StdRng| {
        const TEXTS: [&str; 24] = [
            "",
            "a",
            "my-name",
            "A b",
            "..",
            "../x",
            "/abs",
            "a.b/c",
            "a=b",
            "1Gi",
            "-5",
            "10%",
            "Always",
            "Never",
            "TCP",
            "ClusterFirst",
            "None",
            "ClientIP",
            "ExternalName",
            "2026-01-01T00:00:00Z",
            "é",
            "10.0.0.1",
            "::1",
            "metadata.labels['a']",
        ];
        TEXTS[random.random_range(0..TEXTS.len())]
    };
    match node {
        Node::Object(definition) | Node::Either(definition, _) => {
            let mut object = Map::new();
            let mut names: Vec<&String> = definition.object().properties.keys().collect();
            names.sort_unstable();
            for name in names {
                if depth == 0 || random.random_ratio(1, 3) {
                    let property = &definition.object().properties[name];
                    object.insert(name.clone(), generate(random, &property.node, depth + 1));
                }
            }
            Value::Object(object)
        }
        Node::Map(item) => {
            let mut object = Map::new();
            for _ in 0..random.random_range(0..3) {
                let key = text(random).to_owned();
                object.insert(key, generate(random, item, depth + 1));
            }
            Value::Object(object)
        }
        Node::List(item) => (0..random.random_range(0..3))
            .map(|_| generate(random, item, depth + 1))
            .collect(),
        Node::Int32 | Node::Int64 => json!(random.random_range(-2_i64..70_000)),
        Node::Double => json!(0.5),
        Node::Boolean => json!(random.random_bool(0.5)),
        Node::IntOrString if random.random_bool(0.5) => json!(random.random_range(-1_i64..100)),
        _ => json!(text(random)),
    }
}

fn junk(random: &mut StdRng, depth: usize) -> Value {
    match random.random_range(0..7) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(i64::MIN),
        3 => json!(1.5),
        4 => json!("junk"),
        5 if depth < DEPTH_MAX => json!([junk(random, depth + 1)]),
        _ if depth < DEPTH_MAX => json!({"junk": junk(random, depth + 1)}),
        _ => json!(u64::MAX),
    }
}

pub fn object_of(random: &mut StdRng, kind: &Kind) -> Object {
    let definition = schema::definition(kind);
    match generate(random, &schema::Node::Object(definition), 0) {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

#[test]
fn nothing_panics_and_defaults_are_stable() {
    // A fixed seed: a failure can be repeated.
    let mut random = StdRng::seed_from_u64(6443);
    for kind in Registry::builtin().kinds() {
        let strategy = &kind.strategy;
        let mut old = Object::new();
        for _ in 0..OBJECTS_PER_KIND {
            let given = object_of(&mut random, &kind);
            let mut object = given.clone();
            strategy.default(&mut object);
            let mut again = object.clone();
            strategy.default(&mut again);
            assert_eq!(
                again,
                object,
                "{}: defaulting twice, given {}",
                kind.kind,
                Value::Object(given)
            );

            let mut created = object.clone();
            strategy.prepare_for_create(&mut created);
            strategy.validate(&created);
            strategy.validate_create(&created);
            if let Some(Value::Object(metadata)) = created.get("metadata") {
                validation::object_meta(&kind, metadata);
                validation::object_meta_update(metadata, metadata);
            }
            strategy.warnings(&created, None);
            for target in [Target::Main, Target::Status, Target::Subresource("ephemeralcontainers")] {
                let mut updated = object.clone();
                strategy.prepare_for_update(&mut updated, &old, target);
                strategy.validate_update(&updated, &old, target);
                strategy.warnings(&updated, Some(&old));
            }
            let mut converted = created.clone();
            strategy.convert_to_storage(&mut converted);
            index_of(&kind, &converted);
            strategy.convert_from_storage(&mut converted);
            assert_eq!(strategy.cells(&converted, 0).len(), strategy.columns().len());
            strategy.row_conditions(&created);
            strategy.deletion(&created, None);
            strategy.mark_deleted(&mut created.clone());
            old = created;
        }
    }
}
