//! What holds for every object: generated ones of every kind, from a fixed seed.

use super::*;
use crate::registry::managed::typed::{compare, field_set, validate};
use crate::registry::managed::{element::same_objects, fields_v1};
use crate::registry::tests::object_of;
use crate::registry::{Kind, Registry};
use rand::SeedableRng;
use rand::rngs::StdRng;

const OBJECTS_PER_KIND: usize = 12;

/// A kind, and an object of it that the server could have read.
fn each(seed: u64, mut check: impl FnMut(&Kind, &Arc<Definition>, &mut StdRng, Object)) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut checked = 0;
    for kind in Registry::builtin().kinds() {
        let definition = schema::definition(&kind);
        for _ in 0..OBJECTS_PER_KIND {
            if let Some(object) = decoded(&kind, &definition, &mut random) {
                check(&kind, &definition, &mut random, object);
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "only {checked} objects could be read");
}

fn decoded(kind: &Kind, definition: &Arc<Definition>, random: &mut StdRng) -> Option<Object> {
    // Some generated values are of wrong types on purpose.
    (0..20).find_map(|_| {
        let mut object = object_of(random, kind);
        object.insert("apiVersion".into(), kind.group_version().into());
        object.insert("kind".into(), kind.kind.into());
        object.insert("metadata".into(), json!({"name": "n", "labels": {"a": "b"}}));
        let mut object = schema::prune(definition, Value::Object(object)).ok()?.object;
        object.remove("status");
        validate(definition, &object).ok().map(|()| object)
    })
}

fn write<'a>(definition: &'a Arc<Definition>, group_version: &'a str, manager: &'a str) -> Write<'a> {
    Write {
        definition,
        group_version,
        subresource: "",
        manager,
        now: NOW,
        reset: Reset::Without(&[&["status"]]),
        versions: &OneVersion,
    }
}

fn without_owners(object: &Object) -> Object {
    let mut object = object.clone();
    take(&mut object);
    object
}

#[test]
fn sets_survive_fields_v1() {
    each(1, |_, definition, _, object| {
        let set = field_set(definition, &object);
        let json = fields_v1::write(&set);
        assert_eq!(fields_v1::parse(&json).as_ref(), Some(&set), "{json}");
        let empty = Object::new();
        let diff = compare(definition, &empty, &object);
        let json = fields_v1::write(&diff.changed);
        assert_eq!(fields_v1::parse(&json).as_ref(), Some(&diff.changed), "{json}");
    });
}

#[test]
fn applying_twice_is_applying_once() {
    each(2, |kind, definition, _, config| {
        let version = kind.group_version();
        let write = write(definition, &version, "me");
        let once = apply(&write, None, &config, false).unwrap();
        let twice = apply(&write, Some(&once), &config, false).unwrap();
        assert_eq!(once, twice, "{}", kind.kind);
        let shown = Value::Object(config.clone());
        assert!(same_objects(&without_owners(&once), &config), "{}: {shown}", kind.kind);
    });
}

#[test]
fn two_owners_have_both_their_fields_and_leave_no_trace() {
    each(3, |kind, definition, random, first| {
        let Some(second) = decoded(kind, definition, random) else {
            return;
        };
        let version = kind.group_version();
        let (one, two) = (write(definition, &version, "one"), write(definition, &version, "two"));
        let alone = apply(&one, None, &first, true).unwrap();
        let both = apply(&two, Some(&alone), &second, true).unwrap();
        // What the second said is so; what it did not speak of is as the first said.
        let mut merged = without_owners(&both);
        typed::merge(definition, &mut merged, &second);
        assert!(same_objects(&merged, &without_owners(&both)), "{}", kind.kind);
        let owned: Vec<String> = summary(&both);
        let expected = fields_v1::write(&{
            let mut set = field_set(definition, &second);
            super::super::update::strip(&mut set);
            set
        });
        if expected != json!({}) {
            assert!(
                owned.contains(&format!("two Apply {expected}")),
                "{}: {owned:?}",
                kind.kind
            );
        }
        // When the second lets go, nothing stays that the first does not own.
        let nothing = object(json!({"apiVersion": version, "kind": kind.kind, "metadata": {"name": "n"}}));
        let left = apply(&two, Some(&both), &nothing, true).unwrap();
        assert!(summary(&left).iter().all(|entry| !entry.starts_with("two ")));
        let again = apply(&one, Some(&left), &first, true).unwrap();
        let mut remains = field_set(definition, &without_owners(&again)).into_owned();
        remains.subtract(&field_set(definition, &first));
        let paths = remains.paths();
        assert!(paths.is_empty(), "{}: {paths:?} of nobody", kind.kind);
    });
}

#[test]
fn an_update_owns_exactly_what_changed() {
    each(4, |kind, definition, random, first| {
        let Some(second) = decoded(kind, definition, random) else {
            return;
        };
        let version = kind.group_version();
        let mut old = first;
        update(&write(definition, &version, "one"), None, &mut old);
        let mut new = second;
        update(&write(definition, &version, "two"), Some(&old), &mut new);
        let plain = without_owners(&old);
        let changed = compare(definition, &plain, &without_owners(&new)).changed.into_owned();
        for entry in entries(&new) {
            let owned = fields_v1::parse(&entry["fieldsV1"]).unwrap();
            match entry["manager"].as_str() {
                Some("two") => {
                    let mut more = owned.clone();
                    more.subtract(&changed);
                    assert!(more.is_empty(), "{}: {:?}", kind.kind, more.paths());
                }
                _ => assert!(owned.intersection(&changed).is_empty(), "{}", kind.kind),
            }
        }
    });
}

/// Not a measurement of record: what tracking costs beside reading and writing the same object.
#[test]
fn tracking_costs_little() {
    let site = Site::deployment();
    let definition = site.definition.clone();
    let live = site.update("a", None, deployment());
    let text = serde_json::to_vec(&live).unwrap();
    let time = |mut run: Box<dyn FnMut() + '_>| {
        // The best of many: whatever else the machine does only makes it slower.
        let once = |_| {
            let start = std::time::Instant::now();
            run();
            start.elapsed()
        };
        (0..200).map(once).min().unwrap()
    };
    let reading = time(Box::new(|| {
        schema::decode(&definition, &text).unwrap();
        serde_json::from_slice::<Object>(&text).unwrap();
        serde_json::to_vec(&live).unwrap();
    }));
    let mut number = 0;
    let tracking = time(Box::new(|| {
        number += 1;
        let mut new = live.clone();
        new["spec"]["replicas"] = json!(number);
        update(&site.write("b", NOW), Some(&live), &mut new);
    }));
    let unchanged = time(Box::new(|| {
        let mut new = live.clone();
        update(&site.write("b", NOW), Some(&live), &mut new);
    }));
    eprintln!("reading and writing {reading:?}, tracking a change {tracking:?}, tracking none {unchanged:?}");
    assert!(tracking < reading * 2, "{tracking:?} beside {reading:?}");
}
