//! One change at a time of what is on the machine's disks: whoever comes second is told what is under way.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use super::refusal::conflict;

/// Updates, extensions, resets and wipes take turns.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<Option<&'static str>>>);

/// The right to such a change, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Turns);

impl Turns {
    /// Takes the right to do `what`, such as "a disk is being wiped".
    pub(super) fn take(&self, what: &'static str) -> Result<Turn, Status> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *under_way {
            Some(other) => Err(conflict(format!("not now: {other}"))),
            None => {
                *under_way = Some(what);
                Ok(Turn(self.clone()))
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_comes_second_is_told_what_is_under_way() {
        let turns = Turns::default();
        let turn = turns.take("a disk is being wiped").unwrap();
        let refused = turns.take("an update is being taken in").unwrap_err();
        assert_eq!(refused.message(), "not now: a disk is being wiped");
        drop(turn);
        assert!(turns.take("an update is being taken in").is_ok());
    }
}
