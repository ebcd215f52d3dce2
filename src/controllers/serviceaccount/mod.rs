//! Keeps a ServiceAccount `default` in every active namespace (upstream: `pkg/controller/serviceaccount`).

mod plan;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, thiserror::Error)]
#[error("creating ServiceAccount {namespace}/default: {source}")]
struct Error {
    namespace: String,
    source: kube::Error,
}

/// Runs until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let accounts = Api::<ServiceAccount>::all(client.clone());
    let only_default = watcher::Config::default().fields("metadata.name=default");
    Controller::new(namespaces, watcher::Config::default())
        .watches(accounts, only_default, |account| {
            account.namespace().map(|namespace| ObjectRef::new(&namespace))
        })
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(reconcile, retry, Arc::new(client))
        .for_each(|_| std::future::ready(()))
        .await;
}

fn retry(_namespace: Arc<Namespace>, error: &Error, _client: Arc<Client>) -> Action {
    tracing::warn!(%error, "a default service account is missing and is retried");
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(namespace: Arc<Namespace>, client: Arc<Client>) -> Result<Action, Error> {
    let name = namespace.name_any();
    let api: Api<ServiceAccount> = Api::namespaced(Client::clone(&client), &name);
    let failed = |source| Error {
        namespace: name.clone(),
        source,
    };
    if let Some(account) = plan::missing_account(&namespace, api.get_opt("default").await.map_err(failed)?.as_ref()) {
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            // Made by another, or the namespace is going away.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(Action::await_change())
}
