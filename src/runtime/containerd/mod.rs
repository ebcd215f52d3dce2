//! The containerd backend (upstream: containerd's CRI plugin).

use super::{Result, Runtime, RuntimeError};
use std::path::Path;
use std::sync::Arc;

/// Connects to the daemon whose socket is at `address`.
pub async fn connect(address: &str, _cluster_id: &str, _state_dir: &Path) -> Result<Arc<dyn Runtime>> {
    Err(RuntimeError::Unavailable {
        engine: "containerd",
        endpoint: address.to_string(),
        message: "this build has no containerd backend".to_string(),
    })
}
