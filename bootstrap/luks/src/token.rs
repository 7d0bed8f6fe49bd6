//! What a token says of the key in a slot: how whoever has it, or the machine, gets at it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tang::Binding;
use tpm::{Pcrs, Sealed};

use crate::header::KeyKind;

/// What a token of ours says of its slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The key is with somebody.
    Recovery,
    /// The key is with somebody.
    Passphrase,
    /// The key as the TPM wrapped it.
    Tpm(Sealed),
    /// The key as it was sealed for a server.
    Network(Box<Binding>),
}

impl Token {
    /// Of which kind of key.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        match self {
            Self::Recovery => KeyKind::Recovery,
            Self::Passphrase => KeyKind::Passphrase,
            Self::Tpm(_) => KeyKind::Tpm,
            Self::Network(_) => KeyKind::Network,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(binding) => write!(f, "{} {}", self.kind(), binding.url()),
            Self::Recovery | Self::Passphrase | Self::Tpm(_) => self.kind().fmt(f),
        }
    }
}

/// A token as it lies in the header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Raw {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    /// The number of the slot, also before the key is in it. Clevis takes no notice of it.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "keelson-slot")]
    number: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "keelson-pcrs")]
    pcrs: Vec<u32>,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "keelson-public")]
    public: String,
    #[serde(default, skip_serializing_if = "String::is_empty", rename = "keelson-private")]
    private: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwe: Option<serde_json::Value>,
}

const PREFIX: &str = "keelson-";
/// What Clevis calls its own, so that it opens a partition of ours on any other system.
const CLEVIS: &str = "clevis";

impl Raw {
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> {
        self.keyslots.iter().filter_map(|slot| slot.parse().ok())
    }

    pub(crate) fn number(&self) -> Option<u32> {
        self.number
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.kind.starts_with(PREFIX) || self.number.is_some()
    }
}

impl Token {
    /// As it goes into the header, for the slot of this number, with the key in it or not yet.
    pub(crate) fn to_json(&self, number: u32, is_whole: bool) -> serde_json::Result<String> {
        let mut raw = Raw {
            kind: format!("{PREFIX}{}", self.kind()),
            keyslots: if is_whole { vec![number.to_string()] } else { Vec::new() },
            number: Some(number),
            pcrs: Vec::new(),
            public: String::new(),
            private: String::new(),
            jwe: None,
        };
        match self {
            Self::Recovery | Self::Passphrase => {}
            Self::Tpm(sealed) => {
                raw.pcrs = sealed.pcrs.numbers().collect();
                raw.public = STANDARD.encode(&sealed.public);
                raw.private = STANDARD.encode(&sealed.private);
            }
            Self::Network(binding) => {
                raw.kind = CLEVIS.to_owned();
                raw.jwe = Some(serde_json::to_value(binding)?);
            }
        }
        serde_json::to_string(&raw)
    }

    /// `None` of a token that says nothing to us, or makes no sense.
    pub(crate) fn from_raw(raw: Raw) -> Option<Self> {
        if raw.kind == CLEVIS {
            return serde_json::from_value(raw.jwe?).ok().map(Box::new).map(Self::Network);
        }
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
