//! The door to the store (upstream: `storage.Interface` as the registry's generic store uses it).

use super::cache::Cache;
use super::database::Database;
use super::load::load;
use super::metrics::Metrics;
use super::writer::{Request, Writer};
use super::{Alongside, Entry, Indexer, Operation, Options, Snapshot, StorageError, Watch, Window};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// All objects of a cluster. Reads are answered from memory at once; a write returns when it is durable.
pub struct Storage {
    cache: Arc<Cache>,
    queue: mpsc::Sender<Request>,
    stop: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Storage {
    /// Opens the database, brings its schema up to date, and reads it into memory.
    pub async fn open(options: Options, indexer: Arc<dyn Indexer>) -> Result<Arc<Storage>, StorageError> {
        let database = Database::open(&options.url).await?;
        let cache = Arc::new(load(&database, &indexer).await?);
        let (queue, requests) = mpsc::channel(options.queue_writes_max.max(1));
        let stop = CancellationToken::new();
        let writer = Writer::new(database, cache.clone(), indexer, options, requests);
        let writer = tokio::spawn(writer.run(stop.clone()));
        Ok(Arc::new(Storage {
            cache,
            queue,
            stop,
            writer: Mutex::new(Some(writer)),
        }))
    }

    /// Writes are taken: the store was not closed, and its writer runs.
    pub fn is_open(&self) -> bool {
        !self.queue.is_closed()
    }

    /// The latest committed revision, over all resources. A store in which nothing was written is at 1.
    pub fn revision(&self) -> u64 {
        self.cache.revision()
    }

    /// Lists below this revision are gone.
    pub fn oldest_revision(&self) -> u64 {
        self.cache.position.floor()
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.cache.get(resource, namespace, name)
    }

    /// Objects in key order. `at`: None for now, or exactly that revision (`Compacted`, `Future`).
    /// `namespace`: None for all.
    pub fn list(&self, resource: &str, namespace: Option<&str>, at: Option<u64>) -> Result<Snapshot, StorageError> {
        self.cache.resource(resource).list(namespace, at)
    }

    /// `limit` objects of a list from `namespace/name` on.
    pub fn window(
        &self,
        resource: &str,
        namespace: Option<&str>,
        at: Option<u64>,
        start: (&str, &str),
        limit: usize,
    ) -> Result<Window, StorageError> {
        self.cache.resource(resource).window(namespace, at, start, limit)
    }

    /// The store's revision, and the name of the present state of a list as [`Snapshot::changed`] has it.
    pub fn changed(&self, resource: &str, namespace: Option<&str>) -> (u64, u64) {
        self.cache.resource(resource).changed(namespace)
    }

    /// Changes strictly after `from`. `from` may be yet to come. `Compacted` if they are not all remembered.
    pub fn watch(&self, resource: &str, namespace: Option<&str>, from: u64) -> Result<Watch, StorageError> {
        Watch::new(self.cache.resource(resource), namespace, from)
    }

    /// What is there now, and a watch of what comes after.
    pub fn list_and_watch(&self, resource: &str, namespace: Option<&str>) -> Result<(Snapshot, Watch), StorageError> {
        let snapshot = self.list(resource, namespace, None)?;
        let watch = self.watch(resource, namespace, snapshot.revision)?;
        Ok((snapshot, watch))
    }

    /// Returns when the write is on disk and visible to all readers. If the future is dropped the write may
    /// happen all the same.
    pub async fn write(&self, operation: Operation) -> Result<Arc<Entry>, StorageError> {
        self.write_with(operation, Vec::new()).await
    }

    /// Like [`Storage::write`], with what changes alongside: all of it or nothing. `Refused` is the first refusal.
    pub async fn write_with(
        &self,
        operation: Operation,
        alongside: Vec<Alongside>,
    ) -> Result<Arc<Entry>, StorageError> {
        let (reply, answer) = oneshot::channel();
        let request = Request {
            operation,
            alongside,
            reply,
        };
        self.queue.send(request).await.map_err(|_| StorageError::Closed)?;
        answer.await.map_err(|_| StorageError::Closed)?
    }

    /// Waits until the store has reached `revision`; false if it has not in time.
    pub async fn wait_for_revision(&self, revision: u64, timeout: Duration) -> bool {
        let mut published = self.cache.subscribe();
        let reached = published.wait_for(|at| *at >= revision);
        matches!(tokio::time::timeout(timeout, reached).await, Ok(Ok(_)))
    }

    /// Resources that were ever used, with the number of their objects, by name.
    pub fn resources(&self) -> Vec<(Arc<str>, usize)> {
        let resources = self.cache.resources().into_iter();
        let mut resources: Vec<_> = resources.map(|r| (r.name.clone(), r.size().0)).collect();
        resources.sort();
        resources
    }

    /// How many objects of a resource there are, and their bytes.
    pub fn size(&self, resource: &str) -> (usize, usize) {
        self.cache.resource(resource).size()
    }

    pub fn metrics(&self) -> &Metrics {
        &self.cache.metrics
    }

    /// Writes what has queued, ends the watches, closes the database. Later writes are refused.
    pub async fn close(&self) {
        self.stop.cancel();
        let writer = self.writer.lock().take();
        if let Some(writer) = writer
            && let Err(error) = writer.await
        {
            tracing::error!(%error, "The storage writer failed.");
        }
    }
}
