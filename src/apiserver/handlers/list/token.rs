//! Continue tokens (upstream: `apiserver/pkg/storage/continue.go`).

use crate::apiserver::error::ApiError;
use crate::apiserver::options::ListOptions;
use crate::registry::Kind;
use crate::storage::Entry;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Where a chunked list goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Token {
    #[serde(default)]
    v: String,
    /// The first page's revision; -1: whatever there is now.
    #[serde(default)]
    pub rv: i64,
    /// The key of the last object that was sent, and a zero byte: what comes after it.
    #[serde(default)]
    start: String,
}

/// As Go's base64 says it.
fn illegal_base64(error: &base64::DecodeError, text: &str) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
    };
    format!("illegal base64 data at input byte {at}")
}

/// Whether the key stays below its prefix: a path without empty segments and dots.
fn is_clean(start: &str) -> bool {
    let path = start.strip_prefix('/').unwrap_or(start);
    path.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
}

impl Token {
    const VERSION: &'static str = "meta.k8s.io/v1";

    pub fn after(kind: &Kind, entry: &Entry, revision: u64) -> Self {
        let namespace = &entry.key.namespace;
        let prefix = if kind.namespaced() {
            format!("{namespace}/")
        } else {
            String::new()
        };
        Self {
            v: Self::VERSION.into(),
            rv: i64::try_from(revision).unwrap_or(-1),
            start: format!("{prefix}{}\0", entry.key.name),
        }
    }

    /// The same place in whatever there is now.
    pub fn inconsistent(&self) -> Self {
        Self { rv: -1, ..self.clone() }
    }

    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    pub fn of(options: &ListOptions) -> Result<Option<Self>, ApiError> {
        if options.continue_token.is_empty() {
            return Ok(None);
        }
        if !matches!(options.resource_version.as_str(), "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let invalid =
            |why: &str| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD
            .decode(&options.continue_token)
            .map_err(|error| invalid(&illegal_base64(&error, &options.continue_token)))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))?;
        if token.v != Self::VERSION {
            return Err(invalid(&format!(
                "server does not recognize this encoded version {}",
                token.v
            )));
        }
        if token.rv == 0 {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if !is_clean(&token.start) {
            return Err(invalid(&token.start));
        }
        Ok(Some(token))
    }

    /// Namespace and name from which on objects are sent.
    pub fn position(&self, kind: &Kind) -> (&str, &str) {
        match self.start.split_once('/') {
            Some(position) if kind.namespaced() => position,
            _ => ("", &self.start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(token: &str, resource_version: &str) -> Result<Option<Token>, u16> {
        let options = ListOptions {
            continue_token: token.into(),
            resource_version: resource_version.into(),
            ..ListOptions::default()
        };
        Token::of(&options).map_err(|e| e.code().as_u16())
    }

    #[test]
    fn tokens_come_back_as_they_went() {
        let token = Token {
            v: Token::VERSION.into(),
            rv: 7,
            start: "ns/name\0".into(),
        };
        let read = of(&token.encode(), "0").unwrap().unwrap();
        assert_eq!((read.rv, read.start.as_str()), (7, "ns/name\0"));
        assert!(of("", "").unwrap().is_none());
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        for bad in [
            "%%%".to_owned(),
            URL_SAFE_NO_PAD.encode("{"),
            encode(json!({"v": "v9", "rv": 1, "start": "a\0"})),
            encode(json!({"v": Token::VERSION, "rv": 0, "start": "a\0"})),
            encode(json!({"v": Token::VERSION, "rv": 1, "start": ""})),
            encode(json!({"v": Token::VERSION, "rv": 1, "start": "../secrets/a\0"})),
            encode(json!({"v": Token::VERSION, "rv": 1})),
        ] {
            assert_eq!(of(&bad, "").unwrap_err(), 400, "{bad}");
        }
        let good = encode(json!({"v": Token::VERSION, "rv": 1, "start": "a\0"}));
        assert_eq!(of(&good, "5").unwrap_err(), 400);
    }
}
