//! What opens a partition.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::Error;

const RANDOM_BYTES: usize = 32;
/// Digits of a recovery key, five bits each: none is taken for another.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const RECOVERY_GROUPS: usize = 6;
const GROUP_DIGITS: usize = 8;

/// What opens a partition. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

impl Key {
    /// These bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What a person typed, without the end of the line.
    #[must_use]
    pub fn typed(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).as_bytes().to_vec())
    }

    /// What a server gave back.
    #[must_use]
    pub fn fetched(secret: &tang::Secret) -> Self {
        Self(secret.as_str().as_bytes().to_vec())
    }

    /// One that nobody guesses.
    ///
    /// # Errors
    /// There is no source of randomness.
    pub fn random() -> Result<Self, Error> {
        let mut bytes = vec![0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| Error::Random)?;
        Ok(Self(bytes))
    }

    /// One that nobody guesses, and that can be written down and typed.
    ///
    /// # Errors
    /// There is no source of randomness.
    pub fn recovery() -> Result<Self, Error> {
        let mut bytes = [0; RECOVERY_GROUPS * GROUP_DIGITS];
        SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| Error::Random)?;
        let digits: Vec<u8> = bytes.iter().map(|byte| DIGITS[usize::from(byte & 31)]).collect();
        Ok(Self(digits.chunks(GROUP_DIGITS).collect::<Vec<_>>().join(&b'-')))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_key_can_be_typed_and_is_not_shown() {
        let key = Key::recovery().unwrap();
        let text = String::from_utf8(key.bytes().to_vec()).unwrap();
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8; 6]);
        assert_eq!((Key::typed(&format!("{text}\r\n")), format!("{key:?}")), (key.clone(), "Key(***)".to_owned()));
        assert_ne!(Key::recovery().unwrap(), key);
    }
}
