//! `Warning` headers (upstream: `apiserver/pkg/endpoints/filters/warning.go`).

use parking_lot::Mutex;
use poem::Response;
use poem::http::{HeaderValue, header};

/// All texts together, in characters; above it each text is cut.
const TOTAL_CHARS_MAX: usize = 4096;
const CUT_CHARS: usize = 256;

/// The warnings that a request has gathered, without repetitions, in order.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock();
        if !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Adds one header per warning: `299 - "text"`.
    pub fn write(&self, response: &mut Response) {
        let texts = std::mem::take(&mut *self.0.lock());
        let total: usize = texts.iter().map(|text| text.chars().count()).sum();
        let (mut left, cut) = (TOTAL_CHARS_MAX, total > TOTAL_CHARS_MAX);
        for text in texts {
            let text: String = if cut {
                text.chars().take(CUT_CHARS).collect()
            } else {
                text
            };
            let length = text.chars().count();
            if length > left {
                return;
            }
            left -= length;
            // What a header cannot carry (it was checked for control characters) is left out.
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - {}", quote(&text)).as_bytes()) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
    }
}

/// A quoted-string of HTTP; control characters become spaces.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push(' '),
            plain => quoted.push(plain),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(texts: &[String]) -> Vec<String> {
        let warnings = Warnings::default();
        texts.iter().for_each(|text| warnings.add(text.clone()));
        let mut response = Response::default();
        warnings.write(&mut response);
        response
            .headers()
            .get_all(header::WARNING)
            .iter()
            .map(|v| v.to_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn texts_are_quoted_and_sent_once() {
        let text = r#"unknown field "spec.foo""#.to_owned();
        assert_eq!(
            headers(&[text.clone(), text]),
            [r#"299 - "unknown field \"spec.foo\"""#]
        );
    }

    #[test]
    fn the_total_is_bounded() {
        let texts: Vec<String> = (0..40).map(|n| format!("{n:02}{}", "x".repeat(1000))).collect();
        let sent = headers(&texts);
        assert_eq!(sent.len(), TOTAL_CHARS_MAX / CUT_CHARS);
        assert!(sent.iter().all(|value| value.len() == CUT_CHARS + r#"299 - """#.len()));
    }
}
