//! Walks the JSON of an object along its schema and writes the protobuf message of the same object
//! (upstream: the `MarshalToSizedBuffer` methods of `generated.pb.go`).
//!
//! Fields stand in ascending order and the entries of maps in the order of their keys, so equal objects are equal
//! bytes. What is not behind a pointer in Go is written even if it is zero.

use super::wire;
use crate::registry::schema::shape::{element, is_wrapper};
use crate::registry::schema::{Definition, Node, Property, WireField, WireMessage};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Appends the message of `object`. Err names what does not fit the schema; nothing that was decoded along it does.
pub fn write(definition: &Definition, object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), String> {
    fields(definition, definition.wire(), object, out)
}

fn fields(
    definition: &Definition,
    message: &WireMessage,
    object: &Map<String, Value>,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    for (&number, field) in &message.fields {
        match field {
            WireField::Inline(inner) => {
                wire::message(out, number, |out| fields(definition, inner, object, out))?;
            }
            WireField::Property(name) => {
                let Some(property) = definition.object().property(name) else {
                    continue;
                };
                match object.get(name) {
                    None | Some(Value::Null) if is_explicit(property) => zero(&property.node, number, out)?,
                    None | Some(Value::Null) => {}
                    Some(given) => value(&property.node, property.go_type, number, given, out)
                        .map_err(|error| format!("{}.{name}: {error}", definition.short_name()))?,
                }
            }
        }
    }
    Ok(())
}

/// Whether Go writes the field although the object lacks it: it is no pointer, and has no empty form that is nothing.
fn is_explicit(property: &Property) -> bool {
    let can_be_nothing = matches!(property.node, Node::List(_) | Node::Map(_) | Node::Bytes);
    !can_be_nothing && !property.go_type.is_empty() && !property.go_type.starts_with('*')
}

/// The field of a value that was never set.
fn zero(node: &Node, number: u32, out: &mut Vec<u8>) -> Result<(), String> {
    match node {
        Node::Object(definition) => wire::message(out, number, |out| write(definition, &Map::new(), out)),
        Node::Map(_) | Node::List(_) => Ok(()),
        Node::String | Node::Bytes | Node::Time | Node::MicroTime | Node::Any => {
            wire::bytes(out, number, b"");
            Ok(())
        }
        Node::Int32 | Node::Int64 | Node::Boolean => {
            wire::varint(out, number, 0);
            Ok(())
        }
        Node::Double => {
            wire::double(out, number, 0.0);
            Ok(())
        }
        Node::IntOrString => int_or_string(number, &Value::from(0), out),
        Node::Quantity => wire::message(out, number, |out| {
            wire::bytes(out, 1, b"0");
            Ok(())
        }),
        Node::Either(_, other) => wire::message(out, number, |out| match **other {
            Node::Boolean => {
                wire::varint(out, 1, 0);
                Ok(())
            }
            _ => Ok(()),
        }),
    }
}

fn value(node: &Node, go_type: &'static str, number: u32, given: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    match (node, given) {
        (Node::List(item), Value::Array(items)) if is_wrapper(node, go_type) => wire::message(out, number, |out| {
            items
                .iter()
                .try_for_each(|given| element_value(item, "", 1, given, out))
        }),
        (Node::List(item), Value::Array(items)) => {
            let (_, go_type) = element(node, go_type);
            items
                .iter()
                .try_for_each(|given| element_value(item, go_type, number, given, out))
        }
        (Node::Map(item), Value::Object(entries)) => {
            let (_, go_type) = element(node, go_type);
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            entries.into_iter().try_for_each(|(key, given)| {
                wire::message(out, number, |out| {
                    wire::bytes(out, 1, key.as_bytes());
                    element_value(item, go_type, 2, given, out)
                })
            })
        }
        (Node::Object(definition), Value::Object(object)) => {
            wire::message(out, number, |out| write(definition, object, out))
        }
        (Node::Either(definition, other), given) => either(definition, other, number, given, out),
        (scalar, given) => self::scalar(scalar, number, given, out),
    }
}

/// An element of a list or the value of a map's entry, where `null` is the zero value.
fn element_value(
    node: &Node,
    go_type: &'static str,
    number: u32,
    given: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match given {
        Value::Null => zero(node, number, out),
        given => value(node, go_type, number, given, out),
    }
}

/// `JSONSchemaPropsOrBool {1: allows, 2: schema}`, `…OrArray {1: schema, 2: schemas}`,
/// `…OrStringArray {1: schema, 2: strings}`. A schema also allows.
fn either(definition: &Definition, other: &Node, number: u32, given: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    wire::message(out, number, |out| match (other, given) {
        (Node::Boolean, Value::Object(object)) => {
            wire::varint(out, 1, 1);
            wire::message(out, 2, |out| write(definition, object, out))
        }
        (Node::Boolean, given) => scalar(other, 1, given, out),
        (_, Value::Object(object)) => wire::message(out, 1, |out| write(definition, object, out)),
        (other, given) => value(other, "", 2, given, out),
    })
}

/// Scalars, and the messages that JSON shows as scalars.
fn scalar(node: &Node, number: u32, given: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    match (node, given) {
        (Node::String, Value::String(text)) => wire::bytes(out, number, text.as_bytes()),
        (Node::Bytes, Value::String(text)) => {
            let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
            wire::bytes(out, number, &bytes);
        }
        (Node::Int32 | Node::Int64, Value::Number(value)) => {
            let value = value.as_i64().ok_or_else(|| format!("{value} is no integer"))?;
            wire::varint(out, number, value.cast_unsigned());
        }
        (Node::Boolean, Value::Bool(value)) => wire::varint(out, number, u64::from(*value)),
        (Node::Double, Value::Number(value)) => wire::double(out, number, value.as_f64().unwrap_or_default()),
        (Node::Time | Node::MicroTime, Value::String(text)) => {
            let (seconds, nanos) = timestamp(text).ok_or_else(|| format!("{text:?} is no time"))?;
            let nanos = if matches!(node, Node::Time) { 0 } else { nanos };
            return wire::message(out, number, |out| {
                // Go's zero time is an empty message.
                if (seconds, nanos) != ZERO_TIME {
                    wire::varint(out, 1, seconds.cast_unsigned());
                    wire::varint(out, 2, u64::from(nanos));
                }
                Ok(())
            });
        }
        (Node::Quantity, Value::String(text)) => {
            return wire::message(out, number, |out| {
                wire::bytes(out, 1, text.as_bytes());
                Ok(())
            });
        }
        (Node::IntOrString, given) => return int_or_string(number, given, out),
        (Node::Any, given) => {
            let json = serde_json::to_vec(given).map_err(|error| error.to_string())?;
            return wire::message(out, number, |out| {
                wire::bytes(out, 1, &json);
                Ok(())
            });
        }
        (node, given) => return Err(format!("{given} is no {node:?}")),
    }
    Ok(())
}

/// `IntOrString {1: type (0 int, 1 string), 2: int, 3: string}`, all three of them always.
fn int_or_string(number: u32, given: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let (kind, integer, text) = match given {
        Value::Number(integer) => (0, integer.as_i64().unwrap_or_default(), ""),
        Value::String(text) => (1, 0, text.as_str()),
        other => return Err(format!("{other} is neither a number nor a string")),
    };
    wire::message(out, number, |out| {
        wire::varint(out, 1, kind);
        wire::varint(out, 2, integer.cast_unsigned());
        wire::bytes(out, 3, text.as_bytes());
        Ok(())
    })
}

/// Seconds and nanoseconds of year 1, which is what Go's unset time is.
const ZERO_TIME: (i64, u32) = (-62_135_596_800, 0);

/// Seconds since 1970 and microseconds in nanoseconds, of RFC 3339 in UTC.
fn timestamp(text: &str) -> Option<(i64, u32)> {
    let bytes = text.strip_suffix('Z')?.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = bytes.get(from..to)?;
        digits.iter().try_fold(0, |sum, digit| {
            digit.is_ascii_digit().then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut nanos = 0;
    if bytes.len() > 19 {
        let digits = bytes.len().min(26);
        nanos = number(20, digits)? * 10_i64.pow(u32::try_from(29 - digits).ok()?);
    }
    // Days since 1970 in the calendar that is extended backwards: years begin in March, so that leap days are last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + day_of_year
        - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
    Some((seconds, u32::try_from(nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("0001-01-01T00:00:00Z", ZERO_TIME),
            ("2026-02-28T23:59:59Z", (1_772_323_199, 0)),
            ("2024-02-29T12:00:00.000001Z", (1_709_208_000, 1000)),
            ("2024-03-01T00:00:00.5Z", (1_709_251_200, 500_000_000)),
            ("9999-12-31T23:59:59.999999Z", (253_402_300_799, 999_999_000)),
            ("1969-12-31T23:59:59Z", (-1, 0)),
        ] {
            assert_eq!(timestamp(text), Some(expected), "{text}");
        }
        for text in ["", "Z", "2026-01-01", "2026-01-01T00:00Z", "x026-01-01T00:00:00Z"] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }
}
