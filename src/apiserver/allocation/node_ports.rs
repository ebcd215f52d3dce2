//! The ports of nodes that Services have (upstream: `pkg/registry/core/service/portallocator`).

use parking_lot::Mutex;
use rand::Rng;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Where the guesses of dry runs begin.
const DRY_RUN_FIRST: i64 = 32_768;

/// Why a port cannot be had, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("range is full")]
    Full,
    #[error("provided port is already allocated")]
    Allocated,
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    NotInRange(String),
}

/// Which ports are taken.
pub struct NodePorts {
    range: RangeInclusive<u16>,
    taken: Mutex<BTreeSet<i64>>,
}

impl NodePorts {
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            range,
            taken: Mutex::default(),
        }
    }

    /// Marks ports that stored Services have, whether or not they lie in the range.
    pub fn seize(&self, ports: impl IntoIterator<Item = i64>) {
        self.taken.lock().extend(ports.into_iter().filter(|port| *port != 0));
    }

    pub fn free(&self, ports: impl IntoIterator<Item = i64>) {
        let mut taken = self.taken.lock();
        for port in ports {
            taken.remove(&port);
        }
    }

    fn ends(&self) -> (i64, i64) {
        (i64::from(*self.range.start()), i64::from(*self.range.end()))
    }

    fn check(&self, port: i64) -> Result<(), Refusal> {
        let (first, last) = self.ends();
        if (first..=last).contains(&port) {
            return Ok(());
        }
        Err(Refusal::NotInRange(format!("{first}-{last}")))
    }

    pub fn take(&self, port: i64) -> Result<(), Refusal> {
        self.check(port)?;
        if self.taken.lock().insert(port) {
            Ok(())
        } else {
            Err(Refusal::Allocated)
        }
    }

    /// A dry run only looks. Upstream does not check the range then.
    pub fn would_take(&self, port: i64) -> Result<(), Refusal> {
        if self.taken.lock().contains(&port) {
            Err(Refusal::Allocated)
        } else {
            Ok(())
        }
    }

    /// What a dry run shows for a port that would be chosen.
    pub fn guess(guessed: &[i64]) -> i64 {
        guessed.iter().max().map_or(DRY_RUN_FIRST, |last| last + 1)
    }

    /// Any free port: of the upper part while there is one, since users choose from the lower part.
    pub fn take_any(&self) -> Result<i64, Refusal> {
        let (first, last) = self.ends();
        let reserved = reserved(last - first + 1);
        let mut taken = self.taken.lock();
        let upper = free_from(&taken, first + reserved, last);
        let port = upper
            .or_else(|| free_from(&taken, first, first + reserved - 1))
            .ok_or(Refusal::Full)?;
        taken.insert(port);
        Ok(port)
    }
}

/// How many of the first ports are left to those who ask by number.
fn reserved(size: i64) -> i64 {
    if size < 16 { 0 } else { (size / 32).clamp(16, 128) }
}

/// A free port of the range, searched from a random one on.
fn free_from(taken: &BTreeSet<i64>, first: i64, last: i64) -> Option<i64> {
    if first > last {
        return None;
    }
    let start = rand::rng().random_range(first..=last);
    (start..=last).chain(first..start).find(|port| !taken.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_from_above() {
        let ports = NodePorts::new(30_000..=30_099);
        let mut given = BTreeSet::new();
        for count in 0..100 {
            let port = ports.take_any().unwrap();
            assert!(given.insert(port), "{port} twice");
            assert!(count >= 84 || port >= 30_016, "{port} is for those who ask");
        }
        assert_eq!(ports.take_any(), Err(Refusal::Full));
        assert_eq!(ports.take(30_000), Err(Refusal::Allocated));
        assert_eq!(ports.would_take(30_000), Err(Refusal::Allocated));
        ports.free([30_000]);
        assert_eq!(ports.take_any(), Ok(30_000));
        let text = ports.take(80).unwrap_err().to_string();
        assert_eq!(
            text,
            "provided port is not in the valid range. The range of valid ports is 30000-30099"
        );
    }

    #[test]
    fn a_dry_run_guesses() {
        assert_eq!(NodePorts::guess(&[]), 32_768);
        assert_eq!(NodePorts::guess(&[30_000, 32_768]), 32_769);
    }
}
