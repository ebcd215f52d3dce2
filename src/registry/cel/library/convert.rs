//! Conversions between types (upstream: the `ConvertToType` of `cel-go/common/types`).

use super::Native;
use super::operators::INT_OVERFLOW;
use super::time::{format_duration, format_timestamp};
use crate::registry::cel::error::Error;
use crate::registry::cel::value::{Value, parse_timestamp};
use crate::registry::string_formats as formats;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "type" => |arguments| one(arguments, |value| Ok(Value::Type(value.type_name().as_ref().into()))),
        "dyn" => |arguments| one(arguments, |value| Ok(value.clone())),
        "int" => |arguments| one(arguments, int),
        "uint" => |arguments| one(arguments, uint),
        "double" => |arguments| one(arguments, double),
        "bool" => |arguments| one(arguments, bool),
        "string" => |arguments| one(arguments, string),
        "bytes" => |arguments| one(arguments, bytes),
        "timestamp" => |arguments| one(arguments, timestamp),
        "duration" => |arguments| one(arguments, duration),
        _ => return None,
    })
}

pub(super) fn one<'a>(
    arguments: &[Value<'a>],
    act: impl Fn(&Value<'a>) -> Result<Value<'a>, Error>,
) -> Result<Value<'a>, Error> {
    match arguments {
        [value] => act(value),
        _ => Err(Error::NoSuchOverload),
    }
}

fn failed<'a>(value: &Value<'_>, to: &str) -> Result<Value<'a>, Error> {
    Err(Error::of(format!(
        "type conversion error from '{}' to '{to}'",
        value.type_name()
    )))
}

fn int<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    let overflow = || Error::of(INT_OVERFLOW);
    Ok(Value::Int(match value {
        Value::Int(number) => *number,
        Value::Uint(number) => i64::try_from(*number).map_err(|_| overflow())?,
        Value::Double(number) => {
            // The ends of the range cannot be told from what lies beyond them.
            if number.is_nan() || *number <= -9_223_372_036_854_775_808.0 || *number >= 9_223_372_036_854_775_807.0 {
                return Err(overflow());
            }
            *number as i64
        }
        Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return failed(value, "int"),
        },
        Value::Timestamp(time) => time.as_second(),
        Value::Duration(nanos) => *nanos,
        _ => return Err(Error::NoSuchOverload),
    }))
}

fn uint<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    let overflow = || Error::of("unsigned integer overflow");
    Ok(Value::Uint(match value {
        Value::Uint(number) => *number,
        Value::Int(number) => u64::try_from(*number).map_err(|_| overflow())?,
        Value::Double(number) => {
            if number.is_nan() || *number < 0.0 || *number >= 18_446_744_073_709_551_615.0 {
                return Err(overflow());
            }
            *number as u64
        }
        Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return failed(value, "uint"),
        },
        _ => return Err(Error::NoSuchOverload),
    }))
}

fn double<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    Ok(Value::Double(match value {
        Value::Double(number) => *number,
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::String(text) => match text.parse() {
            Ok(number) => number,
            Err(_) => return failed(value, "double"),
        },
        _ => return Err(Error::NoSuchOverload),
    }))
}

fn bool<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    match value {
        Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true.into()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false.into()),
            _ => failed(value, "bool"),
        },
        _ => Err(Error::NoSuchOverload),
    }
}

fn string<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    Ok(match value {
        Value::String(_) => value.clone(),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) => value.to_string().into(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned().into(),
            Err(_) => return Err(Error::of("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Duration(nanos) => format_duration(*nanos).into(),
        Value::Timestamp(time) => format_timestamp(*time).into(),
        Value::Ip(address) => address.to_string().into(),
        Value::Cidr(cidr) => cidr.to_string().into(),
        _ => return Err(Error::NoSuchOverload),
    })
}

fn bytes<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    match value {
        Value::Bytes(_) => Ok(value.clone()),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        _ => Err(Error::NoSuchOverload),
    }
}

fn timestamp<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    match value {
        Value::Timestamp(_) => Ok(value.clone()),
        Value::String(text) => match parse_timestamp(text).filter(|_| text.contains(['T', 't'])) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => failed(value, "google.protobuf.Timestamp"),
        },
        Value::Int(seconds) => jiff::Timestamp::from_second(*seconds)
            .map(Value::Timestamp)
            .map_err(|_| Error::of("timestamp overflow")),
        _ => Err(Error::NoSuchOverload),
    }
}

fn duration<'a>(value: &Value<'a>) -> Result<Value<'a>, Error> {
    match value {
        Value::Duration(_) => Ok(value.clone()),
        Value::String(text) => match formats::go_duration(text) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => failed(value, "google.protobuf.Duration"),
        },
        Value::Int(nanos) => Ok(Value::Duration(*nanos)),
        _ => Err(Error::NoSuchOverload),
    }
}
