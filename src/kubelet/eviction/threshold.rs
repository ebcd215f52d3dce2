//! When a node is low on something, as the kubelet's flags `--eviction-hard`, `--eviction-soft`,
//! `--eviction-soft-grace-period` and `--eviction-minimum-reclaim` say it
//! (upstream: `pkg/kubelet/eviction/api`, `ParseThresholdConfig`).

use crate::kubelet::node::figures::{Disk, Usage as NodeUsage};
use crate::quantity::{Format, Quantity};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    MemoryAvailable,
    NodeFsAvailable,
    NodeFsInodesFree,
    ImageFsAvailable,
    ImageFsInodesFree,
    ContainerFsAvailable,
    ContainerFsInodesFree,
    PidAvailable,
}

impl Signal {
    const ALL: [(&'static str, Signal); 8] = [
        ("memory.available", Signal::MemoryAvailable),
        ("nodefs.available", Signal::NodeFsAvailable),
        ("nodefs.inodesFree", Signal::NodeFsInodesFree),
        ("imagefs.available", Signal::ImageFsAvailable),
        ("imagefs.inodesFree", Signal::ImageFsInodesFree),
        ("containerfs.available", Signal::ContainerFsAvailable),
        ("containerfs.inodesFree", Signal::ContainerFsInodesFree),
        ("pid.available", Signal::PidAvailable),
    ];

    pub fn name(self) -> &'static str {
        let named = Signal::ALL.iter().find(|(_, signal)| *signal == self);
        named.map_or("", |(name, _)| *name)
    }

    fn named(name: &str) -> Result<Signal, String> {
        let found = Signal::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, signal)| *signal).ok_or_else(|| {
            let names: Vec<&str> = Signal::ALL.iter().map(|(name, _)| *name).collect();
            format!(
                "{name:?} is not allowed: the signal must be one of {}",
                names.join(", ")
            )
        })
    }

    /// What there is too little of.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory",
            Signal::NodeFsAvailable | Signal::ImageFsAvailable | Signal::ContainerFsAvailable => "ephemeral-storage",
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::ContainerFsInodesFree => "inodes",
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

    /// It is about the disk of the images and of the containers' layers.
    pub fn is_of_images(self) -> bool {
        matches!(self, Signal::ImageFsAvailable | Signal::ImageFsInodesFree)
    }

    /// It always is what it is for the node or for the images, whatever somebody set for it (upstream:
    /// `UpdateContainerFsThresholds`).
    fn is_of_containers(self) -> bool {
        matches!(self, Signal::ContainerFsAvailable | Signal::ContainerFsInodesFree)
    }

    /// What is left, and of how much; None: the kernel does not say.
    fn observed(self, node: &NodeUsage, memory_bytes: u64) -> Option<(Quantity, u64)> {
        let (left, of) = match self {
            Signal::MemoryAvailable => (node.memory_available_bytes?, memory_bytes),
            Signal::NodeFsAvailable | Signal::ImageFsAvailable | Signal::ContainerFsAvailable => {
                let disk = self.disk(node)?;
                (disk.available_bytes, disk.size_bytes)
            }
            Signal::NodeFsInodesFree | Signal::ImageFsInodesFree | Signal::ContainerFsInodesFree => {
                let disk = self.disk(node).filter(|disk| disk.inodes > 0)?;
                (disk.inodes_free, disk.inodes)
            }
            Signal::PidAvailable => {
                let processes = node.processes?;
                (processes.max.saturating_sub(processes.used), processes.max)
            }
        };
        let format = match self.resource() {
            "inodes" | "pids" => Format::DecimalSi,
            _ => Format::BinarySi,
        };
        Some((units(left, format), of))
    }

    fn disk(self, node: &NodeUsage) -> Option<Disk> {
        match self.is_of_images() {
            true => node.image_disk.or(node.disk),
            false => node.disk,
        }
    }
}

fn units(amount: u64, format: Format) -> Quantity {
    Quantity::from_units(i64::try_from(amount).unwrap_or(i64::MAX), format)
}

/// A quantity, or a part of all that there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Quantity(Quantity),
    Percent(f32),
}

impl Amount {
    /// With upstream's precision, which messages show, and always in its form with powers of two.
    pub fn of(self, capacity: u64) -> Quantity {
        match self {
            Amount::Quantity(quantity) => quantity,
            Amount::Percent(percent) => {
                let amount = capacity as f64 * f64::from(percent / 100.0);
                Quantity::from_units(amount as i64, Format::BinarySi)
            }
        }
    }

    fn parse(text: &str) -> Result<Amount, String> {
        let wrong = |what: &str| format!("{text:?} is not allowed: {what}");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent = percent.parse::<f32>().ok();
                let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
                let percent = percent.ok_or_else(|| wrong("the percentage must be between 0% and 100%"))?;
                Ok(Amount::Percent(percent))
            }
            None => {
                let quantity = text.parse::<Quantity>().ok().filter(|quantity| !quantity.is_negative());
                let quantity = quantity.ok_or_else(|| wrong("the quantity must be one that is not negative"))?;
                Ok(Amount::Quantity(quantity))
            }
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Quantity(quantity) => write!(f, "{quantity}"),
            Amount::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What must be left of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub value: Amount,
    /// So long it may be missed; zero makes it a hard one.
    pub grace: Duration,
    /// So much more must be left before it counts as kept again.
    pub minimum_reclaim: Option<Amount>,
}

/// A threshold that is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    pub signal: Signal,
    /// Quantities as the API writes them.
    pub wanted: String,
    pub available: String,
    pub hard: bool,
}

impl Threshold {
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }

    /// What is missed; `reclaiming`: once it was, more must be left. None: it is kept, or the kernel does not say.
    pub fn met(&self, node: &NodeUsage, memory_bytes: u64, reclaiming: bool) -> Option<Met> {
        let (available, capacity) = self.signal.observed(node, memory_bytes)?;
        let wanted = self.value.of(capacity);
        let more = self.minimum_reclaim.filter(|_| reclaiming);
        let bound = more.map_or(wanted, |more| wanted.plus(more.of(capacity)));
        (available < bound).then(|| Met {
            signal: self.signal,
            wanted: wanted.to_string(),
            available: available.to_string(),
            hard: self.is_hard(),
        })
    }
}

/// The thresholds of four settings in the form of upstream's flags; an error names the setting that is wrong.
pub fn parse(hard: &str, soft: &str, grace: &str, reclaim: &str) -> Result<Vec<Threshold>, (&'static str, String)> {
    const HARD: &str = "node.eviction_hard";
    const SOFT: &str = "node.eviction_soft";
    const GRACE: &str = "node.eviction_soft_grace_period";
    const RECLAIM: &str = "node.eviction_minimum_reclaim";
    let graces = by_signal(grace, '=', duration).map_err(|reason| (GRACE, reason))?;
    let reclaims = by_signal(reclaim, '=', Amount::parse).map_err(|reason| (RECLAIM, reason))?;
    let mut thresholds = Vec::new();
    for (key, text) in [(HARD, hard), (SOFT, soft)] {
        for (signal, value) in by_signal(text, '<', Amount::parse).map_err(|reason| (key, reason))? {
            let name = signal.name();
            let grace = match key {
                HARD => Duration::ZERO,
                _ => *graces.get(&signal).ok_or_else(|| {
                    let reason = format!("grace period must be specified for the soft eviction threshold {name}");
                    (GRACE, reason)
                })?,
            };
            match value {
                Amount::Quantity(quantity) if quantity.is_zero() => {
                    return Err((key, format!("eviction threshold {name} must be positive: {quantity}")));
                }
                // That is upstream's way to say never.
                Amount::Percent(percent) if percent == 0.0 || percent == 100.0 => {}
                _ if signal.is_of_containers() => {
                    tracing::warn!(
                        key,
                        signal = name,
                        "A threshold is ignored: that of the node or the images counts"
                    );
                }
                _ => thresholds.push(Threshold {
                    signal,
                    value,
                    grace,
                    minimum_reclaim: reclaims.get(&signal).copied(),
                }),
            }
        }
    }
    Ok(thresholds)
}

/// `SIGNAL<VALUE,SIGNAL<VALUE`; empty is none.
fn by_signal<T>(
    text: &str,
    mark: char,
    value: impl Fn(&str) -> Result<T, String>,
) -> Result<BTreeMap<Signal, T>, String> {
    let mut all = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let split = part.split_once(mark);
        let (name, text) = split.ok_or_else(|| format!("{part:?} is not allowed: it must be SIGNAL{mark}VALUE"))?;
        if all.insert(Signal::named(name.trim())?, value(text.trim())?).is_some() {
            return Err(format!("{part:?} names its signal a second time"));
        }
    }
    Ok(all)
}

/// `1m30s`, `90s`, `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not allowed: it must be a duration like 1m30s");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let after = &rest[digits..];
        let end = after.find(|char: char| char.is_ascii_digit()).unwrap_or(after.len());
        let unit = match &after[..end] {
            "h" => Duration::from_secs(3600),
            "m" => Duration::from_secs(60),
            "s" => Duration::from_secs(1),
            "ms" => Duration::from_millis(1),
            _ => return Err(wrong()),
        };
        total = unit
            .checked_mul(number)
            .and_then(|more| total.checked_add(more))
            .ok_or_else(wrong)?;
        rest = &after[end..];
    }
    match text {
        "" => Err(wrong()),
        _ => Ok(total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::node::figures::Processes;

    fn hard(text: &str) -> Vec<Threshold> {
        parse(text, "", "", "").unwrap()
    }

    #[test]
    fn statements() {
        let shown = |all: Vec<Threshold>| -> Vec<String> {
            let one = |one: &Threshold| {
                let more = one.minimum_reclaim.map_or(String::new(), |more| format!(" +{more}"));
                format!("{}<{} {}s{more}", one.signal.name(), one.value, one.grace.as_secs())
            };
            all.iter().map(one).collect()
        };
        assert_eq!(
            shown(hard("memory.available<100Mi, nodefs.available<10%,pid.available<2k")),
            [
                "memory.available<100Mi 0s",
                "nodefs.available<10% 0s",
                "pid.available<2k 0s"
            ]
        );
        let soft = parse(
            "memory.available<100Mi",
            "memory.available<1.5Gi,imagefs.available<15%",
            "memory.available=1m30s,imagefs.available=2h",
            "memory.available=500Mi,imagefs.available=1%",
        );
        assert_eq!(
            shown(soft.unwrap()),
            [
                "memory.available<100Mi 0s +500Mi",
                "memory.available<1536Mi 90s +500Mi",
                "imagefs.available<15% 7200s +1%"
            ]
        );
        assert_eq!(hard(""), []);
        let never = hard("nodefs.available<0%,memory.available<100%,containerfs.available<10%");
        assert_eq!(never, []);
        for wrong in [
            "memory.available",
            "memory<1Gi",
            "memory.available<x",
            "memory.available<-1",
            "memory.available<0",
            "nodefs.available<101%",
            "memory.available<1Gi,memory.available<2Gi",
        ] {
            assert_eq!(parse(wrong, "", "", "").unwrap_err().0, "node.eviction_hard", "{wrong}");
        }
        let no_grace = parse("", "memory.available<1Gi", "nodefs.available=1m", "").unwrap_err();
        assert_eq!(
            no_grace.1,
            "grace period must be specified for the soft eviction threshold memory.available"
        );
        for wrong in [
            "memory.available=",
            "memory.available=1",
            "memory.available=s",
            "memory.available=1d",
        ] {
            assert!(parse("", "", wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_low() {
        let thresholds = hard(
            "nodefs.available<10%,nodefs.inodesFree<5%,memory.available<100Mi,pid.available<10,imagefs.available<1G",
        );
        let mut node = NodeUsage {
            memory_available_bytes: Some(100 << 20),
            disk: Some(Disk {
                size_bytes: 1000 << 20,
                available_bytes: 99 << 20,
                inodes: 0,
                inodes_free: 0,
            }),
            processes: Some(Processes { max: 100, used: 90 }),
            ..NodeUsage::default()
        };
        let missed = |node: &NodeUsage| -> Vec<String> {
            let met = thresholds.iter().filter_map(|one| one.met(node, 1 << 30, false));
            met.map(|one| format!("{} {} {}", one.signal.name(), one.wanted, one.available))
                .collect()
        };
        // Upstream reckons with a tenth of single precision.
        assert_eq!(
            missed(&node),
            ["nodefs.available 104857601 99Mi", "imagefs.available 1G 99Mi"],
            "images are on the same disk"
        );
        node.image_disk = Some(Disk {
            size_bytes: 4 << 30,
            available_bytes: 2 << 30,
            inodes: 0,
            inodes_free: 0,
        });
        node.memory_available_bytes = Some(1 << 20);
        node.processes = Some(Processes { max: 100, used: 91 });
        node.disk.as_mut().unwrap().inodes = 6_553_600;
        node.disk.as_mut().unwrap().inodes_free = 1000;
        assert_eq!(
            missed(&node),
            [
                "memory.available 100Mi 1Mi",
                "nodefs.available 104857601 99Mi",
                "nodefs.inodesFree 320Ki 1k",
                "pid.available 10 9"
            ]
        );
    }

    #[test]
    fn once_missed_more_must_be_left() {
        let one = parse("memory.available<100Mi", "", "", "memory.available=50Mi").unwrap()[0];
        let missed = |left_mi: u64, reclaiming| {
            let node = NodeUsage {
                memory_available_bytes: Some(left_mi << 20),
                ..NodeUsage::default()
            };
            one.met(&node, 1 << 30, reclaiming).map(|met| met.wanted)
        };
        for (left_mi, reclaiming, expected) in [
            (99, false, Some("100Mi")),
            (100, false, None),
            (149, true, Some("100Mi")),
            (150, true, None),
        ] {
            assert_eq!(
                missed(left_mi, reclaiming).as_deref(),
                expected,
                "{left_mi} {reclaiming}"
            );
        }
    }
}
