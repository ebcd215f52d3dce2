//! Situations of ownership: who owns what after which write.

mod random;

use super::*;
use crate::registry::schema;
use crate::registry::table::Registry;
use serde_json::{Value, json};

const NOW: &str = "2026-01-02T03:04:05Z";

fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

fn definition(group: &str, version: &str, kind: &str) -> Arc<Definition> {
    schema::definition(&Registry::builtin().lookup_kind(group, version, kind).unwrap())
}

struct Site {
    definition: Arc<Definition>,
    group_version: &'static str,
}

impl Site {
    fn config_map() -> Self {
        Self {
            definition: definition("", "v1", "ConfigMap"),
            group_version: "v1",
        }
    }

    fn deployment() -> Self {
        Self {
            definition: definition("apps", "v1", "Deployment"),
            group_version: "apps/v1",
        }
    }

    fn write<'a>(&'a self, manager: &'a str, now: &'a str) -> Write<'a> {
        Write {
            definition: &self.definition,
            group_version: self.group_version,
            subresource: "",
            manager,
            now,
            reset: Reset::Without(&[&["status"]]),
            versions: &OneVersion,
        }
    }

    fn update(&self, manager: &str, live: Option<&Object>, new: Value) -> Object {
        let mut new = object(new);
        update(&self.write(manager, NOW), live, &mut new);
        new
    }

    /// The new object keeps the live managedFields, as one that was read and sent back.
    fn change(&self, manager: &str, live: &Object, change: impl FnOnce(&mut Value)) -> Object {
        let mut new = Value::Object(live.clone());
        change(&mut new);
        self.update(manager, Some(live), new)
    }

    fn apply(&self, manager: &str, live: Option<&Object>, config: Value) -> Result<Object, ApplyError> {
        apply(&self.write(manager, NOW), live, &object(config), false)
    }
}

fn entries(object: &Object) -> Vec<Value> {
    of(object).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// `manager operation fields` of each entry.
fn summary(object: &Object) -> Vec<String> {
    entries(object)
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry["manager"].as_str().unwrap(),
                entry["operation"].as_str().unwrap(),
                entry["fieldsV1"]
            )
        })
        .collect()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}, "data": data})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

fn message(result: Result<Object, ApplyError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_creator_owns_what_it_sent_as_upstream_writes_it() {
    let made = Site::deployment().update("kubectl-create", None, deployment());
    let expected = json!([{
        "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOW,
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                        ".": {}, "f:image": {}, "f:name": {},
                        "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                        "f:resources": {},
                    }}},
                },
            },
        },
    }]);
    assert_eq!(Value::Array(entries(&made)), expected);
}

#[test]
fn an_update_takes_what_it_changes() {
    let site = Site::config_map();
    let live = site.update("a", None, config_map(json!({"x": "1", "y": "1", "z": "1"})));
    let new = site.change("b", &live, |new| {
        new["data"]["x"] = json!("2");
        new["data"].as_object_mut().unwrap().remove("y");
        new["data"]["new"] = json!("1");
    });
    assert_eq!(
        summary(&new),
        [
            r#"a Update {"f:data":{".":{},"f:z":{}}}"#,
            r#"b Update {"f:data":{"f:new":{},"f:x":{}}}"#,
        ]
    );
    let same = site.change("c", &new, |_| {});
    assert_eq!(same, new, "a write that changes nothing leaves the owners");
}

#[test]
fn the_list_may_be_cleared_replaced_and_left_out() {
    let site = Site::config_map();
    let live = site.update("a", None, config_map(json!({"x": "1"})));
    let mut live = live;
    live["metadata"]["uid"] = json!("u");
    for reset in [json!([]), json!([{}])] {
        let cleared = site.change("b", &live, |new| new["metadata"]["managedFields"] = reset);
        assert!(entries(&cleared).is_empty());
        let later = site.change("b", &cleared, |new| new["data"]["x"] = json!("2"));
        assert!(entries(&later).is_empty(), "an object without owners stays so");
    }
    for ignored in [json!([{"manager": "x"}]), Value::Null] {
        let kept = site.change("b", &live, |new| new["metadata"]["managedFields"] = ignored);
        assert_eq!(summary(&kept), summary(&live));
    }
    let replaced = site.change("b", &live, |new| {
        new["metadata"]["managedFields"] = json!([{
            "manager": "other", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:x": {}}},
        }]);
    });
    assert_eq!(summary(&replaced), [r#"other Update {"f:data":{"f:x":{}}}"#]);
}

#[test]
fn more_than_ten_updaters_become_ancient() {
    let site = Site::config_map();
    let mut live = site.update("m00", None, config_map(json!({"k00": "1"})));
    for number in 1..12 {
        let manager = format!("m{number:02}");
        live = site.change(&manager, &live, |new| new["data"][format!("k{number:02}")] = json!("1"));
    }
    let managers: Vec<String> = entries(&live)
        .iter()
        .map(|entry| entry["manager"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(managers.len(), 10);
    assert_eq!(managers[0], "ancient-changes");
    assert!(summary(&live)[0].contains("f:k00") && summary(&live)[0].contains("f:k01"));
}

#[test]
fn an_apply_creates_owns_and_prunes() {
    let site = Site::config_map();
    let one = site.apply("a", None, config_map(json!({"x": "1", "y": "1"}))).unwrap();
    assert_eq!(summary(&one), [r#"a Apply {"f:data":{"f:x":{},"f:y":{}}}"#]);
    let two = site
        .apply("b", Some(&one), config_map(json!({"y": "1", "z": "1"})))
        .unwrap();
    assert_eq!(two["data"], json!({"x": "1", "y": "1", "z": "1"}));
    let three = site.apply("a", Some(&two), config_map(json!({}))).unwrap();
    assert_eq!(
        three["data"],
        json!({"y": "1", "z": "1"}),
        "y has another owner, x had none"
    );
    let again = site
        .apply("b", Some(&three), config_map(json!({"y": "1", "z": "1"})))
        .unwrap();
    assert_eq!(again, three, "the same again changes nothing");
}

#[test]
fn conflicts_are_told_and_forced() {
    let site = Site::deployment();
    let live = site.update("kubectl-create", None, deployment());
    let mut config = deployment();
    config["spec"]["replicas"] = json!(5);
    let error = site.apply("me", Some(&live), config.clone());
    assert_eq!(
        message(error),
        "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas"
    );
    config["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    let error = site.apply("me", Some(&live), config.clone());
    assert_eq!(
        message(error),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.replicas\n\
         - .spec.template.spec.containers[name=\"c\"].image"
    );
    let forced = apply(&site.write("me", NOW), Some(&live), &object(config.clone()), true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 5);
    assert!(!summary(&forced)[1].contains("f:replicas"), "{:?}", summary(&forced));
    config["spec"]["replicas"] = json!(6);
    let error = site.apply("other", Some(&forced), config).unwrap_err();
    let ApplyError::Conflicts(conflicts) = error else {
        panic!("{error}")
    };
    let expected = (".spec.replicas".to_owned(), "conflict with \"me\"".to_owned());
    assert!(conflicts.causes().contains(&expected), "{conflicts:?}");
}

#[test]
fn what_does_not_fit_the_schema_is_refused() {
    let site = Site::deployment();
    let refused = |change: fn(&mut Value)| {
        let mut config = deployment();
        change(&mut config);
        message(site.apply("me", None, config))
    };
    let prefix = "failed to create typed patch object (n/web; apps/v1, Kind=Deployment): ";
    type Change = fn(&mut Value);
    let rows: [(Change, &str); 6] = [
        (
            |c| c["spec"]["foo"] = json!(1),
            ".spec.foo: field not declared in schema",
        ),
        (
            |c| c["spec"]["replicas"] = json!("x"),
            ".spec.replicas: expected numeric (int or float), got string",
        ),
        (
            |c| c["metadata"]["labels"]["app"] = json!(1),
            ".metadata.labels.app: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (|c| c["spec"] = json!("x"), ".spec: expected map, got &{x}"),
        (
            |c| {
                let containers = &mut c["spec"]["template"]["spec"]["containers"];
                *containers = json!([{"name": "x"}, {"name": "x"}]);
            },
            ".spec.template.spec.containers: duplicate entries for key [name=\"x\"]",
        ),
        (
            |c| {
                c["spec"]["foo"] = json!(1);
                c["spec"]["paused"] = json!("x");
                c["status"] = json!([]);
            },
            "errors:\n  .spec.foo: field not declared in schema\n  .status: expected map, got &{[]}",
        ),
    ];
    for (change, expected) in rows {
        assert_eq!(refused(change), format!("{prefix}{expected}"));
    }
}

#[test]
fn the_owners_of_an_untracked_object_are_before_the_first_apply() {
    let site = Site::config_map();
    let live = object(config_map(json!({"x": "1"})));
    let error = site.apply("me", Some(&live), config_map(json!({"x": "2"})));
    assert_eq!(
        message(error),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x"
    );
}

#[test]
fn client_side_apply_hands_over_to_kubectl() {
    let site = Site::config_map();
    let mut before = config_map(json!({"x": "1", "y": "1"}));
    before["metadata"]["annotations"] = json!({
        "kubectl.kubernetes.io/last-applied-configuration": config_map(json!({"x": "1", "y": "1"})).to_string(),
    });
    let live = site.update("kubectl-client-side-apply", None, before);
    let applied = site
        .apply("kubectl", Some(&live), config_map(json!({"x": "2", "y": "1"})))
        .unwrap();
    assert_eq!(applied["data"]["x"], "2");
    let annotation = applied["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
        .as_str()
        .unwrap();
    assert!(
        annotation.contains(r#""x":"2""#) && annotation.ends_with("}\n"),
        "{annotation}"
    );
    // What somebody else changed since is not excused, and another manager has no such right.
    let changed = site.change("editor", &live, |new| new["data"]["x"] = json!("9"));
    let error = site.apply("kubectl", Some(&changed), config_map(json!({"x": "2", "y": "2"})));
    assert_eq!(
        message(error),
        "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.x"
    );
    assert!(site.apply("me", Some(&live), config_map(json!({"x": "2"}))).is_err());
}

#[test]
fn list_items_come_and_go_with_their_owners() {
    let site = Site::deployment();
    let env = |names: &[&str]| {
        let mut config = deployment();
        let items: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        config["spec"]["template"]["spec"]["containers"][0]["env"] = json!(items);
        config
    };
    let names = |object: &Object| -> Vec<String> {
        let list = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        let list = list.as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let one = site.apply("a", None, env(&["x", "y"])).unwrap();
    let two = site.apply("b", Some(&one), env(&["z", "y"])).unwrap();
    assert_eq!(names(&two), ["x", "z", "y"]);
    let three = site.apply("a", Some(&two), env(&["y"])).unwrap();
    assert_eq!(names(&three), ["z", "y"]);
}

#[test]
fn replicas_are_owned_through_scale() {
    let site = Site::deployment();
    let live = site.apply("applier", None, deployment()).unwrap();
    let path = |version: &str| (version == "apps/v1").then(|| vec!["spec".to_owned(), "replicas".to_owned()]);
    let scale = scale::to_scale(of(&live), &path).unwrap();
    assert_eq!(scale[0]["apiVersion"], "autoscaling/v1");
    assert_eq!(scale[0]["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    let taken = json!([{
        "manager": "scaler", "operation": "Update", "apiVersion": "autoscaling/v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}}}, "subresource": "scale", "time": NOW,
    }]);
    let parent = scale::to_parent(of(&live), Some(&taken), "apps/v1", &path).unwrap();
    assert!(
        !parent[0]["fieldsV1"]["f:spec"]
            .as_object()
            .unwrap()
            .contains_key("f:replicas")
    );
    assert_eq!(parent[1]["manager"], "scaler");
    assert_eq!(parent[1]["apiVersion"], "apps/v1");
    assert_eq!(parent[1]["subresource"], "scale");
    let unchanged = scale::to_parent(of(&live), Some(&scale), "apps/v1", &path).unwrap();
    assert_eq!(Some(&unchanged), of(&live));
}
