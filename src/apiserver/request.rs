//! What a request asks for, read from its method and URL, and who asks
//! (upstream: `apiserver/pkg/endpoints/request/requestinfo.go`, `apiserver/pkg/authentication/user`).

use super::options::Query;
use crate::registry::strategy::Requester;
use poem::http::{Method, Uri};
use std::collections::BTreeMap;

/// Who makes the request. Put into the request's extensions by the authentication filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The same for objects that note who asked for them.
    pub fn requester(&self) -> Requester<'_> {
        Requester {
            name: &self.name,
            uid: &self.uid,
            groups: &self.groups,
            extra: &self.extra,
        }
    }
}

/// What the request asks for. All names are percent-decoded path segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// False for `/healthz`, discovery and the like; then only `path` and `verb` are set.
    pub is_resource_request: bool,
    pub path: String,
    /// `get list watch create update patch delete deletecollection`, or the lower-case method.
    pub verb: String,
    /// `api` or `apis`.
    pub api_prefix: String,
    pub api_group: String,
    pub api_version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (`proxy/…`), with its segments.
    pub subpath: Vec<String>,
    /// The old `/watch/…` prefix was used.
    pub watch_prefix: bool,
    /// Fields that the objects of a list, watch or collection deletion must have, with their values.
    pub selected_fields: Vec<(String, String)>,
}

/// Segments below a namespace that are subresources of the namespace itself.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Subresources and verbs whose requests may last.
const LONG_RUNNING_SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

impl RequestInfo {
    /// `query` decides between list and watch, and may name the object through a field selector.
    pub fn resolve(method: &Method, uri: &Uri, query: &Query) -> Self {
        let path = uri.path();
        let mut info = Self {
            path: path.to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            ..Self::default()
        };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        // An empty segment would stand for an empty name: such a path is no resource's. What follows `proxy` is
        // somebody else's path.
        let own = parts.iter().position(|part| *part == "proxy").unwrap_or(parts.len());
        if parts[..own].contains(&"") {
            return info;
        }
        let (prefix, parts) = match parts.split_first() {
            Some((&"api", rest)) if rest.len() >= 2 => ("api", rest),
            Some((&"apis", rest)) if rest.len() >= 3 => {
                info.api_group = decode(rest[0]);
                ("apis", &rest[1..])
            }
            _ => return info,
        };
        info.api_prefix = prefix.to_owned();
        info.is_resource_request = true;
        info.api_version = decode(parts[0]);
        let mut parts = &parts[1..];
        info.verb = verb_of_method(method).to_owned();
        if parts[0] == "watch" {
            if parts.len() < 2 {
                return Self {
                    path: info.path,
                    verb: method.as_str().to_ascii_lowercase(),
                    ..Self::default()
                };
            }
            info.watch_prefix = true;
            info.verb = "watch".into();
            parts = &parts[1..];
        }
        info.locate(parts);
        if info.name.is_empty() && info.verb == "get" {
            info.verb = "list".into();
        }
        if info.verb == "list" && query.flag("watch") {
            info.verb = "watch".into();
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection".into();
        }
        if matches!(info.verb.as_str(), "list" | "watch" | "deletecollection") {
            let selector = query.get("fieldSelector").unwrap_or_default();
            info.selected_fields = equal_fields(selector);
            if info.name.is_empty() {
                info.name = name_of_selector(selector).unwrap_or_default();
            }
        }
        info
    }

    fn locate(&mut self, mut parts: &[&str]) {
        if parts[0] == "namespaces"
            && let Some(namespace) = parts.get(1)
        {
            self.namespace = decode(namespace);
            // /namespaces/{ns}/pods is below the namespace; /namespaces/{ns}[/status] is the object itself.
            if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2]) {
                parts = &parts[2..];
            }
        }
        self.resource = decode(parts[0]);
        self.name = parts.get(1).map(|p| decode(p)).unwrap_or_default();
        self.subresource = parts.get(2).map(|p| decode(p)).unwrap_or_default();
        self.subpath = parts.iter().skip(3).map(|p| decode(p)).collect();
    }

    /// Requests without the 60 s limit and outside of the in-flight bound.
    pub fn is_long_running(&self) -> bool {
        matches!(self.verb.as_str(), "watch" | "proxy")
            || LONG_RUNNING_SUBRESOURCES.contains(&self.subresource.as_str())
    }

    /// `v1` or `apps/v1`.
    pub fn group_version(&self) -> String {
        if self.api_group.is_empty() {
            self.api_version.clone()
        } else {
            format!("{}/{}", self.api_group, self.api_version)
        }
    }
}

fn verb_of_method(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

pub(super) fn decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    super::options::percent_decode(segment)
}

/// The name that a field selector demands: `metadata.name=x` among its terms.
fn name_of_selector(selector: &str) -> Option<String> {
    let value = selector.split(',').find_map(|term| {
        let rest = term.trim().strip_prefix("metadata.name")?;
        rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))
    })?;
    (!value.is_empty() && !value.contains('\\')).then(|| value.to_owned())
}

/// The terms `path=value` of a field selector. Escapes are left out: no name has them.
pub fn equal_fields(selector: &str) -> Vec<(String, String)> {
    let terms = selector.split(',').filter(|term| !term.contains('\\'));
    terms
        .filter_map(|term| {
            let (path, value) = term.split_once('=')?;
            let value = value.strip_prefix('=').unwrap_or(value);
            (!path.ends_with('!')).then(|| (path.trim().to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(method: Method, uri: &str) -> RequestInfo {
        let uri: Uri = uri.parse().unwrap();
        RequestInfo::resolve(&method, &uri, &Query::parse(uri.query().unwrap_or("")))
    }

    #[test]
    fn urls_resolve_as_upstream() {
        // method, uri, verb, group, version, namespace, resource, name, subresource
        let rows = [
            ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
            (
                "GET",
                "/api/v1/namespaces/a/pods/x",
                "get",
                "",
                "v1",
                "a",
                "pods",
                "x",
                "",
            ),
            (
                "HEAD",
                "/api/v1/namespaces/a/pods/x",
                "get",
                "",
                "v1",
                "a",
                "pods",
                "x",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods?watch=true",
                "watch",
                "",
                "v1",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods?watch=",
                "watch",
                "",
                "v1",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods?watch=0",
                "list",
                "",
                "v1",
                "a",
                "pods",
                "",
                "",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods/x",
                "watch",
                "",
                "v1",
                "a",
                "pods",
                "x",
                "",
            ),
            (
                "GET",
                "/api/v1/namespaces/a",
                "get",
                "",
                "v1",
                "a",
                "namespaces",
                "a",
                "",
            ),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update",
                "",
                "v1",
                "a",
                "namespaces",
                "a",
                "finalize",
            ),
            ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection",
                "apps",
                "v1",
                "a",
                "deployments",
                "",
                "",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch",
                "apps",
                "v1",
                "a",
                "deployments",
                "d",
                "scale",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods/x/exec",
                "create",
                "",
                "v1",
                "a",
                "pods",
                "x",
                "exec",
            ),
            (
                "GET",
                "/api/v1/pods?fieldSelector=metadata.name%3Dx",
                "list",
                "",
                "v1",
                "",
                "pods",
                "x",
                "",
            ),
        ];
        for (method, uri, verb, group, version, namespace, resource, name, subresource) in rows {
            let info = resolve(method.parse().unwrap(), uri);
            assert!(info.is_resource_request, "{uri}");
            let got = [
                &info.verb,
                &info.api_group,
                &info.api_version,
                &info.namespace,
                &info.resource,
                &info.name,
                &info.subresource,
            ];
            assert_eq!(
                got,
                [verb, group, version, namespace, resource, name, subresource],
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn short_paths_are_no_resources() {
        for uri in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps/v1",
            "/healthz",
            "/version",
            "/api/v1/watch",
        ] {
            let info = resolve(Method::GET, uri);
            assert!(!info.is_resource_request, "{uri}");
            assert_eq!(info.verb, "get");
        }
    }

    #[test]
    fn long_running() {
        assert!(resolve(Method::GET, "/api/v1/pods?watch=1").is_long_running());
        assert!(resolve(Method::GET, "/api/v1/namespaces/a/pods/x/log").is_long_running());
        assert!(!resolve(Method::GET, "/api/v1/pods").is_long_running());
    }

    #[test]
    fn proxy_keeps_its_path() {
        let doubled = resolve(Method::GET, "/api/v1/nodes/n/proxy/a//b");
        assert_eq!(doubled.subpath, ["a", "", "b"]);
        let info = resolve(Method::GET, "/api/v1/nodes/n/proxy/logs/a%20b");
        assert_eq!(
            (info.subresource.as_str(), info.subpath),
            ("proxy", vec!["logs".to_owned(), "a b".to_owned()])
        );
    }
}
