//! When who was refused is to come back (upstream: `flowcontrol/dropped_requests_tracker.go`): the later, the more are refused.

use std::collections::VecDeque;

const SECONDS_MAX: u32 = 32;

/// Who was refused of late.
#[derive(Debug)]
pub struct Refusals {
    seconds: u32,
    grown_at: i64,
    /// Seconds in which somebody was refused, with how many.
    history: VecDeque<(i64, u32)>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            seconds: 1,
            grown_at: 0,
            history: VecDeque::new(),
        }
    }
}

impl Refusals {
    /// Counts a refusal in the second `now`, and says after how many seconds it is to be tried again.
    pub fn note(&mut self, now: i64) -> u32 {
        match self.history.back_mut() {
            Some((second, count)) if *second == now => *count += 1,
            _ => {
                self.adjust(now);
                self.history.push_back((now, 1));
            }
        }
        self.seconds
    }

    /// A new second: doubles after many refusals, and goes down by one after few.
    fn adjust(&mut self, now: i64) {
        let seconds = i64::from(self.seconds);
        let recent = self.history.iter().filter(|(second, _)| now - second <= seconds);
        let refused: i64 = recent.map(|(_, count)| i64::from(*count)).sum();
        if now - self.grown_at >= seconds && refused >= 3 * seconds {
            self.seconds = (self.seconds * 2).min(SECONDS_MAX);
            self.grown_at = now;
        } else if refused < seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
        let kept = i64::from((2 * self.seconds).min(SECONDS_MAX));
        self.history.retain(|(second, _)| now - second <= kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_while_many_are_refused_and_goes_down_slowly() {
        let mut refusals = Refusals::default();
        let mut second = |second: i64, count: usize| (0..count).map(|_| refusals.note(second)).last();
        assert_eq!(second(100, 10), Some(1));
        assert_eq!(second(101, 10), Some(2));
        assert_eq!(second(102, 10), Some(2), "not twice within its own time");
        assert_eq!(second(103, 10), Some(4));
        for now in 104..200 {
            second(now, 1000);
        }
        assert_eq!(second(200, 1000), Some(SECONDS_MAX));
        assert_eq!(second(300, 1), Some(31));
        assert_eq!(second(301, 1), Some(30));
    }
}
