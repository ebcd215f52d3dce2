//! Acting as somebody else: `Impersonate-User` and its companions (upstream: `filters/impersonation`).

use poem::http::HeaderMap;

use super::authentication::{ANONYMOUS, AUTHENTICATED_GROUP, UNAUTHENTICATED_GROUP};
use super::authorization::authorize;
use crate::apiserver::error::ApiError;
use crate::apiserver::request::{RequestInfo, User, decode};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const AUTHENTICATION_API: &str = "authentication.k8s.io";

/// The user that the request shall be made as: the one that its headers name if `user` may act as it, else `user`.
pub fn impersonate(user: User, headers: &HeaderMap) -> Result<User, ApiError> {
    let name = values(headers, USER)?.pop().unwrap_or_default();
    let groups = values(headers, GROUP)?;
    let uid = values(headers, UID)?.pop().unwrap_or_default();
    let extra = extra(headers)?;
    if name.is_empty() {
        if groups.is_empty() && uid.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(ApiError::bad_request(
            "requested groups, uid or extra without impersonating a user",
        ));
    }
    let service_account = service_account(&name);
    match service_account {
        Some((namespace, name)) => may(&user, "", "serviceaccounts", namespace, name)?,
        None => may(&user, "", "users", "", &name)?,
    }
    for group in &groups {
        may(&user, "", "groups", "", group)?;
    }
    if !uid.is_empty() {
        may(&user, AUTHENTICATION_API, "uids", "", &uid)?;
    }
    let mut other = User {
        uid,
        groups,
        ..User::default()
    };
    for (key, value) in extra {
        may(&user, AUTHENTICATION_API, &format!("userextras/{key}"), "", &value)?;
        other.extra.entry(key).or_default().push(value);
    }
    if let (Some((namespace, _)), true) = (service_account, other.groups.is_empty()) {
        other.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    let everybody = if name == ANONYMOUS {
        UNAUTHENTICATED_GROUP
    } else {
        AUTHENTICATED_GROUP
    };
    if !other.groups.iter().any(|group| group == everybody) {
        other.groups.push(everybody.to_owned());
    }
    other.name = name;
    Ok(other)
}

fn values(headers: &HeaderMap, name: &str) -> Result<Vec<String>, ApiError> {
    let text = |value: &poem::http::HeaderValue| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| ApiError::bad_request(format!("the header {name} is no text")))
    };
    headers.get_all(name).iter().map(text).collect()
}

/// Keys are percent-encoded in the header's name, which is lower-case on arrival.
fn extra(headers: &HeaderMap) -> Result<Vec<(String, String)>, ApiError> {
    let mut extra = Vec::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_PREFIX) {
            let key = decode(key);
            extra.extend(
                values(headers, name.as_str())?
                    .into_iter()
                    .map(|value| (key.clone(), value)),
            );
        }
    }
    Ok(extra)
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

/// Whether `user` may act as this.
fn may(user: &User, group: &str, resource: &str, namespace: &str, name: &str) -> Result<(), ApiError> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let info = RequestInfo {
        is_resource_request: true,
        verb: "impersonate".to_owned(),
        api_group: group.to_owned(),
        api_version: "v1".to_owned(),
        namespace: namespace.to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        ..RequestInfo::default()
    };
    authorize(user, &info)
}

#[cfg(test)]
mod tests {
    use poem::http::{HeaderName, StatusCode};

    use super::*;

    fn user(groups: &[&str]) -> User {
        User {
            name: "jane".to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    fn act(user: User, headers: &[(&'static str, &str)]) -> Result<User, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        impersonate(user, &map)
    }

    #[test]
    fn without_headers_everybody_stays_who_they_are() {
        assert_eq!(act(user(&["dev"]), &[]).unwrap(), user(&["dev"]));
    }

    #[test]
    fn administrators_may_be_anybody_and_then_are_nothing_more() {
        let headers = [
            (USER, "joe"),
            (GROUP, "dev"),
            (GROUP, "ops"),
            (UID, "7"),
            ("impersonate-extra-example.com%2fscopes", "view"),
        ];
        let joe = act(user(&["system:masters"]), &headers).unwrap();
        assert_eq!(
            (joe.name.as_str(), joe.uid.as_str(), joe.groups.join(",").as_str()),
            ("joe", "7", "dev,ops,system:authenticated")
        );
        assert_eq!(joe.extra["example.com/scopes"], ["view"]);
        let account = act(
            user(&["system:masters"]),
            &[(USER, "system:serviceaccount:default:robot")],
        )
        .unwrap();
        assert_eq!(
            account.groups,
            [
                "system:serviceaccounts",
                "system:serviceaccounts:default",
                "system:authenticated"
            ]
        );
        let nobody = act(user(&["system:masters"]), &[(USER, ANONYMOUS)]).unwrap();
        assert_eq!(nobody.groups, [UNAUTHENTICATED_GROUP]);
    }

    #[test]
    fn others_may_not() {
        let error = act(user(&["dev"]), &[(USER, "joe")]).unwrap_err();
        assert_eq!(error.code(), StatusCode::FORBIDDEN);
        assert_eq!(
            error.to_string(),
            "users \"joe\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
        let error = act(user(&["dev"]), &[(USER, "system:serviceaccount:default:robot")]).unwrap_err();
        assert!(error.to_string().contains("in the namespace \"default\""), "{error}");
    }

    #[test]
    fn groups_without_a_user_are_a_bad_request() {
        for header in [(GROUP, "dev"), (UID, "7"), ("impersonate-extra-x", "y")] {
            assert_eq!(
                act(user(&["system:masters"]), &[header]).unwrap_err().code(),
                StatusCode::BAD_REQUEST
            );
        }
    }
}
