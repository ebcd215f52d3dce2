//! Adds to poem-openapi's document what it cannot express: `x-kubernetes-*` extensions, texts beside references,
//! defaults (upstream: the extensions that `openapi-gen` and the installer write).

use super::defaults;
use super::operations::{DELETE_OPTIONS, Operation, Route, STATUS, WATCH_EVENT, list_definition, routes};
use super::schemas::{json_schemas, reference};
use crate::registry::Registry;
use crate::registry::schema::{ListType, facts};
use serde_json::{Map, Value, json};
use std::collections::{BTreeSet, HashMap};

const ACTION: &str = "x-kubernetes-action";
const KIND: &str = "x-kubernetes-group-version-kind";

/// Decorates the document that was made from the kinds of `registry`.
pub fn decorate(document: &mut Value, registry: &Registry) {
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for route in routes(registry) {
            if let Some(path) = paths.get_mut(&route.path).and_then(Value::as_object_mut) {
                decorate_path(path, &route);
            }
        }
    }
    let kinds = kinds_of_definitions(registry);
    let texts = json_schemas(registry);
    let schemas = document
        .pointer_mut("/components/schemas")
        .and_then(Value::as_object_mut);
    for (name, schema) in schemas.into_iter().flatten() {
        if let Some(schema) = schema.as_object_mut() {
            decorate_schema(name, schema, &texts);
            if let Some(kinds) = kinds.get(name) {
                schema.insert(KIND.to_owned(), kinds.clone());
            }
        }
    }
}

fn kind_value([group, version, kind]: [&str; 3]) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn decorate_path(path: &mut Map<String, Value>, route: &Route) {
    for operation in &route.operations {
        let method = operation.method.as_str().to_ascii_lowercase();
        let Some(target) = path.get_mut(&method).and_then(Value::as_object_mut) else {
            continue;
        };
        target.insert("description".to_owned(), describe(operation).into());
        if let (Some(action), Some(kind)) = (operation.action, operation.kind) {
            target.insert(ACTION.to_owned(), action.into());
            target.insert(KIND.to_owned(), kind_value(kind));
        }
        // poem-openapi writes these whether or not they say something.
        for parameter in target
            .get_mut("parameters")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(parameter) = parameter.as_object_mut() {
                parameter.shift_remove("deprecated");
                parameter.shift_remove("explode");
                if let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) {
                    schema.insert("uniqueItems".to_owned(), true.into());
                }
            }
        }
    }
}

fn describe(operation: &Operation) -> String {
    let Some([_, _, kind]) = operation.kind else {
        return "what is served here".to_owned();
    };
    match operation.action {
        Some("list") => format!("list or watch objects of kind {kind}"),
        Some("watch") => format!("watch changes to an object of kind {kind}; deprecated: use watch on a list"),
        Some("watchlist") => format!("watch changes to objects of kind {kind}; deprecated: use watch on a list"),
        Some("post") => format!("create a {kind}"),
        Some("deletecollection") => format!("delete many objects of kind {kind}"),
        Some("get") => format!("read the specified {kind}"),
        Some("put") => format!("replace the specified {kind}"),
        Some("patch") => format!("partially update the specified {kind}"),
        Some("delete") => format!("delete a {kind}"),
        _ => format!("connect, with {kind}"),
    }
}

/// Which kinds a definition is the schema of.
fn kinds_of_definitions(registry: &Registry) -> HashMap<String, Value> {
    let mut kinds = HashMap::new();
    let snapshot = registry.snapshot();
    for kind in snapshot.builtin_kinds() {
        let own = |name: &str| json!([{"group": kind.group, "version": kind.version, "kind": name}]);
        kinds.insert(kind.definition.clone(), own(kind.kind));
        if kind.has_verb("list") {
            kinds.insert(list_definition(kind), own(&kind.list_kind));
        }
    }
    let mut everywhere: BTreeSet<(&str, &str)> = known_versions().collect();
    for group in snapshot.builtin_groups() {
        everywhere.extend(group.versions.iter().map(|version| (group.name, *version)));
    }
    for (definition, kind) in [(DELETE_OPTIONS, "DeleteOptions"), (WATCH_EVENT, "WatchEvent")] {
        let all = everywhere
            .iter()
            .map(|&(group, version)| kind_value([group, version, kind]))
            .collect();
        kinds.insert(definition.to_owned(), Value::Array(all));
    }
    const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
    for (definition, kind) in [
        (STATUS.to_owned(), ["", "v1", "Status"]),
        (format!("{META}.APIGroup"), ["", "v1", "APIGroup"]),
        (format!("{META}.APIGroupList"), ["", "v1", "APIGroupList"]),
        (format!("{META}.APIResourceList"), ["", "v1", "APIResourceList"]),
        (format!("{META}.APIVersions"), ["", "v1", "APIVersions"]),
        ("io.k8s.api.core.v1.Binding".to_owned(), ["", "v1", "Binding"]),
        ("io.k8s.api.policy.v1.Eviction".to_owned(), ["policy", "v1", "Eviction"]),
        (
            "io.k8s.api.autoscaling.v1.Scale".to_owned(),
            ["autoscaling", "v1", "Scale"],
        ),
        (
            "io.k8s.api.authentication.v1.TokenRequest".to_owned(),
            ["authentication.k8s.io", "v1", "TokenRequest"],
        ),
    ] {
        kinds.insert(definition, json!([kind_value(kind)]));
    }
    kinds
}

/// Group-versions that upstream's types are registered for beside those that are served: a DeleteOptions may say it
/// is of any of them.
const KNOWN_VERSIONS: [(&str, &[&str]); 27] = [
    ("", &["v1"]),
    ("admission.k8s.io", &["v1", "v1beta1"]),
    ("admissionregistration.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("apiextensions.k8s.io", &["v1", "v1beta1"]),
    ("apiregistration.k8s.io", &["v1", "v1beta1"]),
    ("apps", &["v1", "v1beta1", "v1beta2"]),
    ("authentication.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("authorization.k8s.io", &["v1", "v1beta1"]),
    ("autoscaling", &["v1", "v2"]),
    ("batch", &["v1", "v1beta1"]),
    ("certificates.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("coordination.k8s.io", &["v1", "v1alpha2", "v1beta1"]),
    ("discovery.k8s.io", &["v1", "v1beta1"]),
    ("events.k8s.io", &["v1", "v1beta1"]),
    ("extensions", &["v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", &["v1", "v1beta1", "v1beta2", "v1beta3"]),
    ("imagepolicy.k8s.io", &["v1alpha1"]),
    ("internal.apiserver.k8s.io", &["v1alpha1"]),
    ("lifecycle.k8s.io", &["v1alpha1"]),
    ("networking.k8s.io", &["v1", "v1beta1"]),
    ("node.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("policy", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("resource.k8s.io", &["v1", "v1alpha3", "v1beta1", "v1beta2"]),
    ("scheduling.k8s.io", &["v1", "v1alpha2", "v1alpha3", "v1beta1"]),
    ("storage.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("storagemigration.k8s.io", &["v1", "v1beta1"]),
];

fn known_versions() -> impl Iterator<Item = (&'static str, &'static str)> {
    KNOWN_VERSIONS
        .iter()
        .flat_map(|(group, versions)| versions.iter().map(move |version| (*group, *version)))
}

/// Members and the names that the discriminator has for them.
type Members = [(&'static str, &'static str)];

/// Types of which one member at most may be set: the member that says which, and the others with the names that it
/// may have.
const UNIONS: [(&str, &str, &Members); 6] = [
    (
        "io.k8s.api.core.v1.AppArmorProfile",
        "type",
        &[("localhostProfile", "LocalhostProfile")],
    ),
    (
        "io.k8s.api.core.v1.PodSchedulingGroup",
        "",
        &[("podGroupName", "PodGroupName")],
    ),
    (
        "io.k8s.api.core.v1.SeccompProfile",
        "type",
        &[("localhostProfile", "LocalhostProfile")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.LimitResponse",
        "type",
        &[("queuing", "Queuing")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec",
        "type",
        &[("exempt", "Exempt"), ("limited", "Limited")],
    ),
    (
        "io.k8s.api.flowcontrol.v1.Subject",
        "kind",
        &[
            ("group", "Group"),
            ("serviceAccount", "ServiceAccount"),
            ("user", "User"),
        ],
    ),
];

fn union_of(definition: &str) -> Option<Value> {
    let (_, discriminator, members) = UNIONS.iter().find(|(name, ..)| *name == definition)?;
    let members: Map<String, Value> = members
        .iter()
        .map(|(field, value)| ((*field).to_owned(), Value::from(*value)))
        .collect();
    let mut union = Map::new();
    if !discriminator.is_empty() {
        union.insert("discriminator".to_owned(), (*discriminator).into());
    }
    union.insert("fields-to-discriminateBy".to_owned(), members.into());
    Some(json!([union]))
}

/// `all` has k8s-openapi's schemas.
fn decorate_schema(name: &str, schema: &mut Map<String, Value>, all: &Map<String, Value>) {
    let text = all.get(name).unwrap_or(&Value::Null);
    describe_schema(schema, text);
    let definition = name;
    let facts = facts::of(definition);
    if facts.atomic {
        schema.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
    }
    if let Some(union) = union_of(definition) {
        schema.insert("x-kubernetes-unions".to_owned(), union);
    }
    let rows: HashMap<&str, facts::Row> = facts.rows().collect();
    // k8s-openapi's own list has `metadata` in it, which upstream's has not.
    let required: Vec<Value> = facts
        .rows()
        .filter(|(_, row)| row.required)
        .map(|(name, _)| name.into())
        .collect();
    if !rows.is_empty() {
        schema.shift_remove("required");
        if !required.is_empty() {
            schema.insert("required".to_owned(), required.into());
        }
    }
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, schema) in properties.into_iter().flatten() {
        let text = text.pointer(&format!("/properties/{}", name.replace('~', "~0").replace('/', "~1")));
        if let (Some(text), Some(name)) = (text, schema.get("$ref").and_then(Value::as_str).map(str::to_owned)) {
            // Nothing may stand beside a reference.
            debug_assert!(reference(text).is_some());
            *schema = json!({"allOf": [{"$ref": name}]});
        }
        let Some(schema) = schema.as_object_mut() else { continue };
        describe_schema(schema, text.unwrap_or(&Value::Null));
        let row = rows.get(name.as_str());
        defaults::add(definition, name, schema, row, all);
        if let Some(row) = row {
            extend(schema, row);
        }
    }
}

fn describe_schema(schema: &mut Map<String, Value>, text: &Value) {
    if let Some(description) = text.get("description") {
        schema.shift_insert(0, "description".to_owned(), description.clone());
    }
}

/// The extensions of a row. They stand beside `items`, not within.
fn extend(schema: &mut Map<String, Value>, row: &facts::Row) {
    let mut insert = |key: &str, value: Value| schema.insert(key.to_owned(), value);
    let strategies: Vec<&str> = [
        (row.merge, "merge"),
        (row.retain_keys, "retainKeys"),
        (row.replace, "replace"),
    ]
    .iter()
    .filter_map(|&(set, name)| set.then_some(name))
    .collect();
    if !strategies.is_empty() {
        insert("x-kubernetes-patch-strategy", strategies.join(",").into());
    }
    if let Some(key) = &row.merge_key {
        insert("x-kubernetes-patch-merge-key", key.clone().into());
    }
    if let Some(list_type) = row.list_type {
        let list_type = match list_type {
            ListType::Atomic => "atomic",
            ListType::Set => "set",
            ListType::Map => "map",
        };
        insert("x-kubernetes-list-type", list_type.into());
    }
    if !row.list_map_keys.is_empty() {
        insert("x-kubernetes-list-map-keys", row.list_map_keys.clone().into());
    }
    if let Some(map_type) = row.map_type {
        insert("x-kubernetes-map-type", map_type.into());
    }
}
