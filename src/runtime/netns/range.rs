//! The addresses of a node's pods (upstream: the CNI plug-in `host-local`).

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 network. Its first address is the node's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodRange {
    network: u32,
    prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not allowed: it must be an IPv4 network of at most 30 bits, like 10.42.0.0/24")]
pub struct RangeError(String);

impl FromStr for PodRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let error = || RangeError(text.to_string());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let address: Ipv4Addr = address.parse().map_err(|_| error())?;
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if !(8..=30).contains(&prefix) {
            return Err(error());
        }
        let network = u32::from(address) & (u32::MAX << (32 - prefix));
        Ok(PodRange { network, prefix })
    }
}

impl fmt::Display for PodRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

impl PodRange {
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & (u32::MAX << (32 - self.prefix)) == self.network
    }

    /// The node's address on its pods' network.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    /// The first free address after `last`, so that an address is not used again soon. None if all are taken.
    pub fn next_free(&self, taken: &HashSet<Ipv4Addr>, last: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let hosts = (1u32 << (32 - self.prefix)) - 2;
        let first = self.network + 2;
        // The gateway is not handed out.
        let count = hosts - 1;
        let start = last.map_or(0, |last| u32::from(last).wrapping_sub(first).wrapping_add(1));
        (0..count)
            .map(|step| Ipv4Addr::from(first + (start % count + step) % count))
            .find(|address| !taken.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_go_round() {
        let range: PodRange = "10.42.0.77/29".parse().unwrap();
        assert_eq!(
            (range.to_string(), range.gateway()),
            ("10.42.0.72/29".into(), [10, 42, 0, 73].into())
        );
        let mut taken = HashSet::new();
        let mut last = None;
        for expected in 74..=78 {
            last = range.next_free(&taken, last);
            assert_eq!(last, Some([10, 42, 0, expected].into()));
            taken.extend(last);
        }
        assert_eq!(range.next_free(&taken, last), None);
        taken.remove(&Ipv4Addr::from([10, 42, 0, 75]));
        assert_eq!(range.next_free(&taken, last), Some([10, 42, 0, 75].into()));
        assert!(range.contains([10, 42, 0, 75].into()) && !range.contains([10, 42, 0, 80].into()));
        // From another range, before the setting was changed.
        let other = Some(Ipv4Addr::from([10, 9, 0, 1]));
        assert!(range.next_free(&HashSet::new(), other).is_some());
    }

    #[test]
    fn what_is_no_range() {
        for text in [
            "",
            "10.42.0.0",
            "10.42.0.0/31",
            "10.42.0.0/7",
            "::/64",
            "10.42.0/24",
            "10.42.0.0/x",
        ] {
            assert!(text.parse::<PodRange>().is_err(), "{text}");
        }
    }
}
