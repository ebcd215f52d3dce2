//! Subresources that are more than a part of their object (upstream: the `rest` packages of `pkg/registry`).

pub mod connect;
pub mod log;
