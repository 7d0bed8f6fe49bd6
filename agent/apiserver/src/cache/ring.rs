//! Recent events of one kind.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use smallvec::SmallVec;

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

/// Some of them, in order. Mostly it is the newest alone, for which nothing is allocated.
pub type Events = SmallVec<[Arc<Event>; 1]>;

/// Shared frames per event: two encodings, as itself or as an addition.
const FRAMES: usize = 4;
/// Bytes of objects and frames that the ring of one kind may hold.
const BUDGET_BYTES: usize = 8 << 20;
/// Events that are kept even if they weigh more, so that a burst of large objects does not throw out every watcher; up
/// to a limit, too.
const MIN_EVENTS: usize = 64;
const LIMIT_BYTES: usize = 64 << 20;
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
        while self.is_over() {
            if let Some(old) = self.events.pop_front() {
                self.bytes -= old.size();
                self.floor = old.revision;
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.events.len() {
            0 | 1 => false,
            2..=MIN_EVENTS => self.bytes > LIMIT_BYTES,
            count => self.bytes > BUDGET_BYTES || count > MAX_EVENTS,
        }
    }

    /// Revision of the newest event.
    #[must_use]
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// The events after `cursor`, at most so many and, after the first, so many bytes.
    pub fn after(&self, cursor: i64, (limit, mut bytes): (usize, usize)) -> Result<Events> {
        if cursor < self.floor {
            return Err(Failure::expired(format!("too old resource version: {cursor} ({})", self.floor)));
        }
        let start = self.events.partition_point(|e| e.revision <= cursor);
        let fits = |event: &&Arc<Event>| {
            let has_room = bytes > 0;
            bytes = bytes.saturating_sub(event.object.size());
            has_room
        };
        Ok(self.events.range(start..).take(limit).take_while(fits).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: (usize, usize) = (usize::MAX, usize::MAX);

    fn event(revision: i64) -> Arc<Event> {
        large(revision, b"{}".as_slice().into())
    }

    fn large(revision: i64, data: Bytes) -> Arc<Event> {
        let object = Object::new("a/b".into(), revision, data, &[]);
        Arc::new(Event::new(revision, Change::Added, Arc::new(object), None))
    }

    #[test]
    fn a_cursor_before_the_floor_is_expired() {
        let mut ring = Ring::default();
        ring.reset(5);
        ring.push(event(7));
        ring.push(event(9));
        assert_eq!(ring.after(4, ALL).err().map(|f| f.reason()), Some("Expired"));
        assert_eq!(ring.after(5, ALL).unwrap().len(), 2);
        assert_eq!(ring.after(7, ALL).unwrap()[0].revision, 9);
        assert_eq!(ring.after(5, (1, usize::MAX)).unwrap().len(), 1);
    }

    #[test]
    fn old_events_fall_out_when_there_are_too_many() {
        let mut ring = Ring::default();
        for revision in 1..=(MAX_EVENTS as i64 + 10) {
            ring.push(event(revision));
        }
        assert!(ring.after(9, ALL).is_err());
        assert!(ring.after(10, ALL).is_ok());
    }
    #[test]
    fn large_events_are_few_and_taken_one_by_one() {
        let data = Bytes::from(vec![b' '; 4 << 20]);
        let mut ring = Ring::default();
        for revision in 1..=50 {
            ring.push(large(revision, data.clone()));
        }
        let kept = ring.events.len();
        assert!(kept > 1 && ring.bytes <= LIMIT_BYTES, "{kept} events");
        let oldest = 50 - i64::try_from(kept).unwrap();
        assert_eq!(ring.after(oldest, (9, 1 << 20)).unwrap().len(), 1);
        assert_eq!(ring.after(oldest, (9, 5 << 20)).unwrap().len(), 2);
    }
}
