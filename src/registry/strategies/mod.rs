//! One file per kind (or family of kinds) that has rules of its own (upstream: the `strategy.go` files of
//! `pkg/registry`, `pkg/apis/*/v1/defaults.go`, `pkg/apis/*/validation`).

pub mod access;
pub mod api_service;
pub mod autoscaler_conversion;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
pub mod cluster;
pub mod component_status;
mod conditions;
pub mod config_map;
pub mod definition;
pub mod device_taint_rule;
pub mod devices;
pub mod endpoints;
pub mod event;
pub mod flow_control;
mod int_or_percent;
pub mod lease;
pub mod match_rules;
pub mod namespace;
pub mod networking;
pub mod node;
pub mod pod;
pub mod policies;
pub mod quota;
pub mod secret;
pub mod service;
pub mod stateful_set;
pub mod storage;
pub mod storage_migration;
mod stored;
#[cfg(test)]
mod tests;
pub mod volume_sources;
pub mod volumes;
pub mod webhooks;
mod workload_status;
pub mod workloads;

pub use stored::{Printer, Stored};
