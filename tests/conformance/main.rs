//! The conformance tests of Kubernetes by name: for each one that has a test of ours, that test, run against a
//! started server through kube-rs and kubectl, and a count of how far that goes (upstream: test/e2e, which this
//! does not contain).
//!
//! It has a runner of its own, since all tests share one server and the count needs every result. Its arguments are
//! those of cargo's: `cargo test --test conformance -- ConfigMap`, `--list`, `--include-ignored`. Tests that need
//! kubectl are ignored unless asked for, as in kubectl_integration_test.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod lifecycle;
mod list;
mod resource;
mod runner;

mod apps;
mod auth;
mod cli;
mod custom_resources;
mod custom_resources_published;
mod discovery;
mod events;
mod field_validation;
mod lists;
mod namespaces;
mod network;
mod node;
mod policies;
mod quota;
mod scheduling;
mod storage;
mod watchers;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [
        apps::tests(),
        auth::tests(),
        cli::tests(),
        custom_resources::tests(),
        custom_resources_published::tests(),
        discovery::tests(),
        events::tests(),
        field_validation::tests(),
        lists::tests(),
        namespaces::tests(),
        network::tests(),
        node::tests(),
        policies::tests(),
        quota::tests(),
        scheduling::tests(),
        storage::tests(),
        watchers::tests(),
    ];
    runner::main(tests.into_iter().flatten().collect())
}
