//! When a node is low on something, as the kubelet's flag `--eviction-hard` says it
//! (upstream: `pkg/kubelet/eviction/api`, `parseThresholdStatements`).

use crate::kubelet::node::figures::{Disk, Usage as NodeUsage};
use crate::quantity::{Format, Quantity};
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    PidAvailable,
}

impl Signal {
    const ALL: [(&'static str, Signal); 6] = [
        ("memory.available", Signal::MemoryAvailable),
        ("nodefs.available", Signal::NodeFsAvailable),
        ("nodefs.inodesFree", Signal::NodeFsInodesFree),
        ("imagefs.available", Signal::ImageFsAvailable),
        ("imagefs.inodesFree", Signal::ImageFsInodesFree),
        ("pid.available", Signal::PidAvailable),
    ];

    /// What there is too little of.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => "inodes",
            Signal::PidAvailable => "pids",
        }
    }

    /// The condition of the node that tells of it.
    pub fn condition(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "MemoryPressure",
            Signal::PidAvailable => "PIDPressure",
            _ => "DiskPressure",
        }
    }

    /// What is left, and of how much; None: the kernel does not say.
    fn observed(self, node: &NodeUsage, memory_bytes: u64) -> Option<(u64, u64)> {
        match self {
            Signal::MemoryAvailable => Some((node.memory_available_bytes?, memory_bytes)),
            Signal::NodeFsAvailable | Signal::ImageFsAvailable => {
                self.disk(node).map(|disk| (disk.available_bytes, disk.size_bytes))
            }
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree => {
                let disk = self.disk(node).filter(|disk| disk.inodes > 0)?;
                Some((disk.inodes_free, disk.inodes))
            }
            Signal::PidAvailable => {
                let processes = node.processes?;
                Some((processes.max.saturating_sub(processes.used), processes.max))
            }
        }
    }

    fn disk(self, node: &NodeUsage) -> Option<Disk> {
        match self {
            Signal::ImageFsAvailable | Signal::ImageFsInodesFree => node.image_disk.or(node.disk),
            _ => node.disk,
        }
    }

    fn quantity(self, amount: u64) -> String {
        let format = match self {
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::PidAvailable => Format::DecimalSi,
            _ => Format::BinarySi,
        };
        Quantity::from_units(i64::try_from(amount).unwrap_or(i64::MAX), format).to_string()
    }
}

/// `signal<quantity` or `signal<percent%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Amount(u64),
    Percent(f64),
}

/// A threshold that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    pub signal: Signal,
    /// Quantities as the API writes them.
    pub wanted: String,
    pub available: String,
}

/// Those that are not kept, memory first.
pub fn met(thresholds: &[Threshold], node: &NodeUsage, memory_bytes: u64) -> Vec<Met> {
    let met = thresholds.iter().filter_map(|threshold| {
        let signal = threshold.signal;
        let (available, capacity) = signal.observed(node, memory_bytes)?;
        let wanted = match threshold.value {
            Value::Amount(amount) => amount,
            Value::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        };
        (available < wanted).then(|| Met {
            signal,
            wanted: signal.quantity(wanted),
            available: signal.quantity(available),
        })
    });
    let mut met: Vec<Met> = met.collect();
    met.sort_by_key(|one| one.signal != Signal::MemoryAvailable);
    met
}

/// `memory.available<100Mi,nodefs.available<10%`; empty is none.
pub fn parse(text: &str) -> Result<Vec<Threshold>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let mut thresholds: Vec<Threshold> = Vec::new();
    for part in parts {
        let threshold: Threshold = part.parse()?;
        if thresholds.iter().any(|known| known.signal == threshold.signal) {
            return Err(format!("{part:?} names its signal a second time"));
        }
        thresholds.push(threshold);
    }
    Ok(thresholds)
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Threshold, String> {
        let wrong = |what: &str| format!("{text:?} is not allowed: {what}");
        let (name, value) = text
            .split_once('<')
            .ok_or_else(|| wrong("it must be SIGNAL<QUANTITY or SIGNAL<PERCENT%"))?;
        let (_, signal) = *Signal::ALL
            .iter()
            .find(|(known, _)| *known == name.trim())
            .ok_or_else(|| {
                let names: Vec<&str> = Signal::ALL.iter().map(|(name, _)| *name).collect();
                wrong(&format!("the signal must be one of {}", names.join(", ")))
            })?;
        let value = match value.trim().strip_suffix('%') {
            Some(percent) => {
                let percent = percent
                    .parse::<f64>()
                    .ok()
                    .filter(|percent| (0.0..=100.0).contains(percent));
                Value::Percent(percent.ok_or_else(|| wrong("the percentage must be between 0% and 100%"))?)
            }
            None => {
                let amount = value.trim().parse::<Quantity>().ok();
                let amount = amount.and_then(|amount| u64::try_from(amount.value()).ok());
                Value::Amount(amount.ok_or_else(|| wrong("the quantity must be one that is not negative"))?)
            }
        };
        Ok(Threshold { signal, value })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Signal::ALL.iter().find(|(_, signal)| *signal == self.signal);
        let name = named.map_or("", |(name, _)| *name);
        match self.value {
            Value::Amount(amount) => write!(f, "{name}<{}", self.signal.quantity(amount)),
            Value::Percent(percent) => write!(f, "{name}<{percent}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::node::figures::Processes;

    #[test]
    fn statements() {
        let all = parse("memory.available<100Mi, nodefs.available<10%,pid.available<2k").unwrap();
        let shown: Vec<String> = all.iter().map(Threshold::to_string).collect();
        assert_eq!(
            shown,
            ["memory.available<100Mi", "nodefs.available<10%", "pid.available<2k"]
        );
        assert_eq!(parse("").unwrap(), []);
        for wrong in [
            "memory.available",
            "memory<1Gi",
            "memory.available<x",
            "memory.available<-1",
            "nodefs.available<101%",
            "memory.available<1Gi,memory.available<2Gi",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_low() {
        let thresholds =
            parse("nodefs.available<10%,nodefs.inodesFree<5%,memory.available<100Mi,pid.available<10").unwrap();
        let mut node = NodeUsage {
            memory_available_bytes: Some(100 << 20),
            disk: Some(Disk {
                size_bytes: 1000 << 20,
                available_bytes: 99 << 20,
                inodes: 0,
                inodes_free: 0,
            }),
            image_disk: None,
            processes: Some(Processes { max: 100, used: 90 }),
        };
        let names = |node: &NodeUsage| -> Vec<String> {
            let met = met(&thresholds, node, 1 << 30).into_iter();
            met.map(|one| format!("{} {} {}", one.signal.resource(), one.wanted, one.available))
                .collect()
        };
        assert_eq!(names(&node), ["ephemeral-storage 100Mi 99Mi"]);
        node.image_disk = Some(Disk {
            size_bytes: 100,
            available_bytes: 0,
            inodes: 0,
            inodes_free: 0,
        });
        assert_eq!(names(&node).len(), 1, "nothing is said of images");
        let of_images = parse("imagefs.available<15%").unwrap();
        assert_eq!(met(&of_images, &node, 0)[0].available, "0");
        node.image_disk = None;
        assert_eq!(met(&of_images, &node, 0)[0].available, "99Mi", "the same disk");
        node.memory_available_bytes = Some(1 << 20);
        node.processes = Some(Processes { max: 100, used: 91 });
        assert_eq!(
            names(&node),
            ["memory 100Mi 1Mi", "ephemeral-storage 100Mi 99Mi", "pids 10 9"]
        );
    }
}
