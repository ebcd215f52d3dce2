//! The roles and bindings that every cluster has, looked after at every start
//! (upstream: `pkg/registry/rbac/rest/storage_rbac.go`, `component-helpers/auth/rbac/reconciliation`).
//!
//! - `roles.rs`, `controllers.rs`, `namespaced.rs`: what there is, as tables; `table.rs`: how they read.
//! - This file: the plan that brings a store to it. What is missing is added; what users added stays.

mod controllers;
mod namespaced;
mod roles;
mod table;

use super::rbac::GROUP;
use super::rule::{Rule, missing};
use crate::apiserver::ApiServer;
use crate::apiserver::error::ApiError;
use crate::apiserver::handlers::engine::metadata;
use crate::apiserver::own_objects::{self, Plan};
use crate::registry::json::{items, text, texts};
use crate::registry::strategy::Object;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use std::sync::Arc;
use table::{AUTOUPDATE, RoleRow, binding};

const CONTROLLER_PREFIX: &str = "system:controller:";

/// The rules of a cluster role in the table.
pub fn rules_of(name: &str) -> Vec<Rule> {
    let row = roles::CLUSTER_ROLES.iter().find(|row| row.name == name);
    row.map(gathered).unwrap_or_default()
}

/// A role's own rules and those of its parts, as the aggregation controller puts them together.
fn gathered(role: &RoleRow) -> Vec<Rule> {
    let mut rules = role.rules();
    if role.gathers.is_empty() {
        return rules;
    }
    let mut parts: Vec<&RoleRow> = roles::CLUSTER_ROLES
        .iter()
        .filter(|row| row.part_of == role.gathers)
        .collect();
    parts.sort_by_key(|row| row.name);
    for rule in parts.into_iter().flat_map(gathered) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Every object, roles before the bindings that name them.
fn desired() -> Vec<Object> {
    let mut objects = Vec::new();
    for row in roles::CLUSTER_ROLES {
        objects.push(row.object(row.name, "", &gathered(row)));
    }
    for row in controllers::ROLES {
        let name = format!("{CONTROLLER_PREFIX}{}", row.name);
        objects.push(row.object(&name, "", &row.rules()));
    }
    for (namespace, row) in namespaced::ROLES {
        objects.push(row.object(row.name, namespace, &row.rules()));
    }
    for row in roles::CLUSTER_ROLE_BINDINGS {
        objects.push(row.object(""));
    }
    for row in controllers::ROLES {
        let name = format!("{CONTROLLER_PREFIX}{}", row.name);
        let account = format!("account:kube-system/{}", row.name);
        objects.push(binding(&name, "", &name, &account));
    }
    for (namespace, row) in namespaced::BINDINGS {
        objects.push(row.object(namespace));
    }
    objects
}

fn plan(desired: &Object, existing: Option<&Object>) -> Plan {
    let Some(existing) = existing else {
        return Plan::Create;
    };
    if text(existing, &["metadata", "annotations", AUTOUPDATE]) == "false" {
        return Plan::Nothing;
    }
    let role_changed = existing
        .get("roleRef")
        .is_some_and(|role| Some(role) != desired.get("roleRef"));
    if role_changed {
        return Plan::Replace;
    }
    let mut updated = existing.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in texts(desired, &["metadata", field]) {
            let known = texts(existing, &["metadata", field]).any(|(name, _)| name == key);
            if !known {
                let map = metadata::of_mut(&mut updated).entry(field).or_insert_with(|| json!({}));
                map[key] = json!(value);
            }
        }
    }
    match desired.get("aggregationRule") {
        Some(rule) => {
            let (held, wanted) = (
                selectors(existing),
                rule["clusterRoleSelectors"].as_array().cloned().unwrap_or_default(),
            );
            let absent: Vec<Value> = wanted.into_iter().filter(|selector| !held.contains(selector)).collect();
            if !absent.is_empty() {
                let all = [held, absent].concat();
                updated.insert("aggregationRule".into(), json!({ "clusterRoleSelectors": all }));
            }
        }
        None => {
            let held = rules(existing);
            let held: Vec<&Rule> = held.iter().collect();
            add(
                &mut updated,
                "rules",
                missing(&held, &rules(desired)).iter().map(|rule| json!(rule)),
            );
        }
    }
    let known = items(existing, &["subjects"]);
    let wanted = items(desired, &["subjects"]).iter();
    add(
        &mut updated,
        "subjects",
        wanted.filter(|subject| !known.contains(subject)).cloned(),
    );
    if updated == *existing {
        Plan::Nothing
    } else {
        Plan::Update(updated)
    }
}

fn selectors(role: &Object) -> Vec<Value> {
    items(role, &["aggregationRule", "clusterRoleSelectors"]).to_vec()
}

fn rules(role: &Object) -> Vec<Rule> {
    let rules = items(role, &["rules"]).iter();
    rules
        .filter_map(|rule| serde_json::from_value(rule.clone()).ok())
        .collect()
}

fn add(object: &mut Object, field: &str, more: impl Iterator<Item = Value>) {
    let more: Vec<Value> = more.collect();
    if more.is_empty() {
        return;
    }
    let list = object.entry(field).or_insert(Value::Null);
    match list {
        Value::Array(list) => list.extend(more),
        other => *other = Value::Array(more),
    }
}

/// Brings the store to the tables. Objects are written at once, so that they are one transaction or few.
pub async fn reconcile(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    try_join_all(["kube-system", "kube-public"].map(|name| ensure_namespace(server, name))).await?;
    let desired = desired();
    let (roles, bindings): (Vec<&Object>, Vec<&Object>) =
        desired.iter().partition(|object| object.get("roleRef").is_none());
    // A binding is checked against nothing, so that both could go together; the order is for those who watch.
    try_join_all(roles.into_iter().map(|object| apply(server, object))).await?;
    try_join_all(bindings.into_iter().map(|object| apply(server, object))).await?;
    Ok(())
}

async fn ensure_namespace(server: &Arc<ApiServer>, name: &str) -> Result<(), ApiError> {
    let namespace = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
    let is_there = |existing: Option<&Object>| existing.map_or(Plan::Create, |_| Plan::Nothing);
    match namespace {
        Value::Object(namespace) => own_objects::ensure(server, "", &namespace, "", is_there).await,
        _ => Ok(()),
    }
}

async fn apply(server: &Arc<ApiServer>, object: &Object) -> Result<(), ApiError> {
    own_objects::ensure(server, GROUP, object, "", |existing| plan(object, existing)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use std::collections::BTreeSet;

    fn named(name: &str, kind: &str) -> Object {
        let found = desired()
            .into_iter()
            .find(|object| text(object, &["metadata", "name"]) == name && text(object, &["kind"]) == kind);
        found.unwrap_or_else(|| panic!("{kind} {name} is not in the tables"))
    }

    #[test]
    fn the_tables_are_whole() {
        let objects = desired();
        let mut seen = BTreeSet::new();
        let registry = Registry::builtin();
        for object in &objects {
            let kind = registry.lookup_kind(GROUP, "v1", text(object, &["kind"])).unwrap();
            let key = (
                kind.resource,
                text(object, &["metadata", "namespace"]),
                text(object, &["metadata", "name"]),
            );
            assert!(seen.insert(key), "{key:?} is there twice");
            let errors = kind.strategy.validate(object);
            assert!(errors.is_empty(), "{key:?}: {errors:?}");
        }
        for object in objects.iter().filter(|object| object.contains_key("roleRef")) {
            let role = (
                if text(object, &["roleRef", "kind"]) == "Role" {
                    "roles"
                } else {
                    "clusterroles"
                },
                text(object, &["metadata", "namespace"]),
                text(object, &["roleRef", "name"]),
            );
            assert!(seen.contains(&role), "{role:?} is bound and not there");
        }
        assert!(objects.len() > 130, "{}", objects.len());
    }

    #[test]
    fn lists_in_rules_are_sorted_as_upstreams_are() {
        for object in desired() {
            for rule in rules(&object) {
                for list in [&rule.verbs, &rule.api_groups, &rule.resources, &rule.resource_names] {
                    assert!(list.is_sorted(), "{}: {list:?}", text(&object, &["metadata", "name"]));
                }
            }
        }
    }

    #[test]
    fn aggregated_roles_hold_their_parts() {
        let admin = rules(&named("admin", "ClusterRole"));
        let edit = rules(&named("edit", "ClusterRole"));
        let view = rules(&named("view", "ClusterRole"));
        assert!(edit.iter().all(|rule| admin.contains(rule)) && view.iter().all(|rule| edit.contains(rule)));
        assert!(admin.len() > edit.len() && edit.len() > view.len() && !view.is_empty());
        let secrets = |rules: &[Rule]| rules.iter().any(|rule| rule.resources.iter().any(|r| r == "secrets"));
        assert!(secrets(&edit) && !secrets(&view));
    }

    #[test]
    fn what_users_changed_stays_and_what_is_missing_comes_back() {
        let role = named("system:node-problem-detector", "ClusterRole");
        assert_eq!(plan(&role, None), Plan::Create);
        assert_eq!(plan(&role, Some(&role)), Plan::Nothing);
        let extra = json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]});
        let mut more = role.clone();
        more["rules"].as_array_mut().unwrap().push(extra.clone());
        more["metadata"]["labels"]["mine"] = json!("x");
        assert_eq!(plan(&role, Some(&more)), Plan::Nothing);
        let mut less = more.clone();
        less["rules"].as_array_mut().unwrap().remove(0);
        less["metadata"]["labels"] = json!({"mine": "x"});
        let Plan::Update(updated) = plan(&role, Some(&less)) else {
            panic!("no update")
        };
        assert_eq!(updated["metadata"]["labels"].as_object().unwrap().len(), 2);
        let held = rules(&updated);
        assert!(missing(&held.iter().collect::<Vec<_>>(), &rules(&role)).is_empty());
        assert!(updated["rules"].as_array().unwrap().contains(&extra));
        less["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(plan(&role, Some(&less)), Plan::Nothing);
    }

    #[test]
    fn bindings_get_their_subjects_back_or_are_made_anew() {
        let wanted = named("system:public-info-viewer", "ClusterRoleBinding");
        let mut held = wanted.clone();
        held["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": "jane"}]);
        let Plan::Update(updated) = plan(&wanted, Some(&held)) else {
            panic!("no update")
        };
        assert_eq!(updated["subjects"].as_array().unwrap().len(), 3);
        held["roleRef"]["name"] = json!("other");
        assert_eq!(plan(&wanted, Some(&held)), Plan::Replace);
    }

    #[test]
    fn aggregation_selectors_come_back_without_touching_rules() {
        let wanted = named("view", "ClusterRole");
        let mut held = wanted.clone();
        held["rules"] = json!([]);
        assert_eq!(plan(&wanted, Some(&held)), Plan::Nothing);
        held["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
        let Plan::Update(updated) = plan(&wanted, Some(&held)) else {
            panic!("no update")
        };
        assert_eq!(selectors(&updated).len(), 2);
    }
}
