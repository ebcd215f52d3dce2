//! How far history may be forgotten: by age, by count and by size (upstream: etcd3's `compact.go`). No I/O.

use super::Options;
use std::collections::VecDeque;
use std::time::Instant;

/// So many revisions are forgotten in one transaction, so that writers wait little for it.
pub(super) const SLICE_REVISIONS: u64 = 1000;

/// Where the store stands when the floor is planned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub revision: u64,
    pub floor: u64,
    pub history_bytes: u64,
}

pub(super) struct Compactor {
    options: Options,
    /// Which revision the store was at when. Changes carry no time, so after a start all count as new.
    marks: VecDeque<(Instant, u64)>,
    /// Not before this.
    paused_until: Option<Instant>,
}

impl Compactor {
    pub fn new(options: Options) -> Compactor {
        Compactor {
            options,
            marks: VecDeque::new(),
            paused_until: None,
        }
    }

    /// Notes the time. Call it every [`Compactor::interval`].
    pub fn mark(&mut self, now: Instant, revision: u64) {
        if self.marks.back().is_none_or(|(_, marked)| *marked < revision) {
            self.marks.push_back((now, revision));
        }
    }

    /// Time between marks: what is forgotten is at most this much older than asked for.
    pub fn interval(&self) -> std::time::Duration {
        use std::time::Duration;
        (self.options.history_age / 10).clamp(Duration::from_millis(100), Duration::from_secs(30))
    }

    /// After a failure: nothing is to be forgotten for an interval.
    pub fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + self.interval());
    }

    /// The next floor, at most one slice above the present one; None if nothing is to be forgotten.
    pub fn next_floor(&mut self, now: Instant, at: Standing) -> Option<u64> {
        if self.paused_until.is_some_and(|until| now < until) {
            return None;
        }
        let old = |marked: &Instant| now.saturating_duration_since(*marked) >= self.options.history_age;
        // The last mark that is old enough is kept until the floor has reached it.
        while let Some((_, revision)) = self.marks.front() {
            if *revision > at.floor {
                break;
            }
            self.marks.pop_front();
        }
        let by_age = self.marks.iter().take_while(|(marked, _)| old(marked)).last();
        let mut target = by_age.map_or(at.floor, |(_, revision)| *revision);
        let events = at.revision - at.floor;
        if events > self.options.history_events_max as u64 || at.history_bytes > self.options.history_bytes_max as u64 {
            // An eighth, so that this is not done at every write and most of the history stays.
            target = target.max(at.floor + (events / 8).max(1));
        }
        let next = target.min(at.floor + SLICE_REVISIONS).min(at.revision);
        (next > at.floor).then_some(next)
    }
}
