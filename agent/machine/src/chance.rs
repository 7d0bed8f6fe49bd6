//! Numbers that nobody needs to be unable to guess: transaction ids and jitter.

use std::hash::{BuildHasher, RandomState};

/// A number by chance. Never waits: early in the life of a machine without a source of entropy, the kernel's good
/// numbers can be minutes away, and the network must not wait for them.
pub(crate) fn number() -> u32 {
    // Each state has its own keys, so that hashing the same thing gives another number each time.
    let wide = RandomState::new().hash_one(0_u8);
    u32::try_from(wide >> 32).unwrap_or_default()
}

/// A share by chance, from 0 to 1.
pub(crate) fn share() -> f64 {
    f64::from(number()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        assert!((0..8).any(|_| number() != number()));
        assert!((0.0..=1.0).contains(&share()));
    }
}
