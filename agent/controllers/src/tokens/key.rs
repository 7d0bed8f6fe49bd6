//! The key that signs tokens: RSA (RS256) or the curve P-256 (ES256).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::sign::{Signer, SigningKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Bytes of each of the two numbers of a P-256 signature.
const SCALAR: usize = 32;

/// Why a key does not sign.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("no private key in the PEM text")]
    NoKey,
    #[error("keys of this kind cannot sign tokens: RSA and P-256 can")]
    Unsupported,
    #[error("signing failed")]
    Sign(#[source] rustls::Error),
}

/// Signs tokens.
pub(crate) struct TokenKey {
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
    /// What verifiers find the key by.
    id: String,
}

impl TokenKey {
    pub(crate) fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::new(PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NoKey)?)
    }

    fn new(private: PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let key = rustls::crypto::ring::sign::any_supported_type(&private).map_err(|_| KeyError::Unsupported)?;
        let schemes = [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::ECDSA_NISTP256_SHA256];
        let scheme = schemes.into_iter().find(|scheme| key.choose_scheme(&[*scheme]).is_some());
        let id = key.public_key().map(|spki| URL_SAFE_NO_PAD.encode(Sha256::digest(spki.as_ref())));
        let (Some(scheme), Some(id)) = (scheme, id) else { return Err(KeyError::Unsupported) };
        Ok(Self { key, scheme, id })
    }

    /// The token of these claims.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String, KeyError> {
        let is_rsa = self.scheme == SignatureScheme::RSA_PKCS1_SHA256;
        let head = json!({"alg": if is_rsa { "RS256" } else { "ES256" }, "kid": self.id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&head), part(claims));
        let signer: Box<dyn Signer> = self.key.choose_scheme(&[self.scheme]).ok_or(KeyError::Unsupported)?;
        let mut signature = signer.sign(message.as_bytes()).map_err(KeyError::Sign)?;
        if !is_rsa {
            signature = fixed_size(&signature).ok_or(KeyError::Unsupported)?;
        }
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    #[cfg(test)]
    pub(crate) fn generate() -> Self {
        let pki = pki::Key::generate(&mut pki::os_random).unwrap();
        Self::from_pem(&pki.to_pem().unwrap()).unwrap()
    }
}

/// A signature as tokens carry it: both numbers one after the other, out of the DER sequence of two integers.
fn fixed_size(der: &[u8]) -> Option<Vec<u8>> {
    let [0x30, length, rest @ ..] = der else { return None };
    let mut rest = rest.get(..usize::from(*length))?;
    let mut out = Vec::with_capacity(2 * SCALAR);
    for _ in 0..2 {
        let [0x02, length, tail @ ..] = rest else { return None };
        let (number, tail) = tail.split_at_checked(usize::from(*length))?;
        let digits = number.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &number[first..]);
        out.resize(out.len() + SCALAR.checked_sub(digits.len())?, 0);
        out.extend_from_slice(digits);
        rest = tail;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_have_one_size() {
        let mut der = vec![0x30, 38, 0x02, 1, 7, 0x02, 33, 0];
        der.extend([0xff; 32]);
        let fixed = fixed_size(&der).unwrap();
        assert_eq!((fixed.len(), fixed[31], fixed[32]), (64, 7, 0xff));
        assert_eq!(fixed_size(&[0x30, 1, 0x02]), None);
    }

    #[test]
    fn a_token_has_three_parts() {
        let token = TokenKey::generate().sign(&json!({"sub": "a"})).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(URL_SAFE_NO_PAD.decode(parts[2]).unwrap().len(), 64);
        assert!(TokenKey::from_pem("no key").is_err());
    }
}
