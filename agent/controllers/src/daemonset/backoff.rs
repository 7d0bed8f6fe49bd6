//! How often a failed pod is replaced on one node.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(900);
/// Entries above which old ones are dropped.
const CROWDED: usize = 1000;

/// Pauses by set and node.
#[derive(Default)]
pub(super) struct Backoffs {
    entries: Mutex<HashMap<(String, String), Entry>>,
}

struct Entry {
    last: Instant,
    pause: Duration,
}

impl Backoffs {
    /// Counts a replacement; where it is too early, how long to wait.
    pub(super) fn try_again(&self, set_uid: &str, node: &str) -> Result<(), Duration> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if entries.len() > CROWDED {
            entries.retain(|_, entry| now.duration_since(entry.last) < MAX * 2);
        }
        match entries.get_mut(&(set_uid.to_owned(), node.to_owned())) {
            Some(entry) if now.duration_since(entry.last) < entry.pause => {
                Err(entry.pause - now.duration_since(entry.last))
            }
            Some(entry) => {
                let calm = now.duration_since(entry.last) > MAX * 2;
                *entry = Entry { last: now, pause: if calm { FIRST } else { (entry.pause * 2).min(MAX) } };
                Ok(())
            }
            None => {
                entries.insert((set_uid.to_owned(), node.to_owned()), Entry { last: now, pause: FIRST });
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_replacement_waits() {
        let backoffs = Backoffs::default();
        assert_eq!(backoffs.try_again("u", "n"), Ok(()));
        assert!(backoffs.try_again("u", "n").is_err_and(|wait| wait <= FIRST));
        assert_eq!(backoffs.try_again("u", "m"), Ok(()));
    }
}
