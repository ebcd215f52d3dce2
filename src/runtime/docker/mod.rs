//! The Docker backend.

use super::{Result, Runtime, RuntimeError};
use std::sync::Arc;

/// Connects to the engine at `endpoint` (`unix:///path`, `tcp://host:port`).
pub async fn connect(endpoint: &str, _cluster_id: &str) -> Result<Arc<dyn Runtime>> {
    Err(RuntimeError::Unavailable {
        engine: "Docker",
        endpoint: endpoint.to_string(),
        message: "this build has no Docker backend".to_string(),
    })
}
