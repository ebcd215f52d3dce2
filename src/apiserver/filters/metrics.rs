//! Counts and durations of requests under upstream's names (upstream: `apiserver/pkg/endpoints/metrics`).

use crate::apiserver::context::Context;
use poem::http::StatusCode;
use prometheus::{
    HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, register_histogram_vec, register_int_counter_vec,
    register_int_gauge_vec,
};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

const LABELS: [&str; 6] = ["verb", "group", "version", "resource", "subresource", "scope"];

// Names and labels are constants, and registering them twice is a bug that the first test of this file finds.
static REQUESTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let labels = [&LABELS[..], &["code"]].concat();
    register_int_counter_vec!(
        "apiserver_request_total",
        "Requests by verb, resource and HTTP code.",
        &labels
    )
    .expect("the metric is registered once")
});
static DURATIONS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let buckets = vec![
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ];
    register_histogram_vec!(
        "apiserver_request_duration_seconds",
        "Time until the answer's headers.",
        &LABELS,
        buckets
    )
    .expect("the metric is registered once")
});
static IN_FLIGHT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "apiserver_current_inflight_requests",
        "Requests being served.",
        &["request_kind"]
    )
    .expect("the metric is registered once")
});
static LONG_RUNNING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register_int_gauge_vec!(
        "apiserver_longrunning_requests",
        "Watches and streams that are open.",
        &["verb"]
    )
    .expect("the metric is registered once")
});

/// The gauge of requests in flight of one kind; kept by who counts, so that counting needs no look-up.
pub fn in_flight(kind: &str) -> IntGauge {
    IN_FLIGHT.with_label_values(&[kind])
}

/// Counts a stream as open until it is dropped.
pub struct LongRunning(&'static str);

impl LongRunning {
    pub fn new(verb: &'static str) -> Self {
        LONG_RUNNING.with_label_values(&[verb]).inc();
        Self(verb)
    }
}

impl Drop for LongRunning {
    fn drop(&mut self) {
        LONG_RUNNING.with_label_values(&[self.0]).dec();
    }
}

/// A request that is being timed.
pub struct Observation {
    started: Instant,
    /// Bounded: only what the registry knows becomes a label.
    kind: Option<Arc<crate::registry::Kind>>,
    verb: &'static str,
    subresource: &'static str,
    scope: &'static str,
}

impl Observation {
    pub fn start(ctx: &Context) -> Self {
        let info = &ctx.info;
        let kind = ctx
            .server
            .registry
            .lookup(&info.api_group, &info.api_version, &info.resource);
        let subresource = kind
            .as_ref()
            .and_then(|kind| kind.subresource(&info.subresource))
            .map_or("", |s| s.name);
        let scope = match (
            info.is_resource_request,
            info.name.is_empty(),
            info.namespace.is_empty(),
        ) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        let verb = verb(&info.verb);
        Self {
            started: Instant::now(),
            kind,
            verb,
            subresource,
            scope,
        }
    }

    pub fn finish(self, status: StatusCode) {
        let (group, version, resource) = self
            .kind
            .as_ref()
            .map_or(("", "", ""), |kind| (kind.group, kind.version, kind.resource));
        let labels = [self.verb, group, version, resource, self.subresource, self.scope];
        DURATIONS
            .with_label_values(&labels)
            .observe(self.started.elapsed().as_secs_f64());
        let [verb, group, version, resource, subresource, scope] = labels;
        let code = status.as_str();
        REQUESTS
            .with_label_values(&[verb, group, version, resource, subresource, scope, code])
            .inc();
    }
}

/// Upstream's upper-case verbs; anything else is one label.
fn verb(verb: &str) -> &'static str {
    match verb {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" => "POST",
        "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "head" => "HEAD",
        _ => "OTHER",
    }
}
