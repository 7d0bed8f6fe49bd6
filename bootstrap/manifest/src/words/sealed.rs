//! A secret that a machine's TPM keeps closed, as a text for its manifest.
//!
//! ```text
//! "KS1" ─ registers (3 bytes) ─ key ─ public ─ private ─ nonce ─ text, encrypted
//!         a bit for each        └── each behind its length ──┘   AES-256-GCM, by what the TPM keeps; all that stands
//!                                                                before it is authenticated with it
//! ```
//!
//! The key says what the secret is for: whoever may only change manifests cannot have it sent elsewhere by moving it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Word, WordError, WordFormat, from_str_by_word};

const MAGIC: &[u8; 3] = b"KS1";
const REGISTER_BYTES: usize = 3;
/// That of AES-GCM, and what it adds to a text.
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Twice what the longest secret takes.
const TEXT_CHARS: usize = 2 * super::SECRET_BYTES;

/// A secret that only one TPM gives out again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// The TPM's registers that must be as they were: a bit for each of the 24.
    pub pcrs: u32,
    /// What the secret is for.
    pub key: String,
    /// The TPM's object, its public part.
    pub public: Vec<u8>,
    /// Its private part, encrypted by the TPM.
    pub private: Vec<u8>,
    /// What the text was encrypted with, beside the key that the TPM keeps.
    pub nonce: [u8; NONCE_BYTES],
    /// The text, encrypted.
    pub text: Vec<u8>,
}

impl SealedSecret {
    /// All that stands before the text: what is authenticated with it.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let mut head = MAGIC.to_vec();
        head.extend(&self.pcrs.to_le_bytes()[..REGISTER_BYTES]);
        for part in [self.key.as_bytes(), &self.public, &self.private] {
            // No TPM's object and no path of a key is longer.
            head.extend(u16::try_from(part.len()).unwrap_or(u16::MAX).to_be_bytes());
            head.extend(part);
        }
        head.extend(self.nonce);
        head
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let registers: [u8; REGISTER_BYTES] = take(&mut rest, REGISTER_BYTES)?.try_into().ok()?;
        let key = String::from_utf8(sized(&mut rest)?).ok()?;
        let (public, private) = (sized(&mut rest)?, sized(&mut rest)?);
        let nonce = take(&mut rest, NONCE_BYTES)?.try_into().ok()?;
        let [first, second, third] = registers;
        let pcrs = u32::from_le_bytes([first, second, third, 0]);
        let is_whole = rest.len() > TAG_BYTES && pcrs != 0 && !key.contains(char::is_control);
        is_whole.then(|| Self { pcrs, key, public, private, nonce, text: rest.to_vec() })
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

/// What stands behind its length.
fn sized(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = take(rest, 2)?.try_into().map(u16::from_be_bytes).ok()?;
    take(rest, usize::from(length)).map(<[u8]>::to_vec)
}

impl fmt::Display for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.head();
        bytes.extend(&self.text);
        f.write_str(&STANDARD.encode(bytes))
    }
}

impl Word for SealedSecret {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "sealed secret",
        expected: "what `keelson secret seal KEY --endpoint MACHINE` printed, whole",
        pattern: Some("^[A-Za-z0-9+/\\s]+=*\\s*$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if text.len() > TEXT_CHARS {
            return Err(WordError::new(format!("it has {} characters, at most {TEXT_CHARS} are taken", text.len())));
        }
        // It may be written in several lines.
        let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = STANDARD.decode(text).map_err(|_damaged| WordError::new("it is not base64, or is cut off"))?;
        Self::parse(&bytes).ok_or_else(|| WordError::new("it is no sealed secret, or is cut off"))
    }
}
from_str_by_word!(SealedSecret);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn sealed() -> impl Strategy<Value = SealedSecret> {
        let parts = (1_u32..1 << 24, "[a-z.\"-]{0,30}", vec(any::<u8>(), 0..90), vec(any::<u8>(), 0..90));
        (parts, any::<[u8; 12]>(), vec(any::<u8>(), 17..80)).prop_map(|((pcrs, key, public, private), nonce, text)| {
            SealedSecret { pcrs, key, public, private, nonce, text }
        })
    }

    #[test]
    fn what_is_no_sealed_secret_is_told() {
        for (text, reason) in [
            ("hunter2!", "not base64"),
            ("", "no sealed secret"),
            ("S1Mx", "no sealed secret"),
            (&"A".repeat(TEXT_CHARS + 1), "at most"),
        ] {
            assert!(SealedSecret::parse_word(text).unwrap_err().reason.contains(reason), "{text:.10}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(sealed in sealed(), at in any::<prop::sample::Index>()) {
            let text = sealed.to_string();
            prop_assert_eq!(SealedSecret::parse_word(&text), Ok(sealed.clone()));
            let (before, after) = text.split_at(at.index(text.len()));
            prop_assert_eq!(SealedSecret::parse_word(&format!("\n{before}\n  {after}\n")), Ok(sealed));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}", bytes in vec(any::<u8>(), 0..120)) {
            drop(SealedSecret::parse_word(&text));
            let bytes = [&MAGIC[..], &bytes].concat();
            if let Ok(sealed) = SealedSecret::parse_word(&STANDARD.encode(&bytes)) {
                prop_assert_eq!([sealed.head(), sealed.text].concat(), bytes);
            }
        }
    }
}
