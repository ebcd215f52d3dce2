//! The functions that expressions can call, one file per library.

pub(super) mod authz;
mod convert;
mod format;
pub(super) mod ip;
mod lists;
mod named_format;
mod operators;
mod optional;
mod quantity;
mod regex;
pub(super) mod semver;
mod strings;
mod time;
pub(super) mod url;

use super::error::Error;
use super::value::Value;

/// A function by itself: the arguments, the receiver first.
pub(super) use named_format::regex_length;
pub(super) use operators::insert_into;

pub(super) type Native = for<'a> fn(&[Value<'a>]) -> Result<Value<'a>, Error>;

/// The function of a name. The checker has seen to the number and, where they are known, the types of arguments;
/// what it could not know, each function checks.
pub(super) fn native(name: &str) -> Option<Native> {
    const LIBRARIES: [fn(&str) -> Option<Native>; 15] = [
        operators::native,
        convert::native,
        strings::native,
        lists::native,
        optional::native,
        regex::native,
        time::native,
        quantity::native,
        ip::native,
        url::native,
        semver::native,
        named_format::native,
        format::native,
        authz::native,
        super::structs::native,
    ];
    LIBRARIES.iter().find_map(|library| library(name))
}

#[cfg(test)]
mod tests {
    /// Functions that the evaluation itself does, since not all of their arguments are evaluated.
    const SPECIAL: [&str; 7] = ["_?_:_", "_&&_", "_||_", "@not_strictly_false", "_[_]", "_[?_]", "_?._"];

    #[test]
    fn every_declared_function_is_there() {
        for name in super::super::signatures::names() {
            assert!(SPECIAL.contains(&name) || super::native(name).is_some(), "{name}");
        }
    }
}
