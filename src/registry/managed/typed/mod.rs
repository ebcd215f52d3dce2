//! Values along their types (upstream: `structured-merge-diff/typed`).

mod compare;
mod fieldset;
mod merge;
mod remove;
mod validate;

pub use compare::{Diff, compare};
pub use fieldset::field_set;
pub use merge::merge;
pub use remove::remove;
pub use validate::validate;
