//! Walks a protobuf message along its schema and builds the JSON of the same object.
//!
//! Go writes every field that is not behind a pointer, empty or not; what its JSON would leave out is left out
//! here, and so are empty structs (`status: {}`), which nobody can tell from absent ones.

use super::wire::{Field, Fields};
use super::{MAGIC, read_body};
use crate::registry::schema::shape::{element, is_empty, is_wrapper, zero};
use crate::registry::schema::{Definition, Node, Property, WireField, WireMessage, scalars};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Adds the fields of the message to `object`. `depth` is how many messages may still be within one another.
pub fn read(
    definition: &Arc<Definition>,
    message: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    fields(definition, definition.wire(), message, object, depth)
}

fn fields(
    definition: &Definition,
    wire: &WireMessage,
    message: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!(
            "proto: {}: exceeded max recursion depth",
            definition.short_name()
        ));
    };
    for field in Fields::new(message, definition.short_name()) {
        let field = field?;
        match wire.fields.get(&field.number) {
            Some(WireField::Inline(inner)) => fields(definition, inner, field.bytes()?, object, depth)?,
            Some(WireField::Property(name)) => {
                let Some(property) = definition.object().property(name) else {
                    continue;
                };
                let earlier = object.remove(name);
                let value = value(&property.node, property.go_type, &field, earlier, depth)?;
                if !is_absent(&value, property) || definition.object().required.contains(name) {
                    object.insert(name.clone(), value);
                }
            }
            // A field of another version.
            None => {}
        }
    }
    Ok(())
}

fn is_absent(value: &Value, property: &Property) -> bool {
    let empty_struct = matches!(property.node, Node::Object(_)) && !property.go_type.starts_with('*');
    value.is_null() || ((property.omit_empty || empty_struct) && is_empty(value))
}

/// The value of a field; `earlier` is what the message said of it before: lists, maps and messages go on.
fn value(
    node: &Node,
    go_type: &'static str,
    field: &Field<'_>,
    earlier: Option<Value>,
    depth: usize,
) -> Result<Value, String> {
    match node {
        Node::List(item) if is_wrapper(node, go_type) => wrapped_list(item, field, depth),
        Node::List(item) => {
            let mut items = match earlier {
                Some(Value::Array(items)) => items,
                _ => Vec::new(),
            };
            let (_, go_type) = element(node, go_type);
            match **item {
                Node::Int32 | Node::Int64 | Node::Boolean => {
                    for field in field.unpack()? {
                        items.push(value(item, go_type, &field, None, depth)?);
                    }
                }
                _ => items.push(value(item, go_type, field, None, depth)?),
            }
            Ok(Value::Array(items))
        }
        Node::Map(item) => {
            let (_, go_type) = element(node, go_type);
            let (key, value) = entry(item, go_type, field, depth)?;
            let mut entries = earlier_object(earlier);
            entries.insert(key, value);
            Ok(Value::Object(entries))
        }
        Node::Object(definition) => {
            let mut object = earlier_object(earlier);
            fields(definition, definition.wire(), field.bytes()?, &mut object, depth)?;
            Ok(Value::Object(object))
        }
        Node::Either(definition, other) => either(definition, other, field, depth),
        scalar => self::scalar(scalar, field, depth),
    }
}

fn earlier_object(earlier: Option<Value>) -> Map<String, Value> {
    match earlier {
        Some(Value::Object(object)) => object,
        _ => Map::new(),
    }
}

fn wrapped_list(item: &Node, field: &Field<'_>, depth: usize) -> Result<Value, String> {
    let mut items = Vec::new();
    for field in Fields::new(field.bytes()?, "list") {
        let field = field?;
        if field.number == 1 {
            items.push(value(item, "", &field, None, depth)?);
        }
    }
    Ok(Value::Array(items))
}

/// `{1: key, 2: value}`; either may be left out if it is empty.
fn entry(node: &Node, go_type: &'static str, field: &Field<'_>, depth: usize) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut found = None;
    for field in Fields::new(field.bytes()?, "map entry") {
        let field = field?;
        match field.number {
            1 => key = field.text()?.to_owned(),
            2 => found = Some(value(node, go_type, &field, None, depth)?),
            _ => {}
        }
    }
    let value = found.unwrap_or_else(|| zero(node));
    Ok((key, value))
}

/// `JSONSchemaPropsOrBool {1: allows, 2: schema}`, `…OrArray {1: schema, 2: schemas}`,
/// `…OrStringArray {1: schema, 2: strings}`.
fn either(definition: &Arc<Definition>, other: &Node, field: &Field<'_>, depth: usize) -> Result<Value, String> {
    let object_number = if matches!(other, Node::Boolean) { 2 } else { 1 };
    let object_node = Node::Object(definition.clone());
    let (mut object, mut alternative) = (None, None);
    for field in Fields::new(field.bytes()?, definition.short_name()) {
        let field = field?;
        match field.number {
            number if number == object_number => object = Some(value(&object_node, "", &field, object, depth)?),
            1 | 2 => alternative = Some(value(other, "", &field, alternative, depth)?),
            _ => {}
        }
    }
    Ok(object.or(alternative).unwrap_or(Value::Null))
}

/// Scalars, and the messages that JSON shows as scalars.
fn scalar(node: &Node, field: &Field<'_>, depth: usize) -> Result<Value, String> {
    Ok(match node {
        Node::String => field.text()?.into(),
        Node::Bytes => STANDARD.encode(field.bytes()?).into(),
        Node::Int32 => field.int32()?.into(),
        Node::Int64 => field.int64()?.into(),
        Node::Boolean => (field.varint()? != 0).into(),
        Node::Double => double(field.double()?),
        Node::Time => time(field, "%Y-%m-%dT%H:%M:%SZ")?,
        Node::MicroTime => time(field, "%Y-%m-%dT%H:%M:%S.%6fZ")?,
        Node::Quantity => {
            let text = inner(field, 1)?.map_or(Ok("0"), |field| field.text())?;
            scalars::quantity(text)?.into_owned().into()
        }
        Node::IntOrString => int_or_string(field)?,
        Node::Any => any(field, depth)?,
        Node::Object(_) | Node::Map(_) | Node::List(_) | Node::Either(..) => Value::Null,
    })
}

/// Whole numbers are written without a fraction, as Go writes them.
fn double(value: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT_MAX {
        Value::from(value as i64)
    } else {
        value.into()
    }
}

/// The last field of this number in the message that `field` holds.
fn inner<'a>(field: &Field<'a>, number: u32) -> Result<Option<Field<'a>>, String> {
    let mut found = None;
    for field in Fields::new(field.bytes()?, "message") {
        let field = field?;
        if field.number == number {
            found = Some(field);
        }
    }
    Ok(found)
}

/// `Timestamp {1: seconds, 2: nanos}`; nothing in it is Go's zero time, which is absent.
fn time(field: &Field<'_>, format: &str) -> Result<Value, String> {
    if field.bytes()?.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = inner(field, 1)?.map_or(Ok(0), |field| field.int64())?;
    let nanos = inner(field, 2)?.map_or(Ok(0), |field| field.int32())?;
    let timestamp = jiff::Timestamp::new(seconds, nanos).map_err(|error| format!("proto: Timestamp: {error}"))?;
    Ok(Value::String(timestamp.strftime(format).to_string()))
}

/// `IntOrString {1: type (0 int, 1 string), 2: int, 3: string}`
fn int_or_string(field: &Field<'_>) -> Result<Value, String> {
    if inner(field, 1)?.map_or(Ok(0), |field| field.varint())? == 0 {
        Ok(inner(field, 2)?.map_or(Ok(0), |field| field.int32())?.into())
    } else {
        Ok(inner(field, 3)?.map_or(Ok(""), |field| field.text())?.into())
    }
}

/// RawExtension, FieldsV1 and JSON: `{1: raw}`, where raw is JSON, or a whole protobuf body.
fn any(field: &Field<'_>, depth: usize) -> Result<Value, String> {
    let raw = inner(field, 1)?.map_or(Ok(&[][..]), |field| field.bytes())?;
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    if raw.starts_with(MAGIC) {
        let depth = depth
            .checked_sub(1)
            .ok_or("proto: RawExtension: exceeded max recursion depth")?;
        return read_body(raw, depth).map(|(_, _, object)| Value::Object(object));
    }
    serde_json::from_slice(raw).map_err(|error| format!("proto: RawExtension: {error}"))
}
