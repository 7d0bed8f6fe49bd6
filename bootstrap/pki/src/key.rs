//! Key pairs.

use std::fmt;

use p256::SecretKey;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::hkdf;

use crate::Error;

/// A source of random bytes.
pub type Random<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<(), Error>;

/// The salt binds derived keys to this use. Changing it changes every cluster's CAs.
const DERIVATION_SALT: &[u8] = b"keelson cluster secret 1";
/// A candidate is no scalar of the curve about once in 2^32 times.
const DERIVATION_TRIES: u8 = 8;
const SCALAR_BYTES: usize = 32;

/// The operating system's random bytes.
///
/// # Errors
/// If the kernel has none.
pub fn os_random(bytes: &mut [u8]) -> Result<(), Error> {
    use ring::rand::{SecureRandom, SystemRandom};
    SystemRandom::new().fill(bytes).map_err(|_unspecified| Error::Random)
}

/// A new bootstrap token, `id.secret`.
///
/// # Errors
/// If no random bytes can be had.
pub fn random_token(random: Random<'_>) -> Result<String, Error> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    const TOKEN_CHARS: usize = 22;
    const ID_CHARS: usize = 6;
    let mut token = String::with_capacity(TOKEN_CHARS + 1);
    while token.len() <= TOKEN_CHARS {
        let mut byte = [0];
        random(&mut byte)?;
        // Only multiples of 36 are taken, so that every character is equally likely.
        if let 0..252 = byte[0] {
            if token.len() == ID_CHARS {
                token.push('.');
            }
            token.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(token)
}

/// A private key with its public key. `Debug` does not show it.
pub struct Key(Inner);

enum Inner {
    P256 {
        secret: SecretKey,
        public_point: Vec<u8>,
    },
    /// A key of another kind, made by somebody else, such as an RSA key of kubeadm's.
    Foreign(Box<KeyPair>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl Key {
    /// A new P-256 key from random bytes.
    ///
    /// # Errors
    /// If no random bytes can be had.
    pub fn generate(random: Random<'_>) -> Result<Self, Error> {
        for _ in 0..DERIVATION_TRIES {
            let mut scalar = [0; SCALAR_BYTES];
            random(&mut scalar)?;
            if let Ok(secret) = SecretKey::from_slice(&scalar) {
                return Ok(Self::p256(secret));
            }
        }
        Err(Error::Random)
    }

    /// The P-256 key that a secret gives for a label; the same on every machine.
    ///
    /// # Errors
    /// Never for real secrets; the derivation would have to miss the curve eight times.
    pub fn derive(secret: &[u8; 32], label: &str) -> Result<Self, Error> {
        for attempt in 0..DERIVATION_TRIES {
            let scalar = derive_bytes(secret, label, attempt)?;
            if let Ok(secret) = SecretKey::from_slice(&scalar) {
                return Ok(Self::p256(secret));
            }
        }
        Err(Error::Random)
    }

    fn p256(secret: SecretKey) -> Self {
        let public_point = secret.public_key().to_encoded_point(false).as_bytes().to_vec();
        Self(Inner::P256 { secret, public_point })
    }

    /// Reads a key: P-256 as PKCS #8 or SEC 1, other kinds as PKCS #8. `name` is only used in the error.
    ///
    /// # Errors
    /// If the text is no such key.
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, Error> {
        let secret = p256::pkcs8::DecodePrivateKey::from_pkcs8_pem(pem).ok();
        let secret = secret.or_else(|| SecretKey::from_sec1_pem(pem).ok());
        match secret {
            Some(secret) => Ok(Self::p256(secret)),
            None => match KeyPair::from_pem(pem) {
                Ok(pair) => Ok(Self(Inner::Foreign(Box::new(pair)))),
                Err(_) => Err(Error::Key { name: name.to_owned() }),
            },
        }
    }

    /// The private key as PKCS #8 in PEM.
    ///
    /// # Errors
    /// Never for keys that could be made or read.
    pub fn to_pem(&self) -> Result<String, Error> {
        match &self.0 {
            Inner::P256 { secret, .. } => {
                let pem = secret.to_pkcs8_pem(LineEnding::LF);
                pem.map(|pem| pem.to_string()).map_err(|_encoding| Error::Key { name: "to write".to_owned() })
            }
            Inner::Foreign(pair) => Ok(pair.serialize_pem()),
        }
    }

    /// The public key as SubjectPublicKeyInfo in PEM.
    ///
    /// # Errors
    /// Never for keys that could be made or read.
    pub fn public_pem(&self) -> Result<String, Error> {
        match &self.0 {
            Inner::P256 { secret, .. } => {
                let pem = secret.public_key().to_public_key_pem(LineEnding::LF);
                pem.map_err(|_encoding| Error::Key { name: "to write".to_owned() })
            }
            Inner::Foreign(pair) => Ok(pair.public_key_pem()),
        }
    }

    /// The public key as SubjectPublicKeyInfo in DER.
    #[must_use]
    pub fn public_der(&self) -> Vec<u8> {
        self.subject_public_key_info()
    }
}

/// 32 bytes for a label, by HKDF with SHA-256.
pub(crate) fn derive_bytes(secret: &[u8; 32], label: &str, attempt: u8) -> Result<[u8; 32], Error> {
    struct Length;
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            SCALAR_BYTES
        }
    }
    let key = hkdf::Salt::new(hkdf::HKDF_SHA256, DERIVATION_SALT).extract(secret);
    let mut bytes = [0; SCALAR_BYTES];
    let info = [label.as_bytes(), &[0, attempt]];
    let expanded = key.expand(&info, Length).and_then(|material| material.fill(&mut bytes));
    expanded.map_err(|_unspecified| Error::Random)?;
    Ok(bytes)
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        match &self.0 {
            Inner::P256 { public_point, .. } => public_point,
            Inner::Foreign(pair) => pair.der_bytes(),
        }
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match &self.0 {
            Inner::P256 { .. } => &PKCS_ECDSA_P256_SHA256,
            Inner::Foreign(pair) => pair.algorithm(),
        }
    }
}

impl rcgen::SigningKey for Key {
    /// P-256 signatures are deterministic (RFC 6979), so that masters derive the same CA certificates.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        match &self.0 {
            Inner::P256 { secret, .. } => {
                let signature: DerSignature = SigningKey::from(secret).sign(message);
                Ok(signature.as_bytes().to_vec())
            }
            Inner::Foreign(pair) => pair.sign(message),
        }
    }
}
