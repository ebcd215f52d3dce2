//! Builds definitions from k8s-openapi's JSON schemas and the facts of the Go structs.

use super::{Definition, Node, Object, Property, facts};
use crate::registry::Kind;
use parking_lot::RwLock;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

type Catalogue = HashMap<String, Arc<Definition>, ahash::RandomState>;

/// All definitions built so far, by name.
static CATALOGUE: LazyLock<RwLock<Catalogue>> = LazyLock::new(RwLock::default);

/// The definition of a kind; built on first use, then a look-up.
pub fn definition(kind: &Kind) -> Arc<Definition> {
    if let Some(custom) = &kind.custom {
        return custom.schema().definition();
    }
    named(&kind.definition, kind.json_schema)
}

/// The definition of a type that is no kind of the table (DeleteOptions, Scale, TokenRequest).
pub fn type_definition<T: JsonSchema>() -> Arc<Definition> {
    named(&T::schema_name(), |generator| generator.subschema_for::<T>())
}

fn named(name: &str, json_schema: fn(&mut SchemaGenerator) -> Schema) -> Arc<Definition> {
    if let Some(definition) = CATALOGUE.read().get(name) {
        return definition.clone();
    }
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    json_schema(&mut generator);
    let schemas = generator.take_definitions(false);
    // Readers never see a definition without its body: declaring and filling happen under one write lock.
    let mut catalogue = CATALOGUE.write();
    let new: Vec<(Arc<Definition>, &Value)> = schemas
        .iter()
        .filter(|(name, _)| !catalogue.contains_key(*name))
        .map(|(name, schema)| (Definition::declare(name), schema))
        .collect();
    for (definition, _) in &new {
        catalogue.insert(definition.name.clone(), definition.clone());
    }
    for (definition, schema) in &new {
        definition.fill(object(&definition.name, schema, &schemas, &catalogue));
    }
    // A type without schemas of its own is an object without properties.
    catalogue
        .entry(name.to_owned())
        .or_insert_with(|| Definition::declare(name))
        .clone()
}

fn object(name: &str, schema: &Value, schemas: &Map<String, Value>, catalogue: &Catalogue) -> Object {
    let facts = facts::of(name);
    let mut rows: HashMap<&str, facts::Row, ahash::RandomState> = facts.rows().collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut required = Vec::new();
    let properties = properties.into_iter().flatten().map(|(name, schema)| {
        let row = rows.remove(name.as_str()).unwrap_or_default();
        if row.required {
            required.push(name.clone());
        }
        (name.clone(), property(node(schema, schemas, catalogue), row))
    });
    Object {
        properties: properties.collect(),
        required,
        atomic: facts.atomic,
        preserve_unknown: false,
        untyped: false,
    }
}

fn property(node: Node, row: facts::Row) -> Property {
    // Go never takes a struct or what a pointer points to for empty.
    let can_be_empty = match node {
        Node::String | Node::Bytes | Node::Int32 | Node::Int64 | Node::Double | Node::Boolean => true,
        Node::List(_) | Node::Map(_) => true,
        Node::Object(_) | Node::Either(..) | Node::Time | Node::MicroTime => false,
        Node::IntOrString | Node::Quantity | Node::Any => false,
    };
    let known = !row.go_type.is_empty();
    Property {
        node,
        patch_merge: row.merge,
        patch_retain_keys: row.retain_keys,
        patch_replace: row.replace,
        patch_merge_key: row.merge_key,
        list_type: row.list_type,
        list_map_keys: row.list_map_keys,
        default: row.default.map(Value::from),
        atomic_map: row.map_type == Some("atomic"),
        go_type: row.go_type,
        omit_empty: known && can_be_empty && !row.keep_empty && !row.go_type.starts_with('*'),
        wire: row.wire,
    }
}

/// The definitions that JSON shows as something other than an object.
fn special(name: &str) -> Option<Node> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => Node::Quantity,
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => Node::IntOrString,
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => Node::Time,
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => Node::MicroTime,
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => Node::Any,
        "io.k8s.apimachinery.pkg.runtime.RawExtension" => Node::Any,
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON" => Node::Any,
        _ => return None,
    })
}

fn node(schema: &Value, schemas: &Map<String, Value>, catalogue: &Catalogue) -> Node {
    if let Some(name) = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|path| path.rsplit('/').next())
    {
        return reference(name, schemas, catalogue);
    }
    let text = |key| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("format")) {
        ("array", _) => Node::List(Arc::new(child(schema, "items", schemas, catalogue))),
        ("object", _) if schema.get("additionalProperties").is_some() => {
            Node::Map(Arc::new(child(schema, "additionalProperties", schemas, catalogue)))
        }
        ("string", "byte") => Node::Bytes,
        ("string", _) => Node::String,
        ("integer", "int32") => Node::Int32,
        ("integer", _) => Node::Int64,
        ("number", _) => Node::Double,
        ("boolean", _) => Node::Boolean,
        _ => Node::Any,
    }
}

fn child(schema: &Value, key: &str, schemas: &Map<String, Value>, catalogue: &Catalogue) -> Node {
    schema
        .get(key)
        .map_or(Node::Any, |schema| node(schema, schemas, catalogue))
}

fn reference(name: &str, schemas: &Map<String, Value>, catalogue: &Catalogue) -> Node {
    if let Some(node) = special(name) {
        return node;
    }
    // `oneOf: [an object's definition, another shape]`
    if let Some([object, other]) = schemas
        .get(name)
        .and_then(|s| s.get("oneOf")?.as_array())
        .map(Vec::as_slice)
        && let Node::Object(definition) = node(object, schemas, catalogue)
    {
        return Node::Either(definition, Arc::new(node(other, schemas, catalogue)));
    }
    catalogue
        .get(name)
        .map_or(Node::Any, |definition| Node::Object(definition.clone()))
}
