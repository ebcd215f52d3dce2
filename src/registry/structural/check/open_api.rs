//! What of OpenAPI a schema may use, and how Kubernetes' extensions go together
//! (upstream: `ValidateCustomResourceDefinitionOpenAPISchema`).

use super::rules::{self, Totals};
use super::{flag, is_set, is_zero, members_at, schema_at, schemas_at, text};
use crate::registry::cel::Decl;
use crate::registry::field::FieldError;
use crate::registry::strategy::Object;
use crate::registry::structural::data;
use crate::registry::structural::embedded::META_FIELDS;
use crate::registry::structural::node::Node;
use serde_json::Value;
use std::sync::Arc;

/// What holds for a schema by where it stands.
#[derive(Clone, Default)]
pub(super) struct Place {
    /// Why there may be no defaults.
    no_defaults: Option<String>,
    inside_meta: bool,
    /// The path from which on nothing tells what a value was before.
    pub uncorrelated: Option<String>,
}

/// The compiled schema beside the one that is checked; None where rules are not looked at.
#[derive(Clone)]
pub(super) struct Context<'n> {
    pub node: &'n Node,
    /// The data as rules see it, from the outermost schema with rules on.
    pub decl: Option<Arc<Decl>>,
    /// How often the data can occur; None if there is no bound.
    pub cardinality: Option<u64>,
    is_root: bool,
}

/// The errors of schemas and of rules; the latter only count where there are none of the former.
#[derive(Default)]
pub(super) struct Found {
    pub schema: Vec<FieldError>,
    pub rules: Vec<FieldError>,
}

pub(super) fn check(schema: &Object, path: &str, root: Option<&Node>) -> Vec<FieldError> {
    let mut totals = Totals::default();
    let context = root.map(|node| Context {
        node,
        decl: None,
        cardinality: Some(1),
        is_root: true,
    });
    let found = visit(schema, path, &Place::default(), true, context.as_ref(), &mut totals);
    let mut errors = found.schema;
    errors.extend(found.rules);
    if root.is_some() {
        errors.extend(totals.exceeded(path));
    }
    errors
}

impl<'n> Context<'n> {
    /// The context of a part: `node` and its data, which can occur `times` as often.
    fn part(&self, node: Option<&'n Node>, decl: Option<Arc<Decl>>, times: Option<u64>) -> Option<Self> {
        let cardinality = match (self.cardinality, times) {
            (Some(outer), Some(times)) => Some(outer.saturating_mul(times)),
            _ => None,
        };
        Some(Self {
            node: node?,
            decl,
            cardinality,
            is_root: false,
        })
    }

    /// The data of this schema, if rules here or further out need it.
    pub fn declared(&self) -> Option<Arc<Decl>> {
        match &self.decl {
            Some(decl) => Some(decl.clone()),
            None if self.node.has_rules => data::declared(self.node, self.is_root || self.node.embedded),
            None => None,
        }
    }
}

/// How much more often parts of this schema can occur than itself.
fn multiplicity(schema: &Object) -> Option<u64> {
    let count = |key: &str| Some(u64::try_from(schema.get(key)?.as_i64()?).unwrap_or(0));
    match text(schema, "type") {
        "object" if is_set(schema, "additionalProperties") => count("maxProperties"),
        "array" => count("maxItems"),
        _ => Some(1),
    }
}

fn visit(
    schema: &Object,
    path: &str,
    place: &Place,
    is_root: bool,
    context: Option<&Context<'_>>,
    totals: &mut Totals,
) -> Found {
    let mut found = Found::default();
    standard(schema, path, place, &mut found.schema);
    if flag(schema, "uniqueItems") {
        found.schema.push(FieldError::forbidden(
            format!("{path}.uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ));
    }
    let times = multiplicity(schema);
    let decl = context.and_then(Context::declared);
    let mut visit_part = |found: &mut Found, part: &Object, at: String, place: &Place, context: Option<Context<'_>>| {
        let inner = visit(part, &at, place, false, context.as_ref(), totals);
        found.schema.extend(inner.schema);
        found.rules.extend(inner.rules);
    };
    additional(schema, path, &mut found.schema);
    if let Some(values) = schema_at(schema, "additionalProperties") {
        let mut place = place.clone();
        if place.inside_meta {
            place.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        let context = context
            .and_then(|context| context.part(context.node.additional_schema(), data::values(decl.as_ref()), times));
        visit_part(
            &mut found,
            values,
            format!("{path}.additionalProperties"),
            &place,
            context,
        );
    }
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let correlated_map = matches!(text(schema, "x-kubernetes-map-type"), "" | "granular" | "atomic");
    for (name, property) in members_at(schema, "properties") {
        let mut place = place.clone();
        if !correlated_map {
            place.uncorrelated.get_or_insert_with(|| path.to_owned());
        }
        if (is_root || embedded) && META_FIELDS.contains(&name) {
            place.inside_meta = true;
            if is_root {
                place.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        let context = context.and_then(|context| {
            let node = context.node.property(name)?;
            let decl = decl.as_ref().and_then(|decl| data::property(Some(decl), name, node));
            context.part(Some(node), decl, times)
        });
        visit_part(
            &mut found,
            property,
            format!("{path}.properties[{name}]"),
            &place,
            context,
        );
    }
    if let Some(part) = schema_at(schema, "not") {
        visit_part(&mut found, part, format!("{path}.not"), place, None);
    }
    for key in ["allOf", "oneOf", "anyOf"] {
        for (index, part) in schemas_at(schema, key) {
            visit_part(&mut found, part, format!("{path}.{key}[{index}]"), place, None);
        }
    }
    for (name, part) in members_at(schema, "definitions") {
        visit_part(&mut found, part, format!("{path}.definitions[{name}]"), place, None);
    }
    if is_set(schema, "items") {
        let mut place = place.clone();
        if text(schema, "x-kubernetes-list-type") != "map" {
            place.uncorrelated.get_or_insert_with(|| path.to_owned());
        }
        if let Some(items) = schema_at(schema, "items") {
            let context = context
                .and_then(|context| context.part(context.node.items.as_deref(), data::items(decl.as_ref()), times));
            visit_part(&mut found, items, format!("{path}.items"), &place, context);
        }
        for (index, part) in schemas_at(schema, "items") {
            visit_part(&mut found, part, format!("{path}.items[{index}]"), &place, None);
        }
    }
    for (name, part) in members_at(schema, "dependencies") {
        visit_part(&mut found, part, format!("{path}.dependencies[{name}]"), place, None);
    }
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        found.schema.push(FieldError::invalid(
            format!("{path}.x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        ));
    }
    kinds(schema, path, &mut found.schema);
    map_keys(schema, path, &mut found.schema);
    rules::check(schema, path, place, context, decl.as_ref(), &mut found, totals);
    found
}

/// Parts of OpenAPI that are not to be used.
fn standard(schema: &Object, path: &str, place: &Place, errors: &mut Vec<FieldError>) {
    const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(at("type"), kind, &TYPES));
    }
    if is_set(schema, "default")
        && let Some(reason) = &place.no_defaults
    {
        errors.push(FieldError::forbidden(
            at("default"),
            &format!("must not be set {reason}"),
        ));
    }
    for key in [
        "id",
        "additionalItems",
        "patternProperties",
        "definitions",
        "dependencies",
        "$ref",
    ] {
        let is_there = match key {
            "id" | "patternProperties" | "definitions" => schema.get(key).is_some_and(|value| !is_zero(value)),
            _ => is_set(schema, key),
        };
        if is_there {
            errors.push(FieldError::forbidden(at(key), &format!("{key} is not supported")));
        }
    }
    if kind == "null" {
        errors.push(FieldError::forbidden(
            at("type"),
            "type cannot be set to null, use nullable as an alternative",
        ));
    }
    if schema
        .get("items")
        .is_some_and(|items| items.is_array() && !is_zero(items))
    {
        errors.push(FieldError::forbidden(
            at("items"),
            "items must be a schema object and not an array",
        ));
    }
    if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
        errors.push(FieldError::forbidden(
            at("x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        ));
    }
}

fn additional(schema: &Object, path: &str, errors: &mut Vec<FieldError>) {
    let has_properties = schema_at(schema, "properties").is_some_and(|properties| !properties.is_empty());
    let restricts = matches!(
        schema.get("additionalProperties"),
        Some(Value::Bool(false) | Value::Object(_))
    );
    if has_properties && restricts {
        errors.push(FieldError::forbidden(
            format!("{path}.additionalProperties"),
            "additionalProperties and properties are mutual exclusive",
        ));
    }
}

/// Types of lists and maps, and what they ask of the schema.
fn kinds(schema: &Object, path: &str, errors: &mut Vec<FieldError>) {
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    let mut must_be = |expected: &str, key: &str| {
        let detail = format!("must be {expected} if {key} is specified");
        errors.push(if kind.is_empty() {
            FieldError::required(at("type"), &detail)
        } else {
            FieldError::invalid(at("type"), kind, &detail)
        });
    };
    let map_type = schema.get("x-kubernetes-map-type").and_then(Value::as_str);
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    if map_type.is_some() && kind != "object" {
        must_be("object", "x-kubernetes-map-type");
    }
    let wrong_list = list_type.is_some() && kind != "array";
    if wrong_list {
        must_be("array", "x-kubernetes-list-type");
    }
    if let Some(map_type) = map_type.filter(|map_type| !matches!(*map_type, "atomic" | "granular")) {
        let supported = ["atomic", "granular"];
        errors.push(FieldError::not_supported(
            at("x-kubernetes-map-type"),
            map_type,
            &supported,
        ));
    }
    if !wrong_list
        && list_type == Some("set")
        && let Some(items) = schema_at(schema, "items")
    {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let stated = items.get("x-kubernetes-list-type").cloned().unwrap_or_default();
        match text(items, "type") {
            "array" if !matches!(text(items, "x-kubernetes-list-type"), "" | "atomic") => {
                errors.push(FieldError::invalid(at("items.x-kubernetes-list-type"), stated, detail));
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                errors.push(FieldError::invalid(at("items.x-kubernetes-map-type"), stated, detail));
            }
            _ => {}
        }
    }
    if let Some(list_type) = list_type.filter(|list_type| !matches!(*list_type, "atomic" | "set" | "map")) {
        let supported = ["atomic", "set", "map"];
        errors.push(FieldError::not_supported(
            at("x-kubernetes-list-type"),
            list_type,
            &supported,
        ));
    }
}

/// The keys of lists of type map.
fn map_keys(schema: &Object, path: &str, errors: &mut Vec<FieldError>) {
    let at = |key: &str| format!("{path}.{key}");
    let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    let stated = schema.get("x-kubernetes-list-map-keys").cloned().unwrap_or_default();
    let keys: Vec<&str> = stated
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !keys.is_empty() && list_type != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(match list_type {
            None => FieldError::required(at("x-kubernetes-list-type"), detail),
            Some(other) => FieldError::invalid(at("x-kubernetes-list-type"), other, detail),
        });
    }
    let items = schema_at(schema, "items");
    if list_type == Some("map") {
        if keys.is_empty() {
            errors.push(FieldError::required(
                at("x-kubernetes-list-map-keys"),
                "must not be empty if x-kubernetes-list-type is map",
            ));
        }
        match items {
            None if is_set(schema, "items") => errors.push(FieldError::invalid(
                at("items"),
                schema["items"].clone(),
                "must only have a single schema if x-kubernetes-list-type is map",
            )),
            None => errors.push(FieldError::required(
                at("items"),
                "must have a schema if x-kubernetes-list-type is map",
            )),
            Some(items) if text(items, "type") != "object" => errors.push(FieldError::invalid(
                at("items.type"),
                text(items, "type"),
                "must be object if parent array's x-kubernetes-list-type is map",
            )),
            Some(items) => {
                for (index, key) in keys.iter().enumerate() {
                    let property = schema_at(items, "properties").and_then(|properties| schema_at(properties, key));
                    match property.map(|property| text(property, "type")) {
                        Some("array" | "object") => errors.push(FieldError::invalid(
                            at(&format!("items.properties[{key}].type")),
                            text(items, "type"),
                            "must be a scalar type if parent array's x-kubernetes-list-type is map",
                        )),
                        Some(_) => {}
                        None => errors.push(FieldError::invalid(
                            at("x-kubernetes-list-map-keys"),
                            stated.clone(),
                            "entries must all be names of item properties",
                        )),
                    }
                    if keys[..index].contains(key) {
                        errors.push(FieldError::invalid(
                            at("x-kubernetes-list-map-keys"),
                            stated.clone(),
                            "must not contain duplicate entries",
                        ));
                    }
                }
            }
        }
    }
    let (Some(items), Some(list_type @ ("map" | "set"))) = (items, list_type) else {
        return;
    };
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(at("items.nullable"), &detail));
    }
    if list_type != "map" {
        return;
    }
    let required: Vec<&str> = items
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for key in keys {
        let Some(property) = schema_at(items, "properties").and_then(|properties| schema_at(properties, key)) else {
            continue;
        };
        if !required.contains(&key) && !is_set(property, "default") {
            errors.push(FieldError::required(
                at(&format!("items.properties[{key}].default")),
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ));
        }
        if flag(property, "nullable") {
            errors.push(FieldError::forbidden(
                at(&format!("items.properties[{key}].nullable")),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            ));
        }
    }
}
