//! How many seats a priority level could have used, over a while (upstream: `flowcontrol/fairqueuing/integrator.go` and
//! `seatDemandStats`).

use std::time::Instant;

/// So much of what was known stays at each look, unless there is more now: half of it is forgotten in five minutes.
const KEPT: f64 = 0.977;

/// The demand since the last look.
#[derive(Debug)]
pub struct Demand {
    since: Instant,
    changed: Instant,
    seats: f64,
    most: f64,
    /// Integrals of the demand and of its square.
    sum: f64,
    squares: f64,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    pub most: f64,
    pub average: f64,
    pub deviation: f64,
}

impl Demand {
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            changed: now,
            seats: 0.0,
            most: 0.0,
            sum: 0.0,
            squares: 0.0,
        }
    }

    /// The demand is `seats` from now on.
    pub fn set(&mut self, now: Instant, seats: u32) {
        let lasted = now.saturating_duration_since(self.changed).as_secs_f64();
        self.sum += self.seats * lasted;
        self.squares += self.seats * self.seats * lasted;
        self.changed = now;
        self.seats = f64::from(seats);
        self.most = self.most.max(self.seats);
    }

    /// Looks, and begins anew.
    pub fn take(&mut self, now: Instant) -> Seen {
        self.set(now, self.seats as u32);
        let lasted = now.saturating_duration_since(self.since).as_secs_f64();
        let seen = if lasted > 0.0 {
            let average = self.sum / lasted;
            Seen {
                most: self.most,
                average,
                deviation: (self.squares / lasted - average * average).max(0.0).sqrt(),
            }
        } else {
            Seen {
                most: self.most,
                average: self.seats,
                deviation: 0.0,
            }
        };
        (self.since, self.most, self.sum, self.squares) = (now, self.seats, 0.0, 0.0);
        seen
    }
}

/// The demand that is reckoned with: it grows at once, and shrinks slowly.
pub fn smoothed(before: f64, seen: Seen) -> f64 {
    let now = seen.average + seen.deviation;
    now.max(KEPT * before + (1.0 - KEPT) * now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_look_finds_most_average_and_deviation() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut demand = Demand::new(start);
        demand.set(at(5), 10);
        let seen = demand.take(at(10));
        assert_eq!((seen.most, seen.average, seen.deviation), (10.0, 5.0, 5.0));
        let seen = demand.take(at(20));
        assert_eq!((seen.most, seen.average, seen.deviation), (10.0, 10.0, 0.0));
        demand.set(at(20), 0);
        assert_eq!(demand.take(at(30)).average, 0.0);
        assert_eq!(demand.take(at(40)).most, 0.0);
    }

    #[test]
    fn demand_is_forgotten_slowly() {
        let busy = Seen {
            most: 100.0,
            average: 100.0,
            deviation: 0.0,
        };
        let mut known = smoothed(0.0, busy);
        assert_eq!(known, 100.0);
        for _ in 0..30 {
            known = smoothed(known, Seen::default());
        }
        assert!((45.0..55.0).contains(&known), "{known}");
    }
}
