//! How much may be sent: SPDY/3.1's windows, of the connection and of each stream.
//!
//! Go's spdystream, the client's side of all of Kubernetes' SPDY, neither announces windows nor gives them back:
//! with it, TCP alone holds the sender. So windows count from the moment that a peer shows that it keeps them,
//! by announcing its initial window.

use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

const INITIAL_WINDOW_BYTES: i64 = 64 * 1024;

/// The send window of a connection.
#[derive(Default)]
pub struct ConnectionWindow {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    enforced: bool,
    available: i64,
    /// Size that streams start with.
    initial: i64,
}

impl Default for State {
    fn default() -> State {
        State {
            enforced: false,
            available: INITIAL_WINDOW_BYTES,
            initial: INITIAL_WINDOW_BYTES,
        }
    }
}

/// The send window of one stream: what it has used of its initial size, less what the peer has given back.
pub struct StreamWindow {
    connection: Arc<ConnectionWindow>,
    used: Mutex<i64>,
}

impl ConnectionWindow {
    /// The peer announced the initial window of streams; it holds for open ones as well.
    pub fn announce(&self, initial: u32) {
        {
            let mut state = self.state.lock();
            state.enforced = true;
            state.initial = i64::from(initial);
        }
        self.changed.notify_waiters();
    }

    pub fn give_back(&self, bytes: u32) {
        {
            let mut state = self.state.lock();
            state.available = state.available.saturating_add(i64::from(bytes));
        }
        self.changed.notify_waiters();
    }
}

impl StreamWindow {
    pub fn new(connection: Arc<ConnectionWindow>) -> StreamWindow {
        StreamWindow {
            connection,
            used: Mutex::new(0),
        }
    }

    pub fn give_back(&self, bytes: u32) {
        {
            let mut used = self.used.lock();
            *used = used.saturating_sub(i64::from(bytes));
        }
        self.connection.changed.notify_waiters();
    }

    /// Waits until something may be sent and takes as much of `wanted` bytes as may be.
    pub async fn take(&self, wanted: usize) -> usize {
        loop {
            // Registered before the look, so that no change is missed in between.
            let changed = self.connection.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(taken) = self.try_take(wanted) {
                return taken;
            }
            changed.await;
        }
    }

    fn try_take(&self, wanted: usize) -> Option<usize> {
        let mut state = self.connection.state.lock();
        let mut used = self.used.lock();
        let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
        let taken = if state.enforced {
            wanted.min(state.available).min(state.initial - *used)
        } else {
            wanted
        };
        if taken <= 0 && wanted > 0 {
            return None;
        }
        // Counted from the first byte: a peer's first announcement may come when some is under way.
        state.available -= taken;
        *used += taken;
        Some(taken as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn without_announcement_nothing_is_held() {
        let window = StreamWindow::new(Arc::default());
        assert_eq!(window.take(10_000_000).await, 10_000_000);
        assert_eq!(window.take(10_000_000).await, 10_000_000);
    }

    #[tokio::test]
    async fn an_announced_window_holds_until_given_back() {
        let connection: Arc<ConnectionWindow> = Arc::default();
        let window = StreamWindow::new(connection.clone());
        connection.announce(1000);
        assert_eq!(window.take(600).await, 600);
        assert_eq!(window.take(600).await, 400);
        let held = tokio::time::timeout(Duration::from_millis(30), window.take(600)).await;
        assert!(held.is_err());
        let (taken, ()) = tokio::join!(window.take(600), async { window.give_back(500) });
        assert_eq!(taken, 500);
    }

    #[tokio::test]
    async fn streams_share_the_window_of_their_connection() {
        let connection: Arc<ConnectionWindow> = Arc::default();
        connection.announce(1 << 20);
        let (one, two) = (
            StreamWindow::new(connection.clone()),
            StreamWindow::new(connection.clone()),
        );
        assert_eq!(one.take(1 << 20).await, INITIAL_WINDOW_BYTES as usize);
        let (taken, ()) = tokio::join!(two.take(5), async { connection.give_back(3) });
        assert_eq!(taken, 3);
    }
}
