//! Signatures of updates.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ring::signature::{Ed25519KeyPair, KeyPair};

const SEED_BYTES: usize = 32;

/// A key that updates are signed with.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// From a file with 64 hexadecimal digits.
    ///
    /// # Errors
    /// It cannot be read, or is something else.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(text.trim()).with_context(|| format!("{} is no signing key", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        ensure!(text.is_ascii() && text.len() == 2 * SEED_BYTES, "it is not 64 hexadecimal digits");
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).context("it is not 64 hexadecimal digits");
        let seed = (0..SEED_BYTES).map(|at| byte(2 * at)).collect::<Result<Vec<u8>>>()?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed);
        Ok(Self(pair.map_err(|error| anyhow::anyhow!("the key is refused: {error}"))?))
    }

    /// What machines check signatures with.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// The signature in hexadecimal digits.
    #[must_use]
    pub fn sign(&self, content: &[u8]) -> String {
        stdx::hex(self.0.sign(content).as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ED25519, UnparsedPublicKey};

    #[test]
    fn what_is_signed_is_verified_by_the_public_half() {
        let key = SigningKey::parse(&"1f".repeat(32)).unwrap();
        let signature = key.sign(b"update");
        let bytes: Vec<u8> =
            (0..64).map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap()).collect();
        UnparsedPublicKey::new(&ED25519, key.public()).verify(b"update", &bytes).unwrap();
        for text in ["", "1f", &"zz".repeat(32)] {
            assert!(SigningKey::parse(text).is_err());
        }
    }
}
