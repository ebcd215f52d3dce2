//! One file per kind (or family of kinds) that has rules of its own (upstream: the `strategy.go` files of
//! `pkg/registry`, `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`).

pub mod access;
pub mod batch;
pub mod cluster;
pub mod config_map;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod secret;
pub mod service;
mod stored;
#[cfg(test)]
mod tests;
pub mod volumes;
pub mod workloads;

pub use stored::{Printer, Stored};
