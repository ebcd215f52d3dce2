//! `/metrics` in Prometheus' text format (upstream: `apiserver/pkg/server/routes/metrics.go`).

use super::context::Context;
use super::error::ApiError;
use poem::Response;
use prometheus::{Encoder, TextEncoder};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

pub fn handle(ctx: &Context) -> Result<Response, ApiError> {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder
        .encode(&prometheus::gather(), &mut text)
        .map_err(ApiError::internal)?;
    let mut text = String::from_utf8(text).map_err(ApiError::internal)?;
    write_storage(ctx, &mut text).map_err(ApiError::internal)?;
    Ok(Response::builder().content_type(encoder.format_type()).body(text))
}

/// The store counts by itself, since it knows no metrics library.
fn write_storage(ctx: &Context, text: &mut String) -> std::fmt::Result {
    writeln!(text, "# HELP apiserver_storage_objects Stored objects by resource.")?;
    writeln!(text, "# TYPE apiserver_storage_objects gauge")?;
    for (resource, objects) in ctx.storage().resources() {
        writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {objects}")?;
    }
    let metrics = ctx.storage().metrics();
    let rows: [(&str, &str, &str, &AtomicU64); 6] = [
        (
            "krust_storage_writes_total",
            "counter",
            "Writes that were acknowledged.",
            &metrics.writes,
        ),
        (
            "krust_storage_writes_refused_total",
            "counter",
            "Writes refused by compare-and-swap.",
            &metrics.writes_refused,
        ),
        (
            "krust_storage_writes_failed_total",
            "counter",
            "Writes whose transaction failed.",
            &metrics.writes_failed,
        ),
        (
            "krust_storage_commits_total",
            "counter",
            "Transactions.",
            &metrics.commits,
        ),
        ("krust_storage_watches", "gauge", "Open watches.", &metrics.watches),
        (
            "krust_storage_history_events",
            "gauge",
            "Changes that are remembered.",
            &metrics.history_events,
        ),
    ];
    for (name, kind, help, value) in rows {
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {}",
            value.load(Ordering::Relaxed)
        )?;
    }
    Ok(())
}
