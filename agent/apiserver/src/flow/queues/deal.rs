//! Dealing queues to flows.

/// Most queues in a hand.
const MAX_HAND: usize = 15;

/// The queues of one flow, all different.
pub(super) struct Hand {
    cards: [usize; MAX_HAND],
    size: usize,
}

impl Hand {
    pub(super) fn as_slice(&self) -> &[usize] {
        &self.cards[..self.size]
    }
}

/// Deals `size` of `deck` queues by a hash.
#[allow(clippy::cast_possible_truncation, reason = "remainders of the deck's size")]
pub(super) fn hand(mut hash: u64, deck: usize, size: usize) -> Hand {
    let size = size.min(deck).min(MAX_HAND);
    let mut cards = [0; MAX_HAND];
    for (at, card) in cards.iter_mut().enumerate().take(size) {
        let left = (deck - at) as u64;
        *card = (hash % left) as usize;
        hash /= left;
    }
    // Each remainder counts among the cards that are still there: those dealt before it are stepped over.
    for at in 1..size {
        let mut card = cards[at];
        let mut dealt: [usize; MAX_HAND] = cards;
        let dealt = &mut dealt[..at];
        dealt.sort_unstable();
        for before in dealt.iter() {
            card += usize::from(card >= *before);
        }
        cards[at] = card;
    }
    Hand { cards, size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_no_card_twice() {
        for hash in (0..2000u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let hand = hand(hash, 9, 6);
            let mut cards = hand.as_slice().to_vec();
            cards.sort_unstable();
            cards.dedup();
            assert!(cards.len() == 6 && cards.iter().all(|c| *c < 9), "{cards:?}");
        }
    }

    #[test]
    fn small_decks_are_dealt_as_a_whole() {
        assert_eq!(hand(7, 1, 8).as_slice(), [0]);
        assert_eq!(hand(7, 2, 8).as_slice().len(), 2);
    }
}
