//! A strategic merge that is done twice is the same as done once, for made-up objects and patches of every kind.

use super::*;
use crate::registry::Registry;
use crate::registry::schema::made_up::Maker;
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::json;

/// Patches made of each kind.
const ROUNDS: u64 = 30;

/// Counts of what the patches asked for, so that the test cannot pass by asking for nothing.
#[derive(Default, Debug)]
struct Asked {
    removed: usize,
    deleted_items: usize,
    deleted_primitives: usize,
    orders: usize,
    retained: usize,
    replaced: usize,
}

struct Patches {
    maker: Maker,
    asked: Asked,
}

impl Patches {
    fn chance(&mut self, of_hundred: u32) -> bool {
        self.maker.random.random_ratio(of_hundred, 100)
    }

    /// Makes a patch of what is at first a whole object: takes out much, and adds directives.
    fn roughen(&mut self, patch: &mut Object, shape: Shape<'_>) {
        let names: Vec<String> = patch.keys().cloned().collect();
        for name in names {
            if self.chance(35) {
                patch.shift_remove(&name);
                continue;
            }
            if self.chance(10) {
                patch.insert(name, Value::Null);
                self.asked.removed += 1;
                continue;
            }
            match patch.get_mut(&name) {
                Some(Value::Object(member)) => {
                    let mut member = std::mem::take(member);
                    self.roughen(&mut member, shape.member(&name));
                    if self.chance(5) {
                        member.insert(DIRECTIVE.into(), json!("replace"));
                        // A replacing map is taken as it stands.
                        member.retain(|_, value| !value.is_null());
                        self.asked.replaced += 1;
                    }
                    patch.insert(name, Value::Object(member));
                }
                Some(Value::Array(items)) => {
                    let items = std::mem::take(items);
                    let property = shape.property(&name);
                    self.roughen_list(patch, &name, items, property);
                }
                _ => {}
            }
        }
        let retains = patch.keys().all(|key| !key.starts_with('$')) && self.chance(5);
        if retains && !patch.is_empty() {
            let kept: Vec<Value> = patch.keys().map(|key| json!(key)).collect();
            patch.insert(RETAIN_KEYS.into(), Value::Array(kept));
            self.asked.retained += 1;
        }
    }

    fn roughen_list(&mut self, patch: &mut Object, name: &str, mut items: Vec<Value>, property: Option<&Property>) {
        let merges = property.is_some_and(|property| property.patch_merge);
        let key = property.and_then(|property| property.patch_merge_key.clone());
        if merges && items.iter().all(Value::is_string) {
            if self.chance(30) {
                patch.insert(format!("{DELETE_PREFIX}{name}"), json!(["a", "0"]));
                items.retain(|item| item != "a" && item != "0");
                self.asked.deleted_primitives += 1;
            }
        } else if let (true, Some(key)) = (merges, key) {
            // The order may name more than the patch has, but must not contradict it.
            let ordered = self.chance(40);
            if ordered {
                items.shuffle(&mut self.maker.random);
            }
            let mut order: Vec<Value> = items.iter().map(|item| json!({&key: item[&key]})).collect();
            for item in &mut items {
                if self.chance(25) {
                    order.retain(|kept| kept[&key] != item[&key]);
                    *item = json!({&key: item[&key], DIRECTIVE: "delete"});
                    self.asked.deleted_items += 1;
                }
            }
            if ordered {
                patch.insert(format!("{ORDER_PREFIX}{name}"), Value::Array(order));
                self.asked.orders += 1;
            }
        }
        patch.insert(name.to_owned(), Value::Array(items));
    }
}

/// Gives every item of a list that merges by key a key of its own, as validation demands.
fn with_keys(value: &mut Value, node: &Node, property: Option<&Property>) {
    match (value, node) {
        (Value::Object(object), Node::Object(definition)) => {
            for (name, property) in &definition.object().properties {
                if let Some(member) = object.get_mut(name) {
                    with_keys(member, &property.node, Some(property));
                }
            }
        }
        (Value::Object(object), Node::Map(values)) => {
            object.values_mut().for_each(|value| with_keys(value, values, None));
        }
        (Value::Array(items), Node::List(item)) => {
            let key = property.filter(|property| property.patch_merge);
            let key = key.and_then(|property| property.patch_merge_key.as_deref());
            for (position, value) in items.iter_mut().enumerate() {
                with_keys(value, item, None);
                if let (Some(key), Value::Object(object)) = (key, value) {
                    let number = matches!(item.as_object().and_then(|d| d.object().properties.get(key)),
                        Some(property) if matches!(property.node, Node::Int32 | Node::Int64));
                    let own = if number {
                        json!(position)
                    } else {
                        json!(format!("k{position}"))
                    };
                    object.insert(key.to_owned(), own);
                }
            }
            if items.iter().all(Value::is_string) {
                let mut seen = Vec::new();
                items.retain(|item| {
                    !seen.contains(item) && {
                        seen.push(item.clone());
                        true
                    }
                });
            }
        }
        _ => {}
    }
}

#[test]
fn a_patch_that_is_applied_twice_changes_nothing_more() {
    let mut patches = Patches {
        maker: Maker::new(11),
        asked: Asked::default(),
    };
    let (mut kinds, mut changed) = (0, 0);
    for kind in Registry::builtin().kinds() {
        let definition = schema::definition(&kind);
        let node = Node::Object(definition.clone());
        kinds += 1;
        for round in 0..ROUNDS {
            let mut make = || {
                let mut value = Value::Object(patches.maker.object(&definition, 0));
                with_keys(&mut value, &node, None);
                match value {
                    Value::Object(object) => object,
                    _ => Object::new(),
                }
            };
            let (target, mut patch) = (make(), make());
            patches.roughen(&mut patch, Shape::Object(definition.object()));
            let context = || {
                format!(
                    "{} round {round}: {}",
                    kind.kind,
                    json!({"target": target, "patch": patch})
                )
            };
            let once =
                apply(target.clone(), &patch, &definition).unwrap_or_else(|error| panic!("{error}: {}", context()));
            let twice =
                apply(once.clone(), &patch, &definition).unwrap_or_else(|error| panic!("{error}: {}", context()));
            assert_eq!(Value::Object(once.clone()), Value::Object(twice), "{}", context());
            changed += usize::from(once != target);
        }
    }
    println!(
        "{kinds} kinds, {changed} patches changed their object, {:?}",
        patches.asked
    );
    assert!(kinds > 50 && changed > 1000, "{kinds} {changed}");
    let asked = &patches.asked;
    let least = [
        asked.removed,
        asked.deleted_items,
        asked.deleted_primitives,
        asked.orders,
        asked.retained,
        asked.replaced,
    ];
    assert!(least.iter().all(|count| *count > 10), "{asked:?}");
}
