//! Figures of containers by the engine's own word: they are also there where its cgroups cannot be seen.

use super::super::usage::{Interface, Usage, Written};
use super::{Engine, Result};
use bollard::models::{ContainerNetworkStats, ContainerStatsResponse};
use bollard::query_parameters::{InspectContainerOptions, StatsOptions};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use std::time::SystemTime;

/// Questions to the engine at the same time.
const ASKED_AT_ONCE_MAX: usize = 16;

pub(super) async fn read(engine: &Engine, ids: &[String]) -> Result<Vec<Usage>> {
    let asked: Vec<_> = ids.iter().map(|id| one(engine, id).boxed()).collect();
    let answers: Vec<Option<Usage>> = futures_util::stream::iter(asked)
        .buffer_unordered(ASKED_AT_ONCE_MAX)
        .try_collect()
        .await?;
    Ok(answers.into_iter().flatten().collect())
}

/// None when it does not run.
async fn one(engine: &Engine, id: &str) -> Result<Option<Usage>> {
    let options = StatsOptions {
        stream: false,
        one_shot: true,
    };
    let mut answers = Box::pin(engine.docker.stats(id, Some(options)));
    match answers.next().await {
        None => Ok(None),
        Some(Ok(answer)) => Ok(usage(id, answer)),
        Some(Err(error)) => match engine.error("read the usage of", "container", id, error) {
            super::RuntimeError::NotFound { .. } => Ok(None),
            error => Err(error),
        },
    }
}

/// Of what has ended, the engine gives figures without values.
fn usage(id: &str, answer: ContainerStatsResponse) -> Option<Usage> {
    let memory = answer.memory_stats?;
    let mut usage = Usage::none(id, SystemTime::now());
    usage.cpu_nanos = answer.cpu_stats?.cpu_usage?.total_usage?;
    let stat = memory.stats.unwrap_or_default();
    usage.set_memory(memory.usage?, |name| stat.get(name).copied());
    usage.processes = answer.pids_stats.and_then(|pids| pids.current).unwrap_or(0);
    let networks = answer.networks.unwrap_or_default();
    usage.interfaces = networks
        .into_iter()
        .map(|(name, figures)| interface(name, &figures))
        .collect();
    usage.interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Some(usage)
}

fn interface(name: String, figures: &ContainerNetworkStats) -> Interface {
    Interface {
        name,
        received_bytes: figures.rx_bytes.unwrap_or(0),
        received_errors: figures.rx_errors.unwrap_or(0),
        sent_bytes: figures.tx_bytes.unwrap_or(0),
        sent_errors: figures.tx_errors.unwrap_or(0),
    }
}

/// The engine walks through the layer for it.
pub(super) async fn written(engine: &Engine, id: &str) -> Result<Written> {
    let options = InspectContainerOptions { size: true };
    let found = engine.docker.inspect_container(id, Some(options)).await;
    let found = found.map_err(|error| engine.error("measure", "container", id, error))?;
    let bytes = found.size_rw.and_then(|bytes| u64::try_from(bytes).ok());
    // Where the engine's files cannot be seen from here, its logs count as nothing.
    let log = found.log_path.and_then(|path| std::fs::metadata(path).ok());
    Ok(Written {
        bytes: bytes.unwrap_or(0),
        inodes: None,
        log_bytes: log.map_or(0, |file| file.len()),
    })
}
