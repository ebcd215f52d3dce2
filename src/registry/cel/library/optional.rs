//! Values that may be absent (upstream: `cel-go/cel/library.go`).

use super::Native;
use super::convert::one;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "optional.of" => |arguments| one(arguments, |value| Ok(Value::some(value.clone()))),
        "optional.ofNonZeroValue" => |arguments| {
            one(arguments, |value| {
                Ok(if value.is_zero() {
                    Value::Optional(None)
                } else {
                    Value::some(value.clone())
                })
            })
        },
        "optional.none" => |_| Ok(Value::Optional(None)),
        "hasValue" => |arguments| {
            one(arguments, |value| match value {
                Value::Optional(inner) => Ok(inner.is_some().into()),
                _ => Err(Error::NoSuchOverload),
            })
        },
        "value" => |arguments| {
            one(arguments, |value| match value {
                Value::Optional(Some(inner)) => Ok((**inner).clone()),
                Value::Optional(None) => Err(Error::of("optional.none() dereference")),
                _ => Err(Error::NoSuchOverload),
            })
        },
        "or" => |arguments| match arguments {
            [Value::Optional(Some(_)), _] => Ok(arguments[0].clone()),
            [Value::Optional(None), other @ Value::Optional(_)] => Ok(other.clone()),
            _ => Err(Error::NoSuchOverload),
        },
        "orValue" => |arguments| match arguments {
            [Value::Optional(Some(inner)), _] => Ok((**inner).clone()),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => Err(Error::NoSuchOverload),
        },
        _ => return None,
    })
}
