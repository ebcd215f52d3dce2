//! Refuses what the user may not do (upstream: `apiserver/pkg/endpoints/filters/authorization.go`); who may what is
//! decided in [`crate::apiserver::authorization`].

use crate::apiserver::authorization::{Authorizer, Decision};
use crate::apiserver::error::{ApiError, Subject};
use crate::apiserver::request::{RequestInfo, User};

/// The 403 for what nobody allows.
pub fn authorize(authorizer: &Authorizer, user: &User, info: &RequestInfo) -> Result<(), ApiError> {
    match authorizer.decide(user, info) {
        Decision::Allowed(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(forbidden(user, info, &reason)),
    }
}

fn resource_of(info: &RequestInfo) -> String {
    match info.subresource.as_str() {
        "" => info.resource.clone(),
        subresource => format!("{}/{subresource}", info.resource),
    }
}

/// Upstream's sentence; `reason` is what the authorizers had to say, if anything.
pub fn forbidden(user: &User, info: &RequestInfo, reason: &str) -> ApiError {
    let more = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    let (name, verb) = (&user.name, &info.verb);
    if !info.is_resource_request {
        let why = format!("User {name:?} cannot {verb} path {:?}", info.path);
        return ApiError::forbidden(
            Subject {
                group: "",
                resource: "",
            },
            "",
            &(escape(&why) + &more),
        );
    }
    let scope = match info.namespace.as_str() {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let (resource, group) = (resource_of(info), &info.api_group);
    let why = format!("User {name:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}");
    ApiError::forbidden(
        Subject {
            group,
            resource: &info.resource,
        },
        &info.name,
        &(escape(&why) + &more),
    )
}

/// Upstream escapes these, since the text repeats what the client sent and may end up in a browser.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::options::Query;
    use poem::http::{Method, StatusCode, Uri};

    fn refused(method: Method, target: &str, reason: &str) -> String {
        let user = User {
            name: "jane".to_owned(),
            ..User::default()
        };
        let uri: Uri = target.parse().unwrap();
        let query = Query::parse(uri.query().unwrap_or_default());
        let error = forbidden(&user, &RequestInfo::resolve(&method, &uri, &query), reason);
        assert_eq!(error.code(), StatusCode::FORBIDDEN);
        error.to_string()
    }

    #[test]
    fn refusals_say_who_what_and_where() {
        assert_eq!(
            refused(Method::GET, "/api/v1/namespaces/default/pods/web/log", ""),
            "pods \"web\" is forbidden: User \"jane\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"default\""
        );
        assert_eq!(
            refused(Method::GET, "/apis/apps/v1/deployments?watch=1", "RBAC: why"),
            "deployments.apps is forbidden: User \"jane\" cannot watch resource \"deployments\" in API group \"apps\" at the cluster scope: RBAC: why"
        );
        assert_eq!(
            refused(Method::GET, "/", ""),
            "forbidden: User \"jane\" cannot get path \"/\""
        );
        assert!(refused(Method::GET, "/x%3Cscript%3E&", "").contains("&amp;"));
    }
}
