//! Acting as somebody else: `Impersonate-User` and its companions (upstream: `filters/impersonation`).
//!
//! Several modes are tried, narrow ones first: nodes and service accounts by name alone, other users, and last the
//! old verb `impersonate`. The narrow ones also ask whether the request itself may be made that way.

use poem::http::HeaderMap;

use super::authentication::{ANONYMOUS, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP};
use super::authorization::authorize;
use crate::apiserver::authorization::Authorizer;
use crate::apiserver::authorization::node::NODES_GROUP;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::{RequestInfo, User, decode};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_API: &str = "authentication.k8s.io";
const NODE_PREFIX: &str = "system:node:";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The user that the request shall be made as: the one that its headers name if `user` may act as it, else `user`.
pub fn impersonate(
    authorizer: &Authorizer,
    user: User,
    headers: &HeaderMap,
    info: &RequestInfo,
) -> Result<User, ApiError> {
    let Some(wanted) = wanted(headers)? else {
        return Ok(user);
    };
    let mut first = None;
    for mode in [
        Mode::AssociatedNode,
        Mode::ArbitraryNode,
        Mode::ServiceAccount,
        Mode::UserInfo,
        Mode::Legacy,
    ] {
        if !mode.fits(&user, &wanted) {
            continue;
        }
        match mode.check(authorizer, &user, &wanted, info) {
            Ok(other) => return Ok(other),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| ApiError::internal("all impersonation modes failed")))
}

/// The user as the headers have it; None if they name none.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, ApiError> {
    let first = |name| Ok::<_, ApiError>(values(headers, name)?.into_iter().next().unwrap_or_default());
    let mut wanted = User {
        name: first(USER)?,
        uid: first(UID)?,
        groups: values(headers, GROUP)?,
        ..User::default()
    };
    for name in headers.keys() {
        // Keys are percent-encoded in the header's name, which is lower-case on arrival.
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let more = values(headers, name.as_str())?;
            wanted.extra.entry(decode(key)).or_default().extend(more);
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == User::default() {
        return Ok(None);
    }
    let message = format!("requested {} without impersonating a user name", go_syntax(&wanted));
    Err(ApiError::bad_request(message))
}

fn values(headers: &HeaderMap, name: &str) -> Result<Vec<String>, ApiError> {
    let text = |value: &poem::http::HeaderValue| {
        let text = std::str::from_utf8(value.as_bytes()).map(str::to_owned);
        text.map_err(|_| ApiError::bad_request(format!("the header {name} is no text")))
    };
    headers.get_all(name).iter().map(text).collect()
}

/// Go's `%#v` of a user, which is what upstream's message shows.
fn go_syntax(user: &User) -> String {
    let list = |entries: &[String]| {
        let quoted: Vec<String> = entries.iter().map(|entry| format!("{entry:?}")).collect();
        format!("[]string{{{}}}", quoted.join(", "))
    };
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_owned(),
        groups => list(groups),
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let entries = user.extra.iter();
        let entries: Vec<String> = entries
            .map(|(key, values)| format!("{key:?}:{}", list(values)))
            .collect();
        format!("map[string][]string{{{}}}", entries.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}",
        user.name, user.uid
    )
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// A service account acts as the node that its pod runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    /// Anybody who is no node and no service account.
    UserInfo,
    /// Everybody, by the verb `impersonate`.
    Legacy,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::AssociatedNode => "associated-node",
            Mode::ArbitraryNode => "arbitrary-node",
            Mode::ServiceAccount => "serviceaccount",
            Mode::UserInfo => "user-info",
            Mode::Legacy => "",
        }
    }

    fn fits(self, user: &User, wanted: &User) -> bool {
        let only_named = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node(&wanted.name);
        match self {
            Mode::AssociatedNode => only_named && node.is_some_and(|node| runs_on(user, node)),
            Mode::ArbitraryNode => only_named && node.is_some(),
            Mode::ServiceAccount => only_named && service_account(&wanted.name).is_some(),
            Mode::UserInfo => node.is_none() && service_account(&wanted.name).is_none(),
            Mode::Legacy => true,
        }
    }

    fn check(self, authorizer: &Authorizer, user: &User, wanted: &User, info: &RequestInfo) -> Result<User, ApiError> {
        let constrained = self != Mode::Legacy;
        let verb = if constrained {
            format!("impersonate:{}", self.name())
        } else {
            "impersonate".to_owned()
        };
        if constrained {
            let on = RequestInfo {
                verb: format!("impersonate-on:{}:{}", self.name(), info.verb),
                ..info.clone()
            };
            authorize(authorizer, user, &on)?;
        }
        let group = if constrained { AUTHENTICATION_API } else { "" };
        let may = |group: &str, resource: &str, namespace: &str, name: &str| {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let info = RequestInfo {
                is_resource_request: true,
                verb: verb.clone(),
                api_group: group.to_owned(),
                api_version: "v1".to_owned(),
                namespace: namespace.to_owned(),
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                name: name.to_owned(),
                ..RequestInfo::default()
            };
            authorize(authorizer, user, &info)
        };
        let mut other = wanted.clone();
        match (service_account(&wanted.name), node(&wanted.name)) {
            (Some((namespace, name)), _) => {
                may(group, "serviceaccounts", namespace, name)?;
                if other.groups.is_empty() {
                    other.groups = account_groups(namespace).to_vec();
                }
            }
            (None, Some(node)) if constrained => {
                // The node of a service account is no matter of which one it is.
                let name = if self == Mode::AssociatedNode { "*" } else { node };
                may(group, "nodes", "", name)?;
                other.groups = vec![NODES_GROUP.to_owned()];
            }
            _ => may(group, "users", "", &wanted.name)?,
        }
        if !wanted.uid.is_empty() {
            may(AUTHENTICATION_API, "uids", "", &wanted.uid)?;
        }
        for name in &wanted.groups {
            may(group, "groups", "", name)?;
        }
        for (key, values) in &wanted.extra {
            for value in values {
                may(AUTHENTICATION_API, &format!("userextras/{key}"), "", value)?;
            }
        }
        let has = |name: &str| other.groups.iter().any(|group| group == name);
        if other.name == ANONYMOUS {
            if !has(UNAUTHENTICATED_GROUP) {
                other.groups.push(UNAUTHENTICATED_GROUP.to_owned());
            }
        } else if !has(AUTHENTICATED_GROUP) && !has(UNAUTHENTICATED_GROUP) {
            other.groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        Ok(other)
    }
}

/// The groups of every service account of a namespace.
pub fn account_groups(namespace: &str) -> [String; 2] {
    [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

fn node(user: &str) -> Option<&str> {
    user.strip_prefix(NODE_PREFIX).filter(|name| !name.is_empty())
}

/// Whether the user is a service account whose token is of a pod on the node.
fn runs_on(user: &User, node: &str) -> bool {
    let nodes = user.extra.get(NODE_NAME).map(Vec::as_slice);
    service_account(&user.name).is_some() && matches!(nodes, Some([name]) if name == node)
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderName, StatusCode};

    use super::*;
    use crate::registry::Registry;
    use crate::storage::{Options, Storage};

    fn user(groups: &[&str]) -> User {
        User {
            name: "jane".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    async fn act(user: User, headers: &[(&'static str, &str)]) -> Result<User, ApiError> {
        let storage = Storage::open(Options::memory(), Registry::builtin()).await.unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        let info = RequestInfo {
            verb: "get".into(),
            path: "/x".into(),
            ..RequestInfo::default()
        };
        impersonate(&Authorizer::new(&storage), user, &map, &info)
    }

    #[tokio::test]
    async fn without_headers_everybody_stays_who_they_are() {
        assert_eq!(act(user(&["dev"]), &[]).await.unwrap(), user(&["dev"]));
    }

    #[tokio::test]
    async fn administrators_may_be_anybody_and_then_are_nothing_more() {
        let admin = || user(&["system:masters"]);
        let headers = [
            (USER, "joe"),
            (GROUP, "dev"),
            (GROUP, "ops"),
            (UID, "7"),
            ("impersonate-extra-example.com%2fscopes", "view"),
        ];
        let joe = act(admin(), &headers).await.unwrap();
        assert_eq!(
            (joe.name.as_str(), joe.uid.as_str(), joe.groups.join(",").as_str()),
            ("joe", "7", "dev,ops,system:authenticated")
        );
        assert_eq!(joe.extra["example.com/scopes"], ["view"]);
        let account = act(admin(), &[(USER, "system:serviceaccount:default:robot")]);
        assert_eq!(
            account.await.unwrap().groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:default",
                "system:authenticated"
            ]
        );
        let nobody = act(admin(), &[(USER, ANONYMOUS)]).await.unwrap();
        assert_eq!(nobody.groups, [UNAUTHENTICATED_GROUP]);
        let node = act(admin(), &[(USER, "system:node:n1")]).await.unwrap();
        assert_eq!(node.groups, [NODES_GROUP, AUTHENTICATED_GROUP]);
        let outside = act(admin(), &[(USER, "joe"), (GROUP, UNAUTHENTICATED_GROUP)]).await;
        assert_eq!(outside.unwrap().groups, [UNAUTHENTICATED_GROUP]);
    }

    #[tokio::test]
    async fn others_may_not() {
        let error = act(user(&["dev"]), &[(USER, "joe")]).await.unwrap_err();
        assert_eq!(error.code(), StatusCode::FORBIDDEN);
        assert_eq!(
            error.to_string(),
            "forbidden: User \"jane\" cannot impersonate-on:user-info:get path \"/x\""
        );
        // Groups leave only the old way.
        let account = [(USER, "system:serviceaccount:default:robot"), (GROUP, "dev")];
        let error = act(user(&["dev"]), &account).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "serviceaccounts \"robot\" is forbidden: User \"jane\" cannot impersonate resource \"serviceaccounts\" in API group \"\" in the namespace \"default\""
        );
    }

    #[tokio::test]
    async fn groups_without_a_user_are_a_bad_request() {
        for (header, shown) in [
            (
                (GROUP, "dev"),
                r#"Groups:[]string{"dev"}, Extra:map[string][]string(nil)"#,
            ),
            (
                (UID, "7"),
                r#"UID:"7", Groups:[]string(nil), Extra:map[string][]string(nil)"#,
            ),
            (
                ("impersonate-extra-x", "y"),
                r#"Extra:map[string][]string{"x":[]string{"y"}}"#,
            ),
        ] {
            let error = act(user(&["system:masters"]), &[header]).await.unwrap_err();
            assert_eq!(error.code(), StatusCode::BAD_REQUEST);
            assert!(error.message().contains(shown), "{error}");
        }
    }
}
