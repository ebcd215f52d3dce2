//! Errors in an expression and where they are (upstream: `cel-go/common/error.go`).

use std::fmt;

/// One error; `offset` is in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub offset: usize,
    pub message: String,
}

/// What is wrong with an expression, as upstream prints it: each error with its line and a mark below it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CompileError {
    text: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Snippets of longer lines are not shown.
const SNIPPET_BYTES_MAX: usize = 16_384;
const ERRORS_SHOWN_MAX: usize = 100;

impl CompileError {
    pub(super) fn new(source: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.offset);
        problems.dedup();
        let shown: Vec<String> = problems
            .iter()
            .take(ERRORS_SHOWN_MAX)
            .map(|problem| shown(source, problem))
            .collect();
        let mut text = shown.join("\n");
        if problems.len() > ERRORS_SHOWN_MAX {
            text.push_str(&format!(
                "\n{} more errors were truncated",
                problems.len() - ERRORS_SHOWN_MAX
            ));
        }
        Self { text }
    }
}

fn shown(source: &str, problem: &Problem) -> String {
    let offset = problem.offset.min(source.len());
    let before = &source[..offset];
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let column = before[start..].chars().count();
    let mut text = format!("ERROR: <input>:{line}:{}: {}", column + 1, problem.message);
    let snippet = source[start..]
        .split('\n')
        .next()
        .unwrap_or_default()
        .replace('\t', " ");
    if snippet.len() <= SNIPPET_BYTES_MAX {
        text.push_str(&format!("\n | {snippet}\n | "));
        let mut characters = snippet.chars();
        for character in characters.by_ref().take(column) {
            text.push(if character.len_utf8() > 1 { '\u{ff0e}' } else { '.' });
        }
        let wide = characters.next().is_some_and(|character| character.len_utf8() > 1);
        text.push(if wide { '\u{ff3e}' } else { '^' });
    }
    text
}
