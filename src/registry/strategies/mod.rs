//! One file per kind (or family of kinds) that has rules of its own (upstream: the `strategy.go` files of
//! `pkg/registry`, `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`).

pub mod access;
pub mod api_service;
pub mod autoscaler_conversion;
pub mod batch;
pub mod certificates;
pub mod cluster;
pub mod component_status;
pub mod config_map;
pub mod definition;
pub mod device_taint_rule;
pub mod endpoints;
pub mod event;
pub mod flow_control;
pub mod lease;
pub mod match_rules;
pub mod namespace;
pub mod node;
pub mod pod;
pub mod policies;
pub mod quota;
pub mod secret;
pub mod service;
pub mod storage;
pub mod storage_migration;
mod stored;
#[cfg(test)]
mod tests;
pub mod volumes;
pub mod webhooks;
pub mod workloads;

pub use stored::{Printer, Stored};
