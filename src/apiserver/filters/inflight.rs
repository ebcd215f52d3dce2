//! How many requests are served at once, and who waits for whom (upstream: `server/filters/maxinflight.go`, and the fair
//! queues of `apiserver/pkg/util/flowcontrol`). There is one queue for each user, and the queues take turns, so that who
//! sends a thousand requests at once makes others wait for a few of them only.

use super::metrics;
use crate::apiserver::authorization::PRIVILEGED_GROUP;
use crate::apiserver::context::Context;
use crate::apiserver::error::ApiError;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A request that has waited so long is refused: upstream's quarter of the longest request.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// So many requests of one user wait at most: what upstream's queues of the level `workload-low` hold together.
const WAITING_MAX: usize = 6400;

/// Requests in flight that read, or that write.
#[derive(Debug)]
struct Lane {
    gauge: prometheus::IntGauge,
    requests_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: usize,
    /// Who waits, by user, in the order of their turns. No queue is empty.
    queues: VecDeque<(String, VecDeque<oneshot::Sender<Place>>)>,
}

impl State {
    /// Who is next, in front of all who come after.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let (user, mut queue) = self.queues.pop_front()?;
        let next = queue.pop_front();
        if !queue.is_empty() {
            self.queues.push_back((user, queue));
        }
        next
    }

    fn queue(&mut self, user: &str) -> &mut VecDeque<oneshot::Sender<Place>> {
        let known = self.queues.iter().position(|(name, _)| name == user);
        let position = known.unwrap_or_else(|| {
            self.queues.push_back((user.to_owned(), VecDeque::new()));
            self.queues.len() - 1
        });
        &mut self.queues[position].1
    }
}

/// A request's place; the next one's when dropped.
#[derive(Debug)]
pub struct Place(Option<Arc<Lane>>);

impl Drop for Place {
    fn drop(&mut self) {
        let Some(lane) = self.0.take() else { return };
        loop {
            let next = {
                let mut state = lane.state.lock();
                // The privileged are not counted out of the others' places.
                let full = state.requests > lane.requests_max;
                let next = if full { None } else { state.next() };
                if next.is_none() {
                    state.requests -= 1;
                }
                next
            };
            let Some(next) = next else { break };
            // Who does not wait any more gives it back.
            match next.send(Place(Some(Arc::clone(&lane)))) {
                Ok(()) => return,
                Err(mut place) => place.0 = None,
            }
        }
        lane.gauge.dec();
    }
}

/// Counts the requests in flight, reading and writing apart.
#[derive(Debug)]
pub struct InFlight {
    reading: Arc<Lane>,
    writing: Arc<Lane>,
}

impl InFlight {
    pub fn new(reading_max: usize, writing_max: usize) -> Self {
        let lane = |kind, requests_max| {
            Arc::new(Lane {
                gauge: metrics::in_flight(kind),
                requests_max,
                state: Mutex::default(),
            })
        };
        Self {
            reading: lane("readOnly", reading_max),
            writing: lane("mutating", writing_max),
        }
    }

    /// A place in the lane, at once if the request is `privileged`; None if there is none for too long, or if too many
    /// requests of the user wait.
    async fn enter(&self, writes: bool, privileged: bool, user: &str) -> Option<Place> {
        let lane = if writes { &self.writing } else { &self.reading };
        let wait = {
            let mut state = lane.state.lock();
            if privileged || state.requests < lane.requests_max {
                state.requests += 1;
                lane.gauge.inc();
                return Some(Place(Some(Arc::clone(lane))));
            }
            let queue = state.queue(user);
            // There is always one who will go: nobody waits unless the lane is full.
            if queue.len() >= WAITING_MAX {
                return None;
            }
            let (give, wait) = oneshot::channel();
            queue.push_back(give);
            wait
        };
        tokio::time::timeout(WAIT_MAX, wait).await.ok()?.ok()
    }
}

/// Takes a place. Long-running requests need none; administrators always get one, so that an overloaded server
/// can be looked at.
pub async fn enter(ctx: &Context) -> Result<Option<Place>, ApiError> {
    if ctx.info.is_long_running() {
        return Ok(None);
    }
    let writes = !matches!(ctx.info.verb.as_str(), "get" | "list" | "watch" | "head");
    let privileged = ctx.user.groups.iter().any(|group| group == PRIVILEGED_GROUP);
    let place = ctx.server.in_flight.enter(writes, privileged, &ctx.user.name).await;
    place.map(Some).ok_or_else(ApiError::overloaded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn lanes_fill_and_empty() {
        let in_flight = InFlight::new(1, 1);
        let first = in_flight.enter(false, false, "a").await;
        assert!(first.is_some());
        let privileged = in_flight.enter(false, true, "a").now_or_never();
        assert!(privileged.flatten().is_some(), "the privileged always get in");
        let writing = in_flight.enter(true, false, "a").now_or_never();
        assert!(writing.flatten().is_some(), "writing has a lane of its own");
        let mut waiting = Box::pin(in_flight.enter(false, false, "a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        let second = waiting.now_or_never().flatten();
        assert!(second.is_some(), "a place is handed on");
        drop(second);
        assert!(in_flight.enter(false, false, "a").now_or_never().flatten().is_some());
    }

    #[tokio::test]
    async fn users_take_turns() {
        let in_flight = InFlight::new(0, 1);
        let mut place = in_flight.enter(true, false, "many").await;
        let mut waiting: Vec<_> = ["many", "many", "many", "few", "gone"]
            .into_iter()
            .map(|user| (user, Box::pin(in_flight.enter(true, false, user))))
            .collect();
        for (_, wait) in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        // Does not wait any more.
        waiting.pop();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(place.take());
            let next = waiting.iter_mut().position(|(_, wait)| {
                place = wait.as_mut().now_or_never().flatten();
                place.is_some()
            });
            order.push(waiting.remove(next.expect("one is next")).0);
        }
        assert_eq!(order, ["many", "few", "many", "many"]);
    }

    #[tokio::test]
    async fn queues_are_bounded() {
        let in_flight = InFlight::new(0, 1);
        let _place = in_flight.enter(true, false, "a").await;
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| Box::pin(in_flight.enter(true, false, "a")))
            .collect();
        for wait in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        assert!(in_flight.enter(true, false, "a").await.is_none(), "no more of this one");
        assert!(
            in_flight.enter(true, false, "b").now_or_never().is_none(),
            "others wait"
        );
    }
}
