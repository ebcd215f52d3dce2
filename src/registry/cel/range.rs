//! Sizes and costs from the least to the most; what is too large to count stays at the largest number.

/// Cost of looking at one character, item or byte.
pub(super) const TRAVERSAL: f64 = 0.1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub min: u64,
    pub max: u64,
}

pub(super) fn exactly(size: u64) -> Range {
    Range { min: size, max: size }
}

fn scaled(size: u64, factor: f64) -> u64 {
    // Casting stays within the range.
    (size as f64 * factor).ceil() as u64
}

impl Range {
    pub const ANY: Self = Self { min: 0, max: u64::MAX };
    /// Nothing yet: the union with anything is that.
    pub const NONE: Self = Self { min: u64::MAX, max: 0 };

    pub fn new(min: u64, max: u64) -> Self {
        Self { min, max }
    }
    pub fn up_to(max: u64) -> Self {
        Self { min: 0, max }
    }
    pub fn plus(self, other: Self) -> Self {
        Self::new(self.min.saturating_add(other.min), self.max.saturating_add(other.max))
    }
    pub fn times(self, other: Self) -> Self {
        Self::new(self.min.saturating_mul(other.min), self.max.saturating_mul(other.max))
    }
    pub fn by(self, factor: f64) -> Self {
        Self::new(scaled(self.min, factor), scaled(self.max, factor))
    }
    pub fn union(self, other: Self) -> Self {
        Self::new(self.min.min(other.min), self.max.max(other.max))
    }
}
