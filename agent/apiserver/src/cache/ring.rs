//! Recent events of one kind.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::object::Object;
use crate::status::{Failure, Result};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It came to be.
    Added,
    /// It changed.
    Modified,
    /// It went away; the event carries its last state.
    Deleted,
}

/// One change of one object, and the frames in which watchers get it.
pub struct Event {
    /// Its revision.
    pub revision: i64,
    /// What happened.
    pub change: Change,
    /// The object after the change; of a deletion its last state at the deletion's revision.
    pub object: Arc<Object>,
    /// The object before the change.
    pub previous: Option<Arc<Object>>,
    frames: [OnceLock<Bytes>; FRAMES],
}

/// Shared frames per event: two encodings, as itself or as an addition.
const FRAMES: usize = 4;
/// Bytes of objects and frames that the ring of one kind may hold.
const BUDGET_BYTES: usize = 8 << 20;
/// Events that are kept whatever they weigh, so that a burst of large objects does not throw out every watcher.
const MIN_EVENTS: usize = 64;
/// Most events in a ring.
const MAX_EVENTS: usize = 16_384;

impl Event {
    /// An event without frames yet.
    #[must_use]
    pub fn new(revision: i64, change: Change, object: Arc<Object>, previous: Option<Arc<Object>>) -> Self {
        Self { revision, change, object, previous, frames: Default::default() }
    }

    /// The shared frame in this slot, made by the first who needs it.
    pub fn frame(&self, slot: usize, make: impl FnOnce() -> Bytes) -> Bytes {
        match self.frames.get(slot) {
            Some(cell) => cell.get_or_init(make).clone(),
            None => make(),
        }
    }

    /// Two encoded frames are expected to be made per event.
    fn size(&self) -> usize {
        size_of::<Self>() + 2 * self.object.size()
    }
}

/// Recent events in revision order.
#[derive(Default)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Events up to and including this revision are gone.
    floor: i64,
    newest: i64,
}

impl Ring {
    /// Forgets everything: events after `revision` follow.
    pub fn reset(&mut self, revision: i64) {
        *self = Self { floor: revision, newest: revision, ..Self::default() };
    }

    /// Adds the newest event.
    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.size();
        self.newest = event.revision;
        self.events.push_back(event);
        while self.events.len() > MIN_EVENTS && (self.bytes > BUDGET_BYTES || self.events.len() > MAX_EVENTS) {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.size();
                self.floor = old.revision;
            }
        }
    }

    /// Revision of the newest event.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// At most `limit` events after `cursor`.
    pub fn after(&self, cursor: i64, limit: usize) -> Result<Vec<Arc<Event>>> {
        if cursor < self.floor {
            return Err(Failure::expired(format!("too old resource version: {cursor} ({})", self.floor)));
        }
        let start = self.events.partition_point(|e| e.revision <= cursor);
        Ok(self.events.range(start..).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(revision: i64) -> Arc<Event> {
        let object = Object::new("a/b".into(), revision, Bytes::from_static(b"{}"), &[]);
        Arc::new(Event::new(revision, Change::Added, Arc::new(object), None))
    }

    #[test]
    fn a_cursor_before_the_floor_is_expired() {
        let mut ring = Ring::default();
        ring.reset(5);
        ring.push(event(7));
        ring.push(event(9));
        assert_eq!(ring.after(4, 9).err().map(|f| f.reason()), Some("Expired"));
        assert_eq!(ring.after(5, 9).unwrap().len(), 2);
        assert_eq!(ring.after(7, 9).unwrap()[0].revision, 9);
        assert_eq!(ring.after(5, 1).unwrap().len(), 1);
    }

    #[test]
    fn old_events_fall_out_when_there_are_too_many() {
        let mut ring = Ring::default();
        for revision in 1..=(MAX_EVENTS as i64 + 10) {
            ring.push(event(revision));
        }
        assert!(ring.after(9, 1).is_err());
        assert!(ring.after(10, 1).is_ok());
    }
}
