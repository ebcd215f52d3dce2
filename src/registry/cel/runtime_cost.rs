//! What a call costs when it is made, by the sizes of its arguments
//! (upstream: `cel-go/interpreter/runtimecost.go`, `apiserver/pkg/cel/library/cost.go`).

use super::cost::{LIST_CREATE, REGEX_LENGTH};
use super::library::authz::CHECK;
use super::library::regex_length;
use super::range::TRAVERSAL;
use super::value::Value;

fn scaled(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn regex(text: u64, pattern: u64) -> u64 {
    scaled(text.saturating_add(1), TRAVERSAL).saturating_mul(scaled(pattern, REGEX_LENGTH))
}

/// Looking at a value and all in it once.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list.iter().flatten().map(|item| traversal(&item)).sum(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| traversal(key) + map.get(key).and_then(Result::ok).map_or(0, |value| traversal(&value)))
            .sum(),
        _ => 1,
    }
}

/// What is charged before the call is made, so that nothing expensive happens unpaid.
pub(super) fn before(function: &str, arguments: &[Value<'_>]) -> u64 {
    let size = |at: usize| arguments.get(at).map_or(1, Value::size);
    let by = |at: usize, factor: f64| scaled(size(at), factor);
    let allocated = |size: u64| size.saturating_add(1 + LIST_CREATE);
    match function {
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            arguments.first().map_or(0, traversal)
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR" | "quantity"
        | "isQuantity" | "semver" | "isSemver" | "strings.quote" | "format" => by(0, TRAVERSAL),
        "startsWith" | "endsWith" => by(1, TRAVERSAL),
        "ip" => match arguments.first() {
            Some(Value::Cidr(_)) => 1,
            _ => by(0, TRAVERSAL),
        },
        "replace" | "split" | "ip.isCanonical" => by(0, 2.0 * TRAVERSAL),
        "check" => CHECK,
        // The result is paid for when it is there.
        "join" => 0,
        "find" | "findAll" | "matches" => regex(size(0), size(1)),
        "contains" => by(0, TRAVERSAL).saturating_mul(by(1, TRAVERSAL)),
        "containsIP" => {
            let text = matches!(arguments.get(1), Some(Value::String(_)));
            scaled(2 * size(0), TRAVERSAL) + if text { by(1, TRAVERSAL) } else { 0 }
        }
        "containsCIDR" => {
            let text = matches!(arguments.get(1), Some(Value::String(_)));
            scaled(2 * size(0), TRAVERSAL) + by(0, TRAVERSAL) + 1 + if text { by(1, TRAVERSAL) } else { 0 }
        }
        "validate" => match arguments {
            [Value::Format(name), text] => regex(text.size(), regex_length(name)),
            _ => 1,
        },
        "string" | "bytes" => match arguments.first() {
            Some(Value::String(_)) if function == "string" => 1,
            Some(Value::String(_) | Value::Bytes(_)) => by(0, TRAVERSAL),
            _ => 1,
        },
        "@in" => match arguments.get(1) {
            Some(Value::List(list)) => list.len() as u64,
            _ => 1,
        },
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => match arguments.first() {
            Some(Value::Quantity(_) | Value::Ip(_) | Value::Cidr(_) | Value::Url(_) | Value::Semver(_)) => 1,
            _ => scaled(size(0).min(size(1)), TRAVERSAL),
        },
        "_+_" => match arguments.first() {
            Some(Value::String(_) | Value::Bytes(_)) => scaled(size(0).saturating_add(size(1)), TRAVERSAL),
            _ => 1,
        },
        "slice" => match arguments {
            [_, Value::Int(start), Value::Int(end)] => {
                allocated(u64::try_from(end.saturating_sub(*start)).unwrap_or(0))
            }
            _ => 1,
        },
        "lists.range" => match arguments {
            [Value::Int(count)] => allocated(u64::try_from(*count).unwrap_or(0)),
            _ => 1,
        },
        "reverse" => allocated(size(0)),
        "flatten" => match arguments {
            [list, Value::Int(depth)] => allocated(list.size().saturating_mul(u64::try_from(*depth).unwrap_or(0))),
            _ => allocated(size(0)),
        },
        "distinct" | "sort" | "@sortByAssociatedKeys" => {
            let of = if function == "@sortByAssociatedKeys" { 1 } else { 0 };
            let texts = match arguments.get(of) {
                Some(Value::List(list)) => matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_)))),
                _ => false,
            };
            let factor = if texts { 2.0 + TRAVERSAL } else { 2.0 };
            allocated(scaled(size(of).saturating_mul(size(of)), factor))
        }
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)).saturating_add(1),
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2).saturating_add(1),
        _ => 1,
    }
}

/// What is charged for the result.
pub(super) fn after(function: &str, result: &Value<'_>) -> u64 {
    match function {
        "join" => scaled(result.size(), 2.0 * TRAVERSAL),
        _ => 0,
    }
}
