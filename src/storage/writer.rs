//! The one task that writes: groups what has queued into one transaction, publishes it, forgets old history
//! (upstream: etcd's apply loop and etcd3's compactor).

use super::batch::Batch;
use super::cache::{Cache, Published};
use super::compact::{Compactor, Standing};
use super::database::Database;
use super::load::catch_up;
use super::metrics::{Metrics, add};
use super::{Alongside, Entry, Indexer, Operation, Options, StorageError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A write that waits for its group.
pub(super) struct Request {
    pub operation: Operation,
    pub alongside: Vec<Alongside>,
    pub reply: oneshot::Sender<Answer>,
}

pub(super) type Answer = Result<Arc<Entry>, StorageError>;

pub(super) struct Writer {
    database: Database,
    cache: Arc<Cache>,
    indexer: Arc<dyn Indexer>,
    options: Options,
    compactor: Compactor,
    queue: mpsc::Receiver<Request>,
    /// An operation failed, so the database may hold more than the cache, or another server may have it by
    /// now: nothing is written until that is known.
    in_doubt: bool,
    /// Free pages may be there to give back.
    reclaim: bool,
}

impl Writer {
    pub fn new(
        database: Database,
        cache: Arc<Cache>,
        indexer: Arc<dyn Indexer>,
        options: Options,
        queue: mpsc::Receiver<Request>,
    ) -> Writer {
        Writer {
            database,
            cache,
            indexer,
            compactor: Compactor::new(options.clone()),
            options,
            queue,
            in_doubt: false,
            reclaim: false,
        }
    }

    /// Runs until `stop`, or until nobody is left who could write; then writes what has queued, and closes.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(self.compactor.interval());
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut requests = Vec::with_capacity(self.options.batch_writes_max);
        loop {
            let housekeeping = self.next_floor().is_some() || self.reclaim;
            tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut requests, self.options.batch_writes_max) => {
                    if taken == 0 {
                        break;
                    }
                    self.write(&mut requests).await;
                    // Also under constant load, when there is never time to spare.
                    self.compact().await;
                }
                // Ends by the queue running dry.
                () = stop.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                _ = tick.tick() => {
                    self.tick().await;
                }
                () = std::future::ready(()), if housekeeping => {
                    if !self.compact().await {
                        self.reclaim().await;
                    }
                }
            }
        }
        self.cache.close();
        if let Err(error) = self.database.close().await {
            tracing::warn!(%error, "The database did not close cleanly; nothing is lost.");
        }
    }

    async fn tick(&mut self) {
        self.compactor.mark(Instant::now(), self.cache.revision());
        match self.database.size_bytes().await {
            Ok(bytes) => self
                .cache
                .metrics
                .database_bytes
                .store(bytes.unwrap_or(0), Ordering::Relaxed),
            Err(error) => tracing::warn!(%error, "The database does not tell its size."),
        }
    }

    /// Decides, commits, publishes, answers. Refusals are answered after the commit too, since they may
    /// rest on a write of the same group.
    async fn write(&mut self, requests: &mut Vec<Request>) {
        let mut requests = requests.drain(..).peekable();
        while requests.peek().is_some() {
            if let Err(error) = self.settle().await {
                for request in requests.by_ref() {
                    answer(request.reply, Err(error.clone()));
                }
                return;
            }
            let cache = self.cache.clone();
            let mut batch = Batch::new(&cache);
            let mut answers = Vec::with_capacity(requests.len());
            while batch.bytes < self.options.batch_bytes_max
                && let Some(request) = requests.next()
            {
                answers.push((request.reply, batch.add_with(request.operation, request.alongside)));
            }
            let (outcome, published) = match self.commit(&cache, &batch).await {
                Ok(published) => (Ok(()), published),
                Err(error) => (Err(error), None),
            };
            let metrics = &self.cache.metrics;
            for (reply, decided) in answers {
                match (decided, &outcome) {
                    (Ok(_), Err(error)) | (Err(_), Err(error)) => {
                        add(&metrics.writes_failed, 1);
                        answer(reply, Err(error.clone()));
                    }
                    (Ok(entry), Ok(())) => answer(reply, Ok(entry)),
                    (Err(refusal), Ok(())) => {
                        add(&metrics.writes_refused, 1);
                        answer(reply, Err(refusal));
                    }
                }
            }
            // After the answers: a crowd of watches would run before them.
            if let Some(published) = published {
                published.wake();
            }
        }
    }

    /// A failed transaction fails all its writes and uses up no revision. Returns what nobody has been woken for yet.
    async fn commit<'a>(&mut self, cache: &'a Cache, batch: &Batch<'_>) -> Result<Option<Published<'a>>, StorageError> {
        let Some(last) = batch.events.last() else {
            return Ok(None);
        };
        let started = Instant::now();
        let published = match self.database.append(&batch.events).await {
            Ok(()) => Some(cache.publish(&batch.events)),
            Err(error) => {
                let error = StorageError::database("committing", error);
                self.in_doubt = true;
                // The commit may have happened all the same, if only its answer was lost.
                let settled = self.settle().await;
                if settled.is_err() || self.cache.revision() < last.revision() {
                    tracing::error!(%error, writes = batch.events.len(), "A transaction failed; its writers are told.");
                    return Err(error);
                }
                // They were published from the database, and woken.
                None
            }
        };
        let metrics: &Metrics = &self.cache.metrics;
        metrics.committed(batch.events.len() as u64, batch.bytes as u64, started.elapsed());
        Ok(published)
    }

    /// After a failure, finds out what the database holds.
    async fn settle(&mut self) -> Result<(), StorageError> {
        if !self.in_doubt {
            return Ok(());
        }
        self.database.lock().await?;
        catch_up(&self.database, &self.cache, &self.indexer, self.cache.revision()).await?;
        self.in_doubt = false;
        Ok(())
    }

    fn next_floor(&mut self) -> Option<u64> {
        let position = &self.cache.position;
        let standing = Standing {
            revision: position.revision(),
            floor: position.floor(),
            history_bytes: self.cache.metrics.history_bytes.load(Ordering::Relaxed),
        };
        self.compactor.next_floor(Instant::now(), standing)
    }

    /// Forgets a slice of history if there is some to forget: on disk, then in memory. True if it did.
    async fn compact(&mut self) -> bool {
        let Some(floor) = self.next_floor() else {
            return false;
        };
        let compacted = match self.settle().await {
            Ok(()) => {
                let from = self.cache.position.floor();
                let compacted = self.database.compact(from, floor).await;
                compacted.map_err(|error| StorageError::database("compacting", error))
            }
            Err(error) => Err(error),
        };
        match compacted {
            Ok(rows) => {
                add(&self.cache.metrics.compacted_rows, rows);
                self.cache.forget(floor);
                self.reclaim = true;
            }
            Err(error) => {
                tracing::warn!(%error, floor, "Compaction failed and will be tried again.");
                self.compactor.pause(Instant::now());
                self.in_doubt = true;
            }
        }
        true
    }

    async fn reclaim(&mut self) {
        self.reclaim = match self.database.reclaim().await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "Free pages could not be given back and will be kept for now.");
                false
            }
        };
    }
}

fn answer(reply: oneshot::Sender<Answer>, answer: Answer) {
    // Who gave up waiting does not want to know; the write stands.
    let _ = reply.send(answer);
}
