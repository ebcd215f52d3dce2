//! Which images may go, and when (upstream: `pkg/kubelet/images/image_gc_manager.go`). Pure.

use crate::runtime::Image;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, SystemTime};

/// When images are removed that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From this use of the disk on: `imageGCHighThresholdPercent`; 100 is never.
    pub high_percent: u8,
    /// Down to this one: `imageGCLowThresholdPercent`.
    pub low_percent: u8,
    /// Younger ones stay: `imageMinimumGCAge`.
    pub age_min: Duration,
    /// What nobody used for longer goes in any case: `imageMaximumGCAge`; zero is never.
    pub age_max: Duration,
    /// How often it is looked for them.
    pub every: Duration,
}

impl Default for Policy {
    /// Off; the rest is upstream's.
    fn default() -> Self {
        Self {
            high_percent: 100,
            low_percent: 80,
            age_min: Duration::from_secs(120),
            age_max: Duration::ZERO,
            every: Duration::from_secs(300),
        }
    }
}

impl Policy {
    pub fn is_on(&self) -> bool {
        self.high_percent < 100 || !self.age_max.is_zero()
    }

    /// How full a disk is, and how many bytes must go from it.
    pub fn to_free(&self, size_bytes: u64, available_bytes: u64) -> (u8, Option<u64>) {
        let available = available_bytes.min(size_bytes);
        let share = |bytes: u64, percent: u8| (u128::from(bytes) * u128::from(percent) / 100) as u64;
        let free_percent = (u128::from(available) * 100 / u128::from(size_bytes.max(1))) as u8;
        let used_percent = 100 - free_percent;
        let wanted = share(size_bytes, 100 - self.low_percent).saturating_sub(available);
        let is_over = self.high_percent < 100 && used_percent >= self.high_percent;
        (used_percent, is_over.then_some(wanted))
    }
}

#[derive(Clone, Debug)]
struct Record {
    /// When it was first seen; what is there at the start is as young as what was just pulled.
    detected: SystemTime,
    used: Option<SystemTime>,
    bytes: u64,
    pinned: bool,
}

/// What is known of the images of the node, by id.
#[derive(Debug, Default)]
pub struct Records {
    all: BTreeMap<String, Record>,
    /// When it was looked first.
    began: Option<SystemTime>,
}

impl Records {
    /// Takes in what is there now, and the ids of what is used.
    pub fn observe(&mut self, images: &[Image], used: &HashSet<String>, now: SystemTime) {
        self.began.get_or_insert(now);
        let present: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.all.retain(|id, _| present.contains(id.as_str()));
        for image in images {
            let record = self.all.entry(image.id.clone()).or_insert(Record {
                detected: now,
                used: None,
                bytes: 0,
                pinned: false,
            });
            if used.contains(&image.id) {
                record.used = Some(now);
            }
            record.bytes = image.size_bytes;
            record.pinned = image.pinned;
        }
    }

    /// Ids and sizes of those that may go, those that were not used for the longest time first.
    fn unused(&self, used: &HashSet<String>) -> Vec<(&String, &Record)> {
        let free = |(id, record): &(&String, &Record)| !used.contains(*id) && !record.pinned;
        let mut free: Vec<(&String, &Record)> = self.all.iter().filter(free).collect();
        free.sort_by_key(|(_, record)| (record.used, record.detected));
        free
    }

    /// What has not been used for too long.
    pub fn too_old(&self, policy: &Policy, used: &HashSet<String>, now: SystemTime) -> Vec<(String, u64)> {
        let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        // Before that nobody knows what was used.
        let knows = self.began.is_some_and(|began| age(began) > policy.age_max);
        if policy.age_max.is_zero() || !knows {
            return Vec::new();
        }
        let unused = self.unused(used).into_iter();
        let old = unused.filter(|(_, record)| {
            let last = record.used.unwrap_or(record.detected).max(record.detected);
            age(last) > policy.age_max
        });
        old.map(|(id, record)| (id.clone(), record.bytes)).collect()
    }

    /// What may be removed for its space, in this order.
    pub fn for_space(&self, policy: &Policy, used: &HashSet<String>, now: SystemTime) -> Vec<(String, u64)> {
        let unused = self.unused(used).into_iter();
        let age = |record: &Record| now.duration_since(record.detected).unwrap_or_default();
        let ripe = unused.filter(|(_, record)| age(record) >= policy.age_min);
        ripe.map(|(id, record)| (id.clone(), record.bytes)).collect()
    }

    pub fn forget(&mut self, id: &str) {
        self.all.remove(id);
    }
}

/// Upstream's event and error when too little could be removed.
pub fn too_little(used_percent: u8, size_bytes: u64, freed: u64) -> String {
    format!(
        "Insufficient free disk space on the node's image filesystem ({used_percent}% of {} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by \
         active images, logs, volumes, or other data.",
        size(size_bytes)
    )
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1024.0, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
    }

    fn image(id: &str, bytes: u64) -> Image {
        Image {
            id: id.to_owned(),
            size_bytes: bytes,
            pinned: id.starts_with("pinned"),
            ..Image::default()
        }
    }

    fn set(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    fn ids(found: Vec<(String, u64)>) -> Vec<String> {
        found.into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn thresholds() {
        let policy = Policy {
            high_percent: 85,
            ..Policy::default()
        };
        for (available, used, wanted) in [
            (160, 84, None),
            (159, 85, Some(41)),
            (100, 90, Some(100)),
            (0, 100, Some(200)),
            (2000, 0, None),
        ] {
            assert_eq!(policy.to_free(1000, available), (used, wanted), "{available} of 1000");
        }
        assert_eq!(Policy::default().to_free(1000, 0), (100, None), "it is off");
        assert_eq!(policy.to_free(0, 0).0, 100);
        assert!(policy.is_on() && !Policy::default().is_on());
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_young_used_or_pinned_stays() {
        let policy = Policy::default();
        let mut records = Records::default();
        let first = [image("a", 1), image("b", 2), image("c", 3), image("pinned", 4)];
        records.observe(&first, &set(&["a", "c"]), at(0));
        for (second, expected) in [(119, [""; 0].as_slice()), (120, &["b", "a", "c"])] {
            assert_eq!(
                ids(records.for_space(&policy, &set(&[]), at(second))),
                expected,
                "{second}"
            );
        }
        let all = [first.as_slice(), &[image("new", 5)]].concat();
        records.observe(&all, &set(&["c"]), at(100));
        let now = at(130);
        records.observe(&all, &set(&[]), now);
        assert_eq!(ids(records.for_space(&policy, &set(&[]), now)), ["b", "a", "c"]);
        assert_eq!(ids(records.for_space(&policy, &set(&["b"]), now)), ["a", "c"]);
        assert_eq!(
            ids(records.for_space(&policy, &set(&[]), at(220))),
            ["b", "new", "a", "c"]
        );
        records.observe(&all[1..], &set(&[]), at(230));
        assert_eq!(
            ids(records.for_space(&policy, &set(&[]), at(230))),
            ["b", "new", "c"],
            "a is gone"
        );
    }

    #[test]
    fn age_alone() {
        let policy = Policy {
            age_max: Duration::from_secs(100),
            ..Policy::default()
        };
        let mut records = Records::default();
        let images = [image("never", 1), image("used", 1), image("pinned", 1)];
        records.observe(&images, &set(&["used"]), at(0));
        assert_eq!(
            ids(records.too_old(&policy, &set(&[]), at(100))),
            [""; 0],
            "nobody knows yet"
        );
        records.observe(&images, &set(&["used"]), at(90));
        let more = [images.as_slice(), &[image("pulled", 1)]].concat();
        records.observe(&more, &set(&[]), at(101));
        assert_eq!(ids(records.too_old(&policy, &set(&[]), at(101))), ["never"]);
        assert_eq!(ids(records.too_old(&policy, &set(&[]), at(191))), ["never", "used"]);
        assert_eq!(
            ids(records.too_old(&policy, &set(&["used"]), at(202))),
            ["never", "pulled"]
        );
        assert_eq!(ids(records.too_old(&Policy::default(), &set(&[]), at(9999))), [""; 0]);
    }

    #[test]
    fn words() {
        let text = too_little(88, 28_346_784_563, 385_820_817);
        assert!(
            text.starts_with("Insufficient free disk space on the node's image filesystem (88% of 26.4 GiB used). ")
        );
        assert!(text.contains("(freed 385820817 bytes)"));
        assert_eq!((size(10), size(2048)), ("10 B".to_owned(), "2.0 KiB".to_owned()));
    }
}
