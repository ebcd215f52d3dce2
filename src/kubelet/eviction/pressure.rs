//! What the node has been low on, and for how long: what to do something about now, and what its conditions say
//! (upstream: `eviction_manager.go` `synchronize`, `thresholdsMet…`, `nodeConditionsObservedSince`). Pure.

use super::threshold::{Met, Signal, Threshold};
use crate::kubelet::node::figures::Usage as NodeUsage;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Upstream's hard thresholds; the node is under pressure below them where nothing is configured.
const MEMORY_BYTES: u64 = 100 << 20;
const DISK_PERCENT: u64 = 10;
/// On a large disk a tenth is much, and a node under pressure takes no pods: with so much left it goes on.
const DISK_BYTES_MAX: u64 = 4 << 30;
const INODES_PERCENT: u64 = 5;
const PROCESSES_PERCENT: u64 = 1;

/// What was observed so far. Thresholds are meant by their places in the list, which stays the same.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Since when thresholds have been missed.
    missed: BTreeMap<usize, Instant>,
    /// Those that something was done about, until enough is left again.
    unresolved: BTreeSet<usize>,
    /// When conditions were last true.
    conditions: BTreeMap<&'static str, Instant>,
}

impl Pressure {
    /// Takes in the node's figures. Returns what something must be done about, memory first.
    pub fn observe(&mut self, thresholds: &[Threshold], node: &NodeUsage, memory_bytes: u64, now: Instant) -> Vec<Met> {
        let met = thresholds.iter().enumerate().filter_map(|(index, threshold)| {
            let met = threshold.met(node, memory_bytes, self.unresolved.contains(&index))?;
            Some((index, met))
        });
        let met: Vec<(usize, Met)> = met.collect();
        self.missed = met
            .iter()
            .map(|(index, _)| (*index, self.missed.get(index).copied().unwrap_or(now)))
            .collect();
        self.note(met.iter().map(|(_, met)| met.signal.condition()), now);
        let is_due = |index: usize| {
            let since = self.missed.get(&index).copied().unwrap_or(now);
            now.duration_since(since) >= thresholds[index].grace
        };
        let mut due: Vec<(usize, Met)> = met.into_iter().filter(|(index, _)| is_due(*index)).collect();
        self.unresolved = due.iter().map(|(index, _)| *index).collect();
        due.sort_by_key(|(_, met)| met.signal != Signal::MemoryAvailable);
        due.into_iter().map(|(_, met)| met).collect()
    }

    /// These conditions are true now.
    pub fn note(&mut self, conditions: impl IntoIterator<Item = &'static str>, now: Instant) {
        self.conditions
            .extend(conditions.into_iter().map(|condition| (condition, now)));
    }

    /// The conditions that were true within the last `transition`.
    pub fn conditions(&self, transition: Duration, now: Instant) -> Vec<&'static str> {
        let lately = |(condition, at): (&&'static str, &Instant)| {
            let age = now.saturating_duration_since(*at);
            // Without a period they are what was observed now.
            (age < transition || age.is_zero()).then_some(*condition)
        };
        self.conditions.iter().filter_map(lately).collect()
    }
}

/// The conditions of a node for which no thresholds are configured.
pub fn by_default(usage: &NodeUsage) -> Vec<&'static str> {
    let low = |left: u64, of: u64, percent: u64| of > 0 && left < of / 100 * percent;
    let memory = usage.memory_estimate_bytes.is_some_and(|left| left < MEMORY_BYTES);
    let disk = usage.disk.is_some_and(|disk| {
        (low(disk.available_bytes, disk.size_bytes, DISK_PERCENT) && disk.available_bytes < DISK_BYTES_MAX)
            || low(disk.inodes_free, disk.inodes, INODES_PERCENT)
    });
    let processes = usage.processes.is_some_and(|processes| {
        let left = processes.max.saturating_sub(processes.used);
        low(left, processes.max, PROCESSES_PERCENT)
    });
    let all = [
        (memory, "MemoryPressure"),
        (disk, "DiskPressure"),
        (processes, "PIDPressure"),
    ];
    all.into_iter()
        .filter_map(|(is, condition)| is.then_some(condition))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::eviction::threshold;
    use crate::kubelet::node::figures::{Disk, Processes};

    fn left(memory_mi: u64, processes: u64) -> NodeUsage {
        NodeUsage {
            memory_available_bytes: Some(memory_mi << 20),
            processes: Some(Processes {
                max: 100,
                used: 100 - processes,
            }),
            ..NodeUsage::default()
        }
    }

    #[test]
    fn what_is_low_for_how_long() {
        let thresholds = threshold::parse(
            "memory.available<100Mi,pid.available<10",
            "memory.available<200Mi",
            "memory.available=30s",
            "memory.available=50Mi",
        )
        .unwrap();
        let start = Instant::now();
        let mut pressure = Pressure::default();
        // At a second, MiB and processes left, and what is due and said then.
        type Row<'a> = (u64, u64, u64, &'a [&'a str], &'a [&'a str]);
        let rows: [Row<'_>; 10] = [
            (0, 300, 50, &[], &[]),
            (10, 150, 50, &[], &["MemoryPressure"]),
            (30, 150, 50, &[], &["MemoryPressure"]),
            // The soft one was missed for its grace period.
            (40, 150, 50, &["200Mi"], &["MemoryPressure"]),
            // Kept, but not with what must be freed besides.
            (50, 220, 50, &["200Mi"], &["MemoryPressure"]),
            (60, 250, 50, &[], &["MemoryPressure"]),
            // Missed anew: the grace period begins anew.
            (70, 150, 50, &[], &["MemoryPressure"]),
            (80, 90, 5, &["100Mi", "10"], &["MemoryPressure", "PIDPressure"]),
            (90, 300, 50, &[], &["MemoryPressure", "PIDPressure"]),
            (381, 300, 50, &[], &[]),
        ];
        for (second, memory_mi, processes, due, said) in rows {
            let now = start + Duration::from_secs(second);
            let met = pressure.observe(&thresholds, &left(memory_mi, processes), 1 << 30, now);
            let met: Vec<&str> = met.iter().map(|met| met.wanted.as_str()).collect();
            assert_eq!(met, due, "second {second}");
            assert_eq!(
                pressure.conditions(Duration::from_secs(300), now),
                said,
                "second {second}"
            );
        }
    }

    #[test]
    fn without_a_period_conditions_are_those_of_now() {
        let (mut pressure, start) = (Pressure::default(), Instant::now());
        pressure.note(["DiskPressure"], start);
        assert_eq!(pressure.conditions(Duration::ZERO, start), ["DiskPressure"]);
        assert!(
            pressure
                .conditions(Duration::ZERO, start + Duration::from_secs(1))
                .is_empty()
        );
    }

    #[test]
    fn where_nothing_is_configured() {
        let disk = |available_bytes: u64, inodes_free: u64| Disk {
            size_bytes: 100 << 30,
            available_bytes,
            inodes: 1000,
            inodes_free,
        };
        let well = NodeUsage {
            memory_available_bytes: Some(0),
            memory_estimate_bytes: Some(MEMORY_BYTES),
            disk: Some(disk(5 << 30, 900)),
            image_disk: None,
            processes: Some(Processes { max: 1000, used: 900 }),
        };
        assert!(by_default(&well).is_empty());
        let bad = NodeUsage {
            memory_estimate_bytes: Some(MEMORY_BYTES - 1),
            disk: Some(disk(3 << 30, 900)),
            processes: Some(Processes { max: 1000, used: 995 }),
            ..well.clone()
        };
        assert_eq!(by_default(&bad), ["MemoryPressure", "DiskPressure", "PIDPressure"]);
        let inodes = NodeUsage {
            disk: Some(disk(50 << 30, 10)),
            ..well
        };
        assert_eq!(by_default(&inodes), ["DiskPressure"]);
    }
}
