//! The life of a watch: initial state, then changes and bookmarks until its time is up.

use super::Selection;
use super::events::Writer;
use crate::apiserver::error::ApiError;
use crate::apiserver::filters::metrics::LongRunning;
use crate::storage::{Entry, Snapshot, StorageError, Watch};
use bytes::Bytes;
use futures_util::Stream;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Objects of the initial state are sent in pieces of about this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the client is sent before changes.
pub struct Initial {
    entries: VecDeque<Arc<Entry>>,
    /// The revision of the state, if a bookmark is to end it.
    end: Option<u64>,
}

impl Initial {
    pub fn none() -> Self {
        Self {
            entries: VecDeque::new(),
            end: None,
        }
    }

    pub fn new(snapshot: Snapshot, ends_with_bookmark: bool) -> Self {
        let end = ends_with_bookmark.then_some(snapshot.revision);
        Self {
            entries: snapshot.entries.into(),
            end,
        }
    }
}

pub struct WatchStream {
    pub writer: Writer,
    pub selection: Selection,
    pub initial: Initial,
    pub watch: Watch,
    /// Bookmarks were asked for.
    pub bookmarks: bool,
    pub next_bookmark: Instant,
    pub deadline: Instant,
    pub shutdown: CancellationToken,
    pub _open: LongRunning,
}

pub fn first_bookmark(deadline: Instant) -> Instant {
    next_bookmark(Instant::now(), deadline)
}

/// A minute from now, or shortly before the end if that is sooner and still ahead.
fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let regular = now + BOOKMARK_INTERVAL;
    match deadline.checked_sub(BOOKMARK_BEFORE_END) {
        Some(last) if last > now => regular.min(last),
        _ => regular,
    }
}

impl WatchStream {
    /// Chunks of whole lines.
    pub fn into_lines(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            match state.next_chunk().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(state))),
                Ok(None) => None,
                // Too slow for the history, or the server's own failure: the client learns it and starts anew.
                Err(error) => {
                    let line = state.writer.error(&error);
                    Some((Ok(line.into()), None))
                }
            }
        })
    }

    /// The next lines; None at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        if let Some(chunk) = self.next_initial()? {
            return Ok(Some(chunk));
        }
        loop {
            let mut out = Vec::new();
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(self.deadline) => return Ok(None),
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = next_bookmark(Instant::now(), self.deadline);
                    self.writer.bookmark(&mut out, self.watch.revision(), false)?;
                }
                events = self.watch.next() => match events {
                    Ok(events) => {
                        for event in &events {
                            self.writer.change(&mut out, event, &self.selection)?;
                        }
                    }
                    Err(StorageError::Closed) => return Ok(None),
                    Err(StorageError::Compacted { requested, oldest }) => {
                        return Err(ApiError::expired(format!("too old resource version: {requested} ({oldest})")));
                    }
                    Err(error) => return Err(ApiError::internal(error)),
                },
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
    }

    /// The next piece of the initial state; None when all of it was sent.
    fn next_initial(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut out = Vec::new();
        while let Some(entry) = self.initial.entries.pop_front() {
            if self.selection.matches(&entry) {
                self.writer.added(&mut out, &entry)?;
            }
            if out.len() >= CHUNK_BYTES {
                return Ok(Some(out.into()));
            }
        }
        if let Some(revision) = self.initial.end.take().filter(|_| self.bookmarks) {
            self.writer.bookmark(&mut out, revision, true)?;
        }
        Ok((!out.is_empty()).then(|| out.into()))
    }
}
