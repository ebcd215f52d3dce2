//! Regular expressions (upstream: `apiserver/pkg/cel/library/regex.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;
use crate::registry::patterns;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "matches" => matches,
        "find" => find,
        "findAll" => find_all,
        _ => return None,
    })
}

fn compiled(pattern: &str) -> Result<regex::Regex, Error> {
    patterns::compiled(pattern).map_err(Error::of)
}

fn matches<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::String(pattern)] => Ok(compiled(pattern)?.is_match(text).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn find<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::String(pattern)] => {
            let found = compiled(pattern)?.find(text).map(|found| found.as_str().to_owned());
            Ok(found.unwrap_or_default().into())
        }
        _ => Err(Error::NoSuchOverload),
    }
}

fn find_all<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (text, pattern, count) = match arguments {
        [Value::String(text), Value::String(pattern)] => (text, pattern, -1),
        [Value::String(text), Value::String(pattern), Value::Int(count)] => (text, pattern, *count),
        _ => return Err(Error::NoSuchOverload),
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let regex = compiled(pattern)?;
    let found = regex.find_iter(text).take(count);
    Ok(Value::list(
        found.map(|found| found.as_str().to_owned().into()).collect(),
    ))
}
