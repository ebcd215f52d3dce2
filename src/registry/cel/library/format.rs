//! `"%s has %d".format([...])` (upstream: `cel-go/ext/formatting.go`).

use super::Native;
use super::time::{format_duration, format_timestamp};
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;

/// Decimals that can be asked for at most.
const PRECISION_MAX: usize = 1000;
const PRECISION: usize = 6;

pub(super) fn native(name: &str) -> Option<Native> {
    (name == "format").then_some(format as Native)
}

fn format<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::String(pattern), Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let mut out = String::new();
    let mut next = 0;
    let mut rest: &str = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let item = list
            .get(next)
            .ok_or_else(|| Error::of(format!("index {next} out of range")))??;
        next += 1;
        let mut precision = None;
        if let Some(after) = rest.strip_prefix('.') {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let asked = after[..digits].parse().map_err(|_| {
                Error::of("error while formatting precision: unable to find end of precision specifier")
            })?;
            if asked > PRECISION_MAX {
                return Err(Error::of(format!("precision {asked} exceeds maximum {PRECISION_MAX}")));
            }
            precision = Some(asked);
            rest = &after[digits..];
        }
        let clause = rest
            .chars()
            .next()
            .ok_or_else(|| Error::of("unexpected end of string"))?;
        rest = &rest[clause.len_utf8()..];
        out.push_str(&formatted(clause, precision, &item)?);
    }
    out.push_str(rest);
    Ok(out.into())
}

fn formatted(clause: char, precision: Option<usize>, item: &Value<'_>) -> Result<String, Error> {
    let wrong = |names: &str, what: &str| {
        Err(Error::of(format!(
            "error during formatting: {what} clause can only be used on {names}, was given {}",
            item.type_name()
        )))
    };
    match (clause, item) {
        ('s', item) => text(item),
        ('d', Value::Int(number)) => Ok(number.to_string()),
        ('d', Value::Uint(number)) => Ok(number.to_string()),
        ('d', _) => wrong("integers", "decimal"),
        ('f' | 'e', Value::Double(number)) => {
            let precision = precision.unwrap_or(PRECISION);
            Ok(match *number {
                number if number.is_nan() => "NaN".to_owned(),
                number if number.is_infinite() => if number > 0.0 { "∞" } else { "-∞" }.to_owned(),
                number if clause == 'f' => grouped(&format!("{number:.precision$}")),
                number => scientific(number, precision),
            })
        }
        ('f', _) => wrong("doubles", "fixed-point"),
        ('e', _) => wrong("doubles", "scientific"),
        ('b', Value::Int(number)) => Ok(signed(*number, |number| format!("{number:b}"))),
        ('b', Value::Uint(number)) => Ok(format!("{number:b}")),
        ('b', Value::Bool(value)) => Ok(u8::from(*value).to_string()),
        ('b', _) => wrong("integers and bools", "binary"),
        ('o', Value::Int(number)) => Ok(signed(*number, |number| format!("{number:o}"))),
        ('o', Value::Uint(number)) => Ok(format!("{number:o}")),
        ('o', _) => wrong("integers", "octal"),
        ('x', Value::Int(number)) => Ok(signed(*number, |number| format!("{number:x}"))),
        ('X', Value::Int(number)) => Ok(signed(*number, |number| format!("{number:X}"))),
        ('x', Value::Uint(number)) => Ok(format!("{number:x}")),
        ('X', Value::Uint(number)) => Ok(format!("{number:X}")),
        ('x', Value::String(text)) => Ok(hex::encode(text.as_bytes())),
        ('X', Value::String(text)) => Ok(hex::encode_upper(text.as_bytes())),
        ('x', Value::Bytes(bytes)) => Ok(hex::encode(bytes)),
        ('X', Value::Bytes(bytes)) => Ok(hex::encode_upper(bytes)),
        ('x' | 'X', _) => wrong("integers, byte buffers, and strings", "hex"),
        (other, _) => Err(Error::of(format!(
            "could not parse formatting clause: unrecognized formatting clause {other:?}"
        ))),
    }
}

fn signed(number: i64, digits: fn(u64) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", digits(number.unsigned_abs()))
}

/// `1,234,567.5`: as Go's printer for English does it.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |number| ("-", number));
    let (whole, fraction) = number.find('.').map_or((number, ""), |at| number.split_at(at));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

/// `1.052033×10⁰³`
fn scientific(number: f64, precision: usize) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{number:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent
        .strip_prefix('-')
        .map_or(("", exponent), |digits| ("⁻", digits));
    let raised: String = format!("{digits:0>2}")
        .chars()
        .filter_map(|digit| DIGITS.get(digit.to_digit(10)? as usize))
        .collect();
    format!("{mantissa}×10{sign}{raised}")
}

/// Any value as text.
fn text(item: &Value<'_>) -> Result<String, Error> {
    Ok(match item {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) => item.to_string(),
        Value::Double(number) if number.is_nan() => "NaN".to_owned(),
        Value::Double(number) if number.is_infinite() => {
            if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Double(number) => number.to_string(),
        Value::String(text) => text.to_string(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(nanos) => format_duration(*nanos),
        Value::Timestamp(time) => format_timestamp(*time),
        Value::Type(name) => name.to_string(),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|item| text(&item?)).collect::<Result<_, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries: Vec<String> = map
                .keys()
                .iter()
                .map(|key| {
                    let value = map.get(key).ok_or(Error::NoSuchOverload)??;
                    Ok(format!("{}: {}", text(key)?, text(&value)?))
                })
                .collect::<Result<_, Error>>()?;
            entries.sort_unstable();
            format!("{{{}}}", entries.join(", "))
        }
        other => {
            return Err(Error::of(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, \
                 maps, lists, types, durations, and timestamps, was given {}",
                other.type_name()
            )));
        }
    })
}
