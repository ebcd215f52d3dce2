//! Exponential back-off per key (upstream: `client-go/util/flowcontrol/backoff.go`).

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// Beyond this, keys that were left alone are forgotten.
const ENTRIES_MAX: usize = 1024;

/// Delays double with every [`BackOff::advance`] up to a maximum, and start over when a key was left alone for
/// twice the maximum.
#[derive(Clone, Debug)]
pub struct BackOff {
    initial: Duration,
    max: Duration,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    updated_at: SystemTime,
}

impl BackOff {
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            entries: BTreeMap::new(),
        }
    }

    /// 10 s, doubling to 300 s: containers that end and images that cannot be pulled.
    pub fn upstream() -> Self {
        Self::new(Duration::from_secs(10), Duration::from_secs(300))
    }

    fn current(&self, key: &str, now: SystemTime) -> Option<Entry> {
        let entry = *self.entries.get(key)?;
        let idle = now.duration_since(entry.updated_at).unwrap_or_default();
        (idle <= self.max * 2).then_some(entry)
    }

    /// The delay in force for what happened at `since`, if any.
    pub fn delay(&self, key: &str, since: SystemTime) -> Option<Duration> {
        self.current(key, since).map(|entry| entry.delay)
    }

    /// When the next try may happen if it is not yet: the delay counts from `since`.
    pub fn blocked_until(&self, key: &str, since: SystemTime, now: SystemTime) -> Option<SystemTime> {
        let until = since.checked_add(self.current(key, since)?.delay)?;
        (until > now).then_some(until)
    }

    /// A try is made, or failed: the next one waits longer. `since` is when the last one ended: a long life
    /// starts over. Returns the new delay.
    pub fn advance(&mut self, key: &str, since: SystemTime, now: SystemTime) -> Duration {
        let delay = match self.current(key, since) {
            Some(entry) => (entry.delay * 2).min(self.max),
            None => self.initial,
        };
        if self.entries.len() >= ENTRIES_MAX {
            let idle_max = self.max * 2;
            let idle = |entry: &Entry| now.duration_since(entry.updated_at).unwrap_or_default();
            self.entries.retain(|_, entry| idle(entry) <= idle_max);
        }
        self.entries.insert(key.to_owned(), Entry { delay, updated_at: now });
        delay
    }

    pub fn reset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn first_try_is_free_then_delays_double_to_the_cap() {
        let mut back_off = BackOff::upstream();
        assert_eq!(back_off.blocked_until("c", at(0), at(0)), None);
        let delays: Vec<u64> = (0..7).map(|_| back_off.advance("c", at(0), at(0)).as_secs()).collect();
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn delay_counts_from_the_given_time() {
        let mut back_off = BackOff::upstream();
        back_off.advance("c", at(0), at(0));
        assert_eq!(back_off.blocked_until("c", at(5), at(14)), Some(at(15)));
        assert_eq!(back_off.blocked_until("c", at(5), at(15)), None);
        assert_eq!(back_off.blocked_until("other", at(5), at(6)), None);
    }

    #[test]
    fn a_quiet_key_starts_over() {
        let mut back_off = BackOff::upstream();
        back_off.advance("c", at(0), at(0));
        back_off.advance("c", at(0), at(0));
        assert_eq!(back_off.advance("c", at(601), at(601)).as_secs(), 10);
        back_off.reset("c");
        assert_eq!(back_off.delay("c", at(601)), None);
    }
}
