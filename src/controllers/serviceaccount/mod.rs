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

/// The account's role lets it create accounts and nothing else; what is there is read as the controller manager.
pub struct Clients {
    pub reader: Client,
    pub writer: Client,
}

#[derive(Debug, thiserror::Error)]
#[error("creating ServiceAccount {namespace}/default: {source}")]
struct Error {
    namespace: String,
    source: kube::Error,
}

/// Runs until `shutdown`.
pub async fn run(clients: Clients, shutdown: CancellationToken) {
    let namespaces = Api::<Namespace>::all(clients.reader.clone());
    let accounts = Api::<ServiceAccount>::all(clients.reader.clone());
    let only_default = watcher::Config::default().fields("metadata.name=default");
    let controller = Controller::new(namespaces, watcher::Config::default());
    let known = controller.store();
    let work = controller
        .watches(accounts, only_default, |account| {
            account.namespace().map(|namespace| ObjectRef::new(&namespace))
        })
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, retry, Arc::new(clients))
        .for_each(|_| std::future::ready(()));
    super::until_stopped(work, known, shutdown).await;
}

fn retry(_namespace: Arc<Namespace>, error: &Error, _clients: Arc<Clients>) -> Action {
    tracing::warn!(%error, "a default service account is missing and is retried");
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(namespace: Arc<Namespace>, clients: Arc<Clients>) -> Result<Action, Error> {
    let name = namespace.name_any();
    let known: Api<ServiceAccount> = Api::namespaced(clients.reader.clone(), &name);
    let api: Api<ServiceAccount> = Api::namespaced(clients.writer.clone(), &name);
    let failed = |source| Error {
        namespace: name.clone(),
        source,
    };
    if let Some(account) = plan::missing_account(&namespace, known.get_opt("default").await.map_err(failed)?.as_ref()) {
        match api.create(&PostParams::default(), &account).await {
            Ok(_) => {}
            // Made by another, or the namespace is going away.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404 | 409) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(Action::await_change())
}
