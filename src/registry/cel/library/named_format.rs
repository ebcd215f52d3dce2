//! Formats of strings by name (upstream: `apiserver/pkg/cel/library/format.go`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::Value;
use crate::registry::string_formats as formats;
use crate::registry::validation;

/// A format: what is wrong with a text, and the length that its regular expression is taken to have.
struct Format {
    name: &'static str,
    problems: fn(&str) -> Vec<String>,
    regex_length: u64,
}

fn plain(holds: bool, problem: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![problem.to_owned()] }
}

const FORMATS: [Format; 13] = [
    Format {
        name: "dns1123Label",
        problems: |text| validation::dns1123_label(text, false),
        regex_length: 30,
    },
    Format {
        name: "dns1123Subdomain",
        problems: |text| validation::dns1123_subdomain(text, false),
        regex_length: 60,
    },
    Format {
        name: "dns1035Label",
        problems: |text| validation::dns1035_label(text, false),
        regex_length: 30,
    },
    Format {
        name: "qualifiedName",
        problems: validation::label_key,
        regex_length: 60,
    },
    Format {
        name: "dns1123LabelPrefix",
        problems: |text| validation::dns1123_label(text, true),
        regex_length: 30,
    },
    Format {
        name: "dns1123SubdomainPrefix",
        problems: |text| validation::dns1123_subdomain(text, true),
        regex_length: 60,
    },
    Format {
        name: "dns1035LabelPrefix",
        problems: |text| validation::dns1035_label(text, true),
        regex_length: 30,
    },
    Format {
        name: "labelValue",
        problems: validation::label_value,
        regex_length: 40,
    },
    Format {
        name: "uri",
        problems: |text| {
            plain(
                formats::is_request_uri(text),
                &format!("parse {text:?}: invalid URI for request"),
            )
        },
        regex_length: 2083,
    },
    Format {
        name: "uuid",
        problems: |text| plain(formats::matches("uuid", text), "does not match the UUID format"),
        regex_length: 77,
    },
    Format {
        name: "byte",
        problems: |text| plain(formats::matches("byte", text), "invalid base64"),
        regex_length: 84,
    },
    Format {
        name: "date",
        problems: |text| plain(formats::matches("date", text), "invalid date"),
        regex_length: 76,
    },
    Format {
        name: "datetime",
        problems: |text| plain(formats::matches("datetime", text), "invalid datetime"),
        regex_length: 76,
    },
];

fn find(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

/// The length by which the cost of a validation is reckoned.
pub(in crate::registry::cel) fn regex_length(name: &str) -> u64 {
    find(name).map_or(0, |format| format.regex_length)
}

pub(super) fn native(name: &str) -> Option<Native> {
    // A function without arguments cannot know its name, so there is one for each format.
    macro_rules! constant {
        ($($name:literal),*) => {
            match name {
                $(concat!("format.", $name) => |_| Ok(Value::Format($name)),)*
                "format.named" => |arguments| match arguments {
                    [Value::String(text)] => Ok(match find(text) {
                        Some(format) => Value::some(Value::Format(format.name)),
                        None => Value::Optional(None),
                    }),
                    _ => Err(Error::NoSuchOverload),
                },
                "validate" => |arguments| match arguments {
                    [Value::Format(name), Value::String(text)] => {
                        let problems = find(name).map(|format| (format.problems)(text)).unwrap_or_default();
                        Ok(if problems.is_empty() {
                            Value::Optional(None)
                        } else {
                            Value::some(Value::list(problems.into_iter().map(Value::from).collect()))
                        })
                    }
                    _ => Err(Error::NoSuchOverload),
                },
                _ => return None,
            }
        };
    }
    let native: Native = constant!(
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime"
    );
    Some(native)
}
