//! Splits an expression into tokens (upstream: `cel-go/parser/gen/CEL.g4`, `parser/unescape.go`).

use super::source::Problem;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(Arc<str>),
    Int(String),
    Uint(String),
    Double(String),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub(super) struct Spanned {
    pub token: Token,
    pub offset: usize,
    /// As it was written.
    pub text: String,
}

const SYMBOLS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", ";",
];

pub(super) fn tokens(source: &str) -> Result<Vec<Spanned>, Problem> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        let first = rest.chars().next().unwrap_or(' ');
        if matches!(first, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
            at += 1;
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (token, length) = token(rest, at)?;
        tokens.push(Spanned {
            token,
            offset: at,
            text: rest[..length].to_owned(),
        });
        at += length;
    }
    tokens.push(Spanned {
        token: Token::End,
        offset: source.len(),
        text: "<EOF>".to_owned(),
    });
    Ok(tokens)
}

fn token(rest: &str, at: usize) -> Result<(Token, usize), Problem> {
    let bytes = rest.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    if bytes[0].is_ascii_digit() || (bytes[0] == b'.' && digit(1)) {
        return Ok(number(rest));
    }
    if let Some((prefix, quote)) = quoted(rest) {
        return text(rest, prefix, quote, at);
    }
    if bytes[0].is_ascii_alphabetic() || bytes[0] == b'_' {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        return Ok((Token::Ident(rest[..end].into()), end));
    }
    if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol))
        && !matches!(*symbol, "=" | ";")
    {
        return Ok((Token::Symbol(symbol), symbol.len()));
    }
    let shown = rest.chars().next().unwrap_or_default();
    Err(Problem {
        offset: at,
        message: format!("Syntax error: token recognition error at: '{shown}'"),
    })
}

fn number(rest: &str) -> (Token, usize) {
    let bytes = rest.as_bytes();
    let run = |from: usize, of: fn(&u8) -> bool| from + bytes[from..].iter().take_while(|byte| of(byte)).count();
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X"))
        && hex.as_bytes().first().is_some_and(u8::is_ascii_hexdigit)
    {
        let end = run(2, u8::is_ascii_hexdigit);
        return match bytes.get(end) {
            Some(b'u' | b'U') => (Token::Uint(rest[..end].to_owned()), end + 1),
            _ => (Token::Int(rest[..end].to_owned()), end),
        };
    }
    let mut end = run(0, u8::is_ascii_digit);
    let mut is_double = false;
    if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
        is_double = true;
        end = run(end + 1, u8::is_ascii_digit);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
            is_double = true;
            end = run(end + 1 + sign, u8::is_ascii_digit);
        }
    }
    let text = rest[..end].to_owned();
    match bytes.get(end) {
        _ if is_double => (Token::Double(text), end),
        Some(b'u' | b'U') => (Token::Uint(text), end + 1),
        _ => (Token::Int(text), end),
    }
}

/// Length of the prefix (`r`, `b`, `br`, …) and the quotes that begin a literal here.
fn quoted(rest: &str) -> Option<(usize, &'static str)> {
    let prefix = rest
        .bytes()
        .take(2)
        .take_while(|byte| matches!(byte, b'r' | b'R' | b'b' | b'B'))
        .count();
    (0..=prefix).rev().find_map(|prefix| {
        ["\"\"\"", "'''", "\"", "'"]
            .into_iter()
            .find(|quote| rest[prefix..].starts_with(quote))
            .map(|quote| (prefix, quote))
    })
}

fn text(rest: &str, prefix: usize, quote: &'static str, at: usize) -> Result<(Token, usize), Problem> {
    let marks = rest[..prefix].to_ascii_lowercase();
    let (raw, is_bytes) = (marks.contains('r'), marks.contains('b'));
    let unfinished = || Problem {
        offset: at,
        message: format!("Syntax error: token recognition error at: '{rest}'"),
    };
    let mut out = Vec::new();
    let mut here = prefix + quote.len();
    loop {
        let left = &rest[here..];
        if left.starts_with(quote) {
            here += quote.len();
            break;
        }
        let Some(character) = left.chars().next() else {
            return Err(unfinished());
        };
        if quote.len() == 1 && matches!(character, '\n' | '\r') {
            return Err(unfinished());
        }
        if character == '\\' && !raw {
            let length = escape(left, is_bytes, &mut out).ok_or_else(|| Problem {
                offset: at,
                message: "Syntax error: token recognition error at: ".to_owned() + &format!("'{}'", &rest[..here + 1]),
            })?;
            here += length;
            continue;
        }
        if character == '\r' {
            // A line ends with a newline, however it was written.
            out.push(b'\n');
            here += if left.starts_with("\r\n") { 2 } else { 1 };
            continue;
        }
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        here += character.len_utf8();
    }
    let token = if is_bytes {
        Token::Bytes(out.into())
    } else {
        Token::String(String::from_utf8(out).map_err(|_| unfinished())?.into())
    };
    Ok((token, here))
}

/// Appends what an escape stands for; its length.
fn escape(text: &str, is_bytes: bool, out: &mut Vec<u8>) -> Option<usize> {
    let code = text.as_bytes().get(1)?;
    let simple = match code {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'\\' | b'\'' | b'"' | b'`' | b'?' => Some(*code),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Some(2);
    }
    let (digits, radix, start) = match code {
        b'x' | b'X' => (2, 16, 2),
        b'u' if !is_bytes => (4, 16, 2),
        b'U' if !is_bytes => (8, 16, 2),
        b'0'..=b'3' => (3, 8, 1),
        _ => return None,
    };
    let value = u32::from_str_radix(text.get(start..start + digits)?, radix).ok()?;
    if is_bytes {
        out.push(u8::try_from(value).ok()?);
    } else {
        out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(start + digits)
}
