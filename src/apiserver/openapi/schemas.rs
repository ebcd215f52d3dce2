//! The schemas of all kinds: k8s-openapi's schemars schemas as poem-openapi's types
//! (upstream: what `openapi-gen` makes of the Go types).

use super::operations::list_definition;
use crate::registry::Registry;
use crate::registry::intern::intern;
use k8s_openapi::api::{authentication, autoscaling, core, policy};
use k8s_openapi::apimachinery::pkg::{apis::meta::v1 as meta, version};
use poem_openapi::registry::{MetaSchema, MetaSchemaRef};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Names that JSON Schema cannot say enough about.
pub const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
pub const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
/// Any value at all.
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// JSON schemas by definition, descriptions included, as k8s-openapi has them; references are `#/$defs/NAME`.
pub fn json_schemas(registry: &Registry) -> Map<String, Value> {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let snapshot = registry.snapshot();
    for kind in snapshot.builtin_kinds() {
        (kind.json_schema)(&mut generator);
    }
    add_types_that_are_no_kinds(&mut generator);
    let mut schemas = generator.take_definitions(false);
    for kind in snapshot.builtin_kinds().iter().filter(|kind| kind.has_verb("list")) {
        schemas.insert(list_definition(kind), list_schema(kind.kind, &kind.definition));
    }
    schemas
}

fn add_types_that_are_no_kinds(generator: &mut SchemaGenerator) {
    generator.subschema_for::<meta::APIGroup>();
    generator.subschema_for::<meta::APIGroupList>();
    generator.subschema_for::<meta::APIResourceList>();
    generator.subschema_for::<meta::APIVersions>();
    generator.subschema_for::<meta::DeleteOptions>();
    generator.subschema_for::<meta::ListMeta>();
    generator.subschema_for::<meta::Patch>();
    generator.subschema_for::<meta::Status>();
    generator.subschema_for::<meta::WatchEvent<()>>();
    generator.subschema_for::<version::Info>();
    generator.subschema_for::<authentication::v1::TokenRequest>();
    generator.subschema_for::<autoscaling::v1::Scale>();
    generator.subschema_for::<core::v1::Binding>();
    generator.subschema_for::<policy::v1::Eviction>();
}

/// k8s-openapi has one generic list, and no schema for it.
fn list_schema(kind: &str, definition: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("{kind}List is a list of {kind}."),
        "properties": {
            "apiVersion": {"type": "string", "description": "The version of the schema of this list."},
            "items": {
                "type": "array",
                "description": format!("The objects of kind {kind}."),
                "items": {"$ref": format!("#/$defs/{definition}")}
            },
            "kind": {"type": "string", "description": "The kind of this list."},
            "metadata": {"$ref": format!("#/$defs/{LIST_META}"), "description": "Metadata of the list as a whole."}
        },
        "required": ["items"]
    })
}

/// The same for poem-openapi, without descriptions.
pub fn meta_schemas(registry: &Registry) -> BTreeMap<String, MetaSchema> {
    let schemas = json_schemas(registry);
    schemas
        .iter()
        .map(|(name, schema)| (name.clone(), named_schema(name, schema)))
        .collect()
}

fn named_schema(name: &str, schema: &Value) -> MetaSchema {
    let one_of = |types: [&'static str; 2], format| MetaSchema {
        format,
        one_of: types
            .map(|ty| MetaSchemaRef::Inline(Box::new(MetaSchema::new(ty))))
            .into(),
        ..MetaSchema::ANY
    };
    match name {
        INT_OR_STRING => one_of(["integer", "string"], Some("int-or-string")),
        QUANTITY => one_of(["string", "number"], None),
        JSON => MetaSchema::ANY,
        _ => meta_schema(schema),
    }
}

/// The name of the definition that a schema refers to.
pub fn reference(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.rsplit('/').next()
}

fn meta_schema_ref(schema: &Value) -> MetaSchemaRef {
    match reference(schema) {
        Some(name) => MetaSchemaRef::Reference(name.to_owned()),
        None => MetaSchemaRef::Inline(Box::new(meta_schema(schema))),
    }
}

fn meta_schema(schema: &Value) -> MetaSchema {
    let text = |key| schema.get(key).and_then(Value::as_str);
    let inner = |key| schema.get(key).map(|schema| Box::new(meta_schema_ref(schema)));
    let properties = schema.get("properties").and_then(Value::as_object);
    let list = |key| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    MetaSchema {
        ty: text("type").map_or("", intern),
        format: text("format").map(intern),
        properties: properties
            .into_iter()
            .flatten()
            .map(|(name, schema)| (intern(name), meta_schema_ref(schema)))
            .collect(),
        required: list("required").filter_map(Value::as_str).map(intern).collect(),
        items: inner("items"),
        additional_properties: inner("additionalProperties"),
        one_of: list("oneOf").map(meta_schema_ref).collect(),
        ..MetaSchema::ANY
    }
}
