//! Users that a front proxy has signed in, whom it names in headers (upstream:
//! `apiserver/pkg/authentication/request/headerrequest`).

use crate::apiserver::options::percent_decode;
use crate::apiserver::request::User;
use poem::http::{HeaderMap, HeaderName};
use std::collections::BTreeMap;

/// Which proxies are believed, and where they say what. All lists are looked through in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeaders {
    /// Common names of the proxies' certificates; empty: any that their authority signed.
    pub allowed_names: Vec<String>,
    pub username_headers: Vec<HeaderName>,
    pub uid_headers: Vec<HeaderName>,
    pub group_headers: Vec<HeaderName>,
    /// In lower case.
    pub extra_prefixes: Vec<String>,
}

impl Default for RequestHeaders {
    /// The names that upstream's documentation and all its add-ons have.
    fn default() -> Self {
        Self {
            allowed_names: vec![crate::transport::pki::FRONT_PROXY_CLIENT.to_owned()],
            username_headers: vec![HeaderName::from_static("x-remote-user")],
            uid_headers: vec![HeaderName::from_static("x-remote-uid")],
            group_headers: vec![HeaderName::from_static("x-remote-group")],
            extra_prefixes: vec!["x-remote-extra-".to_owned()],
        }
    }
}

impl RequestHeaders {
    /// Whether a proxy with this name in its certificate is believed.
    pub fn allows(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// Whom the headers name; None if nobody.
    pub fn user(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[HeaderName]| {
            let mut values = names.iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.find(|value| !value.is_empty()).map(str::to_owned)
        };
        let groups = self.group_headers.iter().flat_map(|name| headers.get_all(name));
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let key = self.extra_key(name.as_str());
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                extra.entry(percent_decode(key)).or_default().push(value.to_owned());
            }
        }
        Some(User {
            name: first(&self.username_headers)?,
            uid: first(&self.uid_headers).unwrap_or_default(),
            groups: groups
                .filter_map(|value| value.to_str().ok())
                .map(str::to_owned)
                .collect(),
            extra,
        })
    }

    /// Takes them out, so that they are handed on to nobody.
    pub fn take_out(&self, headers: &mut HeaderMap) {
        for name in [&self.username_headers, &self.uid_headers, &self.group_headers]
            .into_iter()
            .flatten()
        {
            headers.remove(name);
        }
        let extra = headers.keys().filter(|name| self.extra_key(name.as_str()).is_some());
        for name in extra.cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
    }

    /// What stands after the prefix; names of headers are in lower case here.
    fn extra_key<'a>(&self, name: &'a str) -> Option<&'a str> {
        self.extra_prefixes
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&str, &str)]) -> HeaderMap {
        let row = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (name, value) in rows.iter().map(row) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn headers_name_the_user() {
        let wanted = RequestHeaders {
            username_headers: vec![
                HeaderName::from_static("x-user"),
                HeaderName::from_static("x-remote-user"),
            ],
            ..RequestHeaders::default()
        };
        let mut headers = headers(&[
            ("X-User", ""),
            ("X-Remote-User", "jane"),
            ("X-Remote-Uid", "7"),
            ("X-Remote-Group", "dev"),
            ("X-Remote-Group", "ops"),
            ("X-Remote-Extra-Acme.com%2fProject", "a"),
            ("X-Remote-Extra-Acme.com%2fProject", "b"),
            ("Accept", "x"),
        ]);
        let user = wanted.user(&headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["dev", "ops"]);
        let extra = [("acme.com/project".to_owned(), vec!["a".to_owned(), "b".to_owned()])];
        assert_eq!(user.extra, BTreeMap::from(extra));
        wanted.take_out(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
        assert_eq!(wanted.user(&headers), None);
    }

    #[test]
    fn no_names_are_all_names() {
        let mut wanted = RequestHeaders::default();
        assert!(wanted.allows("front-proxy-client") && !wanted.allows("other"));
        wanted.allowed_names.clear();
        assert!(wanted.allows("other"));
    }
}
