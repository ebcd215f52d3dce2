//! The controllers: loops that make objects act, each a pure `plan` and a thin I/O shell on `kube::Client`
//! (upstream: `pkg/controller`). Adding one is a folder and a line in [`run`].

mod api_services;
mod clusterroleaggregation;
mod custom_resources;
mod namespace;
mod serviceaccount;
mod serviceaccounttoken;

use kube::Client;
use kube::runtime::reflector::{Lookup, Store};
pub use serviceaccounttoken::Tokens;
use std::hash::Hash;
use tokio_util::sync::CancellationToken;

/// Under whose names the controllers come.
pub struct Clients {
    /// The controller manager itself, which may read everything.
    pub shared: Client,
    /// The service account of the controller that is named, with the role of that controller.
    pub own: Box<dyn Fn(&str) -> Client + Send + Sync>,
}

/// Runs every controller until `shutdown`.
pub async fn run(clients: Clients, tokens: Tokens, shutdown: CancellationToken) {
    let own = &clients.own;
    let accounts = serviceaccount::Clients {
        reader: clients.shared.clone(),
        writer: own("service-account-controller"),
    };
    tokio::join!(
        namespace::run(own("namespace-controller"), shutdown.clone()),
        serviceaccount::run(accounts, shutdown.clone()),
        // Upstream's runs as the manager itself, too: it holds the signing key.
        serviceaccounttoken::run(clients.shared.clone(), tokens, shutdown.clone()),
        clusterroleaggregation::run(own("clusterrole-aggregation-controller"), shutdown.clone()),
    );
}

/// Runs those that upstream has within its API server, which extend the API, until `shutdown`.
pub async fn run_extensions(client: Client, shutdown: CancellationToken) {
    tokio::join!(
        custom_resources::run(client.clone(), shutdown.clone()),
        api_services::run(client.clone(), shutdown.clone()),
    );
}

/// Runs one of kube's controllers, which ends by itself at `shutdown`, but only after its `store` was filled once: one
/// that is stopped before that has begun nothing, and is dropped.
async fn until_stopped<K>(work: impl Future<Output = ()>, store: Store<K>, shutdown: CancellationToken)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let stopped_early = async {
        tokio::select! {
            biased;
            _ = store.wait_until_ready() => std::future::pending().await,
            () = shutdown.cancelled() => {}
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped_early => {}
    }
}
