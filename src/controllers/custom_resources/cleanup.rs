//! Deletes the instances of a deleted definition, waits for their finalizers, and releases the definition
//! (upstream: `apiextensions-apiserver/pkg/controller/finalizer`).

use super::definition::{CLEANUP_FINALIZER, Condition, Definition};
use futures_util::TryStreamExt;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, WatchEvent, WatchParams,
};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After this the status says that instances are still there.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_secs(1);
const PAGE_OBJECTS: u32 = 500;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("could not list instances: {0}")]
    List(#[source] kube::Error),
    #[error("could not issue all deletes: {0}")]
    Delete(#[source] kube::Error),
    #[error("could not confirm zero CustomResources remaining: timed out waiting for the condition")]
    Remaining,
    #[error("no version is served through which instances could be deleted")]
    NotServed,
    #[error("the status of the definition is not written: {0}")]
    Write(#[source] kube::Error),
}

impl Error {
    /// The reason of the condition, if it says so.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::List(_) | Self::Delete(_) | Self::NotServed => Some("InstanceDeletionFailed"),
            Self::Remaining => Some("InstanceDeletionCheck"),
            Self::Write(_) => None,
        }
    }
}

/// Cleans up one definition in a task of its own, however often it is told to.
pub struct Cleaner {
    client: Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// The uids of those that are being cleaned up.
    at_work: Arc<Mutex<BTreeSet<String>>>,
}

impl Cleaner {
    pub fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self {
            client,
            shutdown,
            tasks: TaskTracker::new(),
            at_work: Arc::default(),
        }
    }

    pub fn clean(&self, definition: &Definition) {
        let uid = definition.metadata.uid.clone().unwrap_or_default();
        if !self.at_work.lock().insert(uid.clone()) {
            return;
        }
        let (client, definition, at_work) = (self.client.clone(), definition.clone(), self.at_work.clone());
        let work = async move {
            while let Err(error) = clean(&client, &definition).await {
                tracing::warn!(definition = definition.name(), %error, "the instances of a definition are not gone yet");
                if let Some(reason) = error.reason() {
                    // Only a note: what it says is tried again in any case.
                    let _ = note(&client, &definition, true, reason, &error.to_string(), false).await;
                }
                tokio::time::sleep(RETRY).await;
            }
            at_work.lock().remove(&uid);
        };
        let shutdown = self.shutdown.clone();
        self.tasks
            .spawn(async move { shutdown.run_until_cancelled(work).await });
    }
}

async fn clean(client: &Client, definition: &Definition) -> Result<(), Error> {
    let message = "CustomResource deletion is in progress";
    if !note(client, definition, true, "InstanceDeletionInProgress", message, false).await? {
        return Ok(());
    }
    let (reason, message) = if definition.has_condition("Established") {
        delete_instances(client, definition).await?;
        ("InstanceDeletionCompleted", "removed all instances")
    } else {
        ("NeverEstablished", "resource was never established")
    };
    note(client, definition, false, reason, message, true).await?;
    Ok(())
}

/// Sets the condition Terminating, and with `release` takes our finalizer away. False: the definition is gone, or
/// another has its name.
async fn note(
    client: &Client,
    definition: &Definition,
    terminating: bool,
    reason: &str,
    message: &str,
    release: bool,
) -> Result<bool, Error> {
    let api: Api<Definition> = Api::all(client.clone());
    loop {
        let Some(mut current) = api.get_opt(definition.name()).await.map_err(Error::Write)? else {
            return Ok(false);
        };
        if current.metadata.uid != definition.metadata.uid || !current.has_finalizer() {
            return Ok(false);
        }
        let now = jiff::Timestamp::now();
        current
            .status
            .set(Condition::new("Terminating", terminating, reason, message, now));
        let mut patch = current.status_patch(&current.status);
        if release {
            let finalizers = current.metadata.finalizers.iter().flatten();
            let kept: Vec<&String> = finalizers.filter(|finalizer| *finalizer != CLEANUP_FINALIZER).collect();
            patch["metadata"]["finalizers"] = json!(kept);
        }
        match api
            .patch_status(definition.name(), &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => return Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            // Somebody else wrote: look again.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(Error::Write(error)),
        }
    }
}

/// Deletes all instances and returns when none is left.
async fn delete_instances(client: &Client, definition: &Definition) -> Result<(), Error> {
    let served = |storage: bool| {
        let versions = definition.spec.versions.iter();
        versions
            .into_iter()
            .find(|version| version.served && (version.storage || !storage))
    };
    let version = served(true).or_else(|| served(false)).ok_or(Error::NotServed)?;
    let names = &definition.status.accepted_names;
    let resource = ApiResource {
        group: definition.spec.group.clone(),
        version: version.name.clone(),
        api_version: format!("{}/{}", definition.spec.group, version.name),
        kind: names.kind.clone(),
        plural: names.plural.clone(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let begin = tokio::time::Instant::now();
    loop {
        let page = ListParams::default().limit(PAGE_OBJECTS);
        let list = api.list_metadata(&page).await.map_err(Error::List)?;
        if list.items.is_empty() {
            return Ok(());
        }
        let waiting = list
            .items
            .iter()
            .filter(|object| object.metadata.deletion_timestamp.is_none());
        let namespaces: BTreeSet<Option<String>> = waiting.map(ResourceExt::namespace).collect();
        if namespaces.is_empty() {
            if begin.elapsed() > PATIENCE {
                return Err(Error::Remaining);
            }
            // Their finalizers are somebody's: wait until one is gone.
            let revision = list.metadata.resource_version.as_deref().unwrap_or("0");
            wait_for_deletion(&api, revision).await.map_err(Error::List)?;
            continue;
        }
        for namespace in namespaces {
            let api: Api<DynamicObject> = match namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let deleted = api
                .delete_collection(&DeleteParams::default(), &ListParams::default())
                .await;
            deleted.map_err(Error::Delete)?;
        }
    }
}

async fn wait_for_deletion(api: &Api<DynamicObject>, revision: &str) -> kube::Result<()> {
    let seconds = u32::try_from(PATIENCE.as_secs()).unwrap_or(u32::MAX);
    let params = WatchParams::default().timeout(seconds);
    let events = api.watch_metadata(&params, revision).await?;
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.try_next().await? {
        let event: WatchEvent<PartialObjectMeta<DynamicObject>> = event;
        if matches!(event, WatchEvent::Deleted(_) | WatchEvent::Error(_)) {
            break;
        }
    }
    Ok(())
}
