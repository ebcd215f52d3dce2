//! Latencies of one phase and the line that is printed for it.

use std::time::Duration;

/// All latencies of a phase; phases are short, so every one is kept.
#[derive(Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        self.0.push(latency);
    }
    pub fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }
    pub fn len(&self) -> usize {
        self.0.len()
    }
    fn percentile(&self, share: f64) -> Duration {
        let at = ((self.0.len() as f64 * share) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    /// `get  64 connections  21034/s  p50 2.9 ms  p99 6.1 ms`
    pub fn print(mut self, what: &str, connections: usize, wall: Duration) {
        self.0.sort_unstable();
        let rate = self.0.len() as f64 / wall.as_secs_f64();
        println!(
            "{what:<22} {connections:>3} connections {rate:>9.0}/s   p50 {:>9}   p99 {:>9}",
            show(self.percentile(0.5)),
            show(self.percentile(0.99))
        );
    }

    /// For what must never take long: `event  p50 2 ms  p99 9 ms  at most 12 ms`.
    pub fn print_tail(mut self, what: &str) {
        self.0.sort_unstable();
        println!(
            "{what:<36} p50 {:>9}   p99 {:>9}   at most {:>9}",
            show(self.percentile(0.5)),
            show(self.percentile(0.99)),
            show(self.percentile(1.0))
        );
    }

    /// For what has no rate: `pod start  p50 310 ms  p90 350 ms`; returns the median.
    pub fn print_times(mut self, what: &str) -> Duration {
        self.0.sort_unstable();
        let median = self.percentile(0.5);
        println!(
            "{what:<36} p50 {:>9}   p90 {:>9}   ({} runs)",
            show(median),
            show(self.percentile(0.9)),
            self.0.len()
        );
        median
    }
}

pub fn show(duration: Duration) -> String {
    let micros = duration.as_micros() as f64;
    if micros < 1000.0 {
        format!("{micros:.0} µs")
    } else {
        format!("{:.2} ms", micros / 1000.0)
    }
}
