//! Lists and sets (upstream: `apiserver/pkg/cel/library/lists.go`, `cel-go/ext/lists.go`, `ext/sets.go`).

use super::Native;
use super::strings::index_of;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::{List, Value};
use std::cmp::Ordering;

/// Items that `lists.range` makes at most.
const RANGE_MAX: i64 = 1_000_000;

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "isSorted" => is_sorted,
        "sum" => sum,
        "min" => |arguments| extreme(arguments, "min", Ordering::is_lt),
        "max" => |arguments| extreme(arguments, "max", Ordering::is_gt),
        "indexOf" => |arguments| position(arguments, false),
        "lastIndexOf" => |arguments| position(arguments, true),
        "includes" => includes,
        "slice" => slice,
        "flatten" => flatten,
        "sort" => |arguments| match arguments {
            [Value::List(list)] => sorted_along(list, list),
            _ => Err(Error::NoSuchOverload),
        },
        "@sortByAssociatedKeys" => |arguments| match arguments {
            [Value::List(list), Value::List(keys)] => sorted_along(list, keys),
            _ => Err(Error::NoSuchOverload),
        },
        "lists.range" => range,
        "reverse" => reverse,
        "distinct" => distinct,
        "sets.contains" => |arguments| sets(arguments, contains),
        "sets.equivalent" => |arguments| sets(arguments, |a, b| contains(a, b) && contains(b, a)),
        "sets.intersects" => |arguments| sets(arguments, |a, b| a.iter().any(|a| b.iter().any(|b| a.equals(b)))),
        _ => return None,
    })
}

fn compared(a: &Value<'_>, b: &Value<'_>) -> Result<Ordering, Error> {
    a.compare(b).ok_or(Error::NoSuchOverload)
}

fn is_sorted<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let values = list.values()?;
    for pair in values.windows(2) {
        if compared(&pair[0], &pair[1])?.is_gt() {
            return Ok(false.into());
        }
    }
    Ok(true.into())
}

fn sum<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let add = super::operators::native("_+_").ok_or(Error::NoSuchOverload)?;
    let mut total: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        total = Some(match total {
            None => item,
            Some(before) => add(&[before, item])?,
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

fn extreme<'a>(arguments: &[Value<'a>], name: &str, better: fn(Ordering) -> bool) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        best = Some(match best {
            Some(best) if !better(compared(&item, &best)?) => best,
            _ => item,
        });
    }
    best.ok_or_else(|| Error::of(format!("{name} called on empty list")))
}

fn position<'a>(arguments: &[Value<'a>], last: bool) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::String(text), Value::String(part)] => index_of(text, part, None, last),
        [Value::String(text), Value::String(part), Value::Int(from)] => index_of(text, part, Some(*from), last),
        [Value::List(list), item] => {
            let mut found = -1;
            for (index, other) in list.iter().enumerate() {
                if other?.equals(item) {
                    found = i64::try_from(index).unwrap_or(i64::MAX);
                    if !last {
                        break;
                    }
                }
            }
            Ok(Value::Int(found))
        }
        _ => Err(Error::NoSuchOverload),
    }
}

/// Whether a list has the value, or is it where it is no list.
fn includes<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::List(list), item] => {
            for other in list.iter() {
                if other?.equals(item) {
                    return Ok(true.into());
                }
            }
            Ok(false.into())
        }
        [value, item] => Ok(value.equals(item).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn slice<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
    let problem = if *start < 0 || *end < 0 {
        "negative indexes not supported".to_owned()
    } else if start > end {
        "start index must be less than or equal to end index".to_owned()
    } else if length < *end {
        format!("list is length {length}")
    } else {
        let values = (*start..*end).filter_map(|index| list.get(usize::try_from(index).ok()?));
        return Ok(Value::list(values.collect::<Result<_, _>>()?));
    };
    Err(Error::of(format!("cannot slice({start}, {end}), {problem}")))
}

fn flatten<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let (list, depth) = match arguments {
        [Value::List(list)] => (list, 1),
        [Value::List(list), Value::Int(depth)] => (list, *depth),
        _ => return Err(Error::NoSuchOverload),
    };
    if depth < 0 {
        return Err(Error::of("level must be non-negative"));
    }
    fn level<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), Error> {
        for item in list.iter() {
            match item? {
                Value::List(inner) if depth > 0 => level(&inner, depth - 1, out)?,
                other => out.push(other),
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    level(list, depth, &mut out)?;
    Ok(Value::list(out))
}

fn sorted_along<'a>(list: &List<'a>, keys: &List<'a>) -> Result<Value<'a>, Error> {
    if list.len() != keys.len() {
        return Err(Error::of(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} \
             elements respectively",
            list.len(),
            keys.len()
        )));
    }
    let mut pairs: Vec<(Value<'a>, Value<'a>)> = keys.values()?.into_iter().zip(list.values()?).collect();
    if let Some((first, _)) = pairs.first() {
        let first = first.clone();
        for (key, _) in &pairs {
            if key.type_name() != first.type_name() {
                return Err(Error::of("list elements must have the same type"));
            }
            compared(key, &first)?;
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(Ordering::Equal));
    Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect()))
}

fn range<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Int(count)] if *count > RANGE_MAX => Err(Error::CostLimit),
        [Value::Int(count)] => Ok(Value::list((0..*count).map(Value::Int).collect())),
        _ => Err(Error::NoSuchOverload),
    }
}

fn reverse<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let mut values = list.values()?;
    values.reverse();
    Ok(Value::list(values))
}

fn distinct<'a>(arguments: &[Value<'a>]) -> Result<Value<'a>, Error> {
    let [Value::List(list)] = arguments else {
        return Err(Error::NoSuchOverload);
    };
    let mut kept: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !kept.iter().any(|other| other.equals(&item)) {
            kept.push(item);
        }
    }
    Ok(Value::list(kept))
}

fn sets<'a>(arguments: &[Value<'a>], holds: fn(&[Value<'a>], &[Value<'a>]) -> bool) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::List(a), Value::List(b)] => Ok(holds(&a.values()?, &b.values()?).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

fn contains(all: &[Value<'_>], part: &[Value<'_>]) -> bool {
    part.iter().all(|item| all.iter().any(|other| other.equals(item)))
}
