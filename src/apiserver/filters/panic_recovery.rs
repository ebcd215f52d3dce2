//! A panic in a handler becomes a 500 (upstream: `apiserver/pkg/server/filters/wrap.go`).

use crate::apiserver::error::ApiError;
use futures_util::FutureExt;
use poem::Response;
use std::any::Any;
use std::panic::AssertUnwindSafe;

pub async fn guard(handler: impl Future<Output = Response>) -> Response {
    // What a handler shares with others is behind locks that do not poison, or is immutable.
    AssertUnwindSafe(handler).catch_unwind().await.unwrap_or_else(|panic| {
        tracing::error!(panic = text(&*panic), "a request panicked");
        ApiError::internal("this request caused a panic; the server's log says more").to_response()
    })
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_500() {
        let response = guard(async { panic!("boom") }).await;
        assert_eq!(response.status(), 500);
        assert!(
            response
                .into_body()
                .into_string()
                .await
                .unwrap()
                .contains("\"reason\":\"InternalError\"")
        );
    }
}
