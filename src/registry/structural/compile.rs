//! Reads JSONSchemaProps into nodes (upstream: `schema/convert.go`, and `apiserver/validation/formats.go` for formats).

use super::StructuralError;
use super::node::{Additional, Constraints, Format, Node, Properties, Type};
use super::rules::Rules;
use crate::registry::schema::ListType;
use crate::registry::strategy::Object;
use crate::registry::string_formats;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;

/// Texts that occurred before in the same schema.
#[derive(Default)]
pub(super) struct Texts(HashSet<Arc<str>, ahash::RandomState>);

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return shared.clone();
        }
        let shared: Arc<str> = text.into();
        self.0.insert(shared.clone());
        shared
    }
}

/// What `NewStructural` refuses to read.
fn unsupported(schema: &Object) -> Option<&'static str> {
    let filled = |key: &str| match schema.get(key) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(_) => true,
    };
    [
        "id",
        "$schema",
        "$ref",
        "patternProperties",
        "dependencies",
        "additionalItems",
        "definitions",
    ]
    .into_iter()
    .find(|key| filled(key) || (*key == "additionalItems" && schema.get(*key).is_some_and(|value| !value.is_null())))
}

pub(super) fn node(schema: &Value, texts: &mut Texts) -> Result<Node, StructuralError> {
    let empty = Object::new();
    let schema = match schema {
        Value::Object(schema) => schema,
        Value::Null => &empty,
        _ => return Err(StructuralError::NotAnObject),
    };
    if let Some(key) = unsupported(schema) {
        return Err(StructuralError::Unsupported(if key == "$schema" {
            "schema"
        } else {
            key
        }));
    }
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Err(StructuralError::PreserveFalse);
    }
    let kind = Type::parse(text("type")).ok_or_else(|| StructuralError::Type(text("type").to_owned()))?;
    let int_or_string = flag("x-kubernetes-int-or-string");
    let mut node = Node {
        kind,
        nullable: flag("nullable"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        int_or_string,
        atomic_map: text("x-kubernetes-map-type") == "atomic",
        list_type: match text("x-kubernetes-list-type") {
            "atomic" => Some(ListType::Atomic),
            "set" => Some(ListType::Set),
            "map" => Some(ListType::Map),
            _ => None,
        },
        list_map_keys: strings(schema.get("x-kubernetes-list-map-keys"), texts),
        properties: properties(schema.get("properties"), texts)?,
        additional: additional(schema.get("additionalProperties"), texts)?,
        items: items(schema.get("items"), texts)?,
        default: schema
            .get("default")
            .filter(|value| !value.is_null())
            .cloned()
            .map(Box::new),
        constraints: constraints(schema, kind, int_or_string, texts)?.map(Box::new),
        rules: Rules::read(schema.get("x-kubernetes-validations"), texts_of(texts)).map(Box::new),
        has_rules: false,
    };
    node.has_rules = node.rules.is_some() || node.children().any(|child| child.has_rules);
    Ok(node)
}

/// A way to share texts for those who know nothing of [`Texts`].
fn texts_of(texts: &mut Texts) -> impl FnMut(&str) -> Arc<str> + '_ {
    |text| texts.share(text)
}

fn strings(value: Option<&Value>, texts: &mut Texts) -> Box<[Arc<str>]> {
    let items = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter_map(Value::as_str)
        .map(|text| texts.share(text))
        .collect()
}

fn properties(value: Option<&Value>, texts: &mut Texts) -> Result<Properties, StructuralError> {
    let Some(Value::Object(members)) = value else {
        return Ok(Box::default());
    };
    let mut properties = members
        .iter()
        .map(|(name, schema)| Ok((texts.share(name), node(schema, texts)?)))
        .collect::<Result<Vec<_>, StructuralError>>()?;
    properties.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(properties.into())
}

fn additional(value: Option<&Value>, texts: &mut Texts) -> Result<Additional, StructuralError> {
    Ok(match value {
        None | Some(Value::Null) => Additional::Absent,
        Some(Value::Bool(false)) => Additional::Nothing,
        Some(Value::Bool(true)) => Additional::Anything,
        Some(schema) => Additional::Schema(Box::new(node(schema, texts)?)),
    })
}

fn items(value: Option<&Value>, texts: &mut Texts) -> Result<Option<Box<Node>>, StructuralError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(_)) => Err(StructuralError::ItemsArray),
        Some(schema) => Ok(Some(Box::new(node(schema, texts)?))),
    }
}

fn nested(value: Option<&Value>, texts: &mut Texts) -> Result<Box<[Node]>, StructuralError> {
    let schemas = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    schemas.iter().map(|schema| node(schema, texts)).collect()
}

fn constraints(
    schema: &Object,
    kind: Type,
    int_or_string: bool,
    texts: &mut Texts,
) -> Result<Option<Constraints>, StructuralError> {
    const KEYS: &[&str] = &[
        "format",
        "maximum",
        "minimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "enum",
        "maxProperties",
        "minProperties",
        "required",
        "allOf",
        "oneOf",
        "anyOf",
        "not",
    ];
    if !KEYS.iter().any(|key| schema.contains_key(*key)) {
        return Ok(None);
    }
    let integer = |key: &str| schema.get(key).and_then(Value::as_i64);
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let flag = |key: &str| schema.get(key).and_then(Value::as_bool).unwrap_or_default();
    let text = |key: &str| schema.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    Ok(Some(Constraints {
        format: text("format")
            .filter(|name| is_supported(name, kind, int_or_string))
            .map(|name| Format(texts.share(name))),
        maximum: number("maximum"),
        exclusive_maximum: flag("exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag("exclusiveMinimum"),
        max_length: integer("maxLength"),
        min_length: integer("minLength"),
        pattern: text("pattern").map(|pattern| texts.share(pattern)),
        max_items: integer("maxItems"),
        min_items: integer("minItems"),
        unique_items: flag("uniqueItems"),
        multiple_of: number("multipleOf"),
        enumeration: schema
            .get("enum")
            .and_then(Value::as_array)
            .map_or_else(Box::default, |values| values.clone().into()),
        max_properties: integer("maxProperties"),
        min_properties: integer("minProperties"),
        required: strings(schema.get("required"), texts),
        all_of: nested(schema.get("allOf"), texts)?,
        one_of: nested(schema.get("oneOf"), texts)?,
        any_of: nested(schema.get("anyOf"), texts)?,
        not: match schema.get("not") {
            None | Some(Value::Null) => None,
            Some(schema) => Some(Box::new(node(schema, texts)?)),
        },
    }))
}

/// Whether a format on a schema of this type is acted on.
fn is_supported(name: &str, kind: Type, int_or_string: bool) -> bool {
    match kind {
        Type::Absent | Type::String => string_formats::is_known(name),
        _ if int_or_string => string_formats::is_known(name),
        Type::Integer => matches!(name, "int32" | "int64"),
        Type::Number => matches!(name, "float" | "double"),
        Type::Object | Type::Array | Type::Boolean => false,
    }
}
