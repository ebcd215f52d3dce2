//! Formats of strings in upstream's words: names, labels, keys, ports
//! (upstream: `apimachinery/pkg/util/validation`, `apimachinery/pkg/api/validate/content`).
//!
//! Every check gives the problems it found, none if the value is right.

use std::fmt::Display;

const SUBDOMAIN_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

const LABEL_1123: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_1123: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_TEXT: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The sentence for a value that does not match `regex`.
pub fn regex_error(text: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{text} (regex used for validation is '{regex}')");
    }
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!(
        "{text} (e.g. {}regex used for validation is '{regex}')",
        examples.join(" or ")
    )
}

/// The sentence for a number outside of a range.
pub fn range_error(low: impl Display, high: impl Display) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// Names of objects: length in characters, as upstream's older checks say it.
fn too_long(value: &str, max: usize) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} characters"))
}

/// Labels: length in bytes, as upstream's newer checks say it.
fn too_many_bytes(value: &str, max: usize) -> Option<String> {
    (value.len() > max).then(|| format!("must be no more than {max} bytes"))
}

/// A generateName may end in a dash, since random letters follow.
pub fn mask_trailing_dash(name: &str, is_prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(rest) if is_prefix && !rest.is_empty() => {
            let mut rest = rest.to_owned();
            rest.pop();
            rest + "a"
        }
        _ => name.to_owned(),
    }
}

fn matches_label_1123(value: &str) -> bool {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = value.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
}

fn matches_subdomain_1123(value: &str) -> bool {
    value.split('.').all(matches_label_1123)
}

fn matches_label_1035(value: &str) -> bool {
    matches_label_1123(value) && value.starts_with(|c: char| c.is_ascii_lowercase())
}

fn matches_label_key(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn subdomain_text() -> String {
    regex_error(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
         and must start and end with an alphanumeric character",
        SUBDOMAIN_1123,
        &["example.com"],
    )
}

/// A DNS-1123 subdomain of at most 253 characters: most names.
pub fn dns1123_subdomain(name: &str, is_prefix: bool) -> Vec<String> {
    let name = mask_trailing_dash(name, is_prefix);
    let mut problems = Vec::from_iter(too_long(&name, SUBDOMAIN_LENGTH_MAX));
    if !matches_subdomain_1123(&name) {
        problems.push(subdomain_text());
    }
    problems
}

/// A DNS-1123 label of at most 63 characters: namespaces, containers, volumes.
pub fn dns1123_label(name: &str, is_prefix: bool) -> Vec<String> {
    let name = mask_trailing_dash(name, is_prefix);
    let mut problems = Vec::from_iter(too_long(&name, LABEL_LENGTH_MAX));
    if !matches_label_1123(&name) {
        problems.push(if matches_subdomain_1123(&name) {
            "must not contain dots".to_owned()
        } else {
            regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
                 and must start and end with an alphanumeric character",
                LABEL_1123,
                &["my-name", "123-abc"],
            )
        });
    }
    problems
}

/// A DNS-1035 label: starts with a letter.
pub fn dns1035_label(name: &str, is_prefix: bool) -> Vec<String> {
    let name = mask_trailing_dash(name, is_prefix);
    let mut problems = Vec::from_iter(too_long(&name, LABEL_LENGTH_MAX));
    if !matches_label_1035(&name) {
        problems.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
             start with an alphabetic character, and end with an alphanumeric character",
            LABEL_1035,
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// Anything that can stand between two slashes of a URL: RBAC kinds.
pub fn path_segment(name: &str, is_prefix: bool) -> Vec<String> {
    if !is_prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .iter()
        .filter(|part| name.contains(**part))
        .map(|part| format!("may not contain '{part}'"))
        .collect()
}

/// The key of a label, an annotation (in lower case), a finalizer, a taint, a resource.
pub fn label_key(key: &str) -> Vec<String> {
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) => (Some(prefix), name),
    };
    let text = || regex_error(LABEL_KEY_TEXT, LABEL_KEY, &["MyName", "my.name", "123-abc"]);
    if name.contains('/') {
        return vec![format!(
            "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
            text()
        )];
    }
    let mut problems = Vec::new();
    match prefix {
        None => {}
        Some("") => problems.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => {
            problems.extend(too_many_bytes(prefix, SUBDOMAIN_LENGTH_MAX).map(|text| format!("prefix part {text}")));
            if !matches_subdomain_1123(prefix) {
                problems.push(format!("prefix part {}", subdomain_text()));
            }
        }
    }
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    }
    problems.extend(too_many_bytes(name, LABEL_LENGTH_MAX).map(|text| format!("name part {text}")));
    if !matches_label_key(name) {
        problems.push(format!("name part {}", text()));
    }
    problems
}

/// The value of a label.
pub fn label_value(value: &str) -> Vec<String> {
    let mut problems = Vec::from_iter(too_many_bytes(value, LABEL_LENGTH_MAX));
    if !value.is_empty() && !matches_label_key(value) {
        problems.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
             and must start and end with an alphanumeric character",
            &format!("({LABEL_KEY})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// A key of a ConfigMap or a Secret.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut problems = Vec::from_iter(too_long(key, SUBDOMAIN_LENGTH_MAX));
    if key.is_empty()
        || !key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        problems.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match key {
        "." | ".." => problems.push(format!("must not be '{key}'")),
        _ if key.starts_with("..") => problems.push("must not start with '..'".to_owned()),
        _ => {}
    }
    problems
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn env_var_name(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if name.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if name.bytes().any(|byte| !(b' '..=b'~').contains(&byte) || byte == b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// The number of a port.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65_535).contains(&port) {
        return Vec::new();
    }
    vec![range_error(1, 65_535)]
}

/// The name of a port: an IANA service name.
pub fn port_name(name: &str) -> Vec<String> {
    let mut problems = Vec::from_iter(too_long(name, 15));
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if name.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if name.starts_with('-') || name.ends_with('-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// The name of an HTTP header.
pub fn http_header_name(name: &str) -> Vec<String> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A user or group id.
pub fn user_id(id: i64) -> Vec<String> {
    if (0..=i64::from(i32::MAX)).contains(&id) {
        return Vec::new();
    }
    vec![range_error(0, i32::MAX)]
}

/// An IP address, version 4 or 6.
pub fn ip_address(address: &str) -> Vec<String> {
    super::network::ip_problems(address)
}
