//! Empties terminating namespaces and then releases them (upstream: `pkg/controller/namespace`).

mod plan;

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams, WatchEvent, WatchParams};
use kube::core::PartialObjectMeta;
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use plan::Step;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a namespace's content is waited for at most before everything is looked at again.
const WAIT_MAX_SECONDS: u32 = 60;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("discovering resources: {0}")]
    Discovery(#[source] kube::Error),
    #[error("deleting {resource} in {namespace}: {source}")]
    Delete {
        resource: String,
        namespace: String,
        source: kube::Error,
    },
    #[error("finalizing namespace {namespace}: {source}")]
    Finalize { namespace: String, source: kube::Error },
}

/// Runs until `shutdown`.
pub async fn run(client: Client, shutdown: CancellationToken) {
    let controller = Controller::new(Api::<Namespace>::all(client.clone()), watcher::Config::default());
    let namespaces = controller.store();
    let work = controller
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, retry, Arc::new(client))
        .for_each(|_| std::future::ready(()));
    super::until_stopped(work, namespaces, shutdown).await;
}

fn retry(namespace: Arc<Namespace>, error: &Error, _client: Arc<Client>) -> Action {
    tracing::warn!(namespace = %namespace.name_any(), %error, "a terminating namespace is not empty yet");
    Action::requeue(Duration::from_secs(1))
}

async fn reconcile(namespace: Arc<Namespace>, client: Arc<Client>) -> Result<Action, Error> {
    match plan::next_step(&namespace) {
        Step::Nothing => {}
        Step::Empty => {
            empty(&client, &namespace.name_any()).await?;
            finalize(&client, &namespace).await?;
        }
    }
    Ok(Action::await_change())
}

/// Deletes all content and returns when there is none left.
async fn empty(client: &Client, namespace: &str) -> Result<(), Error> {
    let discovery = Discovery::new(client.clone()).run().await.map_err(Error::Discovery)?;
    let resources = discovery.groups().flat_map(|group| group.recommended_resources());
    let deletable = resources.filter(|(_, capabilities)| {
        capabilities.scope == Scope::Namespaced
            && capabilities.supports_operation(verbs::DELETE)
            && capabilities.supports_operation(verbs::LIST)
    });
    let mut resources: Vec<ApiResource> = deletable.map(|(resource, _)| resource).collect();
    resources.sort_by_key(|resource| plan::deletion_rank(&resource.plural));
    for resource in resources {
        let failed = |source| Error::Delete {
            resource: resource.plural.clone(),
            namespace: namespace.to_owned(),
            source,
        };
        empty_of(client, namespace, &resource).await.map_err(failed)?;
    }
    Ok(())
}

async fn empty_of(client: &Client, namespace: &str, resource: &ApiResource) -> kube::Result<()> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, resource);
    loop {
        let list = api.list_metadata(&ListParams::default()).await?;
        if list.items.is_empty() {
            return Ok(());
        }
        if list
            .items
            .iter()
            .any(|object| object.metadata.deletion_timestamp.is_none())
        {
            for object in list
                .items
                .iter()
                .filter(|object| object.metadata.deletion_timestamp.is_none())
            {
                match api.delete(&object.name_any(), &DeleteParams::background()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            continue;
        }
        // Somebody's grace period or finalizer: wait until one object is gone.
        wait_for_deletion(&api, list.metadata.resource_version.as_deref().unwrap_or("0")).await?;
    }
}

async fn wait_for_deletion(api: &Api<DynamicObject>, resource_version: &str) -> kube::Result<()> {
    let params = WatchParams::default().timeout(WAIT_MAX_SECONDS);
    let mut events = api.watch_metadata(&params, resource_version).await?.boxed();
    while let Some(event) = events.try_next().await? {
        let event: WatchEvent<PartialObjectMeta<DynamicObject>> = event;
        if matches!(event, WatchEvent::Deleted(_) | WatchEvent::Error(_)) {
            break;
        }
    }
    Ok(())
}

/// Takes `kubernetes` out of spec.finalizers, which lets the API server remove the namespace.
async fn finalize(client: &Client, namespace: &Namespace) -> Result<(), Error> {
    let name = namespace.name_any();
    let api: Api<Namespace> = Api::all(client.clone());
    let body = plan::without_finalizer(namespace);
    match api
        .replace_subresource("finalize", &name, &PostParams::default(), &body)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(Error::Finalize {
            namespace: name,
            source,
        }),
    }
}
