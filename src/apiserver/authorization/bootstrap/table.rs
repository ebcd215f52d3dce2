//! How the tables of roles and bindings are written, and the objects that they stand for.

use crate::apiserver::authorization::rbac::GROUP;
use crate::apiserver::authorization::rule::Rule;
use crate::registry::strategy::Object;
use serde_json::{Value, json};

const AGGREGATE_LABEL: &str = "rbac.authorization.k8s.io/aggregate-to-";
const BOOTSTRAPPING_LABEL: &str = "kubernetes.io/bootstrapping";
/// Whether the object may be brought back to what it is here.
pub(super) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// One rule; lists are separated by blanks, and `core` is the group without a name.
pub(super) struct Row {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    paths: &'static str,
}

pub(super) const fn may(verbs: &'static str, groups: &'static str, resources: &'static str) -> Row {
    named(verbs, groups, resources, "")
}

pub(super) const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Row {
    Row {
        verbs,
        groups,
        resources,
        names,
        paths: "",
    }
}

pub(super) const fn paths(verbs: &'static str, paths: &'static str) -> Row {
    Row {
        verbs,
        groups: "",
        resources: "",
        names: "",
        paths,
    }
}

/// A role and its rules.
pub(super) struct RoleRow {
    pub name: &'static str,
    pub rows: &'static [Row],
    /// The aggregated role that it is a part of.
    pub part_of: &'static str,
    /// It consists of the parts of this.
    pub gathers: &'static str,
}

impl RoleRow {
    pub const fn new(name: &'static str, rows: &'static [Row]) -> Self {
        Self {
            name,
            rows,
            part_of: "",
            gathers: "",
        }
    }

    pub const fn part_of(self, role: &'static str) -> Self {
        Self { part_of: role, ..self }
    }

    pub const fn gathering(self, role: &'static str) -> Self {
        Self { gathers: role, ..self }
    }

    pub fn rules(&self) -> Vec<Rule> {
        self.rows.iter().map(Row::rule).collect()
    }

    /// The object; `rules` are its own, or what it gathers.
    pub fn object(&self, name: &str, namespace: &str, rules: &[Rule]) -> Object {
        let kind = if namespace.is_empty() { "ClusterRole" } else { "Role" };
        let mut object = object(kind, name, namespace);
        if !self.part_of.is_empty() {
            object["metadata"]["labels"][format!("{AGGREGATE_LABEL}{}", self.part_of)] = json!("true");
        }
        if !self.gathers.is_empty() {
            let labels = json!({ format!("{AGGREGATE_LABEL}{}", self.gathers): "true" });
            let rule = json!({ "clusterRoleSelectors": [{ "matchLabels": labels }] });
            object.insert("aggregationRule".into(), rule);
        }
        object.insert("rules".into(), json!(rules));
        object
    }
}

impl Row {
    fn rule(&self) -> Rule {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let groups = self.groups.split_whitespace();
        Rule {
            verbs: words(self.verbs),
            api_groups: groups
                .map(|group| {
                    if group == "core" {
                        String::new()
                    } else {
                        group.to_owned()
                    }
                })
                .collect(),
            resources: words(self.resources),
            resource_names: words(self.names),
            non_resource_urls: words(self.paths),
        }
    }
}

/// A binding of the role of its name.
pub(super) struct BindingRow {
    pub name: &'static str,
    pub role: &'static str,
    /// `user:NAME`, `group:NAME` or `account:NAMESPACE/NAME`, separated by blanks.
    pub subjects: &'static str,
}

impl BindingRow {
    pub const fn new(role: &'static str, subjects: &'static str) -> Self {
        Self {
            name: role,
            role,
            subjects,
        }
    }

    pub const fn called(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    pub fn object(&self, namespace: &str) -> Object {
        binding(self.name, namespace, self.role, self.subjects)
    }
}

pub(super) fn binding(name: &str, namespace: &str, role: &str, subjects: &str) -> Object {
    let (kind, role_kind) = match namespace {
        "" => ("ClusterRoleBinding", "ClusterRole"),
        _ => ("RoleBinding", "Role"),
    };
    let mut object = object(kind, name, namespace);
    object.insert(
        "roleRef".into(),
        json!({"apiGroup": GROUP, "kind": role_kind, "name": role}),
    );
    let subjects: Vec<Value> = subjects.split_whitespace().filter_map(subject).collect();
    if !subjects.is_empty() {
        object.insert("subjects".into(), json!(subjects));
    }
    object
}

fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    Some(match kind {
        "user" => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        "group" => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        _ => {
            let (namespace, name) = name.split_once('/')?;
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    })
}

fn object(kind: &str, name: &str, namespace: &str) -> Object {
    let mut metadata = Object::new();
    metadata.insert("name".into(), json!(name));
    if !namespace.is_empty() {
        metadata.insert("namespace".into(), json!(namespace));
    }
    metadata.insert("labels".into(), json!({ BOOTSTRAPPING_LABEL: "rbac-defaults" }));
    metadata.insert("annotations".into(), json!({ AUTOUPDATE: "true" }));
    let mut object = Object::new();
    object.insert("kind".into(), json!(kind));
    object.insert("apiVersion".into(), json!(format!("{GROUP}/v1")));
    object.insert("metadata".into(), Value::Object(metadata));
    object
}
