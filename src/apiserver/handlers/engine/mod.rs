//! The pipeline that every write goes through, once for all kinds
//! (upstream: `apiserver/pkg/registry/generic/registry/store.go`, `registry/rest/{create,update,delete}.go`):
//! decoded object → defaults → system metadata → the kind's preparation → admission → validation →
//! one serialisation → one compare-and-swap.

mod create;
mod delete;
pub mod metadata;
pub mod ownership;
mod propagation;
mod update;

pub use create::{create, create_applied};
pub use delete::{Deleted, delete};
pub use update::{Change, Update, update};

use crate::apiserver::context::Context;
use crate::apiserver::conversion;
use crate::apiserver::error::ApiError;
use crate::registry::field::FieldError;
use crate::registry::strategy::Object;
use crate::registry::{Kind, index_of};
use crate::storage::{Draft, Entry, Key};
use std::sync::Arc;

/// How often a write whose compare-and-swap failed is tried again on the fresh object.
const ATTEMPTS_MAX: usize = 100;

/// What a write left behind.
pub enum Written {
    /// The stored version.
    Stored(Arc<Entry>),
    /// A dry run: the object as it would be, in the kind's version.
    DryRun(Object),
}

/// The key of the object that the URL names.
pub fn key(ctx: &Context, kind: &Kind, name: &str) -> Key {
    Key::new(kind.storage_resource, ctx.key_namespace(kind), name)
}

/// Serialises `object`, which is in the kind's version, as it is stored.
async fn draft(ctx: &Context, kind: &Kind, object: &Object) -> Result<Draft, ApiError> {
    let converted = conversion::to_storage(ctx, kind, object).await?;
    Ok(Draft::new(&converted, index_of(kind, &converted)))
}

fn invalid_unless_empty(kind: &Kind, name: &str, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid(kind.group, kind.kind, name, &errors))
    }
}
