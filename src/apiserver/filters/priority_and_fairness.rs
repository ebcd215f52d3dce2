//! How many requests are served at once, and who waits for whom (upstream: `server/filters/priority-and-fairness.go`).

use super::{metrics, timeout};
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use crate::apiserver::flow_control::Seat;
use poem::Response;
use poem::http::HeaderName;
use prometheus::IntGauge;
use std::sync::LazyLock;

const FLOW_SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const PRIORITY_LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A request that is being served.
pub struct Place {
    _seat: Seat,
    gauge: &'static IntGauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Waits for the request's turn. Streams need no place, watches only until they have begun.
pub async fn enter(ctx: &mut Context) -> Result<Option<Place>, ApiError> {
    if ctx.info.is_long_running() && ctx.info.verb != "watch" {
        return Ok(None);
    }
    let Some(schema) = ctx.server.flow_control.classify(&ctx.user, &ctx.info) else {
        return Ok(None);
    };
    let schema = ctx.flow_schema.insert(schema).clone();
    let entered = ctx
        .server
        .flow_control
        .enter(ctx, &schema, timeout::of_waiting(&ctx.query));
    let seat = entered.await.map_err(|refusal| {
        tracing::debug!(
            schema = schema.name,
            level = schema.level.name,
            reason = refusal.reason,
            "a request is refused"
        );
        ApiError::overloaded(refusal.retry_after)
    })?;
    let writes = !matches!(ctx.info.verb.as_str(), "get" | "list" | "watch" | "head");
    let gauge = gauge(writes);
    gauge.inc();
    Ok(Some(Place { _seat: seat, gauge }))
}

fn gauge(writes: bool) -> &'static IntGauge {
    static GAUGES: LazyLock<[IntGauge; 2]> = LazyLock::new(|| ["readOnly", "mutating"].map(metrics::in_flight));
    &GAUGES[usize::from(writes)]
}

/// Tells of what schema and level the request was.
pub fn write(ctx: &Context, response: &mut Response) {
    if let Some(schema) = &ctx.flow_schema {
        let headers = response.headers_mut();
        headers.insert(FLOW_SCHEMA_UID, schema.uid.clone());
        headers.insert(PRIORITY_LEVEL_UID, schema.level_uid.clone());
    }
}
