//! Parts of the server that act on what is stored, for as long as the store is open.

use crate::storage::StorageError;
use std::time::Duration;

/// Runs `follow` until the store closes, and anew when it missed something, as it begins with a list. `trouble` is what it means
/// that it failed otherwise, which is told; then it rests for `pause`.
pub async fn keep<F>(trouble: &'static str, pause: Duration, mut follow: impl FnMut() -> F)
where
    F: Future<Output = Result<(), StorageError>>,
{
    loop {
        match follow().await {
            Err(StorageError::Compacted { .. }) => {}
            Err(StorageError::Closed) | Ok(()) => return,
            Err(error) => {
                tracing::warn!(%error, "{trouble}");
                tokio::time::sleep(pause).await;
            }
        }
    }
}
