//! Regular expressions that come at run time, compiled once and kept while they are in use
//! (upstream: `kube-openapi/pkg/validation/validate/rexp.go`; Go's RE2 syntax).

use parking_lot::Mutex;
use regex::Regex;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

/// A compiled expression takes tens of kilobytes, so only so many are kept.
const KEPT_MAX: usize = 256;
/// Bytes a compiled expression may take.
const PROGRAM_BYTES_MAX: usize = 8 << 20;

static KEPT: LazyLock<Mutex<HashMap<Arc<str>, Regex, ahash::RandomState>>> = LazyLock::new(Mutex::default);

/// The compiled expression, or what is wrong with it.
pub fn compiled(pattern: &str) -> Result<Regex, String> {
    if let Some(regex) = KEPT.lock().get(pattern) {
        return Ok(regex.clone());
    }
    let regex = regex::RegexBuilder::new(&translated(pattern))
        .size_limit(PROGRAM_BYTES_MAX)
        .build()
        .map_err(|error| problem(pattern, &error))?;
    let mut kept = KEPT.lock();
    if kept.len() >= KEPT_MAX {
        kept.clear();
    }
    kept.insert(pattern.into(), regex.clone());
    Ok(regex)
}

/// Go's classes `\d`, `\s`, `\w` and `\b` are ASCII only, Rust's are Unicode; the rest of the syntax is the same
/// but for escapes that Rust has and Go refuses.
fn translated(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars().peekable();
    let mut class = false;
    let mut class_begins = false;
    while let Some(c) = chars.next() {
        let began = std::mem::take(&mut class_begins);
        match c {
            '\\' => match chars.next() {
                Some('d') if class => out.push_str("0-9"),
                Some('d') => out.push_str("[0-9]"),
                Some('D') => out.push_str("[^0-9]"),
                Some('s') if class => out.push_str(r"\t\n\f\r "),
                Some('s') => out.push_str(r"[\t\n\f\r ]"),
                Some('S') => out.push_str(r"[^\t\n\f\r ]"),
                Some('w') if class => out.push_str("0-9A-Za-z_"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                Some('W') => out.push_str("[^0-9A-Za-z_]"),
                Some('b') if !class => out.push_str(r"(?-u:\b)"),
                Some('B') if !class => out.push_str(r"\B"),
                Some('C') => out.push('.'),
                Some('Q') => {
                    // Literal text up to \E.
                    let mut literal = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        literal.push(c);
                    }
                    out.push_str(&regex::escape(&literal));
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            '[' if class => {
                // Go takes a bracket in a class for itself unless it begins `[:name:]`.
                if chars.peek() == Some(&':') {
                    out.push('[');
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                } else {
                    out.push_str(r"\[");
                }
            }
            '[' => {
                class = true;
                class_begins = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    chars.next();
                    out.push('^');
                }
            }
            // `[]a]`: a bracket that stands first is an element.
            ']' if class && began => out.push_str(r"\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            // Set operations of Rust's syntax that Go does not have.
            '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            '-' if class && chars.peek() == Some(&'-') => out.push_str(r"\-"),
            other => out.push(other),
        }
    }
    out
}

/// `error parsing regexp: missing closing ): \`a(b\``, as Go says it where the problem is a common one.
fn problem(pattern: &str, error: &regex::Error) -> String {
    let syntax = regex_syntax_kind(&error.to_string());
    match syntax {
        Some((text, whole)) if whole => format!("error parsing regexp: {text}: `{pattern}`"),
        Some((text, _)) => format!("error parsing regexp: {text}"),
        None => format!("error parsing regexp: invalid expression: `{pattern}`"),
    }
}

/// Go's words for the problem, and whether the whole expression follows them.
fn regex_syntax_kind(error: &str) -> Option<(String, bool)> {
    let last = error.lines().last()?.strip_prefix("error: ")?;
    Some(match last {
        "unclosed group" => ("missing closing )".into(), true),
        "unopened group" => ("unexpected )".into(), true),
        "unclosed character class" => ("missing closing ]".into(), true),
        "repetition operator missing expression" => ("missing argument to repetition operator".into(), true),
        "look-around, including look-ahead and look-behind, is not supported" => {
            ("invalid or unsupported Perl syntax".into(), true)
        }
        "unrecognized escape sequence" | "backreferences are not supported" => ("invalid escape sequence".into(), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_syntax_is_understood() {
        for (pattern, text, expected) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "١٢", false),
            (r"^[\w.-]+$", "a.b-c_1", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[a]+$", "[a", true),
            (r"^[[:alpha:]]+$", "ab", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"^[a&&b]+$", "&", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^\S+$", "a b", false),
        ] {
            assert_eq!(
                compiled(pattern).expect(pattern).is_match(text),
                expected,
                "{pattern} {text}"
            );
        }
        assert_eq!(
            compiled("a(b").err().as_deref(),
            Some("error parsing regexp: missing closing ): `a(b`")
        );
        assert_eq!(
            compiled("[a").err().as_deref(),
            Some("error parsing regexp: missing closing ]: `[a`")
        );
        assert!(compiled("(?=a)").is_err());
    }
}
