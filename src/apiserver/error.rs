//! Every failure that a client can see, and the only place where a `Status` is built
//! (upstream: `apimachinery/pkg/api/errors` and `apiserver/pkg/endpoints/handlers/responsewriters`).

mod details;

pub use details::{Cause, Details, Subject, created_status, success_status};

use crate::registry::Kind;
use crate::registry::field::FieldError;
use crate::registry::managed::Conflicts;
use crate::registry::strategy::Rejection;
use crate::storage::StorageError;
use poem::Response;
use poem::http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::fmt;

/// A failure as the client sees it: a Status with its HTTP code, or plain text where upstream has no Status.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    details: Option<Details>,
    /// `metadata.continue`: how to go on after an expired list.
    continue_token: String,
    plain_text: bool,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}
impl std::error::Error for ApiError {}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            reason: reason.into(),
            message: message.into(),
            details: None,
            continue_token: String::new(),
            plain_text: false,
        }))
    }

    fn about(mut self, details: Details) -> Self {
        self.0.details = Some(details);
        self
    }

    fn details_mut(&mut self) -> &mut Details {
        self.0.details.get_or_insert_with(Details::default)
    }

    // What went wrong with the request itself.

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `why` is what stands after `is forbidden: `.
    pub fn forbidden<'a>(subject: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = subject.into();
        let message = match (subject.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{subject} is forbidden: {why}"),
            (false, false) => format!("{subject} {name:?} is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message).about(subject.details(name))
    }

    /// What a validating policy refuses: a 403 with the code and the reason that the policy gives it.
    pub fn denied_by_policy<'a>(subject: impl Into<Subject<'a>>, name: &str, why: &str, reason: &str) -> Self {
        let mut error = Self::forbidden(subject, name, why).with_cause("", why, "");
        (error.0.code, error.0.reason) = match reason {
            "Unauthorized" => (401, "Unauthorized".into()),
            "Forbidden" => (403, "Forbidden".into()),
            "RequestEntityTooLarge" => (413, "RequestEntityTooLarge".into()),
            _ => (422, "Invalid".into()),
        };
        error
    }

    /// What a webhook refuses: with the Status that it gives, as far as that is one of a failure.
    pub fn denied_by_webhook(name: &str, status: Option<&Map<String, Value>>) -> Self {
        let text = |field: &str| {
            let value = status.and_then(|status| status.get(field)).and_then(Value::as_str);
            value.unwrap_or_default()
        };
        let denied = format!("admission webhook {name:?} denied the request");
        let message = match (text("message"), text("reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", why) | (why, _) => format!("{denied}: {why}"),
        };
        let code = status.and_then(|status| status.get("code")).and_then(Value::as_u64);
        let code = code.and_then(|code| u16::try_from(code).ok());
        let mut error = Self::new(
            code.filter(|code| (400..1000).contains(code)).unwrap_or(400),
            "",
            message,
        );
        error.0.reason = text("reason").to_owned().into();
        match status.and_then(|status| status.get("details")) {
            Some(Value::Object(details)) => error.about(Details::read(details)),
            _ => error,
        }
    }

    /// What mutating policies make impossible: the first text is the message. It is a 403 whatever its reason.
    pub fn denied_by_policies<'a>(
        subject: impl Into<Subject<'a>>,
        name: &str,
        texts: &[String],
        reason: Option<&'static str>,
    ) -> Self {
        let mut error = Self::forbidden(subject, name, "admission request denied by policy");
        error.0.message = texts.first().cloned().unwrap_or_default();
        if let Some(reason) = reason {
            error.0.reason = reason.into();
        }
        for text in texts {
            error = error.with_cause("", text, "");
        }
        error
    }

    pub fn not_found<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = subject.into();
        Self::new(404, "NotFound", format!("{subject} {name:?} not found")).about(subject.details(name))
    }

    /// A path that nothing serves: plain text, which clients turn into
    /// "the server could not find the requested resource".
    pub fn unknown_path() -> Self {
        let mut error = Self::new(404, "NotFound", "404 page not found\n");
        error.0.plain_text = true;
        error
    }

    /// A resource that is not served, in the words into which clients translate a plain 404.
    pub fn unknown_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").about(Details::default())
    }

    /// A method for which a path has no route.
    pub fn no_route_for_method() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).about(Details::default())
    }

    /// A verb that a custom resource does not have, or a kind that has its routes and refuses all the same.
    pub fn method_not_allowed<'a>(subject: impl Into<Subject<'a>>, verb: &str) -> Self {
        let subject = subject.into();
        let message = format!("{verb} is not supported on resources of kind \"{subject}\"");
        Self::new(405, "MethodNotAllowed", message).about(subject.details(""))
    }

    pub fn not_acceptable(media_types: &[impl std::borrow::Borrow<str>]) -> Self {
        let types = media_types.join(", ");
        Self::unacceptable(format!("only the following media types are accepted: {types}"))
    }

    /// The form that was asked for does not exist of this answer.
    pub fn unacceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(media_types: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            media_types.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn request_entity_too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }

    // What the state of objects does not allow.

    pub fn already_exists<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let subject = subject.into();
        Self::new(409, "AlreadyExists", format!("{subject} {name:?} already exists")).about(subject.details(name))
    }

    /// `why` is what stands after `Operation cannot be fulfilled on …: `.
    pub fn conflict<'a>(subject: impl Into<Subject<'a>>, name: &str, why: &str) -> Self {
        let subject = subject.into();
        let message = format!("Operation cannot be fulfilled on {subject} {name:?}: {why}");
        Self::new(409, "Conflict", message).about(subject.details(name))
    }

    /// An apply would change what others own.
    pub fn apply_conflict(conflicts: &Conflicts) -> Self {
        let mut error = Self::new(409, "Conflict", conflicts.message()).about(Details::default());
        for (field, message) in conflicts.causes() {
            error = error.with_cause("FieldManagerConflict", &message, &field);
        }
        error
    }

    /// Somebody else wrote the object in between.
    pub fn modified<'a>(subject: impl Into<Subject<'a>>, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(subject, name, why)
    }

    /// A list or watch from a revision whose history is gone.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// Field errors of an object (or of options): 422 with one cause per error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let list = match texts.as_slice() {
            [] => String::new(),
            [one] => format!(": {one}"),
            several => format!(": [{}]", several.join(", ")),
        };
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let causes = errors
            .iter()
            .map(|e| Cause {
                reason: e.kind.reason().into(),
                message: e.body.clone(),
                field: e.path.clone(),
            })
            .collect();
        let details = Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            causes,
            ..Details::default()
        };
        Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid{list}")).about(details)
    }

    /// A patch that cannot be applied: upstream drops the library's text.
    pub fn unprocessable_patch() -> Self {
        Self::new(
            422,
            "Invalid",
            "the server rejected our request due to an error in our request",
        )
        .about(Details::default())
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        let details = Details {
            retry_after_seconds,
            ..Details::default()
        };
        Self::new(429, "TooManyRequests", message).about(details)
    }

    /// There is no seat for the request: plain text with `Retry-After`, as upstream.
    pub fn overloaded(retry_after_seconds: u32) -> Self {
        let mut error = Self::too_many_requests("Too many requests, please try again later.\n", retry_after_seconds);
        error.0.plain_text = true;
        error
    }

    // What is the server's own fault or state.

    pub fn internal(message: impl fmt::Display) -> Self {
        let cause = Cause {
            message: message.to_string(),
            ..Cause::default()
        };
        let details = Details {
            causes: vec![cause],
            ..Details::default()
        };
        Self::new(500, "InternalError", format!("Internal error occurred: {message}")).about(details)
    }

    /// An error that upstream does not classify: 500 without a reason.
    pub fn unclassified(message: impl Into<String>) -> Self {
        Self::new(500, "", message)
    }

    /// The operation is right, but cannot be completed now; the client should try again.
    pub fn server_timeout<'a>(subject: impl Into<Subject<'a>>, verb: &str, retry_after_seconds: u32) -> Self {
        let subject = subject.into();
        let message =
            format!("The {verb} operation against {subject} could not be completed at this time, please try again.");
        let details = Details {
            retry_after_seconds,
            ..subject.details(verb)
        };
        Self::new(500, "ServerTimeout", message).about(details)
    }

    /// A part that this request needs is not there (a node's kubelet, storage that is closing).
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The server of another API group is not there: plain text, as everything that is not of that server itself.
    pub fn no_service(message: impl fmt::Display) -> Self {
        let mut error = Self::new(503, "ServiceUnavailable", format!("{message}\n"));
        error.0.plain_text = true;
        error
    }

    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        let details = Details {
            retry_after_seconds,
            ..Details::default()
        };
        Self::new(504, "Timeout", format!("Timeout: {message}")).about(details)
    }

    /// A resourceVersion that the server does not reach in time.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        Self::timeout(message, 1).with_cause("ResourceVersionTooLarge", "Too large resource version", "")
    }

    // Refinements.

    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let cause = Cause {
            reason: reason.into(),
            message: message.into(),
            field: field.into(),
        };
        self.details_mut().causes.push(cause);
        self
    }

    pub fn with_uid(mut self, uid: &str) -> Self {
        self.details_mut().uid = uid.into();
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details_mut().retry_after_seconds = seconds;
        self
    }

    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    pub fn with_continue(mut self, token: impl Into<String>) -> Self {
        self.0.continue_token = token.into();
        self
    }

    /// The HTTP code. A code that HTTP does not know (no constructor makes one) counts as 500.
    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What storage refused, in the words of the API.
    pub fn from_storage(error: StorageError, kind: &Kind) -> Self {
        match error {
            StorageError::AlreadyExists(key) => Self::already_exists(kind, &key.name),
            StorageError::NotFound(key) => Self::not_found(kind, &key.name),
            StorageError::Conflict { key, .. } => Self::modified(kind, &key.name),
            StorageError::Refused { key, why } => Self::forbidden(kind, &key.name, &why),
            StorageError::Compacted { requested, oldest } => {
                Self::expired(format!("too old resource version: {requested} ({oldest})"))
            }
            StorageError::Future { requested, current } => Self::too_large_resource_version(requested, current),
            StorageError::Closed => Self::service_unavailable("the server is shutting down"),
            other => {
                tracing::error!(error = %other, "storage failed");
                Self::internal(other)
            }
        }
    }

    /// What a kind's strategy refused.
    pub fn from_rejection(rejection: Rejection, kind: &Kind, name: &str) -> Self {
        match rejection {
            Rejection::Invalid(errors) => Self::invalid(kind.group, kind.kind, name, &errors),
            Rejection::Forbidden(why) => Self::forbidden(kind, name, &why),
            Rejection::BadRequest(why) => Self::bad_request(why),
            Rejection::Conflict(why) => Self::conflict(kind, name, &why),
        }
    }

    /// The Status object.
    pub fn status(&self) -> Value {
        let Inner {
            code,
            reason,
            message,
            details,
            continue_token,
            ..
        } = &*self.0;
        let mut metadata = Map::new();
        if !continue_token.is_empty() {
            metadata.insert("continue".into(), json!(continue_token));
        }
        let mut status = Map::new();
        status.insert("kind".into(), json!("Status"));
        status.insert("apiVersion".into(), json!("v1"));
        status.insert("metadata".into(), Value::Object(metadata));
        status.insert("status".into(), json!("Failure"));
        status.insert("message".into(), json!(message.trim_end()));
        if !reason.is_empty() {
            status.insert("reason".into(), json!(reason));
        }
        if let Some(details) = details {
            status.insert("details".into(), details.json());
        }
        status.insert("code".into(), json!(code));
        Value::Object(status)
    }

    fn retry_after_seconds(&self) -> u32 {
        self.0.details.as_ref().map_or(0, |d| d.retry_after_seconds)
    }

    /// It is text and no Status.
    pub fn is_plain_text(&self) -> bool {
        self.0.plain_text
    }

    /// The HTTP answer in JSON (or plain text where upstream has no Status).
    pub fn to_response(&self) -> Response {
        let builder = Response::builder().status(self.code());
        let mut response = if self.0.plain_text {
            builder
                .content_type("text/plain; charset=utf-8")
                .body(self.0.message.clone())
        } else {
            builder
                .content_type("application/json")
                .body(format!("{}\n", self.status()))
        };
        let headers = response.headers_mut();
        if self.retry_after_seconds() > 0 {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after_seconds()));
        }
        if matches!(self.0.code, 401 | 403) || self.0.plain_text {
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Subject<'static> = Subject {
        group: "",
        resource: "pods",
    };
    const DEPLOYMENTS: Subject<'static> = Subject {
        group: "apps",
        resource: "deployments",
    };

    #[test]
    fn messages_are_upstreams() {
        let rows = [
            (ApiError::not_found(PODS, "a"), 404, r#"pods "a" not found"#),
            (
                ApiError::already_exists(DEPLOYMENTS, "d"),
                409,
                r#"deployments.apps "d" already exists"#,
            ),
            (ApiError::forbidden(PODS, "", "no"), 403, "pods is forbidden: no"),
            (
                ApiError::forbidden(PODS, "a", "no"),
                403,
                r#"pods "a" is forbidden: no"#,
            ),
            (
                ApiError::method_not_allowed(PODS, "patch"),
                405,
                r#"patch is not supported on resources of kind "pods""#,
            ),
            (
                ApiError::too_large_resource_version(9, 3),
                504,
                "Timeout: Too large resource version: 9, current: 3",
            ),
        ];
        for (error, code, message) in rows {
            assert_eq!((error.code().as_u16(), error.message()), (code, message));
        }
    }

    #[test]
    fn invalid_lists_every_error_as_a_cause() {
        let errors = [FieldError::required("a", ""), FieldError::forbidden("b", "why")];
        let error = ApiError::invalid("apps", "Deployment", "d", &errors);
        assert_eq!(
            error.message(),
            r#"Deployment.apps "d" is invalid: [a: Required value, b: Forbidden: why]"#
        );
        let status = error.status();
        assert_eq!(status["details"]["causes"][1]["reason"], "FieldValueForbidden");
        assert_eq!(status["details"]["kind"], "Deployment");
        assert_eq!(status["code"], 422);
    }

    #[test]
    fn retry_after_is_a_header_too() {
        let response = ApiError::overloaded(1).to_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.content_type(), Some("text/plain; charset=utf-8"));
    }
}
