//! What every handler knows of its request (upstream: the values in the request's `context.Context`).

use super::ApiServer;
use super::authorization::PRIVILEGED_GROUP;
use super::codec::accept::{Negotiated, Shape, negotiate};
use super::error::ApiError;
use super::filters::authentication::AUTHENTICATED_GROUP;
use super::filters::authorization;
use super::filters::warnings::Warnings;
use super::flow_control::schema::FlowSchema;
use super::options::Query;
use super::request::{RequestInfo, User};
use crate::registry::Kind;
use crate::storage::Storage;
use poem::http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Context {
    pub server: Arc<ApiServer>,
    pub info: RequestInfo,
    /// Anonymous until the authentication filter has run.
    pub user: User,
    pub query: Query,
    /// The headers of the request.
    pub headers: HeaderMap,
    pub warnings: Warnings,
    /// When the request is given up; None if it may last.
    pub deadline: Option<Instant>,
    /// None until the request was classified; streams never are.
    pub flow_schema: Option<Arc<FlowSchema>>,
}

/// Whom the server itself acts as.
const SELF: &str = "system:apiserver";

impl Context {
    /// For what the server writes of its own accord.
    pub fn internal(server: &Arc<ApiServer>, info: RequestInfo) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::USER_AGENT, HeaderValue::from_static("kube-apiserver"));
        Self {
            server: server.clone(),
            info,
            user: User {
                name: SELF.to_owned(),
                groups: vec![PRIVILEGED_GROUP.to_owned(), AUTHENTICATED_GROUP.to_owned()],
                ..User::default()
            },
            query: Query::default(),
            headers,
            warnings: Warnings::default(),
            deadline: None,
            flow_schema: None,
        }
    }

    /// Until the request is given up.
    pub fn time_left(&self) -> Option<Duration> {
        Some(self.deadline?.saturating_duration_since(Instant::now()))
    }

    /// The 403 if the user may not do what `info` says.
    pub fn authorize(&self, info: &RequestInfo) -> Result<(), ApiError> {
        authorization::authorize(&self.server.authorizer, &self.user, info)
    }

    pub fn storage(&self) -> &Arc<Storage> {
        &self.server.storage
    }

    /// The header's value if it is there and is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn negotiate(&self, shape: Shape) -> Result<Negotiated, ApiError> {
        let info = &self.info;
        let registry = &self.server.registry;
        let kind = registry.lookup(&info.api_group, &info.api_version, &info.resource);
        negotiate(self.header(header::ACCEPT), shape, kind.as_deref())
    }

    /// The namespace part of keys: a Namespace's own URL names a namespace, too, but its key has none.
    pub fn key_namespace(&self, kind: &Kind) -> &str {
        if kind.namespaced() { &self.info.namespace } else { "" }
    }

    /// The namespace that a list is restricted to.
    pub fn list_namespace(&self, kind: &Kind) -> Option<&str> {
        Some(self.key_namespace(kind)).filter(|namespace| !namespace.is_empty())
    }

    pub fn not_found(&self, kind: &Kind) -> ApiError {
        ApiError::not_found(kind, &self.info.name)
    }
}
