//! Keys that sign and verify tokens, and their JSON form.
//!
//! RSA (RS256) and the NIST curves (ES256, ES384), as PEM: private keys in PKCS#1, SEC1 or PKCS#8, public keys as
//! such, in PKCS#1, or in a certificate. The cryptography is that of the TLS stack.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::sign::SigningKey as TlsKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::jws::{Compact, Curve, Key};

/// Why key material is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text holds no PEM block of a kind that is known.
    #[error("no key found: expected a PEM block with a private key, a public key or a certificate")]
    NoKey,
    /// The text is not PEM.
    #[error("the PEM text cannot be read")]
    Pem,
    /// The block's content is not what its label says.
    #[error("the {label} block cannot be read")]
    Malformed {
        /// The block's label.
        label: String,
    },
    /// Neither RSA nor a curve that tokens are signed with.
    #[error("keys of this kind cannot sign tokens: RSA, P-256 and P-384 can, and P-521 verifies them")]
    Unsupported,
    /// The key refused to sign.
    #[error("signing failed")]
    Sign(#[source] rustls::Error),
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS#1 v1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512; only for tokens that others sign.
    Es512,
}

impl Algorithm {
    /// Its name in token headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
        }
    }

    fn scheme(self) -> SignatureScheme {
        match self {
            Self::Rs256 => SignatureScheme::RSA_PKCS1_SHA256,
            Self::Es256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::Es384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Es512 => SignatureScheme::ECDSA_NISTP521_SHA512,
        }
    }

    /// The curve of its keys.
    fn curve(self) -> Option<Curve> {
        match self {
            Self::Rs256 => None,
            Self::Es256 => Some(Curve::P256),
            Self::Es384 => Some(Curve::P384),
            Self::Es512 => Some(Curve::P521),
        }
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey {
    key: Arc<dyn TlsKey>,
    public: VerifyKey,
}

impl SigningKey {
    /// The first private key of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        for block in blocks(pem)? {
            if let Some(private) = private_key(&block) {
                return Self::new(&block.label, private);
            }
        }
        Err(KeyError::NoKey)
    }

    fn new(label: &str, private: PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed { label: label.to_owned() };
        let key = rustls::crypto::ring::sign::any_supported_type(&private).map_err(|_| malformed())?;
        let public = VerifyKey::from_spki(key.public_key().ok_or_else(malformed)?.as_ref())?;
        Ok(Self { key, public })
    }

    /// The other half.
    #[must_use]
    pub fn public(&self) -> &VerifyKey {
        &self.public
    }

    /// The signature of a message in the form that tokens carry.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signer = self.key.choose_scheme(&[self.public.algorithm.scheme()]).ok_or(KeyError::Unsupported)?;
        let signature = signer.sign(message).map_err(KeyError::Sign)?;
        match self.public.algorithm.curve() {
            None => Ok(signature),
            Some(curve) => der_to_fixed(&signature, curve.bytes()).ok_or(KeyError::Unsupported),
        }
    }
}

/// A key that verifies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyKey {
    /// The name that tokens refer to it by.
    pub id: String,
    /// What it is published for.
    pub algorithm: Algorithm,
    key: Key,
}

impl VerifyKey {
    /// All keys of a PEM text; of private keys the public half.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for block in blocks(pem)? {
            if let Some(private) = private_key(&block) {
                keys.push(SigningKey::new(&block.label, private)?.public);
                continue;
            }
            match block.label.as_str() {
                "PUBLIC KEY" => keys.push(Self::from_spki(&block.contents)?),
                "RSA PUBLIC KEY" => keys.push(Self::from_spki(&wrap_rsa(&block.contents))?),
                "CERTIFICATE" => keys.push(Self::from_certificate(&block)?),
                _ => {}
            }
        }
        if keys.is_empty() { Err(KeyError::NoKey) } else { Ok(keys) }
    }

    fn from_certificate(block: &Pem) -> Result<Self, KeyError> {
        let certificate = block.parse_x509().map_err(|_| KeyError::Malformed { label: block.label.clone() })?;
        Self::from_spki(certificate.public_key().raw)
    }

    fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let malformed = || KeyError::Malformed { label: "PUBLIC KEY".to_owned() };
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| malformed())?;
        let (algorithm, key) = match info.parsed().map_err(|_| malformed())? {
            PublicKey::RSA(key) => {
                let (modulus, exponent) = (strip_zeros(key.modulus).to_vec(), strip_zeros(key.exponent).to_vec());
                (Algorithm::Rs256, Key::Rsa { modulus, exponent })
            }
            PublicKey::EC(point) => {
                let fits = |algorithm: &Algorithm| {
                    algorithm.curve().is_some_and(|curve| point.data().len() == 1 + 2 * curve.bytes())
                };
                let all = [Algorithm::Es256, Algorithm::Es384, Algorithm::Es512];
                let algorithm = all.into_iter().find(fits).ok_or(KeyError::Unsupported)?;
                let curve = algorithm.curve().ok_or(KeyError::Unsupported)?;
                (algorithm, Key::Point { curve, point: point.data().to_vec() })
            }
            _ => return Err(KeyError::Unsupported),
        };
        Ok(Self { id: URL_SAFE_NO_PAD.encode(Sha256::digest(spki)), algorithm, key })
    }

    /// Whether a token was signed by this key.
    pub(super) fn signed(&self, token: &Compact<'_>) -> bool {
        token.is_signed_by(&self.key)
    }

    /// The key as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (id, algorithm) = (&self.id, self.algorithm.name());
        match &self.key {
            Key::Rsa { modulus, exponent } => json!({
                "use": "sig", "kty": "RSA", "kid": id, "alg": algorithm,
                "n": encode(modulus), "e": encode(exponent),
            }),
            Key::Point { curve, point } => {
                let (x, y) = point.get(1..).unwrap_or_default().split_at(curve.bytes());
                json!({
                    "use": "sig", "kty": "EC", "kid": id, "crv": curve.name(), "alg": algorithm,
                    "x": encode(x), "y": encode(y),
                })
            }
            Key::Other => json!({}),
        }
    }
}

fn blocks(pem: &[u8]) -> Result<Vec<Pem>, KeyError> {
    Pem::iter_from_buffer(pem).collect::<Result<_, _>>().map_err(|_| KeyError::Pem)
}

fn private_key(block: &Pem) -> Option<PrivateKeyDer<'_>> {
    let der = &block.contents[..];
    match block.label.as_str() {
        "RSA PRIVATE KEY" => Some(PrivatePkcs1KeyDer::from(der).into()),
        "EC PRIVATE KEY" => Some(PrivateSec1KeyDer::from(der).into()),
        "PRIVATE KEY" => Some(PrivatePkcs8KeyDer::from(der).into()),
        _ => None,
    }
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|&&byte| byte == 0).count()..]
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// `AlgorithmIdentifier` of plain RSA.
const RSA_ALGORITHM: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

fn wrap_rsa(pkcs1: &[u8]) -> Vec<u8> {
    let mut bits = vec![0];
    bits.extend_from_slice(pkcs1);
    let mut content = RSA_ALGORITHM.to_vec();
    content.extend(der(BIT_STRING, &bits));
    der(SEQUENCE, &content)
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = strip_zeros(&length);
    let mut out = vec![tag];
    match (length, u8::try_from(length.len())) {
        ([], _) => out.push(0),
        ([short], _) if *short < 0x80 => out.push(*short),
        (long, Ok(count)) => {
            out.push(0x80 | count);
            out.extend_from_slice(long);
        }
        (_, Err(_)) => {}
    }
    out.extend_from_slice(content);
    out
}

fn der_to_fixed(signature: &[u8], scalar_bytes: usize) -> Option<Vec<u8>> {
    let (content, _) = read_der(SEQUENCE, signature)?;
    let (r, rest) = read_der(INTEGER, content)?;
    let (s, _) = read_der(INTEGER, rest)?;
    let mut fixed = Vec::with_capacity(2 * scalar_bytes);
    for number in [strip_zeros(r), strip_zeros(s)] {
        fixed.resize(fixed.len() + scalar_bytes.checked_sub(number.len())?, 0);
        fixed.extend_from_slice(number);
    }
    Some(fixed)
}

/// The content of the first element, which has this tag and a length below 128, and what follows it.
fn read_der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = bytes.split_first_chunk::<2>()?;
    (found == tag && length < 0x80).then(|| rest.split_at_checked(usize::from(length)))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Compact, SigningKey, VerifyKey};

    const KEYS: [(&str, &str, &str); 7] = [
        ("rsa-pkcs1", include_str!("testdata/rsa-pkcs1.pem"), "RS256"),
        ("rsa-pkcs8", include_str!("testdata/rsa-pkcs8.pem"), "RS256"),
        ("p256-sec1", include_str!("testdata/p256-sec1.pem"), "ES256"),
        ("p256-pkcs8", include_str!("testdata/p256-pkcs8.pem"), "ES256"),
        ("p256-sec1 with parameters", include_str!("testdata/p256-params.pem"), "ES256"),
        ("p384-sec1", include_str!("testdata/p384-sec1.pem"), "ES384"),
        ("p384-pkcs8", include_str!("testdata/p384-pkcs8.pem"), "ES384"),
    ];

    #[test]
    fn every_private_key_form_signs_what_its_public_half_verifies() {
        for (name, pem, algorithm) in KEYS {
            let key = SigningKey::from_pem(pem.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(key.public().algorithm.name(), algorithm, "{name}");
            for n in 0..20_u8 {
                let token = crate::auth::token::sign(&key, &json!({ "n": n })).unwrap();
                assert!(key.public().signed(&Compact::parse(&token).unwrap()), "{name}");
                let (head, signature) = token.rsplit_once('.').unwrap();
                let other = format!("{}.e30.{signature}", head.split_once('.').unwrap().0);
                assert!(!key.public().signed(&Compact::parse(&other).unwrap()), "{name}");
            }
            assert_eq!(VerifyKey::all_from_pem(pem.as_bytes()).unwrap(), [key.public().clone()], "{name}");
        }
    }

    #[test]
    fn public_key_forms_give_the_private_keys_half() {
        for (public, private) in [
            (include_str!("testdata/rsa-public.pem"), KEYS[0].1),
            (include_str!("testdata/rsa-public-pkcs1.pem"), KEYS[0].1),
            (include_str!("testdata/rsa-certificate.pem"), KEYS[0].1),
            (include_str!("testdata/p256-public.pem"), KEYS[2].1),
        ] {
            let private = SigningKey::from_pem(private.as_bytes()).unwrap();
            assert_eq!(VerifyKey::all_from_pem(public.as_bytes()).unwrap(), [private.public().clone()]);
        }
    }

    #[test]
    fn key_id_is_the_one_upstream_derives() {
        let key = SigningKey::from_pem(KEYS[0].1.as_bytes()).unwrap();
        assert_eq!(key.public().id, include_str!("testdata/rsa-kid.txt").trim());
        let jwk = key.public().jwk();
        assert_eq!((jwk["kty"].as_str(), jwk["e"].as_str()), (Some("RSA"), Some("AQAB")));
        assert_eq!(jwk["n"].as_str().unwrap().len(), 342);
        let jwk = SigningKey::from_pem(KEYS[2].1.as_bytes()).unwrap().public().jwk();
        assert_eq!((jwk["x"].as_str().unwrap().len(), jwk["y"].as_str().unwrap().len()), (43, 43));
    }

    #[test]
    fn text_without_a_key_is_refused() {
        for text in ["", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
            assert!(SigningKey::from_pem(text.as_bytes()).is_err(), "{text:?}");
            assert!(VerifyKey::all_from_pem(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
