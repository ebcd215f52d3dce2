//! Strings (upstream: `cel-go/ext/strings.go`, `common/stdlib`). Indexes count characters.

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::{Text, Value};
use crate::registry::field::go_quoted;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "contains" => |arguments| texts(arguments, |text, part| text.contains(part)),
        "startsWith" => |arguments| texts(arguments, |text, part| text.starts_with(part)),
        "endsWith" => |arguments| texts(arguments, |text, part| text.ends_with(part)),
        "charAt" => char_at,
        "lowerAscii" => |arguments| map(arguments, |text| text.to_ascii_lowercase()),
        "upperAscii" => |arguments| map(arguments, |text| text.to_ascii_uppercase()),
        "trim" => |arguments| map(arguments, |text| text.trim().to_owned()),
        "replace" => replace,
        "split" => split,
        "substring" => substring,
        "join" => join,
        "strings.quote" => |arguments| map(arguments, quote),
        _ => return None,
    })
}

fn texts<'a>(arguments: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::String(part)] => Ok(holds(text, part).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn map<'a>(arguments: &[Value<'a>], to: fn(&str) -> String) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text)] => Ok(to(text).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn quote(text: &str) -> String {
    go_quoted(text)
}

fn out_of_range(index: i64) -> Error {
    Error::of(format!("index out of range: {index}"))
}

/// The byte at which the character of an index begins; the end is one, too.
fn byte_of(text: &str, index: i64) -> Result<usize, Error> {
    let wanted = usize::try_from(index).map_err(|_| out_of_range(index))?;
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .nth(wanted)
        .ok_or_else(|| out_of_range(index))
}

fn char_at<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::Int(index)] => {
            let at = byte_of(text, *index)?;
            Ok(text[at..].chars().next().map(String::from).unwrap_or_default().into())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

/// `indexOf` and `lastIndexOf` of strings; lists have functions of the same names.
pub(super) fn index_of<'a>(text: &str, part: &str, from: Option<i64>, last: bool) -> Result<Value<'a>, Error> {
    let characters = |bytes: Option<usize>| match bytes {
        Some(at) => Value::Int(i64::try_from(text[..at].chars().count()).unwrap_or(i64::MAX)),
        None => Value::Int(-1),
    };
    if let Some(from) = from {
        let start = byte_of(text, from)?;
        return Ok(characters(if last {
            let end = (start + part.len()).min(text.len());
            // The part may begin at `from` at the latest.
            let end = (end..=text.len())
                .find(|end| text.is_char_boundary(*end))
                .unwrap_or(text.len());
            text[..end].rfind(part)
        } else {
            text[start..].find(part).map(|at| start + at)
        }));
    }
    Ok(characters(if last { text.rfind(part) } else { text.find(part) }))
}

fn replace<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::String(from), Value::String(to)] => Ok(text.replace(&**from, to).into()),
        [
            Value::String(text),
            Value::String(from),
            Value::String(to),
            Value::Int(count),
        ] => {
            Ok(match usize::try_from(*count) {
                Ok(count) => text.replacen(&**from, to, count),
                // Fewer than none means all.
                Err(_) => text.replace(&**from, to),
            }
            .into())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn split<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (text, by, count) = match arguments {
        [Value::String(text), Value::String(by)] => (text, by, -1),
        [Value::String(text), Value::String(by), Value::Int(count)] => (text, by, *count),
        _ => return Err(Error::NoSuchOverload),
    };
    let parts: Vec<String> = match (usize::try_from(count), by.is_empty()) {
        (Ok(0), _) => Vec::new(),
        (Ok(count), false) => text.splitn(count, &**by).map(str::to_owned).collect(),
        (Err(_), false) => text.split(&**by).map(str::to_owned).collect(),
        (count, true) => {
            let count = count.unwrap_or(usize::MAX);
            let mut parts: Vec<String> = text.chars().take(count).map(String::from).collect();
            let rest: String = text.chars().skip(count).collect();
            if let Some(last) = parts.last_mut() {
                last.push_str(&rest);
            }
            parts
        }
    };
    Ok(Value::list(parts.into_iter().map(Value::from).collect()))
}

fn substring<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::Int(from)] => Ok(text[byte_of(text, *from)?..].to_owned().into()),
        [Value::String(text), Value::Int(from), Value::Int(to)] => {
            if from > to {
                return Err(Error::of(format!("invalid substring range. start: {from}, end: {to}")));
            }
            Ok(text[byte_of(text, *from)?..byte_of(text, *to)?].to_owned().into())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn join<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (list, between) = match arguments {
        [Value::List(list)] => (list, ""),
        [Value::List(list), Value::String(between)] => (list, &**between),
        _ => return Err(Error::NoSuchOverload),
    };
    let texts: Vec<Text<'a>> = list
        .iter()
        .map(|item| match item? {
            Value::String(text) => Ok(text),
            _ => Err(Error::NoSuchOverload),
        })
        .collect::<Result<_, Error>>()?;
    let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
    Ok(texts.join(between).into())
}
