//! URLs (upstream: `apiserver/pkg/cel/library/urls.go`; Go's `net/url`).

use super::Native;
use crate::registry::cel::error::Error;
use crate::registry::cel::value::{Entries, Value};
use crate::registry::string_formats::is_request_uri;
use percent_encoding::percent_decode_str;
use std::sync::Arc;

/// The parts of an absolute URL or path.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// With the port, without the user.
    host: String,
    path: String,
    query: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, Error> {
        if !is_request_uri(text) {
            let why = match text {
                "" => "empty url",
                _ => "invalid URI for request",
            };
            return Err(Error::of(format!(
                "URL parse error during conversion from string: parse {text:?}: {why}"
            )));
        }
        let text = text.split('#').next().unwrap_or_default();
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if !text.starts_with('/') => (scheme.to_lowercase(), rest),
            _ => (String::new(), text),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(rest) => match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            },
            // What has no authority is a path, or opaque.
            None if scheme.is_empty() => ("", rest),
            None => ("", ""),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Ok(Self {
            scheme,
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Host without brackets, and port.
    fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (self.host.as_str(), ""),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        (bare.unwrap_or(host), port)
    }

    fn query<'a>(&self) -> Result<Value<'a>, Error> {
        let decoded = |text: &str| {
            let spaced = text.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
        };
        let mut gathered: Vec<(String, Vec<Value<'a>>)> = Vec::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decoded(key), Value::from(decoded(value)));
            match gathered.iter_mut().find(|(other, _)| *other == key) {
                Some((_, values)) => values.push(value),
                None => gathered.push((key, vec![value])),
            }
        }
        let mut entries = Entries::default();
        for (key, values) in gathered {
            entries.insert(key.into(), Value::list(values))?;
        }
        Ok(Value::map(entries))
    }
}

fn of<'a>(arguments: &[Value<'a>], part: fn(&Url) -> String) -> Result<Value<'a>, Error> {
    match arguments {
        [Value::Url(url)] => Ok(part(url).into()),
        _ => Err(Error::NoSuchOverload),
    }
}

pub(super) fn native(name: &str) -> Option<Native> {
    Some(match name {
        "url" => |arguments| match arguments {
            [Value::String(text)] => Url::parse(text).map(|url| Value::Url(Arc::new(url))),
            _ => Err(Error::NoSuchOverload),
        },
        "isURL" => |arguments| match arguments {
            [Value::String(text)] => Ok(Url::parse(text).is_ok().into()),
            _ => Err(Error::NoSuchOverload),
        },
        "getScheme" => |arguments| of(arguments, |url| url.scheme.clone()),
        "getHost" => |arguments| of(arguments, |url| url.host.clone()),
        "getHostname" => |arguments| of(arguments, |url| url.host_and_port().0.to_owned()),
        "getPort" => |arguments| of(arguments, |url| url.host_and_port().1.to_owned()),
        "getEscapedPath" => |arguments| of(arguments, |url| escaped(&url.path)),
        "getQuery" => |arguments| match arguments {
            [Value::Url(url)] => url.query(),
            _ => Err(Error::NoSuchOverload),
        },
        _ => return None,
    })
}

/// A path in which everything that must be escaped is.
fn escaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
