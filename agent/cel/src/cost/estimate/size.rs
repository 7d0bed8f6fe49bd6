//! Ranges of sizes and of costs. What is too large stays the largest.

/// At least and at most so many elements, characters or bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// At least and at most such a cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

/// What is known of the elements of a list or the entries of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) is_list: bool,
    pub(super) key: Range,
    pub(super) value: Range,
}

impl Entry {
    pub(super) fn union(self, other: Self) -> Self {
        Self { is_list: self.is_list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

/// `numerator / denominator` of a size, rounded up.
fn part(size: u64, (numerator, denominator): (u64, u64)) -> u64 {
    if size == u64::MAX {
        return if numerator >= denominator { u64::MAX } else { u64::MAX / denominator * numerator };
    }
    let scaled = u128::from(size) * u128::from(numerator);
    u64::try_from(scaled.div_ceil(u128::from(denominator))).unwrap_or(u64::MAX)
}

impl Range {
    pub(super) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(super) fn fixed(size: u64) -> Self {
        Self { min: size, max: size }
    }

    pub(super) fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    pub(super) fn times_cost(self, cost: Estimate) -> Estimate {
        Estimate { min: self.min.saturating_mul(cost.min), max: self.max.saturating_mul(cost.max) }
    }

    /// A cost per so many.
    pub(super) fn part(self, factor: (u64, u64)) -> Estimate {
        Estimate { min: part(self.min, factor), max: part(self.max, factor) }
    }
}

impl Estimate {
    pub(super) fn fixed(cost: u64) -> Self {
        Self { min: cost, max: cost }
    }

    pub(super) fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    pub(super) fn part(self, factor: (u64, u64)) -> Self {
        Self { min: part(self.min, factor), max: part(self.max, factor) }
    }
}
