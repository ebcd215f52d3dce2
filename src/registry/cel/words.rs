//! Words that no variable can have for a name (upstream: the grammar of `google/cel-spec`).

/// Literals and the operator that is a word.
pub const OPERANDS: [&str; 4] = ["true", "false", "null", "in"];

/// Kept for other languages; after a dot they are names.
pub const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// Whether the word is one of either.
pub fn is_taken(word: &str) -> bool {
    OPERANDS.contains(&word) || RESERVED.contains(&word)
}
