//! The verbs: one file each (upstream: `apiserver/pkg/endpoints/handlers`). None knows a kind; what kinds do
//! differently is in their strategies.

pub mod create;
pub mod delete;
pub mod deletecollection;
pub mod engine;
pub mod get;
pub mod list;
pub mod patch;
pub mod render;
pub mod selection;
pub mod update;
pub mod watch;

use super::context::Context;
use super::error::ApiError;
use std::time::Duration;

/// How long a read waits for a resourceVersion that the server has not reached.
const FRESHNESS_WAIT: Duration = Duration::from_secs(3);

/// A resourceVersion of a query: None for empty and `0`, which any state satisfies. What is no version is the client's
/// fault (upstream answers 500 with this text where it is not a list).
pub fn parse_revision(text: &str) -> Result<Option<u64>, ApiError> {
    match text {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

/// Waits a little for the store to reach `revision`; 504 if it does not.
pub async fn wait_for_revision(ctx: &Context, revision: u64) -> Result<(), ApiError> {
    let storage = ctx.storage();
    if storage.revision() >= revision || storage.wait_for_revision(revision, FRESHNESS_WAIT).await {
        return Ok(());
    }
    Err(ApiError::too_large_resource_version(revision, storage.revision()))
}
