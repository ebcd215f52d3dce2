//! Has all objects of a resource written again, so that they are stored in its present version
//! (upstream: `pkg/controller/storageversionmigrator`).

mod definition;
mod plan;

use super::Context;
use crate::client::ObjectKey;
use crate::client::discovery::{Discovery, Metadata, Resource};
use crate::client::informer::Informer;
use crate::client::work_queue::{Next, WorkQueue};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::storagemigration::v1::{StorageVersionMigration, StorageVersionMigrationStatus};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use plan::Step;
use serde_json::{Value, json};
use std::sync::Arc;

const NAME: &str = "storage-version-migrator-controller";
const WORKERS: usize = 5;
const PAGE_OBJECTS: u32 = 500;
const WRITES_AT_ONCE: usize = 8;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("what is served is not known: {0}")]
    Discovery(#[source] kube::Error),
    #[error("listing the objects: {0}")]
    List(#[source] kube::Error),
    #[error("writing the objects: {0}")]
    Rewrite(#[source] kube::Error),
    #[error("writing the status: {0}")]
    Status(#[source] kube::Error),
    #[error("noting it at the definition: {0}")]
    Definition(#[source] kube::Error),
}

/// Runs until the context's shutdown.
pub async fn run(context: &Context) {
    let client = context.client(NAME);
    let informer = context.informers.of::<StorageVersionMigration>();
    let queue: WorkQueue<ObjectKey> = WorkQueue::new(NAME);
    let (known, added) = (informer.clone(), queue.clone());
    informer.on_change(move |change| {
        // The end of one is the beginning of the next of the same resource.
        let Some(resource) = change.object().map(|migration| plan::resource(migration)) else {
            return;
        };
        for other in known.list() {
            if plan::resource(&other) == resource {
                added.add(ObjectKey::of(&*other));
            }
        }
    });
    if !context.caught_up(informer.synced()).await {
        return;
    }
    let controller = Controller {
        migrations: Api::all(client.clone()),
        discovery: context.discovery.clone(),
        client,
        informer,
    };
    queue.run(WORKERS, &context.shutdown, |key| controller.sync(key)).await;
}

struct Controller {
    client: Client,
    migrations: Api<StorageVersionMigration>,
    discovery: Discovery,
    informer: Informer<StorageVersionMigration>,
}

impl Controller {
    async fn sync(&self, key: ObjectKey) -> Result<Next, Error> {
        let Some(migration) = self.informer.get_key(&key) else {
            return Ok(Next::Done);
        };
        let resource = plan::resource(&migration);
        let all = self.informer.list();
        let same = all.iter().filter(|other| plan::resource(other) == resource);
        let mut status = migration.status.clone().unwrap_or_default();
        let name = migration.name_any();
        match plan::next(&migration, same.map(|other| &**other)) {
            Step::Nothing => return Ok(Next::Done),
            Step::Resolve => self.resolve(&migration, &mut status).await?,
            Step::Begin => {
                definition::begin(&self.client, &resource, &name)
                    .await
                    .map_err(Error::Definition)?;
                set(
                    &mut status,
                    plan::RUNNING,
                    "MigrationRunning",
                    "The migration is running",
                );
            }
            Step::Migrate => self.migrate(&migration, &mut status).await?,
            Step::Finish { succeeded } => {
                definition::finish(&self.client, &resource, succeeded)
                    .await
                    .map_err(Error::Definition)?;
                plan::end_running(&mut status, migration.metadata.generation, Timestamp::now());
            }
        }
        self.write(&migration, status).await
    }

    async fn served(&self, migration: &StorageVersionMigration) -> Result<Option<Arc<Resource>>, Error> {
        let resource = plan::resource(migration);
        let served = self.discovery.fresh().await.map_err(Error::Discovery)?;
        Ok(served.by_plural(&resource.group, &resource.resource).cloned())
    }

    async fn resolve(
        &self,
        migration: &StorageVersionMigration,
        status: &mut StorageVersionMigrationStatus,
    ) -> Result<(), Error> {
        let Some(resource) = self.served(migration).await? else {
            fail(status, "resource does not exist in discovery");
            return Ok(());
        };
        let api = resource.api_all(self.client.clone());
        let list = api.list(&ListParams::default().limit(1)).await.map_err(Error::List)?;
        status.resource_version = list.metadata.resource_version;
        Ok(())
    }

    /// Has every object written as it is.
    async fn migrate(
        &self,
        migration: &StorageVersionMigration,
        status: &mut StorageVersionMigrationStatus,
    ) -> Result<(), Error> {
        let Some(resource) = self.served(migration).await? else {
            fail(status, &unhandled("unable to obtain GVR from discovery"));
            return Ok(());
        };
        let api = resource.api_all(self.client.clone());
        let mut page = ListParams::default().limit(PAGE_OBJECTS);
        loop {
            let list = api.list(&page).await.map_err(Error::List)?;
            let writes: Vec<_> = list
                .items
                .into_iter()
                .filter(|object| is_due(object, status))
                .map(|object| rewrite(self.client.clone(), resource.clone(), object))
                .collect();
            let written = stream::iter(writes)
                .buffer_unordered(WRITES_AT_ONCE)
                .try_collect::<()>()
                .await;
            match written {
                Ok(()) => {}
                Err(error) if may_pass(&error) => return Err(Error::Rewrite(error)),
                Err(error) => {
                    tracing::warn!(migration = migration.name_any(), %error, "a storage version migration failed");
                    let said = match &error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    fail(status, &unhandled(&said));
                    return Ok(());
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        set(status, plan::SUCCEEDED, "StorageVersionMigrationSucceeded", "");
        Ok(())
    }

    async fn write(
        &self,
        migration: &StorageVersionMigration,
        status: StorageVersionMigrationStatus,
    ) -> Result<Next, Error> {
        let mut changed = migration.clone();
        changed.status = Some(status);
        let params = PostParams::default();
        match self
            .migrations
            .replace_status(&migration.name_any(), &params, &changed)
            .await
        {
            Ok(_) => Ok(Next::Done),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Next::Done),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Next::Retry),
            Err(error) => Err(Error::Status(error)),
        }
    }
}

fn set(status: &mut StorageVersionMigrationStatus, kind: &str, reason: &str, message: &str) {
    plan::set(status, kind, reason, message, Timestamp::now());
}

fn fail(status: &mut StorageVersionMigrationStatus, message: &str) {
    set(status, plan::FAILED, "StorageVersionMigrationFailed", message);
}

fn unhandled(error: &str) -> String {
    format!("migration encountered unhandled error: {error}")
}

/// Whether an object was last written before the migration began.
fn is_due(object: &Metadata, status: &StorageVersionMigrationStatus) -> bool {
    let number = |version: &Option<String>| version.as_ref()?.parse::<u64>().ok();
    let (written, begun) = (
        number(&object.metadata.resource_version),
        number(&status.resource_version),
    );
    written.is_none() || begun.is_none() || written <= begun
}

/// Errors that are none of the object's: it is tried again.
fn may_pass(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 500 | 503 | 504),
        _ => true,
    }
}

/// Writes one object as it is. With its uid and version, so that one that was deleted meanwhile does not come back, and
/// one that was written is left alone.
async fn rewrite(client: Client, resource: Arc<Resource>, object: Metadata) -> kube::Result<()> {
    let api = resource.api_in(client, object.metadata.namespace.as_deref().unwrap_or_default());
    let nothing: Value = json!({
        "apiVersion": resource.api.api_version, "kind": resource.api.kind,
        "metadata": {"uid": object.metadata.uid, "resourceVersion": object.metadata.resource_version},
    });
    let params = PatchParams::apply(NAME);
    match api.patch(&object.name_any(), &params, &Patch::Apply(nothing)).await {
        // What was written or deleted meanwhile needs nothing more.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        result => result.map(|_| ()),
    }
}
