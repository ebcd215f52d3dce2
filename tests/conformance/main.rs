//! The conformance tests of Kubernetes by name: for each one that has a test of ours, that test, run against a
//! started server through kube-rs and kubectl, and a count of how far that goes (upstream: test/e2e, which this
//! does not contain).
//!
//! It has a runner of its own, since tests share servers and the count needs every result. Its arguments are those of
//! cargo's: `cargo test --test conformance -- ConfigMap`, `--list`, `--include-ignored`. Tests that need kubectl or
//! running pods are ignored unless asked for, as in kubectl_integration_test.
//!
//! A test is written in one of two ways:
//! - `test(NAME, async |cluster| ..)` runs on a server without a node: API, controllers, scheduler.
//! - `pod_test(NAME, async |cluster| ..)` runs once on a server with a Docker node and once on one with a containerd node,
//!   beside other tests; with `.alone()` when all others have ended, for what would disturb them (taints, filling up
//!   the node). Its part of the count is printed by backend.
//!
//! In a test, `cluster.namespace(BASE).await` makes a namespace of its own, which goes with everything in it after the
//! test; `cluster.pods(BASE).await` makes one, too, and gives what tests do with pods ([`pods`]: create, wait for a
//! state, read logs, exec). Images are [`pods::BUSYBOX`] and [`pods::AGNHOST`], a server whose paths [`agnhost`] lists.
//! [`webhook_server::WebhookServer`] is a pod that answers the API server's reviews, with its service.
//! Pods should have a short grace period, as those of [`pods::pod`] have.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/flunders.rs"]
mod flunders;

mod agnhost;
mod agnhost_webhook;
mod arguments;
mod cluster;
mod dialing;
mod guestbook;
mod issuer;
mod lifecycle;
mod list;
mod nodes;
mod pods;
mod prints;
mod quantity;
mod resource;
mod runner;
mod sets;
mod webhook_server;

mod account_pods;
mod aggregator;
mod apps;
mod architecture;
mod auth;
mod cli;
mod cli_pods;
mod conversion_webhooks;
mod custom_resources;
mod custom_resources_published;
mod daemon_sets;
mod deployments;
mod discovery;
mod disruption;
mod dns;
mod endpoints;
mod events;
mod field_validation;
mod garbage_collector;
mod jobs;
mod lists;
mod namespaces;
mod network;
mod network_pods;
mod node;
mod node_containers;
mod node_env;
mod node_life;
mod node_pods;
mod node_probes;
mod node_resize;
mod node_security;
mod policies;
mod preemption;
mod quota;
mod quota_usage;
mod replicas;
mod scheduling;
mod services;
mod stateful_sets;
mod storage;
mod storage_migration;
mod taints;
mod volume_updates;
mod volumes;
mod watchers;
mod webhook_configurations;
mod webhooks;

use std::process::ExitCode;

fn main() -> ExitCode {
    if agnhost::is_meant() {
        return agnhost::main();
    }
    let tests = [
        account_pods::tests(),
        aggregator::tests(),
        apps::tests(),
        architecture::tests(),
        auth::tests(),
        cli::tests(),
        cli_pods::tests(),
        conversion_webhooks::tests(),
        custom_resources::tests(),
        custom_resources_published::tests(),
        daemon_sets::tests(),
        deployments::tests(),
        discovery::tests(),
        disruption::tests(),
        endpoints::tests(),
        events::tests(),
        field_validation::tests(),
        garbage_collector::tests(),
        jobs::tests(),
        lists::tests(),
        namespaces::tests(),
        dns::tests(),
        network::tests(),
        network_pods::tests(),
        services::tests(),
        node::tests(),
        node_containers::tests(),
        node_env::tests(),
        node_life::tests(),
        node_pods::tests(),
        node_probes::tests(),
        node_resize::tests(),
        node_security::tests(),
        policies::tests(),
        preemption::tests(),
        quota::tests(),
        quota_usage::tests(),
        replicas::tests(),
        scheduling::tests(),
        stateful_sets::tests(),
        storage::tests(),
        storage_migration::tests(),
        taints::tests(),
        volume_updates::tests(),
        volumes::tests(),
        watchers::tests(),
        webhook_configurations::tests(),
        webhooks::tests(),
    ];
    runner::main(tests.into_iter().flatten().collect())
}
