//! Deployments: replica sets that follow one template (upstream: `pkg/controller/deployment`).

mod plan;
mod replica_sets;
mod sizes;
mod status;
