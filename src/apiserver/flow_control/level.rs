//! One priority level: its seats, and who waits for them (upstream: the `QueueSet`s of `flowcontrol/fairqueuing`).

use super::demand::{Demand, Seen};
use super::queues::{Queues, deal};
use super::retry_after::Refusals;
use super::schema::FlowSchema;
use super::width::{self, Width};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

pub use super::queues::HAND_MAX;

/// What becomes of a request that finds no seat.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// Everybody has one.
    Exempt,
    Reject,
    Queue {
        queues: u32,
        hand: usize,
        length_max: usize,
    },
}

#[derive(Debug)]
pub struct Level {
    pub name: String,
    /// No object makes another one of it: its name decides.
    pub exempt: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    shape: Shape,
    limit: u32,
    /// Of its own, whatever is lent.
    nominal: u32,
    /// That are taken.
    seats: u32,
    requests: u32,
    queues: Queues<Turn>,
    demand: Demand,
    refusals: Refusals,
}

/// Why there is no seat, and in how many seconds there may be one.
#[derive(Debug, PartialEq)]
pub struct Refusal {
    pub reason: &'static str,
    pub retry_after: u32,
}

/// A request that is served; its seats are the next one's when it is dropped, or soon after.
#[derive(Debug)]
pub struct Seat {
    /// None once they are given back.
    held: Option<Held>,
    watch: bool,
    begun: Instant,
}

/// The seats of a request.
#[derive(Debug)]
struct Held {
    flow: Arc<FlowSchema>,
    /// None where there are no queues.
    queue: Option<u32>,
    width: Width,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// See [`FlowSchema::hash`].
    pub hash: u64,
    pub width: Width,
    pub watch: bool,
    pub wait_max: Duration,
}

/// Where who waits is told.
#[derive(Debug)]
struct Turn {
    flow: Arc<FlowSchema>,
    give: oneshot::Sender<Seat>,
}

enum Arrival {
    Served(Option<u32>),
    Refused(Refusal),
    Waits(Waiting, oneshot::Receiver<Seat>),
}

/// Leaves its queue when dropped, unless it was served.
struct Waiting {
    flow: Arc<FlowSchema>,
    queue: u32,
    id: u64,
    width: Width,
}

impl Level {
    pub fn new(name: &str, shape: Shape, limit: u32) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            exempt: shape == Shape::Exempt,
            state: Mutex::new(State {
                shape,
                limit,
                nominal: limit,
                seats: 0,
                requests: 0,
                queues: Queues::default(),
                demand: Demand::new(Instant::now()),
                refusals: Refusals::default(),
            }),
        })
    }

    /// Who waits keeps its place, whatever queues there are from now on.
    pub fn reshape(&self, shape: Shape) {
        self.state.lock().shape = shape;
    }

    pub fn set_nominal(&self, nominal: u32) {
        self.state.lock().nominal = nominal;
    }

    /// The most seats that one request takes; None where there are no queues, and so no bound.
    pub fn widest(&self) -> Option<u32> {
        let state = self.state.lock();
        match state.shape {
            Shape::Queue { hand, .. } => Some(width::widest(state.nominal, hand)),
            Shape::Exempt | Shape::Reject => None,
        }
    }

    pub fn set_limit(&self, limit: u32) {
        self.state.lock().limit = limit;
        self.dispatch();
    }

    /// The demand since the last look.
    pub fn take_demand(&self) -> Seen {
        self.state.lock().demand.take(Instant::now())
    }

    /// Seats for a request of `flow`, which is of this level, as soon as it is its turn.
    pub async fn enter(&self, flow: &Arc<FlowSchema>, asked: Asked) -> Result<Seat, Refusal> {
        flow.metrics.estimated(asked.width.most());
        let came = Instant::now();
        let (waiting, turn) = match self.arrive(flow, asked, came) {
            Arrival::Served(queue) => return Ok(Seat::new(flow, queue, asked.width, asked.watch, came)),
            Arrival::Refused(refusal) => {
                flow.metrics.rejected(refusal.reason);
                return Err(refusal);
            }
            Arrival::Waits(waiting, turn) => (waiting, turn),
        };
        // Somebody else may have left in between.
        self.dispatch();
        let seat = tokio::time::timeout(asked.wait_max, turn).await;
        let waited = came.elapsed().as_secs_f64();
        drop(waiting);
        match seat {
            Ok(Ok(mut seat)) => {
                seat.watch = asked.watch;
                flow.metrics.waited(waited, true);
                Ok(seat)
            }
            // Nobody drops who waits without serving it.
            Err(_) | Ok(Err(_)) => {
                flow.metrics.waited(waited, false);
                let reason = "time-out";
                flow.metrics.rejected(reason);
                Err(self.state.lock().refuse(reason))
            }
        }
    }

    fn arrive(&self, flow: &Arc<FlowSchema>, asked: Asked, now: Instant) -> Arrival {
        let mut state = self.state.lock();
        let seats = asked.width.most();
        let mut room = [0; HAND_MAX];
        let hand = match state.shape {
            Shape::Queue { queues, hand, .. } => {
                let hand = &mut room[..hand.clamp(1, HAND_MAX)];
                deal(asked.hash, queues, hand);
                &*hand
            }
            Shape::Exempt | Shape::Reject => {
                if state.shape == Shape::Exempt || state.fits(seats) {
                    state.begin(now, seats);
                    return Arrival::Served(None);
                }
                return Arrival::Refused(state.refuse("concurrency-limit"));
            }
        };
        let queue = state.queues.shortest(hand);
        if state.queues.waiting() == 0 && state.seats < state.limit && state.fits(seats) {
            state.queues.serve(queue, asked.width);
            state.begin(now, seats);
            return Arrival::Served(Some(queue));
        }
        if let Shape::Queue { length_max, .. } = state.shape
            && state.seats >= state.limit
            && state.queues.length(queue) >= length_max
        {
            return Arrival::Refused(state.refuse("queue-full"));
        }
        let (give, turn) = oneshot::channel();
        let waiter = Turn {
            flow: Arc::clone(flow),
            give,
        };
        let id = state.queues.push(queue, asked.width, waiter);
        state.note_demand(now);
        flow.metrics.queued(seats);
        let waiting = Waiting {
            flow: Arc::clone(flow),
            queue,
            id,
            width: asked.width,
        };
        Arrival::Waits(waiting, turn)
    }

    /// Serves who waits, as far as there is room.
    fn dispatch(&self) {
        let now = Instant::now();
        loop {
            // The lock ends with this line: what is sent may come back below.
            let next = self.state.lock().next(now);
            let Some(turn) = next else { return };
            let Turn { flow, give } = turn.what;
            flow.metrics.unqueued(turn.width.most());
            let seat = Seat::new(&flow, Some(turn.queue), turn.width, false, now);
            // Who does not wait any more gives it back, and the next one is looked for here.
            if let Err(mut seat) = give.send(seat)
                && let Some((held, seconds)) = seat.end()
            {
                let mut state = self.state.lock();
                held.answered(&mut state, seconds);
                held.leave(&mut state);
            }
        }
    }
}

impl State {
    fn fits(&self, seats: u32) -> bool {
        match seats > self.limit {
            // Wider than the level: alone.
            true => self.requests == 0,
            false => self.seats + seats <= self.limit,
        }
    }

    fn next(&mut self, now: Instant) -> Option<super::queues::Turn<Turn>> {
        if self.seats >= self.limit {
            return None;
        }
        let (requests, seats, limit) = (self.requests, self.seats, self.limit);
        let turn = self.queues.next(|wanted| match wanted > limit {
            true => requests == 0,
            false => seats + wanted <= limit,
        })?;
        self.begin(now, turn.width.most());
        Some(turn)
    }

    fn begin(&mut self, now: Instant, seats: u32) {
        self.requests += 1;
        self.seats += seats;
        self.note_demand(now);
    }

    fn note_demand(&mut self, now: Instant) {
        self.demand.set(now, self.seats + self.queues.seats_waiting());
    }

    fn refuse(&mut self, reason: &'static str) -> Refusal {
        Refusal {
            reason,
            retry_after: self.refusals.note(jiff::Timestamp::now().as_second()),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let level = &self.flow.level;
        {
            let mut state = level.state.lock();
            if !state.queues.remove(self.queue, self.id) {
                return;
            }
            state.note_demand(Instant::now());
        }
        self.flow.metrics.unqueued(self.width.most());
        // It may have been the wide one that others waited behind.
        level.dispatch();
    }
}

impl Seat {
    fn new(flow: &Arc<FlowSchema>, queue: Option<u32>, width: Width, watch: bool, begun: Instant) -> Self {
        flow.metrics.begun(width.most());
        let held = Held {
            flow: Arc::clone(flow),
            queue,
            width,
        };
        Self {
            held: Some(held),
            watch,
            begun,
        }
    }

    /// The request is served, after so many seconds; what is left of it are its seats.
    fn end(&mut self) -> Option<(Held, f64)> {
        let held = self.held.take()?;
        let seconds = self.begun.elapsed().as_secs_f64();
        held.flow.metrics.answered(seconds, self.watch);
        Some((held, seconds))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some((held, seconds)) = self.end() else { return };
        let lingers = held.width.lingers;
        let runtime = (!lingers.is_zero()).then(|| Handle::try_current().ok()).flatten();
        let mut state = held.flow.level.state.lock();
        held.answered(&mut state, seconds);
        let Some(runtime) = runtime else {
            let somebody_waits = held.leave(&mut state);
            drop(state);
            if somebody_waits {
                held.flow.level.dispatch();
            }
            return;
        };
        drop(state);
        // The event of a write is on its way to who watches; the writer does not wait for that.
        runtime.spawn(async move {
            tokio::time::sleep(lingers).await;
            let somebody_waits = held.leave(&mut held.flow.level.state.lock());
            if somebody_waits {
                held.flow.level.dispatch();
            }
        });
    }
}

impl Held {
    fn answered(&self, state: &mut State, seconds: f64) {
        state.requests -= 1;
        if let Some(queue) = self.queue {
            state.queues.answered(queue, self.width, seconds);
        }
    }

    /// The seats are free. True if somebody waits for some.
    fn leave(&self, state: &mut State) -> bool {
        self.flow.metrics.left(self.width.most());
        state.seats -= self.width.most();
        if let Some(queue) = self.queue {
            state.queues.leave(queue);
        }
        state.note_demand(Instant::now());
        state.queues.seats_waiting() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::uid;
    use super::*;
    use futures_util::FutureExt;
    use serde_json::json;

    fn flow(shape: Shape, limit: u32) -> Arc<FlowSchema> {
        let stored = json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let level = Level::new("tests-of-levels", shape, limit);
        Arc::new(FlowSchema::new(
            serde_json::from_value(stored).unwrap(),
            level,
            uid(None),
        ))
    }

    fn asked(hash: u64) -> Asked {
        Asked {
            hash,
            width: Width::ONE,
            watch: false,
            wait_max: Duration::from_secs(600),
        }
    }

    const QUEUES: Shape = Shape::Queue {
        queues: 8,
        hand: 1,
        length_max: 3,
    };

    async fn enter(flow: &Arc<FlowSchema>, hash: u64) -> Result<Seat, Refusal> {
        flow.level.enter(flow, asked(hash)).await
    }

    #[tokio::test]
    async fn the_exempt_never_wait_and_others_are_refused_at_once() {
        let exempt = flow(Shape::Exempt, 0);
        let first = enter(&exempt, 0).now_or_never().unwrap().unwrap();
        assert!(enter(&exempt, 0).now_or_never().unwrap().is_ok());
        assert_eq!(exempt.level.take_demand().most, 2.0);
        drop(first);
        let reject = flow(Shape::Reject, 1);
        let seat = enter(&reject, 0).now_or_never().unwrap().unwrap();
        let refused = enter(&reject, 0).now_or_never().unwrap().unwrap_err();
        assert_eq!((refused.reason, refused.retry_after), ("concurrency-limit", 1));
        drop(seat);
        assert!(enter(&reject, 0).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn flows_take_turns_and_their_queues_are_bounded() {
        let flow = flow(QUEUES, 1);
        let mut seat = enter(&flow, 1).await.ok();
        let mut waiting: Vec<_> = [1, 1, 1, 2, 3]
            .map(|hash| (hash, Box::pin(enter(&flow, hash))))
            .into_iter()
            .collect();
        for (_, wait) in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        let full = enter(&flow, 1).now_or_never().unwrap().unwrap_err();
        assert_eq!(full.reason, "queue-full");
        // Does not wait any more.
        waiting.pop();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(seat.take());
            let next = waiting.iter_mut().position(|(_, wait)| {
                seat = wait.as_mut().now_or_never().and_then(Result::ok);
                seat.is_some()
            });
            order.push(waiting.remove(next.expect("one is next")).0);
        }
        assert_eq!(order.iter().position(|hash| *hash == 2), Some(0), "{order:?}");
        drop(seat);
        assert!(enter(&flow, 3).now_or_never().unwrap().is_ok(), "nobody holds a seat");
    }

    #[tokio::test]
    async fn a_greater_limit_serves_who_waits_and_a_wide_request_waits_for_room() {
        let flow = flow(QUEUES, 2);
        let _seats = (enter(&flow, 1).await, enter(&flow, 1).await);
        let wide = Asked {
            width: Width::of_seats(3),
            ..asked(2)
        };
        let mut wide = Box::pin(flow.level.enter(&flow, wide));
        let mut narrow = Box::pin(enter(&flow, 3));
        assert!(wide.as_mut().now_or_never().is_none() && narrow.as_mut().now_or_never().is_none());
        flow.level.set_limit(5);
        let narrow = narrow.now_or_never().unwrap().unwrap();
        assert!(
            wide.as_mut().now_or_never().is_none(),
            "there is room for two of its three"
        );
        drop(narrow);
        assert!(wide.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_write_holds_seats_until_its_event_is_sent() {
        let flow = flow(QUEUES, 2);
        let lingers = Duration::from_millis(100);
        let write = Asked {
            width: Width {
                seats: 1,
                last: 2,
                lingers,
            },
            ..asked(1)
        };
        let seat = flow.level.enter(&flow, write).await.unwrap();
        let mut next = Box::pin(enter(&flow, 2));
        assert!(
            next.as_mut().now_or_never().is_none(),
            "the seats of its event are set aside"
        );
        let answered = Instant::now();
        drop(seat);
        assert!(next.await.is_ok());
        assert!(answered.elapsed() >= lingers, "its event was under way");
    }

    #[tokio::test]
    async fn who_waits_too_long_is_refused() {
        let flow = flow(QUEUES, 1);
        let _seat = enter(&flow, 1).await;
        let impatient = Asked {
            wait_max: Duration::from_millis(1),
            ..asked(1)
        };
        assert_eq!(flow.level.enter(&flow, impatient).await.unwrap_err().reason, "time-out");
        flow.level.set_limit(2);
        assert!(
            enter(&flow, 1).now_or_never().unwrap().is_ok(),
            "it is not in the queue any more"
        );
    }
}
