//! Resource quantities (upstream: `apiserver/pkg/cel/library/quantity.go`).

use super::Native;
use crate::quantity::{Format, Quantity};
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "quantity" => |arguments| match arguments {
            [Value::String(text)] => text
                .parse()
                .map(Value::Quantity)
                .map_err(|error: crate::quantity::ParseQuantityError| Error::of(error.to_string())),
            _ => Err(Error::NoSuchOverload),
        },
        "isQuantity" => |arguments| match arguments {
            [Value::String(text)] => Ok(text.parse::<Quantity>().is_ok().into()),
            _ => Err(Error::NoSuchOverload),
        },
        "sign" => |arguments| {
            of(arguments, |quantity| {
                Ok(Value::Int(if quantity.is_zero() {
                    0
                } else if quantity.is_negative() {
                    -1
                } else {
                    1
                }))
            })
        },
        "asApproximateFloat" => |arguments| of(arguments, |quantity| Ok(Value::Double(quantity.approximate()))),
        "asInteger" => |arguments| {
            of(arguments, |quantity| {
                if quantity.is_integer() {
                    Ok(Value::Int(quantity.value()))
                } else {
                    Err(Error::of("cannot convert value to integer"))
                }
            })
        },
        "isInteger" => |arguments| of(arguments, |quantity| Ok(quantity.is_integer().into())),
        "add" => |arguments| sum(arguments, Quantity::plus),
        "sub" => |arguments| sum(arguments, Quantity::minus),
        // Semantic versions have functions of the same names.
        "isGreaterThan" => |arguments| Ok(super::semver::order(arguments)?.is_gt().into()),
        "isLessThan" => |arguments| Ok(super::semver::order(arguments)?.is_lt().into()),
        "compareTo" => |arguments| Ok(Value::Int(super::semver::order(arguments)? as i64)),
        _ => return None,
    })
}

fn of<'a>(arguments: &[Value<'a>], act: fn(Quantity) -> Result<Value<'a>, Error>) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Quantity(quantity)] => act(*quantity),
        _ => Err(Error::NoSuchOverload),
    }
}

fn sum<'a>(arguments: &[Value<'a>], act: fn(Quantity, Quantity) -> Quantity) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Quantity(act(*a, *b))),
        [Value::Quantity(a), Value::Int(b)] => {
            Ok(Value::Quantity(act(*a, Quantity::from_units(*b, Format::DecimalSi))))
        }
        _ => Err(Error::NoSuchOverload),
    }
}
