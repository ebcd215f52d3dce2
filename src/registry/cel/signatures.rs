//! The functions that expressions can call, and the types they take
//! (upstream: `cel-go/checker/decls`, `ext`, `cel/library.go`, `apiserver/pkg/cel/library`).

use super::types::Type;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// One way to call a function. Unknown types are `Type::Param` from 0 on.
#[derive(Debug)]
pub(super) struct Overload {
    pub id: &'static str,
    pub is_member: bool,
    pub arguments: Vec<Type>,
    pub result: Type,
    pub params: u32,
}

pub(super) type Functions = HashMap<&'static str, Vec<Overload>, ahash::RandomState>;

/// Overload, `.` if the first argument is the receiver, function, arguments and result.
const TABLE: &str = include_str!("signatures.txt");

static FUNCTIONS: LazyLock<Functions> = LazyLock::new(read);

pub(super) fn lookup(name: &str) -> Option<&'static [Overload]> {
    FUNCTIONS.get(name).map(Vec::as_slice)
}

#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.keys().copied()
}

fn read() -> Functions {
    let mut functions = Functions::default();
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let (Some(id), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        let rest: String = words.collect::<Vec<_>>().join(" ");
        let (arguments, result) = rest.split_once("->").unwrap_or((&rest, "dyn"));
        let (name, is_member) = match name.strip_prefix('.') {
            Some(name) => (name, true),
            None => (name, false),
        };
        let mut params = Vec::new();
        let arguments: Vec<Type> = split(arguments).map(|text| parse(text, &mut params)).collect();
        let result = parse(result.trim(), &mut params);
        functions.entry(name).or_default().push(Overload {
            id,
            is_member,
            arguments,
            result,
            params: u32::try_from(params.len()).unwrap_or_default(),
        });
    }
    functions
}

/// Splits at commas that stand in no parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn parse(text: &str, params: &mut Vec<String>) -> Type {
    if let Some((outer, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let mut inner: Vec<Type> = split(inner).map(|text| parse(text, params)).collect();
        let last = inner.pop().unwrap_or(Type::Dyn);
        return match outer {
            "list" => Type::list(last),
            "optional" => Type::optional(last),
            "type" => Type::Type(Arc::new(last)),
            _ => Type::map(inner.pop().unwrap_or(Type::Dyn), last),
        };
    }
    match text {
        "dyn" => Type::Dyn,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        other => match opaque(other) {
            Some(name) => Type::Opaque(name),
            None => {
                let number = params.iter().position(|param| param == other).unwrap_or_else(|| {
                    params.push(other.to_owned());
                    params.len() - 1
                });
                Type::Param(u32::try_from(number).unwrap_or_default())
            }
        },
    }
}

/// Names of the types of libraries.
pub(super) mod opaque_names {
    pub const URL: &str = "kubernetes.URL";
    pub const QUANTITY: &str = "kubernetes.Quantity";
    pub const IP: &str = "net.IP";
    pub const CIDR: &str = "net.CIDR";
    pub const SEMVER: &str = "kubernetes.Semver";
    pub const FORMAT: &str = "kubernetes.NamedFormat";
    pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
    pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
    pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
    pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
    pub const DECISION: &str = "kubernetes.authorization.Decision";
}

fn opaque(short: &str) -> Option<&'static str> {
    Some(match short {
        "url" => opaque_names::URL,
        "quantity" => opaque_names::QUANTITY,
        "ip" => opaque_names::IP,
        "cidr" => opaque_names::CIDR,
        "semver" => opaque_names::SEMVER,
        "format" => opaque_names::FORMAT,
        "authorizer" => opaque_names::AUTHORIZER,
        "pathcheck" => opaque_names::PATH_CHECK,
        "groupcheck" => opaque_names::GROUP_CHECK,
        "resourcecheck" => opaque_names::RESOURCE_CHECK,
        "decision" => opaque_names::DECISION,
        _ => return None,
    })
}

/// The type that a name denotes: `int`, `google.protobuf.Timestamp`, `net.IP`.
pub(super) fn type_named(name: &str) -> Option<Type> {
    Some(match name {
        "dyn" => Type::Dyn,
        "null_type" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "type" => Type::Type(Arc::new(Type::Dyn)),
        "optional_type" => Type::optional(Type::Dyn),
        other => Type::Opaque(
            [
                opaque_names::URL,
                opaque_names::QUANTITY,
                opaque_names::IP,
                opaque_names::CIDR,
                opaque_names::SEMVER,
                opaque_names::FORMAT,
                opaque_names::AUTHORIZER,
                opaque_names::PATH_CHECK,
                opaque_names::GROUP_CHECK,
                opaque_names::RESOURCE_CHECK,
                opaque_names::DECISION,
            ]
            .into_iter()
            .find(|known| *known == other)?,
        ),
    })
}
