//! Compact signed tokens (JWS): how one is taken apart, and which keys verify which algorithms.
//!
//! Nothing here says what a token's claims mean, nor whose key may be believed.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};

/// What tokens may be signed by.
pub const ALGORITHMS: [&str; 9] = ["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// Reads what others' encoders wrote: bits that belong to no byte count for nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// A token taken apart, its signature unchecked.
#[derive(Debug)]
pub(super) struct Compact<'t> {
    /// What it says that it is signed by.
    pub(super) algorithm: String,
    /// The name of the key; empty if it names none.
    pub(super) key_id: String,
    /// Whether something in its header has to be understood that is not.
    pub(super) is_beyond_us: bool,
    /// What it says.
    pub(super) payload: Vec<u8>,
    message: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// What is wrong with its form.
    pub(super) fn parse(token: &'t str) -> Result<Self, String> {
        let malformed = || "compact JWS format must have three parts".to_owned();
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        if payload.contains('.') {
            return Err(malformed());
        }
        let header = decode(header)?;
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        let header: Map<String, Value> = serde_json::from_slice(&header).map_err(|e| e.to_string())?;
        let text = |key: &str, what: &str| match header.get(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => {
                let found = crate::codec::json_type(other);
                let shown = other.to_string();
                Err(format!(
                    "failed to unmarshal {what}: json: cannot unmarshal {found} into Go value of type string: {shown:?}"
                ))
            }
        };
        Ok(Self {
            algorithm: text("alg", "algorithm")?,
            key_id: text("kid", "key ID")?,
            is_beyond_us: header.contains_key("crit"),
            payload,
            message: message.as_bytes(),
            signature,
        })
    }

    /// Whether a key made the signature, by the algorithm that the token names and that has to be one of the key's.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        !self.is_beyond_us && key.verifies(&self.algorithm, self.message, &self.signature)
    }
}

/// The bytes of a part of a token.
///
/// # Errors
/// Where the text is no base64, in the words that clients know.
pub(super) fn decode(part: &str) -> Result<Vec<u8>, String> {
    BASE64.decode(part).map_err(|error| {
        let at = match error {
            base64::DecodeError::InvalidByte(at, _) => at,
            base64::DecodeError::InvalidLastSymbol { offset, .. } => offset,
            base64::DecodeError::InvalidLength(len) => len,
            base64::DecodeError::InvalidPadding => part.find('=').unwrap_or(part.len()),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// RSA by its two numbers.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The exponent.
        exponent: Vec<u8>,
    },
    /// A point on a curve, uncompressed.
    Point {
        /// The curve, by its name in JSON Web Keys.
        curve: Curve,
        /// A marker byte, then both coordinates in full length.
        point: Vec<u8>,
    },
    /// Of a kind that signs no tokens.
    Other,
}

/// Curves of keys that sign tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    /// NIST's with 256 bits.
    P256,
    /// NIST's with 384 bits.
    P384,
    /// NIST's with 521 bits.
    P521,
}

impl Curve {
    /// The curve of this name.
    pub(super) fn find(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.name() == name)
    }

    /// Its name in JSON Web Keys.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// Bytes of a coordinate.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Key {
    fn verifies(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { modulus, exponent } => rsa(algorithm).is_some_and(|parameters| {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, message, signature).is_ok()
            }),
            Self::Point { curve: Curve::P256, point } if algorithm == "ES256" => {
                by_ring(&signature::ECDSA_P256_SHA256_FIXED, point, message, signature)
            }
            Self::Point { curve: Curve::P384, point } if algorithm == "ES384" => {
                by_ring(&signature::ECDSA_P384_SHA384_FIXED, point, message, signature)
            }
            Self::Point { curve: Curve::P521, point } if algorithm == "ES512" => by_p521(point, message, signature),
            Self::Point { .. } | Self::Other => false,
        }
    }
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn by_ring(by: &'static EcdsaVerificationAlgorithm, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let by: &'static dyn VerificationAlgorithm = by;
    UnparsedPublicKey::new(by, point).verify(message, signature).is_ok()
}

/// The library of everything else does not know this curve.
fn by_p521(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    use p521::ecdsa::signature::Verifier as _;
    let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point);
    let signature = p521::ecdsa::Signature::from_slice(signature);
    key.is_ok_and(|key| signature.is_ok_and(|signature| key.verify(message, &signature).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const P521: &str = include_str!("testdata/es512.jwt");

    #[test]
    fn what_is_wrong_with_a_tokens_form_is_told() {
        for (token, why) in [
            ("a.b", "compact JWS format must have three parts"),
            ("a.b.c.d", "compact JWS format must have three parts"),
            ("e30.e30.@@", "illegal base64 data at input byte 0"),
            ("e30=.e30.e30", "illegal base64 data at input byte 3"),
            (
                "eyJhbGciOjF9.e30.",
                "failed to unmarshal algorithm: json: cannot unmarshal number into Go value of type string: \"1\"",
            ),
        ] {
            assert_eq!(Compact::parse(token).unwrap_err(), why, "{token}");
        }
        // {"alg":"x","crit":["exp"]}
        let token = Compact::parse("eyJhbGciOiJ4IiwiY3JpdCI6WyJleHAiXX0.e30.").unwrap();
        assert_eq!((token.algorithm.as_str(), token.is_beyond_us, token.payload.as_slice()), ("x", true, &b"{}"[..]));
    }

    /// Made by another implementation: the coordinates of a key, and a token that it signed.
    #[test]
    fn keys_of_521_bits_verify_their_tokens_and_no_others() {
        let (point, token) = P521.trim().split_once(' ').unwrap();
        let key = Key::Point { curve: Curve::P521, point: decode(point).unwrap() };
        assert!(Compact::parse(token).unwrap().is_signed_by(&key));
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let other = format!("{header}.e30.{signature}");
        assert!(!Compact::parse(&other).unwrap().is_signed_by(&key));
        let named = Key::Point { curve: Curve::P384, point: decode(point).unwrap() };
        assert!(!Compact::parse(token).unwrap().is_signed_by(&named));
    }
}
