//! The few words of JOSE that Tang speaks (RFC 7515 to 7518, 7638): EC keys of one curve, and one way to a key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p521::elliptic_curve::sec1::ToEncodedPoint;
use p521::{AffinePoint, FieldBytes, PublicKey};
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::MOST_BYTES;
use crate::error::Error;

pub(crate) const CURVE: &str = "P-521";
/// What the agreed key is for.
pub(crate) const CIPHER: &str = "A256GCM";

/// A public key as JSON. What else it says of itself is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Jwk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) alg: Option<String>,
    pub(crate) crv: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) key_ops: Vec<String>,
    pub(crate) kty: String,
    pub(crate) x: String,
    pub(crate) y: String,
}

impl Jwk {
    /// A point, and nothing of what it is for.
    pub(crate) fn of(point: &AffinePoint) -> Self {
        let point = point.to_encoded_point(false);
        let coordinate = |bytes: Option<&FieldBytes>| bytes.map(encode).unwrap_or_default();
        Self {
            alg: None,
            crv: CURVE.to_owned(),
            key_ops: Vec::new(),
            kty: "EC".to_owned(),
            x: coordinate(point.x()),
            y: coordinate(point.y()),
        }
    }

    /// The point, if it is one of the curve.
    pub(crate) fn key(&self, what: &'static str) -> Result<PublicKey, Error> {
        const UNCOMPRESSED: u8 = 4;
        if self.kty != "EC" || self.crv != CURVE {
            return Err(Error::Key { what });
        }
        let (x, y) = (decode(&self.x, what)?, decode(&self.y, what)?);
        if x.len() != y.len() {
            return Err(Error::Key { what });
        }
        PublicKey::from_sec1_bytes(&[&[UNCOMPRESSED], &x[..], &y].concat()).map_err(|_no_point| Error::Key { what })
    }

    /// Whether it may do this.
    pub(crate) fn is_for(&self, operation: &str) -> bool {
        self.key_ops.iter().any(|known| known == operation)
    }

    /// Its name (RFC 7638, with SHA-256).
    pub(crate) fn thumbprint(&self) -> String {
        let Self { crv, kty, x, y, .. } = self;
        // Of a key that was read, nothing in these needs to be escaped.
        let text = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}","y":"{y}"}}"#);
        encode(digest(&SHA256, text.as_bytes()))
    }
}

/// Some keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JwkSet {
    pub(crate) keys: Vec<Jwk>,
}

/// As JOSE writes bytes.
pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads bytes as JOSE writes them.
pub(crate) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_no_base64| Error::Base64 { what })
}

/// Reads JSON that is not too long.
pub(crate) fn json<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, Error> {
    if bytes.len() > MOST_BYTES {
        return Err(Error::TooLong { what });
    }
    serde_json::from_slice(bytes).map_err(|source| Error::Malformed { what, source })
}

/// The key that two agreed on by this point (ECDH-ES, RFC 7518, 4.6.2: one round of SHA-256, nobody named).
pub(crate) fn agreed(point: &AffinePoint) -> [u8; 32] {
    const BITS: u32 = 256;
    let point = point.to_encoded_point(false);
    let mut hash = Context::new(&SHA256);
    hash.update(&1_u32.to_be_bytes());
    hash.update(point.x().map_or(&[][..], |x| x));
    hash.update(&u32::try_from(CIPHER.len()).unwrap_or_default().to_be_bytes());
    hash.update(CIPHER.as_bytes());
    for word in [0, 0, BITS] {
        hash.update(&word.to_be_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_point_of_the_curve_and_has_a_name() {
        let key = Jwk::of(p521::SecretKey::from_slice(&[1; 66]).unwrap().public_key().as_affine());
        assert_eq!(Jwk::of(key.key("it").unwrap().as_affine()), key);
        assert_eq!(key.thumbprint().len(), 43);
        let bad = [
            Jwk { kty: "oct".to_owned(), ..key.clone() },
            Jwk { crv: "P-256".to_owned(), ..key.clone() },
            Jwk { x: key.y.clone(), ..key.clone() },
            Jwk { x: "AA".to_owned(), ..key.clone() },
            Jwk { y: "+".to_owned(), ..key.clone() },
        ];
        assert!(bad.iter().all(|key| key.key("it").is_err()));
    }
}
