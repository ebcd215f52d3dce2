//! Blocks of PEM as Go's `encoding/pem` finds them: what is no whole block is passed over.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

pub struct Block {
    pub label: String,
    /// Lines of the form `Key: value` before the contents.
    pub has_headers: bool,
    pub contents: Vec<u8>,
}

impl Block {
    /// The contents as one certificate, with nothing after it.
    pub fn certificate(&self) -> Option<X509Certificate<'_>> {
        match X509Certificate::from_der(&self.contents) {
            Ok(([], certificate)) => Some(certificate),
            _ => None,
        }
    }
}

pub fn blocks(pem: &[u8]) -> impl Iterator<Item = Block> {
    let text = String::from_utf8_lossy(pem);
    let mut found = Vec::new();
    let mut open: Option<(String, bool, String)> = None;
    for line in text.lines().map(str::trim_end) {
        let label = |prefix: &str| line.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("-----"));
        if let Some(label) = label("-----BEGIN ") {
            open = Some((label.to_owned(), false, String::new()));
        } else if let Some(end) = label("-----END ") {
            let whole = open.take().filter(|(label, ..)| label == end);
            if let Some((label, has_headers, base64)) = whole
                && let Ok(contents) = STANDARD.decode(base64)
            {
                found.push(Block {
                    label,
                    has_headers,
                    contents,
                });
            }
        } else if let Some((_, has_headers, base64)) = &mut open {
            if base64.is_empty() && line.contains(':') {
                *has_headers = true;
            } else {
                base64.extend(line.chars().filter(|character| !character.is_whitespace()));
            }
        }
    }
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_found() {
        let pem = "words\n-----BEGIN A-----\nAA==\n-----END B-----\n-----BEGIN C-----\nKey: value\n\nAAE=\n-----END C-----\n\
                   -----BEGIN D-----\n!\n-----END D-----\n-----BEGIN E-----\n-----END E-----\n-----BEGIN F-----\n";
        let found: Vec<(String, bool, Vec<u8>)> = blocks(pem.as_bytes())
            .map(|block| (block.label, block.has_headers, block.contents))
            .collect();
        assert_eq!(
            found,
            [("C".to_owned(), true, vec![0, 1]), ("E".to_owned(), false, vec![])]
        );
    }
}
