//! Secrets that a machine's TPM keeps closed. A TPM takes little, so that it gets a key, and the key seals the text.

use manifest::{SealedSecret, SecretText, WordError};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use tpm::{Pcrs, Sealed, Sealer};

const KEY_BYTES: usize = 32;

/// Why a secret is not sealed, or not opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// There is no such key of a manifest.
    #[error("`{0}` is no key of a secret")]
    Key(String),
    /// The text is not what the key takes.
    #[error("`{key}` does not take this")]
    Text {
        /// The key.
        key: String,
        /// Why.
        source: WordError,
    },
    /// It was damaged.
    #[error("what was sealed is damaged")]
    Damaged(#[source] WordError),
    /// It is for another key.
    #[error("this was sealed for `{0}`, and is not given out for another key")]
    Elsewhere(String),
    /// It was changed after it was sealed.
    #[error("what was sealed was changed since")]
    Changed,
    /// The TPM gives nothing.
    #[error("the TPM")]
    Tpm(#[from] tpm::Error),
    /// There is no randomness.
    #[error("no random bytes can be had")]
    Random,
}

/// Seals a secret for a key of the manifest of the machine that has this TPM.
///
/// # Errors
/// The key is none of a secret, does not take this text, or the TPM refuses.
pub fn seal(tpm: &dyn Sealer, path: &str, text: &SecretText, pcrs: Pcrs) -> Result<SealedSecret, SealError> {
    let key = manifest::key_of_secret(path).ok_or_else(|| SealError::Key(path.to_owned()))?;
    manifest::check_secret(path, text.as_str()).map_err(|source| SealError::Text { key: key.clone(), source })?;
    let (mut secret, mut nonce) = ([0; KEY_BYTES], [0; 12]);
    let random = SystemRandom::new();
    random.fill(&mut secret).and_then(|()| random.fill(&mut nonce)).map_err(|_unspecified| SealError::Random)?;
    let Sealed { public, private, .. } = tpm.seal(&secret, pcrs)?;
    let pcrs = pcrs.numbers().fold(0, |mask, number| mask | 1 << number);
    let mut sealed = SealedSecret { pcrs, key, public, private, nonce, text: text.as_str().as_bytes().to_vec() };
    let head = Aad::from(sealed.head());
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(&secret)?.seal_in_place_append_tag(nonce, head, &mut sealed.text).map_err(|_long| SealError::Random)?;
    Ok(sealed)
}

/// Opens what was sealed for a key.
///
/// # Errors
/// It is for another key or another TPM, was changed, or the TPM refuses.
pub fn open(tpm: &dyn Sealer, key: &str, blob: &str) -> Result<Vec<u8>, SealError> {
    let mut sealed: SealedSecret = blob.parse().map_err(SealError::Damaged)?;
    if sealed.key != key {
        return Err(SealError::Elsewhere(sealed.key));
    }
    let pcrs = Pcrs::try_new((0..24).filter(|number| sealed.pcrs & 1 << number != 0))?;
    let object = Sealed { public: sealed.public.clone(), private: sealed.private.clone(), pcrs };
    let secret = tpm.unseal(&object)?;
    let (head, nonce) = (Aad::from(sealed.head()), Nonce::assume_unique_for_key(sealed.nonce));
    let text = cipher(&secret)?.open_in_place(nonce, head, &mut sealed.text).map_err(|_bad| SealError::Changed)?;
    Ok(text.to_vec())
}

fn cipher(secret: &[u8]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, secret).map(LessSafeKey::new).map_err(|_length| SealError::Changed)
}
