//! `/metrics` in Prometheus' text format (upstream: `apiserver/pkg/server/routes/metrics.go`).

use super::context::Context;
use super::error::ApiError;
use crate::storage::{COMMIT_BUCKETS_MICROS, Metrics};
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
    for (name, kind, help, value) in rows(metrics) {
        let value = value.load(Ordering::Relaxed);
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")?;
    }
    write_commits(metrics, text)
}

type Row<'a> = (&'static str, &'static str, &'static str, &'a AtomicU64);

fn rows(metrics: &Metrics) -> [Row<'_>; 10] {
    let counter = |name, help, value| (name, "counter", help, value);
    let gauge = |name, help, value| (name, "gauge", help, value);
    [
        counter(
            "krust_storage_writes_total",
            "Writes that were acknowledged.",
            &metrics.writes,
        ),
        counter(
            "krust_storage_writes_refused_total",
            "Writes refused by compare-and-swap.",
            &metrics.writes_refused,
        ),
        counter(
            "krust_storage_writes_failed_total",
            "Writes whose transaction failed.",
            &metrics.writes_failed,
        ),
        counter(
            "krust_storage_written_bytes_total",
            "Bytes of JSON written.",
            &metrics.written_bytes,
        ),
        counter(
            "krust_storage_compacted_rows_total",
            "Rows deleted by compaction.",
            &metrics.compacted_rows,
        ),
        counter(
            "krust_storage_watches_compacted_total",
            "Watches behind the history.",
            &metrics.watches_compacted,
        ),
        gauge("krust_storage_watches", "Open watches.", &metrics.watches),
        gauge(
            "krust_storage_history_events",
            "Changes that are remembered.",
            &metrics.history_events,
        ),
        gauge(
            "krust_storage_history_bytes",
            "Bytes of old versions in memory.",
            &metrics.history_bytes,
        ),
        gauge(
            "krust_storage_database_bytes",
            "Size of the SQLite file.",
            &metrics.database_bytes,
        ),
    ]
}

/// Durations of transactions as a histogram.
fn write_commits(metrics: &Metrics, text: &mut String) -> std::fmt::Result {
    const NAME: &str = "krust_storage_commit_duration_seconds";
    writeln!(
        text,
        "# HELP {NAME} Durations of transactions.\n# TYPE {NAME} histogram"
    )?;
    let mut sum = 0;
    for (bucket, count) in metrics.commit_buckets.iter().enumerate() {
        sum += count.load(Ordering::Relaxed);
        match COMMIT_BUCKETS_MICROS.get(bucket) {
            Some(bound) => writeln!(text, "{NAME}_bucket{{le=\"{}\"}} {sum}", *bound as f64 / 1e6)?,
            None => writeln!(text, "{NAME}_bucket{{le=\"+Inf\"}} {sum}")?,
        }
    }
    let seconds = metrics.commit_micros.load(Ordering::Relaxed) as f64 / 1e6;
    writeln!(text, "{NAME}_sum {seconds}\n{NAME}_count {sum}")
}
