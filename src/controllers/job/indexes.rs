//! Sets of completion indexes as status.completedIndexes writes them, `1,3-5,7` (upstream:
//! `pkg/controller/job/indexed_job_utils.go`). Their size is that of their text, not of their members.

use std::collections::BTreeSet;
use std::fmt;

/// Ranges with both ends, ascending, with at least one index missing between two of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads `text`; what is no index below `completions` is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = Self::default();
        for part in text.split(',') {
            let mut ends = part.split('-').map(str::parse::<i32>);
            let Some(Ok(first)) = ends.next() else { continue };
            let last = match ends.next() {
                None => first,
                Some(Ok(last)) => last,
                Some(Err(_)) => continue,
            };
            if first >= completions {
                break;
            }
            all.push(first, last.min(completions - 1));
        }
        all
    }

    /// Adds a range that begins not before the last one does.
    fn push(&mut self, first: i32, last: i32) {
        match self.0.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => self.0.push((first, last)),
        }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ranges: Vec<(i32, i32)> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        let mut all = Self::default();
        for (first, last) in ranges {
            all.push(first, last);
        }
        all
    }

    pub fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in both.
    pub fn common(&self, other: &Self) -> i32 {
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some((first, last)), Some((other_first, other_last))) = (mine.peek(), theirs.peek()) {
            count += (last.min(other_last) - first.max(other_first) + 1).max(0);
            if last <= other_last {
                mine.next();
            } else {
                theirs.next();
            }
        }
        count
    }

    /// The lowest `count` indexes below `completions` that are not in here.
    pub fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut found = Vec::new();
        let mut candidate = 0;
        let end = (completions, completions);
        for (first, last) in self.0.iter().chain([&end]) {
            let room = count - found.len();
            found.extend((candidate..(*first).min(completions)).take(room));
            candidate = candidate.max(last.saturating_add(1));
            if found.len() == count {
                break;
            }
        }
        found
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let mut all = Self::default();
        for index in indexes.into_iter().collect::<BTreeSet<i32>>() {
            all.push(index, index);
        }
        all
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            if position > 0 {
                formatter.write_str(",")?;
            }
            match last - first {
                0 => write!(formatter, "{first}")?,
                1 => write!(formatter, "{first},{last}")?,
                _ => write!(formatter, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        for (text, completions, shown, size) in [
            ("", 10, "", 0),
            ("1,3-5,7", 10, "1,3-5,7", 5),
            ("0,1,2,4,5", 10, "0-2,4,5", 5),
            ("3-5,6", 10, "3-6", 4),
            ("1-3,6-9,20", 8, "1-3,6,7", 5),
            ("x,2,4-y,6", 10, "2,6", 2),
        ] {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.len()), (shown, size), "{text}");
        }
    }

    #[test]
    fn as_the_sets_that_they_stand_for() {
        let mut state = 11_u64;
        for _ in 0..500 {
            let mut draw = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) as i32
            };
            let (one, two): (BTreeSet<i32>, BTreeSet<i32>) = (
                (0..draw() % 12).map(|_| draw() % 20).collect(),
                (0..draw() % 12).map(|_| draw() % 20).collect(),
            );
            let (first, second): (Indexes, Indexes) = (one.iter().copied().collect(), two.iter().copied().collect());
            let union: BTreeSet<i32> = one.union(&two).copied().collect();
            assert_eq!(first.union(&second), union.iter().copied().collect());
            assert_eq!(first.common(&second) as usize, one.intersection(&two).count());
            assert_eq!(first.len() as usize, one.len());
            assert_eq!(Indexes::parse(&first.to_string(), 100), first);
            for index in -1..22 {
                assert_eq!(first.contains(index), one.contains(&index));
            }
            let count = (draw() % 8) as usize;
            let missing: Vec<i32> = (0..15).filter(|index| !one.contains(index)).take(count).collect();
            assert_eq!(first.missing(count, 15), missing, "{first}");
        }
    }
}
