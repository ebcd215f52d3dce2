//! Logs, metrics and the tasks of this process (upstream: `component-base`).

mod process;
mod tasks;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

pub use tasks::{TaskEnd, Tasks};

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "{origin} {filter:?} is not allowed: it must be a level or levels by module, like info,krust::kubelet=debug ({source})"
    )]
    Filter {
        origin: &'static str,
        filter: String,
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Modules of others that tell at info what is for debugging. A filter that names them wins.
const QUIET: &str = "sea_orm_migration=warn";

/// Sends logs to standard error: what `RUST_LOG` says, else `filter`.
pub fn start_logs(filter: &str, json: bool) -> Result<(), TelemetryError> {
    let from_environment = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let (origin, filter) = match from_environment {
        Some(text) => ("RUST_LOG", text),
        None => ("setting \"log.filter\":", filter.to_owned()),
    };
    let parsed = EnvFilter::builder().parse(format!("{QUIET},{filter}"));
    let parsed = parsed.map_err(|source| TelemetryError::Filter { origin, filter, source })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first one's logs.
    let _ = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder
            .with_timer(Clock)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init()
    };
    Ok(())
}

/// `2026-11-23T21:58:01.123Z`: sorts, and compares with the API's own times.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{:.3}", jiff::Timestamp::now())
    }
}

/// Adds figures about the process to prometheus' default registry, where every part registers its own.
pub fn register_process_metrics() {
    match prometheus::register(Box::new(process::ProcessCollector::new())) {
        // A second start in one process finds them registered.
        Ok(()) | Err(prometheus::Error::AlreadyReg) => {}
        Err(error) => tracing::error!(%error, "metrics of the process are missing"),
    }
}
