//! `/stats/summary`, `/metrics/resource` and `/metrics/cadvisor` (upstream: `pkg/kubelet/server/stats/handler.go`).

use super::Server;
use super::error::ServerError;
use super::info::json_response;
use super::query::Query;
use crate::kubelet::stats::{exposition, summary};
use crate::kubelet::{pod, resources};
use poem::Response;
use prometheus::TEXT_FORMAT;
use std::collections::BTreeMap;
use std::time::Duration;

/// Files are measured anew after so long (upstream: `volumeStatsAggPeriod`).
const FILES_AGE_MAX: Duration = Duration::from_secs(60);

pub async fn summary(server: &Server, query: &Query) -> Result<Response, ServerError> {
    let stats = &server.stats;
    let snapshot = stats.sampler.snapshot().await?;
    let files = match query.flag("only_cpu_and_memory") {
        true => None,
        false => Some(stats.files_of(&snapshot, FILES_AGE_MAX).await),
    };
    let mut memory_limits = BTreeMap::new();
    for known in server.lookup.pods() {
        for (_, container) in pod::all_containers(&known) {
            let limit = resources::limit(&container, "memory").and_then(|limit| u64::try_from(limit.value()).ok());
            if let Some(limit) = limit {
                memory_limits.insert((pod::uid(&known).to_owned(), container.name.clone()), limit);
            }
        }
    }
    json_response(&summary::summary(&summary::Seen {
        node_name: &server.node_name,
        booted_at: stats.booted_at(),
        snapshot: &snapshot,
        node: &stats.node(),
        files: files.as_ref(),
        memory_limits: &memory_limits,
    }))
}

pub async fn resource(server: &Server) -> Result<Response, ServerError> {
    let snapshot = server.stats.sampler.snapshot().await?;
    Ok(text(exposition::resource(&snapshot)))
}

pub async fn cadvisor(server: &Server) -> Result<Response, ServerError> {
    let snapshot = server.stats.sampler.snapshot().await?;
    let (cpus, memory_bytes) = server.stats.machine();
    Ok(text(exposition::cadvisor(&snapshot, cpus, memory_bytes)))
}

fn text(text: String) -> Response {
    Response::builder().content_type(TEXT_FORMAT).body(text)
}
