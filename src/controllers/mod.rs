//! The controllers: loops that make objects act, each a pure `plan` and a thin I/O shell on `kube::Client`
//! (upstream: `pkg/controller`). Adding one is a folder and a line in [`run`].

mod namespace;
mod serviceaccount;

use tokio_util::sync::CancellationToken;

/// Runs every controller until `shutdown`.
pub async fn run(client: kube::Client, shutdown: CancellationToken) {
    tokio::join!(
        namespace::run(client.clone(), shutdown.clone()),
        serviceaccount::run(client.clone(), shutdown.clone()),
    );
}
