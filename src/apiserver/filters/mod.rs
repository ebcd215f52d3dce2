//! The filters around every request, outermost first (upstream: `DefaultBuildHandlerChain`):
//!
//! 1. [`panic_recovery`]: a panic becomes a 500 and ends nothing else.
//! 2. request info: [`crate::apiserver::request`].
//! 3. [`headers`]: `Cache-Control`, `Audit-Id`.
//! 4. [`metrics`]: counts and durations.
//! 5. [`timeout`]: requests that are not long-running end after a minute.
//! 6. [`warnings`]: `Warning` headers.
//! 7. [`authentication`]: who asks; 401.
//! 8. [`impersonation`]: as whom; 403.
//! 9. [`priority_and_fairness`]: how many at once, and in whose turn; 429.
//! 10. [`authorization`]: who may; 403.
//!
//! What is left goes to [`crate::apiserver::routes`].

pub mod authentication;
pub mod authorization;
pub mod headers;
pub mod impersonation;
pub mod metrics;
pub mod panic_recovery;
pub mod priority_and_fairness;
pub mod timeout;
pub mod warnings;

use super::codec::respond;
use super::context::Context;
use super::error::ApiError;
use super::options::Query;
use super::request::RequestInfo;
use super::{ApiServer, routes};
use poem::http::header::AUTHORIZATION;
use poem::{Request, Response};
use std::sync::Arc;
use std::time::Instant;

/// Answers a request. Never fails: every error is a response.
pub async fn serve(server: Arc<ApiServer>, request: Request) -> Response {
    panic_recovery::guard(outer(server, request)).await
}

async fn outer(server: Arc<ApiServer>, mut request: Request) -> Response {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let info = RequestInfo::resolve(request.method(), request.uri(), &query);
    let audit_id = headers::audit_id(request.headers());
    let headers = request.headers().clone();
    let mut ctx = Context {
        server,
        info,
        user: Default::default(),
        query,
        headers,
        warnings: Default::default(),
        deadline: None,
        flow_schema: None,
    };
    let observation = metrics::Observation::start(&ctx);
    let limit = timeout::of(&ctx.info, &ctx.query);
    if let Ok(Some(limit)) = limit {
        ctx.deadline = Instant::now().checked_add(limit);
    }
    let result = match limit {
        Ok(limit) => timeout::apply(limit, inner(&mut ctx, &mut request)).await,
        Err(error) => Err(error),
    };
    let mut response = result.unwrap_or_else(|error| respond::failure(&ctx, &error));
    ctx.warnings.write(&mut response);
    priority_and_fairness::write(&ctx, &mut response);
    headers::write(&mut response, audit_id);
    observation.finish(response.status());
    response
}

async fn inner(ctx: &mut Context, request: &mut Request) -> Result<Response, ApiError> {
    let user = ctx.server.authenticator.authenticate(&ctx.server.storage, request)?;
    // Without the token, if there was one.
    ctx.headers.remove(AUTHORIZATION);
    ctx.user = impersonation::impersonate(&ctx.server.authorizer, user, request.headers(), &ctx.info)?;
    let _place = priority_and_fairness::enter(ctx).await?;
    ctx.authorize(&ctx.info)?;
    routes::dispatch(ctx, request).await
}
