//! The paths of a user, with the real kubectl binaries and a real Docker engine.
//!
//! Ignored by a plain `cargo test`, since they need what `make test` installs:
//! `cargo test --test kubectl_integration_test -- --ignored --nocapture`.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod apply;
mod cascade;
mod clients;
mod commands;
mod containerd;
mod custom_resources;
mod fuzz;
mod helm;
mod identity;
mod image;
mod kinds;
mod kube_rs;
mod metrics;
mod pods;
mod quick_start;
mod restart;
mod schema;
mod workloads;

/// A pod of one busybox container that runs a shell script.
pub fn pod_manifest(name: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  \
         terminationGracePeriodSeconds: 5\n  containers:\n  - name: main\n    image: busybox:test\n    \
         imagePullPolicy: IfNotPresent\n    command: [\"sh\", \"-c\", {script:?}]\n"
    )
}

/// Runs until SIGTERM and ends on it at once.
pub const SLEEPER: &str = "trap 'exit 0' TERM; echo started; while true; do sleep 1 & wait $!; done";
