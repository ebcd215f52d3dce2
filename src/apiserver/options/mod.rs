//! Query parameters and the options that they and bodies carry
//! (upstream: `apimachinery/pkg/apis/meta/v1` options, their conversion and validation).
//!
//! Unknown names are ignored; values that do not decode are 400, values that are not allowed 422.

mod delete;
mod list;
mod write;

pub use delete::{DeleteOptions, PropagationPolicy};
pub use list::{ListOptions, VersionMatch};
pub use write::{FieldValidation, WriteOptions};

use super::error::ApiError;
use crate::registry::field::{FieldError, go_quoted};
use std::num::IntErrorKind;

/// The decoded query of a request, in order.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `text` is what stands after `?`.
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values of `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Upstream's rule for booleans: absent, `0` and `false` are false; all else, the empty text included, is true.
    pub fn flag(&self, name: &str) -> bool {
        self.optional_flag(name).unwrap_or(false)
    }

    pub fn optional_flag(&self, name: &str) -> Option<bool> {
        self.get(name)
            .map(|value| !(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// An integer; None when absent.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|error: std::num::ParseIntError| {
                let why = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go_quoted(text)))
            }),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A path segment without its percent signs; bytes that are no UTF-8 become replacement characters.
pub fn percent_decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment)
        .decode_utf8_lossy()
        .into_owned()
}

/// The 422 for options: their kind is qualified by `meta.k8s.io`, the name is empty.
fn check(kind: &str, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid("meta.k8s.io", kind, "", &errors))
    }
}

/// `dryRun` may only be `All`, any number of times. True if it is there.
fn dry_run(values: &[String], errors: &mut Vec<FieldError>) -> bool {
    if values.iter().any(|value| value != "All") {
        errors.push(FieldError::not_supported("dryRun", values.to_vec(), &["All"]));
    }
    !values.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_follow_upstream() {
        let query = Query::parse("a=&b=0&c=FALSE&d=no&e");
        let got = ["a", "b", "c", "d", "e", "absent"].map(|name| query.flag(name));
        assert_eq!(got, [true, false, false, true, true, false]);
    }

    #[test]
    fn integers_must_parse() {
        let query = Query::parse("limit=5&bad=x&empty=&large=99999999999999999999");
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert_eq!(query.integer("absent").unwrap(), None);
        for (name, message) in [
            ("bad", "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("empty", "strconv.ParseInt: parsing \"\": invalid syntax"),
            (
                "large",
                "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
        ] {
            let error = query.integer(name).unwrap_err();
            assert_eq!((error.code().as_u16(), error.message()), (400, message));
        }
    }
}
