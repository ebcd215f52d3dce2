//! Operators and sizes (upstream: `cel-go/common/stdlib`).

use super::Native;
use crate::registry::cel::decl::ListKind;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::{List, Map, Value};
use std::cmp::Ordering;
use std::sync::Arc;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "!_" => not,
        "-_" => negate,
        "_==_" => |arguments| two(arguments, |a, b| Ok(a.equals(b).into())),
        "_!=_" => |arguments| two(arguments, |a, b| Ok((!a.equals(b)).into())),
        "_<_" => |arguments| ordered(arguments, Ordering::is_lt),
        "_<=_" => |arguments| ordered(arguments, Ordering::is_le),
        "_>_" => |arguments| ordered(arguments, Ordering::is_gt),
        "_>=_" => |arguments| ordered(arguments, Ordering::is_ge),
        "_+_" => |arguments| two(arguments, add),
        "_-_" => |arguments| two(arguments, subtract),
        "_*_" => |arguments| two(arguments, multiply),
        "_/_" => |arguments| two(arguments, divide),
        "_%_" => |arguments| two(arguments, modulo),
        "@in" => |arguments| two(arguments, is_in),
        "size" => size,
        "cel.@mapInsert" => map_insert,
        _ => return None,
    })
}

fn two<'a>(
    arguments: &[Value<'a>],
    act: impl Fn(&Value<'a>, &Value<'a>) -> Result<Value<'a>, Error>,
) -> Result<Value<'a>, Error> {
    match arguments {
        [a, b] => act(a, b),
        _ => Err(Error::NoSuchOverload),
    }
}

fn not<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Bool(value)] => Ok((!value).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

pub(super) const INT_OVERFLOW: &str = "integer overflow";
const UINT_OVERFLOW: &str = "unsigned integer overflow";
const DURATION_OVERFLOW: &str = "duration overflow";
const TIMESTAMP_OVERFLOW: &str = "timestamp overflow";

fn negate<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Int(value)] => int(value.checked_neg()),
        [Value::Double(value)] => Ok(Value::Double(-value)),
        [Value::Duration(nanos)] => duration(nanos.checked_neg()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn ordered<'a>(arguments: &[Value<'a>], holds: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    two(arguments, |a, b| match a.compare(b) {
        Some(order) => Ok(holds(order).into()),
        None if a.is_number() && b.is_number() => Err(Error::of("NaN values cannot be ordered")),
        None => Err(Error::NoSuchOverload),
    })
}

fn int<'a>(value: Option<i64>) -> Result<Value<'a>, Error> {
    value.map(Value::Int).ok_or_else(|| Error::of(INT_OVERFLOW))
}

fn uint<'a>(value: Option<u64>) -> Result<Value<'a>, Error> {
    value.map(Value::Uint).ok_or_else(|| Error::of(UINT_OVERFLOW))
}

fn duration<'a>(value: Option<i64>) -> Result<Value<'a>, Error> {
    value.map(Value::Duration).ok_or_else(|| Error::of(DURATION_OVERFLOW))
}

fn shifted<'a>(time: jiff::Timestamp, nanos: i64) -> Result<Value<'a>, Error> {
    time.checked_add(jiff::SignedDuration::from_nanos(nanos))
        .map(Value::Timestamp)
        .map_err(|_| Error::of(TIMESTAMP_OVERFLOW))
}

fn add<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_add(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_add(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => Ok(format!("{}{}", &**a, &**b).into()),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Value::Bytes([&**a, &**b].concat().into())),
        (Value::List(a), Value::List(b)) => lists(a, b),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_add(*b)),
        (Value::Duration(nanos), Value::Timestamp(time)) | (Value::Timestamp(time), Value::Duration(nanos)) => {
            shifted(*time, *nanos)
        }
        _ => Err(Error::NoSuchOverload),
    }
}

/// Lists of type set and map are merged: what is there already is not added again.
fn lists<'a>(a: &List<'a>, b: &List<'a>) -> Result<Value<'a>, Error> {
    let mut values = a.values()?;
    let more = b.values()?;
    match a.kind() {
        ListKind::Atomic => values.extend(more),
        ListKind::Set => {
            for value in more {
                if !values.iter().any(|other| other.equals(&value)) {
                    values.push(value);
                }
            }
        }
        ListKind::Map(keys) => {
            let same = |a: &Value<'a>, b: &Value<'a>| {
                let (Value::Map(a), Value::Map(b)) = (a, b) else {
                    return false;
                };
                keys.iter().all(|key| match (a.member(key), b.member(key)) {
                    (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
                    (None, None) => true,
                    _ => false,
                })
            };
            for value in more {
                match values.iter_mut().find(|other| same(other, &value)) {
                    Some(place) => *place = value,
                    None => values.push(value),
                }
            }
        }
    }
    Ok(Value::list(values))
}

fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_sub(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_sub(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => duration(a.checked_sub(*b)),
        (Value::Timestamp(time), Value::Duration(nanos)) => match nanos.checked_neg() {
            Some(nanos) => shifted(*time, nanos),
            None => Err(Error::of(DURATION_OVERFLOW)),
        },
        (Value::Timestamp(a), Value::Timestamp(b)) => {
            duration(i64::try_from(a.as_nanosecond() - b.as_nanosecond()).ok())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn multiply<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => int(a.checked_mul(*b)),
        (Value::Uint(a), Value::Uint(b)) => uint(a.checked_mul(*b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a * b)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn divide<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::of("division by zero")),
        (Value::Int(a), Value::Int(b)) => int(a.checked_div(*b)),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a / b)),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a / b)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn modulo<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<Value<'a>, Error> {
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) => Err(Error::of("modulus by zero")),
        (Value::Int(a), Value::Int(b)) => int(a.checked_rem(*b)),
        (Value::Uint(a), Value::Uint(b)) => Ok(Value::Uint(a % b)),
        _ => Err(Error::NoSuchOverload),
    }
}

fn is_in<'a>(item: &Value<'a>, within: &Value<'a>) -> Result<Value<'a>, Error> {
    match within {
        Value::List(list) => {
            for other in list.iter() {
                if other?.equals(item) {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        }
        Value::Map(map) => Ok(map.get(item).is_some().into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn size<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            int(i64::try_from(value.size()).ok())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

/// Used by the macros that make maps.
fn map_insert<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let Some((Value::Map(Map::Values(entries)), rest)) = arguments.split_first() else {
        return Err(Error::NoSuchOverload);
    };
    let mut entries = entries.clone();
    insert_into(Arc::make_mut(&mut entries), rest)?;
    Ok(Value::Map(Map::Values(entries)))
}

/// A key and a value, or the entries of a map.
pub(in crate::registry::cel) fn insert_into<'a>(
    entries: &mut crate::registry::cel::value::Entries<'a>,
    what: &[Value<'a>],
) -> Result<(), Error> {
    match what {
        [key, value] => entries.insert(key.clone(), value.clone()),
        [Value::Map(map)] => {
            for key in map.keys() {
                let value = map.get(&key).ok_or(Error::NoSuchOverload)??;
                entries.insert(key, value)?;
            }
            Ok(())
        }
        _ => Err(Error::NoSuchOverload),
    }
}
