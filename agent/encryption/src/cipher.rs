//! The algorithms: what lies behind a provider's and a key's name.

use aes::{Aes128, Aes192, Aes256};
use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{AesGcm, KeyInit as _};
use cbc::cipher::block_padding::{NoPadding, Pkcs7};
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _};
use crypto_secretbox::XSalsa20Poly1305;

use crate::provider::TransformError;

/// Bytes of AES's block, and so of what it is started with.
const BLOCK: usize = 16;
/// Bytes that make two encryptions by one key differ.
const GCM_NONCE: usize = 12;
const SECRETBOX_NONCE: usize = 24;

/// A key with its algorithm.
pub(crate) enum Cipher {
    Cbc(CbcKey),
    Gcm(Box<GcmKey>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// A key of AES in one of its sizes.
pub(crate) enum CbcKey {
    Short([u8; 16]),
    Middle([u8; 24]),
    Long([u8; 32]),
}

pub(crate) enum GcmKey {
    Short(AesGcm<Aes128, U12>),
    Middle(AesGcm<Aes192, U12>),
    Long(AesGcm<Aes256, U12>),
}

impl Cipher {
    /// AES in CBC mode; nothing for a key of another length.
    pub(crate) fn cbc(key: &[u8]) -> Option<Self> {
        Some(Self::Cbc(match key.len() {
            16 => CbcKey::Short(key.try_into().ok()?),
            24 => CbcKey::Middle(key.try_into().ok()?),
            32 => CbcKey::Long(key.try_into().ok()?),
            _ => return None,
        }))
    }

    /// AES in GCM mode; nothing for a key of another length.
    pub(crate) fn gcm(key: &[u8]) -> Option<Self> {
        Some(Self::Gcm(Box::new(match key.len() {
            16 => GcmKey::Short(AesGcm::new_from_slice(key).ok()?),
            24 => GcmKey::Middle(AesGcm::new_from_slice(key).ok()?),
            32 => GcmKey::Long(AesGcm::new_from_slice(key).ok()?),
            _ => return None,
        })))
    }

    /// XSalsa20 with Poly1305; nothing for a key of another length.
    pub(crate) fn secretbox(key: &[u8]) -> Option<Self> {
        Some(Self::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(key).ok()?)))
    }

    /// Encrypts what lies at `place`.
    pub(crate) fn seal(&self, plain: &[u8], place: &[u8]) -> Result<Vec<u8>, TransformError> {
        match self {
            Self::Cbc(key) => Ok(key.seal(plain)),
            Self::Gcm(key) => {
                let nonce: [u8; GCM_NONCE] = rand::random();
                let sealed = key.seal(&nonce, Payload { msg: plain, aad: place }).ok_or(TransformError::Seal)?;
                Ok([&nonce[..], &sealed].concat())
            }
            Self::Secretbox(key) => {
                let nonce: [u8; SECRETBOX_NONCE] = rand::random();
                let sealed = key.encrypt(&nonce.into(), plain).map_err(|_| TransformError::Seal)?;
                Ok([&nonce[..], &sealed].concat())
            }
        }
    }

    /// Decrypts what lies at `place`.
    pub(crate) fn open(&self, data: &[u8], place: &[u8]) -> Result<Vec<u8>, TransformError> {
        match self {
            Self::Cbc(key) => key.open(data),
            Self::Gcm(key) => {
                let (nonce, sealed) = data.split_first_chunk::<GCM_NONCE>().ok_or(TransformError::TooShort)?;
                key.open(nonce, Payload { msg: sealed, aad: place }).ok_or(TransformError::Authentication)
            }
            Self::Secretbox(key) => {
                let (nonce, sealed) = data.split_first_chunk::<SECRETBOX_NONCE>().ok_or(TransformError::TooShort)?;
                key.decrypt(&(*nonce).into(), sealed).map_err(|_| TransformError::Secretbox)
            }
        }
    }
}

impl CbcKey {
    fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let iv: [u8; BLOCK] = rand::random();
        let start = (&iv).into();
        let sealed = match self {
            Self::Short(key) => cbc::Encryptor::<Aes128>::new(key.into(), start).encrypt_padded_vec_mut::<Pkcs7>(plain),
            Self::Middle(key) => {
                cbc::Encryptor::<Aes192>::new(key.into(), start).encrypt_padded_vec_mut::<Pkcs7>(plain)
            }
            Self::Long(key) => cbc::Encryptor::<Aes256>::new(key.into(), start).encrypt_padded_vec_mut::<Pkcs7>(plain),
        };
        [&iv[..], &sealed].concat()
    }

    fn open(&self, data: &[u8]) -> Result<Vec<u8>, TransformError> {
        let (iv, sealed) = data.split_first_chunk::<BLOCK>().ok_or(TransformError::TooShort)?;
        if sealed.len() % BLOCK != 0 {
            return Err(TransformError::BlockSize);
        }
        let start = iv.into();
        let opened = match self {
            Self::Short(key) => {
                cbc::Decryptor::<Aes128>::new(key.into(), start).decrypt_padded_vec_mut::<NoPadding>(sealed)
            }
            Self::Middle(key) => {
                cbc::Decryptor::<Aes192>::new(key.into(), start).decrypt_padded_vec_mut::<NoPadding>(sealed)
            }
            Self::Long(key) => {
                cbc::Decryptor::<Aes256>::new(key.into(), start).decrypt_padded_vec_mut::<NoPadding>(sealed)
            }
        };
        let mut plain = opened.map_err(|_| TransformError::BlockSize)?;
        // What pads the last block says how much of it there is; upstream takes more than a block of it too.
        let padding = usize::from(*plain.last().ok_or(TransformError::NoPadding)?);
        if padding == 0 || padding > plain.len() {
            return Err(TransformError::NoPadding);
        }
        let len = plain.len() - padding;
        if plain[len..].iter().any(|byte| usize::from(*byte) != padding) {
            return Err(TransformError::Padding);
        }
        plain.truncate(len);
        Ok(plain)
    }
}

impl GcmKey {
    fn seal(&self, nonce: &[u8; GCM_NONCE], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        match self {
            Self::Short(key) => key.encrypt(nonce.into(), payload),
            Self::Middle(key) => key.encrypt(nonce.into(), payload),
            Self::Long(key) => key.encrypt(nonce.into(), payload),
        }
        .ok()
    }

    fn open(&self, nonce: &[u8; GCM_NONCE], payload: Payload<'_, '_>) -> Option<Vec<u8>> {
        match self {
            Self::Short(key) => key.decrypt(nonce.into(), payload),
            Self::Middle(key) => key.decrypt(nonce.into(), payload),
            Self::Long(key) => key.decrypt(nonce.into(), payload),
        }
        .ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ciphers() -> Vec<Cipher> {
        let key: Vec<u8> = (0..32).collect();
        let mut all = vec![Cipher::secretbox(&key).unwrap()];
        for len in [16, 24, 32] {
            all.push(Cipher::cbc(&key[..len]).unwrap());
            all.push(Cipher::gcm(&key[..len]).unwrap());
        }
        all
    }

    #[test]
    fn keys_of_other_lengths_are_refused() {
        for len in [0, 15, 17, 31, 33] {
            let key = vec![0; len];
            assert!(Cipher::cbc(&key).is_none() && Cipher::gcm(&key).is_none() && Cipher::secretbox(&key).is_none());
        }
    }

    #[test]
    fn what_is_bound_to_its_place_cannot_be_read_elsewhere() {
        let cipher = Cipher::gcm(&[7; 32]).unwrap();
        let sealed = cipher.seal(b"value", b"/registry/secrets/a/x").unwrap();
        assert_eq!(cipher.open(&sealed, b"/registry/secrets/a/y"), Err(TransformError::Authentication));
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_and_nothing_else_does(plain in prop::collection::vec(any::<u8>(), 0..200), flip in any::<usize>()) {
            for cipher in ciphers() {
                let mut sealed = cipher.seal(&plain, b"/a").unwrap();
                prop_assert_eq!(cipher.open(&sealed, b"/a").unwrap(), plain.clone());
                let at = flip % sealed.len();
                sealed[at] ^= 1;
                prop_assert_ne!(cipher.open(&sealed, b"/a").ok(), Some(plain.clone()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..100)) {
            for cipher in ciphers() {
                let _either_way = cipher.open(&data, b"/a").is_ok();
            }
        }
    }
}
