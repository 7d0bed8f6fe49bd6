//! What is to become of a partition's keys: what is missing is put first, and only then what is not wanted goes.

use tang::Server;
use tpm::Pcrs;

use crate::error::Error;
use crate::header::{Header, Held, KeyKind, MOST};
use crate::token::Token;

/// A key that there is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Recovery,
    Passphrase,
    Tpm(Pcrs),
    Network(Server),
}

/// One step. Whatever becomes of it, what opened the partition before still does, until its own [`Change::Remove`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A key is put into the slot of this number, and its token has the same one. What was left of one that was cut short
    /// goes first.
    Put { want: Want, number: u32, leftover: Option<u32> },
    /// A token goes, and the key that it describes before it.
    Remove { id: u32, slot: Option<u32> },
}

impl Want {
    pub(crate) fn kind(&self) -> KeyKind {
        match self {
            Self::Recovery => KeyKind::Recovery,
            Self::Passphrase => KeyKind::Passphrase,
            Self::Tpm(_) => KeyKind::Tpm,
            Self::Network(_) => KeyKind::Network,
        }
    }

    fn is_met_by(&self, token: &Token) -> bool {
        match (self, token) {
            (Self::Recovery, Token::Recovery) | (Self::Passphrase, Token::Passphrase) => true,
            (Self::Tpm(pcrs), Token::Tpm(sealed)) => sealed.pcrs == *pcrs,
            (Self::Network(server), Token::Network(binding)) => {
                binding.url() == server.url && binding.is_signed_by(&server.thumbprints)
            }
            _ => false,
        }
    }
}

/// Decides. Tokens with the numbers in `stale` describe keys that do not open it any more. What somebody else put stays,
/// and so does the recovery key.
pub(crate) fn plan(header: &Header, wants: &[Want], stale: &[u32]) -> Result<Vec<Change>, Error> {
    let is_good = |held: &&Held| held.slot.is_some() && !stale.contains(&held.id);
    let mut kept: Vec<u32> = Vec::new();
    let mut taken: Vec<u32> = Vec::new();
    let mut changes = Vec::new();
    for want in wants {
        if let Some(held) = header.held.iter().filter(is_good).find(|held| want.is_met_by(&held.token)) {
            kept.push(held.id);
            continue;
        }
        let is_begun =
            |held: &&Held| held.is_ours && held.slot.is_none() && held.token.kind() == want.kind() && held.id < MOST;
        let begun = header.held.iter().filter(is_begun).find(|held| !taken.contains(&held.id));
        // What is cut short again and again must not take a slot each time.
        let begun = begun.filter(|held| !header.slots.contains(&held.id) || held.leftover == Some(held.id));
        let (number, leftover) = match begun {
            Some(held) => (held.id, held.leftover),
            None => (header.free(want.kind(), &taken).ok_or(Error::Full)?, None),
        };
        taken.push(number);
        changes.push(Change::Put { want: want.clone(), number, leftover });
    }
    let is_recovery = |held: &Held| held.slot.is_some() && held.token.kind() == KeyKind::Recovery;
    let unwanted = header
        .held
        .iter()
        .filter(|held| held.is_ours && !is_recovery(held) && !kept.contains(&held.id) && !taken.contains(&held.id));
    changes.extend(unwanted.map(|held| Change::Remove { id: held.id, slot: held.slot.or(held.leftover) }));
    Ok(changes)
}
