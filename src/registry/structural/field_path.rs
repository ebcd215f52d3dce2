//! `fieldPath` of a rule: a path of members that the schema knows (upstream: `ValidFieldPath` of `schema/cel`).

use super::node::{Additional, Node};

/// The path as field errors write it: `spec.a`, `spec[key]`. Err says why it is none.
pub(super) fn normalized(path: &str, node: &Node) -> Result<String, String> {
    let mut tokens = tokens(path).into_iter();
    let mut at = node;
    let mut out = String::new();
    while let Some(token) = tokens.next() {
        let end = || "unexpected end of JSON path".to_owned();
        let name = match token {
            "." => tokens.next().ok_or_else(end)?.to_owned(),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let inner = quoted
                    .strip_prefix('\'')
                    .and_then(|text| text.strip_suffix('\''))
                    .ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                let name = unescaped(inner)?;
                match tokens.next() {
                    Some("]") => name,
                    Some(other) => return Err(format!("expected ] but got {other}")),
                    None => return Err(end()),
                }
            }
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        let unknown = || "does not refer to a valid field".to_owned();
        if !at.properties.is_empty() {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
            at = at.property(&name).ok_or_else(unknown)?;
        } else if let Additional::Schema(schema) = &at.additional {
            out.push_str(&format!("[{name}]"));
            at = schema;
        } else {
            return Err(unknown());
        }
    }
    Ok(out)
}

/// Dots, brackets, texts in single quotes, and what is between them.
fn tokens(path: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let bytes = rest.as_bytes();
        let length = match bytes[0] {
            b'\'' => (1..bytes.len())
                .find(|at| bytes[*at] == b'\'' && bytes[*at - 1] != b'\\')
                .map_or(rest.len(), |at| at + 1),
            b'.' | b'[' | b']' => 1,
            _ => rest.find(['.', '[', ']']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        out.push(match characters.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some('\'') => '\'',
            Some('\\') => '\\',
            Some(other) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
            None => '\\',
        });
    }
    Ok(out)
}
