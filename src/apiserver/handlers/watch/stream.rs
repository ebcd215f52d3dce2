//! The life of a watch: initial state, then changes and bookmarks until its time is up.

use super::Selection;
use super::events::Writer;
use crate::apiserver::error::ApiError;
use crate::apiserver::filters::metrics::LongRunning;
use crate::apiserver::flow_control::Watcher;
use crate::storage::{Entry, Snapshot, StorageError, Watch};
use bytes::Bytes;
use futures_util::Stream;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The last bookmark comes this long before the end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Objects of the initial state are sent in pieces of about this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// A watcher is sent changes no more often than once in this time for each watch that is open, so that a crowd gets
/// them in groups: a thousand watchers would else take a thousand system calls for every write.
const PACE_PER_WATCH: Duration = Duration::from_micros(20);
/// But at least this often.
const PACE_MAX: Duration = Duration::from_millis(20);
/// Shorter pauses are not worth a timer.
const PACE_MIN: Duration = Duration::from_millis(1);

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

/// How long a watch lasts, and what it sends besides changes.
pub struct Span {
    /// Bookmarks were asked for.
    pub bookmarks: bool,
    pub deadline: Instant,
    pub shutdown: CancellationToken,
    /// The kind is served no more, or in another way. None for built-in kinds.
    pub retired: Option<CancellationToken>,
    /// Counted for as long as it lasts.
    pub watcher: Watcher,
}

pub struct WatchStream {
    writer: Writer,
    selection: Selection,
    initial: Initial,
    watch: Watch,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// Fires at the next bookmark or at the end. One timer that stays: thousands of watches wake up for every event.
    timer: Pin<Box<Sleep>>,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    retired: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Fires when changes may be sent again; None: at once.
    pause: Option<Pin<Box<Sleep>>>,
    _open: LongRunning,
    _watcher: Watcher,
}

/// A minute from now, or shortly before the end if that is sooner and still ahead.
fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let regular = now + BOOKMARK_INTERVAL;
    match deadline.checked_sub(BOOKMARK_BEFORE_END) {
        Some(last) if last > now => regular.min(last),
        _ => regular,
    }
}

async fn retirement(retired: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>) {
    match retired {
        Some(retired) => retired.await,
        None => std::future::pending().await,
    }
}

/// How long a watcher waits after changes were sent, with so many watches open.
fn pace(watches: u64) -> Option<Duration> {
    let watches = u32::try_from(watches).unwrap_or(u32::MAX);
    let pace = PACE_PER_WATCH.saturating_mul(watches).min(PACE_MAX);
    (pace >= PACE_MIN).then_some(pace)
}

async fn elapsed(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(pause) => pause.as_mut().await,
        None => std::future::pending().await,
    }
}

impl WatchStream {
    pub fn new(writer: Writer, selection: Selection, initial: Initial, watch: Watch, span: Span) -> Self {
        let Span {
            bookmarks,
            deadline,
            shutdown,
            retired,
            watcher,
        } = span;
        let next_bookmark = next_bookmark(Instant::now(), deadline);
        let first = if bookmarks {
            next_bookmark.min(deadline)
        } else {
            deadline
        };
        Self {
            writer,
            selection,
            initial,
            watch,
            bookmarks,
            next_bookmark,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(first)),
            shutdown: Box::pin(shutdown.cancelled_owned()),
            retired: retired.map(|token| Box::pin(token.cancelled_owned())),
            pause: None,
            _open: LongRunning::new("WATCH"),
            _watcher: watcher,
        }
    }

    /// Chunks of whole events, for a body.
    pub fn into_chunks(self) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures_util::stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            let (mut events, ended) = state.next().await;
            let chunk = match events.len() {
                0 => return None,
                1 => events.swap_remove(0),
                _ => events.concat().into(),
            };
            Some((Ok(chunk), (!ended).then_some(state)))
        })
    }

    /// The next events, and whether they are the last ones. No events: the end.
    pub async fn next(&mut self) -> (Vec<Bytes>, bool) {
        match self.next_events().await {
            Ok(Some(events)) => (events, false),
            Ok(None) => (Vec::new(), true),
            // Too slow for the history, or the server's own failure: the client learns it and starts anew.
            Err(error) => (vec![self.writer.error(&error)], true),
        }
    }

    async fn next_events(&mut self) -> Result<Option<Vec<Bytes>>, ApiError> {
        if let Some(events) = self.next_initial()? {
            return Ok(Some(events));
        }
        loop {
            let mut out = Vec::new();
            tokio::select! {
                biased;
                () = &mut self.shutdown => return Ok(None),
                () = retirement(&mut self.retired) => {
                    // What happened before is told first.
                    let events = self.watch.try_next().unwrap_or_default();
                    for event in &self.writer.converted(events).await? {
                        out.extend(self.writer.change(event, &self.selection)?);
                    }
                    return Ok((!out.is_empty()).then_some(out));
                }
                () = &mut self.timer => {
                    let now = Instant::now();
                    if now >= self.deadline {
                        return Ok(None);
                    }
                    self.next_bookmark = next_bookmark(now, self.deadline);
                    self.timer.as_mut().reset(self.next_bookmark.min(self.deadline));
                    out.push(self.writer.bookmark(self.watch.revision(), false)?);
                }
                () = elapsed(&mut self.pause), if self.pause.is_some() => self.pause = None,
                events = self.watch.next(), if self.pause.is_none() => match events {
                    Ok(events) => {
                        for event in &self.writer.converted(events).await? {
                            out.extend(self.writer.change(event, &self.selection)?);
                        }
                        let pace = pace(self.watch.crowd());
                        self.pause = pace.map(|pace| Box::pin(tokio::time::sleep(pace)));
                    }
                    Err(StorageError::Closed) => return Ok(None),
                    Err(StorageError::Compacted { requested, oldest }) => {
                        return Err(ApiError::expired(format!("too old resource version: {requested} ({oldest})")));
                    }
                    Err(error) => return Err(ApiError::internal(error)),
                },
            }
            if !out.is_empty() {
                return Ok(Some(out));
            }
        }
    }

    /// The next piece of the initial state; None when all of it was sent.
    fn next_initial(&mut self) -> Result<Option<Vec<Bytes>>, ApiError> {
        let mut events = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES
            && let Some(entry) = self.initial.entries.pop_front()
        {
            if self.selection.matches(&entry) {
                let event = self.writer.added(&entry)?;
                bytes += event.len();
                events.push(event);
            }
        }
        if self.initial.entries.is_empty()
            && let Some(revision) = self.initial.end.take().filter(|_| self.bookmarks)
        {
            events.push(self.writer.bookmark(revision, true)?);
        }
        Ok((!events.is_empty()).then_some(events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crowds_are_paced() {
        assert_eq!(pace(1), None);
        assert_eq!(pace(40), None);
        assert_eq!(pace(100), Some(Duration::from_millis(2)));
        assert_eq!(pace(1000), Some(PACE_MAX));
        assert_eq!(pace(u64::MAX), Some(PACE_MAX));
    }
}
