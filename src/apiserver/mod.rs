//! The request path, in the order a request takes it (upstream: `kubernetes/apiserver`):
//!
//! 1. [`options`] and [`request`]: what is asked for, and by whom.
//! 2. [`error`]: every refusal; the only place where a Status is built.

pub mod codec;
pub mod error;
pub mod filters;
pub mod options;
pub mod request;
pub mod subresources;
