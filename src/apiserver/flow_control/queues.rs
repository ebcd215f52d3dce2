//! The queues of a priority level, which take turns by the work that was done for each (upstream:
//! `flowcontrol/fairqueuing/queueset`, which keeps time by a clock of its own; here the queue that is served tells the time).
//!
//! Work is counted in seats times seconds. Each queue has a start: the time, in work, at which its next request is to begin.
//! The one whose next request would be done first is served, and whoever comes back after a rest starts at the present.

use super::width::Width;
use std::collections::VecDeque;

/// What a request is expected to take, in seconds, until it has taken it.
const EXPECTED: f64 = 0.003;

/// Those queues that have somebody, by number. `T` is what is told to who waits.
#[derive(Debug)]
pub struct Queues<T> {
    active: Vec<Queue<T>>,
    now: f64,
    /// The queue that was served last: of equals, the next one is served.
    served: u32,
    waiting: usize,
    seats_waiting: u32,
    next_id: u64,
}

#[derive(Debug)]
struct Queue<T> {
    number: u32,
    start: f64,
    served: u32,
    waiting: VecDeque<Waiter<T>>,
}

#[derive(Debug)]
struct Waiter<T> {
    id: u64,
    width: Width,
    what: T,
}

/// Whose turn it is.
#[derive(Debug)]
pub struct Turn<T> {
    pub queue: u32,
    pub width: Width,
    pub what: T,
}

impl<T> Default for Queues<T> {
    fn default() -> Self {
        Self {
            active: Vec::new(),
            now: 0.0,
            served: 0,
            waiting: 0,
            seats_waiting: 0,
            next_id: 0,
        }
    }
}

impl<T> Queues<T> {
    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn seats_waiting(&self) -> u32 {
        self.seats_waiting
    }

    /// Requests that wait in one queue.
    pub fn length(&self, number: u32) -> usize {
        self.position(number)
            .map_or(0, |position| self.active[position].waiting.len())
    }

    /// Of a hand of queues the one with the least waiting in it; of equals the first.
    pub fn shortest(&self, hand: &[u32]) -> u32 {
        let mut hand = hand.iter().copied();
        let first = hand.next().unwrap_or_default();
        if self.waiting == 0 {
            return first;
        }
        hand.fold((first, self.length(first)), |best, number| {
            let length = self.length(number);
            if length < best.1 { (number, length) } else { best }
        })
        .0
    }

    /// Serves a request that need not wait.
    pub fn serve(&mut self, number: u32, width: Width) {
        let now = self.now;
        let queue = self.queue(number);
        queue.start = queue.start.max(now);
        queue.begin(width);
    }

    /// The id under which it can be taken out again.
    pub fn push(&mut self, number: u32, width: Width, what: T) -> u64 {
        let (id, now) = (self.next_id, self.now);
        self.next_id += 1;
        self.waiting += 1;
        self.seats_waiting += width.most();
        let queue = self.queue(number);
        if queue.waiting.is_empty() {
            queue.start = queue.start.max(now);
        }
        queue.waiting.push_back(Waiter { id, width, what });
        id
    }

    /// Takes out the request that is next, if there is room for it: nobody is let past it.
    pub fn next(&mut self, fits: impl FnOnce(u32) -> bool) -> Option<Turn<T>> {
        let end = |queue: &Queue<T>| {
            let width = queue.waiting.front()?.width;
            Some(queue.start + width.work(EXPECTED))
        };
        let after = |number: u32| number.wrapping_sub(self.served).wrapping_sub(1);
        let (_, position) = self
            .active
            .iter()
            .enumerate()
            .filter_map(|(position, queue)| Some(((end(queue)?, after(queue.number)), position)))
            .min_by(|((a, i), _), ((b, j), _)| a.total_cmp(b).then(i.cmp(j)))?;
        let queue = &mut self.active[position];
        if !fits(queue.waiting.front()?.width.most()) {
            return None;
        }
        let waiter = queue.waiting.pop_front()?;
        self.now = self.now.max(queue.start);
        self.served = queue.number;
        queue.begin(waiter.width);
        self.waiting -= 1;
        self.seats_waiting -= waiter.width.most();
        Some(Turn {
            queue: queue.number,
            width: waiter.width,
            what: waiter.what,
        })
    }

    /// A request was served for so long; it may still hold its seats.
    pub fn answered(&mut self, number: u32, width: Width, seconds: f64) {
        let Some(position) = self.position(number) else { return };
        self.active[position].start += f64::from(width.seats) * (seconds - EXPECTED);
    }

    /// It has given back its seats.
    pub fn leave(&mut self, number: u32) {
        let Some(position) = self.position(number) else { return };
        let queue = &mut self.active[position];
        queue.served = queue.served.saturating_sub(1);
        self.forget_if_empty(position);
    }

    /// Somebody waits no longer; false if it was served before.
    pub fn remove(&mut self, number: u32, id: u64) -> bool {
        let Some(position) = self.position(number) else {
            return false;
        };
        let waiting = &mut self.active[position].waiting;
        let Some(at) = waiting.iter().position(|waiter| waiter.id == id) else {
            return false;
        };
        let gone = waiting.remove(at);
        self.waiting -= 1;
        self.seats_waiting -= gone.map_or(0, |waiter| waiter.width.most());
        self.forget_if_empty(position);
        true
    }

    fn position(&self, number: u32) -> Option<usize> {
        self.active.binary_search_by_key(&number, |queue| queue.number).ok()
    }

    fn queue(&mut self, number: u32) -> &mut Queue<T> {
        let position = self
            .active
            .binary_search_by_key(&number, |queue| queue.number)
            .unwrap_or_else(|position| {
                let start = self.now;
                self.active.insert(
                    position,
                    Queue {
                        number,
                        start,
                        served: 0,
                        waiting: VecDeque::new(),
                    },
                );
                position
            });
        &mut self.active[position]
    }

    fn forget_if_empty(&mut self, position: usize) {
        let queue = &self.active[position];
        if queue.served == 0 && queue.waiting.is_empty() {
            self.active.remove(position);
        }
    }
}

impl<T> Queue<T> {
    fn begin(&mut self, width: Width) {
        self.served += 1;
        self.start += width.work(EXPECTED);
    }
}

/// Deals `hand` different numbers of queues out of `queues` (upstream: `util/shufflesharding`): a flow's own few, so that
/// whoever floods them leaves most others alone.
pub fn deal(mut hash: u64, queues: u32, hand: &mut [u32]) {
    for dealt in 0..hand.len() {
        let left = u64::from(queues.max(1)) - (dealt as u64).min(u64::from(queues.max(1)) - 1);
        let mut number = (hash % left) as u32;
        hash /= left;
        // The number counts those that were not dealt yet: what was, in ascending order, is stepped over.
        let mut held = [0; HAND_MAX];
        let held = &mut held[..dealt];
        held.copy_from_slice(&hand[..dealt]);
        held.sort_unstable();
        for other in held {
            if *other <= number {
                number += 1;
            }
        }
        hand[dealt] = number;
    }
}

/// More are refused with the level: the hash has not so many bits.
pub const HAND_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn finish<T>(queues: &mut Queues<T>, number: u32, width: Width, seconds: f64) {
        queues.answered(number, width, seconds);
        queues.leave(number);
    }

    fn order(queues: &mut Queues<&'static str>, turns: usize) -> Vec<&'static str> {
        (0..turns)
            .filter_map(|_| {
                let turn = queues.next(|_| true)?;
                finish(queues, turn.queue, turn.width, 0.01);
                Some(turn.what)
            })
            .collect()
    }

    #[test]
    fn whoever_has_many_waits_for_whoever_has_few() {
        let mut queues = Queues::default();
        for _ in 0..100 {
            queues.push(7, Width::ONE, "many");
        }
        assert_eq!(order(&mut queues, 3), ["many"; 3]);
        queues.push(2, Width::ONE, "few");
        queues.push(2, Width::ONE, "few");
        assert_eq!(order(&mut queues, 4), ["few", "many", "few", "many"]);
        assert_eq!((queues.waiting(), queues.seats_waiting()), (95, 95));
    }

    #[test]
    fn a_wide_request_counts_for_its_seats_and_is_not_passed() {
        let mut queues = Queues::default();
        queues.push(1, Width::of_seats(10), "wide");
        queues.push(1, Width::of_seats(10), "wide");
        for _ in 0..20 {
            queues.push(2, Width::ONE, "narrow");
        }
        let served = order(&mut queues, 12);
        assert_eq!(served.iter().filter(|what| **what == "wide").count(), 1, "{served:?}");
        let mut queues = Queues::default();
        queues.push(1, Width::of_seats(10), "wide");
        assert!(queues.next(|seats| seats < 10).is_none());
        assert_eq!(queues.waiting(), 1);
    }

    #[test]
    fn what_a_queue_took_while_others_waited_counts() {
        let mut queues = Queues::default();
        queues.serve(1, Width::ONE);
        queues.push(1, Width::ONE, "slow");
        queues.push(2, Width::ONE, "quick");
        queues.push(2, Width::ONE, "quick");
        finish(&mut queues, 1, Width::ONE, 5.0);
        assert_eq!(order(&mut queues, 3), ["quick", "quick", "slow"]);
        assert!(queues.active.is_empty(), "an empty queue costs nothing");
    }

    #[test]
    fn what_a_write_costs_after_its_answer_counts() {
        let crowded = Width {
            seats: 1,
            last: 10,
            lingers: std::time::Duration::from_millis(50),
        };
        let mut queues = Queues::default();
        for _ in 0..3 {
            queues.push(1, crowded, "crowded");
            queues.push(2, Width::ONE, "quiet");
        }
        assert_eq!(order(&mut queues, 6)[..4], ["quiet", "quiet", "quiet", "crowded"]);
        let mut queues: Queues<()> = Queues::default();
        queues.serve(1, crowded);
        queues.answered(1, crowded, 0.01);
        assert_eq!(queues.active.len(), 1, "its event is under way");
        queues.leave(1);
        assert!(queues.active.is_empty());
    }

    #[test]
    fn who_has_gone_is_not_served() {
        let mut queues = Queues::default();
        let gone = queues.push(1, Width::ONE, "gone");
        queues.push(1, Width::ONE, "here");
        assert!(queues.remove(1, gone));
        assert!(!queues.remove(1, gone));
        assert_eq!(order(&mut queues, 2), ["here"]);
        assert!(!queues.remove(1, 1), "it was served");
    }

    #[test]
    fn hands_hold_different_queues_of_all_there_are() {
        let mut seen = BTreeSet::new();
        for hash in 0..10_000_u64 {
            let mut hand = [0; 6];
            deal(hash.wrapping_mul(0x9E37_79B9_7F4A_7C15), 64, &mut hand);
            assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), 6, "{hand:?}");
            assert!(hand.iter().all(|number| *number < 64));
            seen.extend(hand);
        }
        assert_eq!(seen.len(), 64);
        let mut all = [0; 3];
        deal(5, 3, &mut all);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
    }

    #[test]
    fn the_shortest_of_a_hand() {
        let mut queues = Queues::default();
        assert_eq!(queues.shortest(&[4, 2]), 4);
        queues.push(4, Width::ONE, ());
        assert_eq!(queues.shortest(&[4, 2]), 2);
    }
}
