//! Field selectors: `status.phase=Running,metadata.name!=a` (upstream: `apimachinery/pkg/fields/selector.go` and
//! the field label conversions of each group).

use crate::registry::Kind;
use crate::storage::Index;

/// Terms that must all hold. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    negated: bool,
}

impl FieldSelector {
    /// Parses the text of a query; the error is upstream's sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let mut terms = Vec::new();
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let (field, negated, value) =
                split_term(part).ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{part}'"))?;
            terms.push(Term {
                field: field.to_owned(),
                value: unescape(value)?,
                negated,
            });
        }
        Ok(Self { terms })
    }

    /// Checks that the kind knows all fields and maps their aliases to what the index holds.
    pub fn for_kind(mut self, kind: &Kind) -> Result<Self, String> {
        let strategy = &kind.strategy;
        for term in &mut self.terms {
            let known = match term.field.as_str() {
                "metadata.name" => true,
                "metadata.namespace" => strategy.selects_namespace(),
                field => strategy.selectable_fields().contains(&field),
            };
            if !known {
                return Err(strategy.unsupported_field(&term.field));
            }
            let mapped = strategy.field_alias(&term.field).to_owned();
            term.field = mapped;
        }
        Ok(self)
    }

    /// Everything is selected.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value that `field` must have, if a term says so.
    pub fn exact(&self, field: &str) -> Option<&str> {
        let term = self.terms.iter().find(|term| !term.negated && term.field == field)?;
        Some(&term.value)
    }

    /// Whether an object is selected. A field that the index does not hold counts as empty.
    pub fn matches(&self, index: &Index, namespace: &str, name: &str) -> bool {
        self.terms.iter().all(|term| {
            let value = match term.field.as_str() {
                "metadata.name" => name,
                "metadata.namespace" => namespace,
                field => index
                    .fields
                    .iter()
                    .find(|(key, _)| *key == field)
                    .map_or("", |(_, value)| value.as_str()),
            };
            (value == term.value) != term.negated
        })
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..position]);
                start = position + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Field, whether negated, and escaped value; the first operator counts.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    term.char_indices().find_map(|(position, _)| {
        let rest = &term[position..];
        [("!=", true), ("==", false), ("=", false)]
            .iter()
            .find_map(|(operator, negated)| {
                let value = rest.strip_prefix(operator)?;
                Some((&term[..position], *negated, value))
            })
    })
}

fn unescape(value: &str) -> Result<String, String> {
    let bad = |sequence: String| format!("invalid field selector: invalid escape sequence: {sequence}");
    let mut result = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => result.push(escaped),
                Some(other) => return Err(bad(format!("\\{other}"))),
                None => return Err(bad("\\".to_owned())),
            },
            // Upstream prints the number of the character.
            ',' | '=' => {
                let number = u32::from(character);
                return Err(format!(
                    "invalid field selector: unescaped character in value: {number}"
                ));
            }
            other => result.push(other),
        }
    }
    Ok(result)
}
