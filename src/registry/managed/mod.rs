//! Who owns which field of an object, and what server-side apply makes of that
//! (upstream: `sigs.k8s.io/structured-merge-diff` and `apimachinery/pkg/util/managedfields`).
//!
//! Nothing here does I/O. From the inside out:
//! - [`element`], [`set`], [`fields_v1`]: paths, sets of paths, and their JSON.
//! - [`types`]: what a schema says of a value: a leaf, a list with keys, a map.
//! - [`typed`]: checking, comparing, merging and cutting of values along their types.
//! - [`entries`]: `metadata.managedFields` read and written.
//! - [`update()`] and [`apply()`]: the two ways in which a write changes the owners.
//! - [`scale`]: the owners of `spec.replicas` as the scale subresource shows them.

mod apply;
mod conflict;
mod element;
mod entries;
mod fields_v1;
mod last_applied;
mod overlay;
mod reconcile;
pub mod scale;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod types;
mod update;

pub use apply::{ApplyError, apply, group_version_kind, subject};
pub use conflict::Conflicts;
pub use overlay::overlay;
pub use update::{of, put, take, update};

use super::schema::Definition;
use super::strategy::Object;
use std::sync::Arc;

/// What a write through some endpoint does not touch, and so does not come to own.
#[derive(Clone, Copy, Debug)]
pub enum Reset {
    /// These paths and all below them: `status` below the main endpoint.
    Without(&'static [&'static [&'static str]]),
    /// Everything but these paths and what is below them; `*` stands for any step.
    Only(&'static [&'static [&'static str]]),
}

/// A write, as far as ownership is concerned.
pub struct Write<'a> {
    /// Of the version in which the objects are given.
    pub definition: &'a Arc<Definition>,
    /// `apps/v1`.
    pub group_version: &'a str,
    /// Empty for the main endpoint.
    pub subresource: &'a str,
    /// Who writes; empty is "unknown".
    pub manager: &'a str,
    /// Now, RFC 3339 in whole seconds.
    pub now: &'a str,
    pub reset: Reset,
    pub versions: &'a dyn Versions,
}

/// The other versions of a kind: entries speak of fields in the version that was written.
pub trait Versions {
    /// `object`, whose `apiVersion` says what it is in, in the version `group_version`; None if that is not served.
    fn convert(&self, object: &Object, group_version: &str) -> Option<(Object, Arc<Definition>)>;
}

/// For kinds of one version.
pub struct OneVersion;

impl Versions for OneVersion {
    fn convert(&self, _: &Object, _: &str) -> Option<(Object, Arc<Definition>)> {
        None
    }
}
