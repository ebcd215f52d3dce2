//! Strategic merges against the schema of Pod.

use super::*;
use crate::registry::Registry;
use serde_json::json;

fn run(target: Value, patch: Value) -> Result<Value, u16> {
    let kind = Registry::builtin().lookup("", "v1", "pods").unwrap();
    let definition = schema::definition(&kind);
    apply(
        target.as_object().unwrap().clone(),
        patch.as_object().unwrap(),
        &definition,
    )
    .map(Value::Object)
    .map_err(|e| e.code().as_u16())
}

fn containers(names: &[&str]) -> Value {
    json!({"spec": {"containers": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}})
}

#[test]
fn lists_of_objects_merge_by_key() {
    let target = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
    let patch = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": null}]}});
    let merged = run(target, patch).unwrap();
    let expected = json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c"}]);
    assert_eq!(merged["spec"]["containers"], expected);
}

#[test]
fn directives_of_list_items() {
    let delete = json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}});
    assert_eq!(run(containers(&["a", "b"]), delete), Ok(containers(&["b"])));
    let replace = json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}});
    assert_eq!(run(containers(&["a", "b"]), replace), Ok(containers(&["c"])));
    let unknown = json!({"spec": {"containers": [{"name": "a", "$patch": "explode"}]}});
    assert_eq!(run(containers(&["a"]), unknown), Err(500));
    let keyless = json!({"spec": {"containers": [{"image": "x"}]}});
    assert_eq!(run(containers(&["a"]), keyless), Err(500));
}

#[test]
fn directives_of_maps() {
    let target = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    let replaced = run(
        target.clone(),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
    );
    assert_eq!(replaced, Ok(json!({"metadata": {"labels": {"c": "3"}}})));
    let deleted = run(target.clone(), json!({"metadata": {"labels": {"$patch": "delete"}}}));
    assert_eq!(deleted, Ok(json!({"metadata": {"labels": {}}})));
    let nothing = run(
        json!({"metadata": {}}),
        json!({"metadata": {"labels": {"$patch": "delete"}}}),
    );
    assert_eq!(nothing, Ok(json!({"metadata": {}})));
    let made = run(
        json!({"metadata": {}}),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
    );
    assert_eq!(made, Ok(json!({"metadata": {"labels": {"c": "3"}}})));
    for directive in ["merge", "explode"] {
        let patch = json!({"metadata": {"labels": {"$patch": directive}}});
        assert_eq!(run(target.clone(), patch), Err(500));
    }
    assert_eq!(
        run(target, json!({"metadata": {"labels": {"a": null}}})),
        Ok(json!({"metadata": {"labels": {"b": "2"}}}))
    );
}

#[test]
fn order_is_kept_or_set() {
    let order = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
    let patch = json!({"spec": {
        "$setElementOrder/containers": order(&["c", "a"]),
        "containers": [{"name": "c"}],
    }});
    assert_eq!(
        run(containers(&["a", "b", "c"]), patch),
        Ok(containers(&["b", "c", "a"]))
    );
    let only = json!({"spec": {"$setElementOrder/containers": order(&["b", "a"])}});
    assert_eq!(run(containers(&["a", "b"]), only), Ok(containers(&["b", "a"])));
    let lacking = json!({"spec": {"$setElementOrder/containers": order(&["a"]), "containers": [{"name": "b"}]}});
    assert_eq!(run(containers(&["a"]), lacking), Err(500));
    let contrary = json!({"spec": {
        "$setElementOrder/containers": order(&["a", "b"]),
        "containers": [{"name": "b"}, {"name": "a"}],
    }});
    assert_eq!(run(containers(&["a"]), contrary), Err(500));
    let no_list = json!({"spec": {"$setElementOrder/containers": "x"}});
    assert_eq!(run(containers(&["a"]), no_list), Err(500));
}

#[test]
fn primitive_lists_unite_and_shrink() {
    let target = json!({"metadata": {"finalizers": ["a", "b"]}});
    let united = run(target.clone(), json!({"metadata": {"finalizers": ["b", "c"]}})).unwrap();
    assert_eq!(united["metadata"]["finalizers"], json!(["a", "b", "c"]));
    let shrunk = run(
        target,
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
    )
    .unwrap();
    assert_eq!(shrunk["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn lists_without_strategy_are_replaced() {
    let target = json!({"spec": {"tolerations": [{"key": "a"}]}});
    let replaced = run(target, json!({"spec": {"tolerations": [{"key": "b", "value": null}]}})).unwrap();
    assert_eq!(replaced["spec"]["tolerations"], json!([{"key": "b"}]));
}

#[test]
fn retain_keys_drops_the_rest() {
    let target = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [
        {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}},
    ]}});
    let merged = run(target.clone(), patch).unwrap();
    assert_eq!(
        merged["spec"]["volumes"],
        json!([{"name": "v", "hostPath": {"path": "/x"}}])
    );
    let unlisted = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "hostPath": {"path": "/x"}}]}});
    assert_eq!(run(target, unlisted), Err(400));
}
