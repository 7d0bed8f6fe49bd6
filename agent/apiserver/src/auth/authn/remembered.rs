//! Results of costly checks, believed for a short time.

use std::collections::HashMap;

use parking_lot::Mutex;

/// The most results kept. An attacker's nonsense is never kept, so that this bounds users, not guesses.
const MAX_LEN: usize = 8_192;

/// Results by the digest of what was checked.
pub(super) struct Remembered<T>(Mutex<HashMap<[u8; 32], (i64, T)>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Remembered<T> {
    pub(super) fn get(&self, key: &[u8; 32], now: i64) -> Option<T> {
        let results = self.0.lock();
        results.get(key).filter(|(until, _)| now < *until).map(|(_, result)| result.clone())
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.lock().clear();
    }

    /// Keeps a result until a time, making room by dropping what has run out, or else everything.
    pub(super) fn put(&self, key: [u8; 32], result: T, until: i64, now: i64) {
        let mut results = self.0.lock();
        if results.len() >= MAX_LEN {
            results.retain(|_, (until, _)| now < *until);
            if results.len() >= MAX_LEN {
                results.clear();
            }
        }
        results.insert(key, (until, result));
    }
}
