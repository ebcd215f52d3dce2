//! Whatever is written, compiling and evaluating it ends without a panic.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const WORDS: [&str; 44] = [
    "self",
    ".",
    "text",
    "int",
    "ints",
    "map",
    "any",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "?",
    ":",
    ",",
    "+",
    "-",
    "*",
    "/",
    "%",
    "==",
    "<",
    "&&",
    "||",
    "!",
    "in",
    "1",
    "2u",
    "1.5",
    "'a'",
    "b'b'",
    "true",
    "null",
    "x",
    "all",
    "map",
    "filter",
    "has",
    "size",
    "self.texts",
    "optional.of",
    "[1, 2]",
    "self.pairs.map(x, ",
];

#[test]
fn random_words_are_compiled_or_refused() {
    let mut random = StdRng::seed_from_u64(11);
    let mut compiled = 0;
    for _ in 0..30_000 {
        let count = random.random_range(1..9);
        let source: Vec<&str> = (0..count).map(|_| WORDS[random.random_range(0..WORDS.len())]).collect();
        compiled += usize::from(!matches!(evaluated(&source.concat()), Err(error) if error.starts_with("ERROR")));
    }
    assert!(compiled > 300, "{compiled}");
}

#[test]
fn every_change_of_a_character_is_compiled_or_refused() {
    let source = "self.pairs.all(p, p.name.matches('^[a-z]+$') && (has(p.value) ? p.value > 0x1f : size(p.name) == 1))";
    for at in 0..source.len() {
        for new in ["(", ")", "'", "\"", "\\", ".", "[", "é", "\0", "\n", "0", "u", ""] {
            let changed = format!("{}{new}{}", &source[..at], &source[at + 1..]);
            let _ = evaluated(&changed);
        }
    }
}
