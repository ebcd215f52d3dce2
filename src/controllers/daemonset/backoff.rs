//! How long a failed pod is left alone before it is replaced (upstream: `flowcontrol.Backoff`). Pure.
//!
//! Where a node refuses a daemon's pods, each replacement fails at once: the pause doubles from one to the next.

use k8s_openapi::jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// After so long without a failure, the next one is a first one again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 15 * 60);

/// A set (by uid and generation) on a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub set: String,
    pub generation: i64,
    pub node: String,
}

struct Pause {
    length: Duration,
    since: Timestamp,
}

#[derive(Default)]
pub struct Backoff {
    pauses: HashMap<Place, Pause>,
    swept: Option<Timestamp>,
}

fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

impl Backoff {
    /// Whether a failed pod may be replaced now; if not, when it may.
    pub fn try_replace(&mut self, place: &Place, now: Timestamp) -> Result<(), Duration> {
        self.sweep(now);
        let length = match self.pauses.get(place) {
            Some(pause) if passed(pause.since, now) < pause.length => {
                return Err(pause.length - passed(pause.since, now));
            }
            Some(pause) => (pause.length * 2).min(LONGEST),
            None => FIRST,
        };
        self.pauses.insert(place.clone(), Pause { length, since: now });
        Ok(())
    }

    /// Drops what is forgotten, now and then.
    fn sweep(&mut self, now: Timestamp) {
        let is_due = self
            .swept
            .is_none_or(|swept| passed(swept, now) > Duration::from_secs(60));
        if is_due {
            self.pauses
                .retain(|_, pause| passed(pause.since, now) <= FORGOTTEN_AFTER);
            self.swept = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_forgotten() {
        let place = |node: &str| Place {
            set: "u".to_owned(),
            generation: 1,
            node: node.to_owned(),
        };
        let mut backoff = Backoff::default();
        let mut at_second = |node: &str, second: i64| {
            let now = Timestamp::from_second(1_000_000 + second).unwrap();
            backoff.try_replace(&place(node), now).map_err(|left| left.as_secs())
        };
        assert_eq!(at_second("a", 0), Ok(()));
        assert_eq!(at_second("a", 0), Err(1));
        assert_eq!(at_second("b", 0), Ok(()), "nodes do not wait for one another");
        assert_eq!(at_second("a", 1), Ok(()));
        assert_eq!(at_second("a", 2), Err(1));
        assert_eq!(at_second("a", 3), Ok(()));
        let mut now = 3;
        for _ in 0..20 {
            now += 15 * 60;
            assert_eq!(at_second("a", now), Ok(()));
        }
        assert_eq!(at_second("a", now), Err(15 * 60));
        assert_eq!(at_second("a", now + 31 * 60), Ok(()));
        assert_eq!(at_second("a", now + 31 * 60), Err(1));
    }
}
