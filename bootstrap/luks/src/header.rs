//! What the header of an encrypted partition says in the clear: its slots, and our tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use tpm::Pcrs;

use crate::token::{Raw, Token};

/// Slots and tokens that a header has room for.
pub(crate) const MOST: u32 = 32;

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// For the day on which nothing else opens it.
    Recovery,
    /// Somebody knows it.
    Passphrase,
    /// The machine's TPM gives it out.
    Tpm,
    /// A server of the network gives it back.
    Network,
}

impl KeyKind {
    /// The number that its slot and its token get if it is free. What is put in place of another takes a later one, and
    /// so does what there can be several of.
    fn first_number(self) -> u32 {
        self as u32
    }

    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Passphrase => "passphrase",
            Self::Tpm => "tpm",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that says something to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number.
    pub id: u32,
    /// What it says.
    pub token: Token,
    /// The slot whose key it describes; none where putting it, or taking it away, was cut short.
    pub slot: Option<u32>,
    /// A slot that was taken for it by then, and that nobody has a key of.
    pub leftover: Option<u32>,
    /// Whether it was put here by us.
    pub is_ours: bool,
}

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The numbers of the slots in use.
    pub slots: BTreeSet<u32>,
    /// The numbers of all tokens.
    pub ids: BTreeSet<u32>,
    /// Tokens that say something to us, by their numbers.
    pub held: Vec<Held>,
}

impl Header {
    /// Reads what cryptsetup tells as JSON.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Whole {
            keyslots: BTreeMap<u32, serde_json::Value>,
            tokens: BTreeMap<u32, serde_json::Value>,
        }
        // What it warns of stands before.
        let whole: Whole = serde_json::from_str(text.get(text.find('{').unwrap_or(0)..).unwrap_or_default())?;
        let slots = whole.keyslots.into_keys().collect();
        let ids = whole.tokens.keys().copied().collect();
        let read = |(id, raw)| Some((id, serde_json::from_value::<Raw>(raw).ok()?));
        Ok(Self::of(slots, ids, whole.tokens.into_iter().filter_map(read).collect()))
    }

    fn of(slots: BTreeSet<u32>, ids: BTreeSet<u32>, raw: Vec<(u32, Raw)>) -> Self {
        let described: BTreeSet<u32> = raw.iter().flat_map(|(_, raw)| raw.slots()).collect();
        let held = raw.into_iter().filter_map(|(id, raw)| {
            let slot = raw.slots().find(|slot| slots.contains(slot));
            let is_ours = raw.is_ours();
            let taken = raw.number().unwrap_or(id);
            let leftover = is_ours && slot.is_none() && slots.contains(&taken) && !described.contains(&taken);
            Some(Held { id, token: Token::from_raw(raw)?, slot, leftover: leftover.then_some(taken), is_ours })
        });
        Self { held: held.collect(), slots, ids }
    }

    /// Those whose key is there.
    pub fn whole(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(|held| held.slot.is_some())
    }

    /// Whether there is a whole key of this kind.
    #[must_use]
    pub fn has(&self, kind: KeyKind) -> bool {
        self.whole().any(|held| held.token.kind() == kind)
    }

    /// The registers that its TPM's key is sealed to, also if putting that key was cut short.
    #[must_use]
    pub fn pcrs(&self) -> Option<Pcrs> {
        self.held.iter().rev().find_map(|held| match &held.token {
            Token::Tpm(sealed) => Some(sealed.pcrs),
            Token::Recovery | Token::Passphrase | Token::Network(_) => None,
        })
    }

    /// The keys that servers give back.
    pub fn network(&self) -> impl Iterator<Item = &tang::Binding> {
        self.whole().filter_map(|held| match &held.token {
            Token::Network(binding) => Some(&**binding),
            Token::Recovery | Token::Passphrase | Token::Tpm(_) => None,
        })
    }

    /// A number that no slot and no token has, nor one of `taken`; `None` if there is none left.
    pub(crate) fn free(&self, kind: KeyKind, taken: &[u32]) -> Option<u32> {
        let is_free =
            |number: &u32| !self.slots.contains(number) && !self.ids.contains(number) && !taken.contains(number);
        let first = kind.first_number();
        std::iter::once(first).chain(KeyKind::Network.first_number()..MOST).find(is_free)
    }

    /// Its keys, for people.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let told = self.whole().map(|held| held.token.to_string());
        let is_told = |slot: &&u32| self.whole().any(|held| held.slot == Some(**slot));
        told.chain(self.slots.iter().filter(|slot| !is_told(slot)).map(|slot| format!("slot {slot}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tpm::Sealed;

    #[test]
    fn a_key_counts_once_its_slot_and_its_token_are_there() {
        let sealed = Sealed { public: vec![1, 2], private: vec![3], pcrs: Pcrs::try_new([7]).unwrap() };
        let token = Token::Tpm(sealed.clone());
        let (tpm, lost) = (token.to_json(2, true).unwrap(), token.to_json(2, false).unwrap());
        let recovery = Token::Recovery.to_json(0, true).unwrap();
        let text = format!(
            r#"a warning {{"keyslots":{{"1":{{}},"2":{{}},"9":{{}}}},
               "tokens":{{"0":{recovery},"2":{tpm},"7":{{"type":"clevis","keyslots":["9"],"jwe":{{}}}}}}}}"#
        );
        let header = Header::parse(&text).unwrap();
        assert_eq!(header.whole().map(|held| &held.token).collect::<Vec<_>>(), [&token]);
        assert_eq!((header.pcrs(), header.has(KeyKind::Recovery)), (Some(sealed.pcrs), false));
        assert_eq!(header.keys(), ["tpm", "slot 1", "slot 9"]);
        assert_eq!((header.free(KeyKind::Tpm, &[]), header.free(KeyKind::Network, &[3, 4])), (Some(3), Some(5)));
        assert!(Header::parse("no header").is_err());
        let lost = Header::parse(&format!(r#"{{"keyslots":{{"2":{{}}}},"tokens":{{"2":{lost}}}}}"#)).unwrap();
        assert_eq!((lost.has(KeyKind::Tpm), lost.pcrs(), lost.held[0].leftover), (false, Some(sealed.pcrs), Some(2)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}\":,a-z0-9 ]{0,80}", token in "[{}\":,a-z0-9 ]{0,80}") {
            Header::parse(&text).map(|header| header.keys()).ok();
            let token = format!(r#"{{"keyslots":{{"3":{{}}}},"tokens":{{"3":{{"type":"clevis",{token}}}}}}}"#);
            Header::parse(&token).map(|header| header.keys()).ok();
        }
    }
}
