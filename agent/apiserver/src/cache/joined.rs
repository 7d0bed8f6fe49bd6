//! Frames that leave together, joined once for all watches that send the same ones.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

/// Pieces that are kept. Watches that were woken together send some few each, one after the other.
const KEPT: usize = 16;

/// The last pieces that were made.
#[derive(Default)]
pub struct Joined(Mutex<VecDeque<Piece>>);

struct Piece {
    /// Of what it was made; held, so that no other frame comes to lie where one of them does.
    frames: Vec<Bytes>,
    whole: Bytes,
}

impl Joined {
    /// The frames as one piece.
    pub fn of(&self, frames: &[Bytes]) -> Bytes {
        // Whoever wants the same meanwhile waits, and need not make it.
        let mut pieces = self.0.lock();
        if let Some(found) = pieces.iter().rev().find(|piece| piece.is_of(frames)) {
            return found.whole.clone();
        }
        let mut whole = BytesMut::with_capacity(frames.iter().map(Bytes::len).sum());
        frames.iter().for_each(|frame| whole.extend_from_slice(frame));
        let whole = whole.freeze();
        if pieces.len() == KEPT {
            pieces.pop_front();
        }
        pieces.push_back(Piece { frames: frames.to_vec(), whole: whole.clone() });
        whole
    }
}

impl Piece {
    /// Frames are shared: the same ones lie at the same place.
    fn is_of(&self, frames: &[Bytes]) -> bool {
        let place = |frame: &Bytes| (frame.as_ptr(), frame.len());
        self.frames.iter().map(place).eq(frames.iter().map(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_frames_are_joined_once_and_others_never_taken_for_them() {
        let joined = Joined::default();
        let frames = ["one", "two", "three"].map(|text| Bytes::from(text.to_owned()));
        let first = joined.of(&frames);
        assert_eq!(first, "onetwothree");
        assert_eq!(joined.of(&frames).as_ptr(), first.as_ptr());
        assert_eq!(joined.of(&frames[..2]), "onetwo");
        for round in 0..3 * KEPT {
            let others = [round, round + 1].map(|n| Bytes::from(format!("{n:05}")));
            assert_eq!(joined.of(&others), format!("{round:05}{:05}", round + 1));
        }
        assert_eq!(joined.0.lock().len(), KEPT);
        let again = joined.of(&frames);
        assert!(again == first && again.as_ptr() != first.as_ptr(), "old pieces are forgotten");
    }
}
