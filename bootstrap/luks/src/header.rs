//! What the header of an encrypted partition says in the clear: its slots, and our tokens.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tpm::{Pcrs, Sealed};

/// A kind of key. Each has the slot, and the token, of its number; further slots are left to whoever makes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyKind {
    /// For the day on which nothing else opens it.
    Recovery = 0,
    /// Somebody knows it.
    Passphrase = 1,
    /// The machine's TPM gives it out.
    Tpm = 2,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Recovery, Self::Passphrase, Self::Tpm];

    /// Its slot.
    pub(crate) fn slot(self) -> String {
        (self as u8).to_string()
    }

    /// For people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Passphrase => "passphrase",
            Self::Tpm => "tpm",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a token of ours says of its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The key is with somebody.
    Recovery,
    /// The key is with somebody.
    Passphrase,
    /// The key as the TPM wrapped it.
    Tpm(Sealed),
}

impl Token {
    /// Of which kind of key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Recovery => KeyKind::Recovery,
            Self::Passphrase => KeyKind::Passphrase,
            Self::Tpm(_) => KeyKind::Tpm,
        }
    }
}

/// A token as it lies in the header.
#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "keelson-pcrs")]
    pcrs: Vec<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "keelson-public")]
    public: String,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "keelson-private")]
    private: String,
}

const PREFIX: &str = "keelson-";

impl Token {
    /// As it goes into the header.
    pub(crate) fn to_json(&self) -> serde_json::Result<String> {
        let kind = self.kind();
        let mut raw = Raw {
            kind: format!("{PREFIX}{kind}"),
            keyslots: vec![kind.slot()],
            pcrs: Vec::new(),
            public: String::new(),
            private: String::new(),
        };
        if let Self::Tpm(sealed) = self {
            raw.pcrs = sealed.pcrs.numbers().collect();
            raw.public = STANDARD.encode(&sealed.public);
            raw.private = STANDARD.encode(&sealed.private);
        }
        serde_json::to_string(&raw)
    }

    /// `None` of a token that is not one of ours, or makes no sense.
    fn from_raw(raw: &Raw) -> Option<Self> {
        match raw.kind.strip_prefix(PREFIX)? {
            "recovery" => Some(Self::Recovery),
            "passphrase" => Some(Self::Passphrase),
            "tpm" => Some(Self::Tpm(Sealed {
                public: STANDARD.decode(&raw.public).ok()?,
                private: STANDARD.decode(&raw.private).ok()?,
                pcrs: Pcrs::try_new(raw.pcrs.iter().copied()).ok()?,
            })),
            _ => None,
        }
    }
}

/// What the header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The numbers of the slots in use.
    pub slots: Vec<String>,
    /// Our tokens whose slot is in use.
    pub tokens: Vec<Token>,
    /// The registers that its TPM's key is sealed to, also if putting that key was cut short.
    pub pcrs: Option<Pcrs>,
}

impl Header {
    /// Reads what cryptsetup tells as JSON.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Whole {
            keyslots: BTreeMap<String, serde_json::Value>,
            tokens: BTreeMap<String, serde_json::Value>,
        }
        // What it warns of stands before.
        let whole: Whole = serde_json::from_str(text.get(text.find('{').unwrap_or(0)..).unwrap_or_default())?;
        let slots: Vec<String> = whole.keyslots.into_keys().collect();
        let mut header = Self { slots, ..Self::default() };
        for kind in KeyKind::ALL {
            let raw = whole.tokens.get(&kind.slot()).and_then(|raw| serde_json::from_value::<Raw>(raw.clone()).ok());
            let token = raw.as_ref().and_then(Token::from_raw).filter(|token| token.kind() == kind);
            let (Some(raw), Some(token)) = (raw, token) else { continue };
            if let Token::Tpm(sealed) = &token {
                header.pcrs = Some(sealed.pcrs);
            }
            if raw.keyslots == [kind.slot()] && header.slots.contains(&kind.slot()) {
                header.tokens.push(token);
            }
        }
        Ok(header)
    }

    /// Whether there is a whole key of this kind.
    #[must_use]
    pub fn has(&self, kind: KeyKind) -> bool {
        self.tokens.iter().any(|token| token.kind() == kind)
    }

    /// What the TPM wrapped.
    #[must_use]
    pub fn sealed(&self) -> Option<&Sealed> {
        self.tokens.iter().find_map(|token| match token {
            Token::Tpm(sealed) => Some(sealed),
            Token::Recovery | Token::Passphrase => None,
        })
    }

    /// The kinds of its keys, for people.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let ours = self.tokens.iter().map(|token| token.kind().to_string());
        let is_ours = |slot: &&String| self.tokens.iter().any(|token| token.kind().slot() == **slot);
        ours.chain(self.slots.iter().filter(|slot| !is_ours(slot)).map(|slot| format!("slot {slot}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_counts_once_its_slot_and_its_token_are_there() {
        let sealed = Sealed { public: vec![1, 2], private: vec![3], pcrs: Pcrs::try_new([7]).unwrap() };
        let tpm = Token::Tpm(sealed.clone()).to_json().unwrap();
        let recovery = Token::Recovery.to_json().unwrap();
        let text = format!(
            r#"a warning {{"keyslots":{{"1":{{}},"2":{{}},"9":{{}}}},
               "tokens":{{"0":{recovery},"2":{tpm},"7":{{"type":"clevis","keyslots":["9"],"jwe":{{}}}}}}}}"#
        );
        let header = Header::parse(&text).unwrap();
        assert_eq!(header.tokens, [Token::Tpm(sealed.clone())]);
        assert_eq!((header.sealed(), header.has(KeyKind::Recovery)), (Some(&sealed), false));
        assert_eq!(header.keys(), ["tpm", "slot 1", "slot 9"]);
        assert_eq!(header.pcrs, Some(sealed.pcrs));
        assert!(Header::parse("no header").is_err());
        let lost = format!(r#"{{"keyslots":{{"1":{{}}}},"tokens":{{"2":{tpm}}}}}"#);
        let lost = Header::parse(&lost).unwrap();
        assert_eq!((lost.sealed(), lost.pcrs), (None, Some(sealed.pcrs)));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}\":,a-z0-9 ]{0,80}") {
            Header::parse(&text).map(|header| header.keys()).ok();
        }
    }
}
