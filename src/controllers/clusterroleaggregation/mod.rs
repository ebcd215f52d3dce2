//! Fills ClusterRoles that have an aggregation rule with the rules of the roles that it selects
//! (upstream: `pkg/controller/clusterroleaggregation`).

mod plan;

use futures_util::StreamExt;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, ResourceExt};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a failed write waits.
const RETRY: Duration = Duration::from_secs(1);
/// So many changes are looked at together.
const CHANGES_MAX: usize = 256;

/// Runs until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let api = Api::<ClusterRole>::all(client);
    let (store, writer) = reflector::store();
    let changes = reflector(writer, watcher(api.clone(), watcher::Config::default())).default_backoff();
    let mut changes = std::pin::pin!(changes.ready_chunks(CHANGES_MAX));
    let mut failed = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY), if failed => {}
            news = changes.next() => if news.is_none() {
                return;
            },
        }
        failed = false;
        for role in plan::outdated(&store.state()) {
            let name = role.name_any();
            match api.replace(&name, &PostParams::default(), &role).await {
                Ok(_) => {}
                // Its next version is on its way here, or it is gone.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::warn!(role = name, %error, "an aggregated role is out of date and is retried");
                    failed = true;
                }
            }
        }
    }
}
