//! What a server says of itself: its keys, signed by those of them that sign.

use p521::ecdsa::signature::Verifier;
use p521::ecdsa::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::jose::{Jwk, JwkSet, decode, json};

/// Some servers keep old keys for years; none has as many.
const MOST_KEYS: usize = 64;

/// A server, and how it is known again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Where it is, without a slash at the end.
    pub url: String,
    /// The thumbprints (SHA-256) of keys one of which must have signed what it says.
    pub thumbprints: Vec<String>,
}

/// What a pinned key signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The pinned key.
    pub(crate) signer: Jwk,
    /// What exchanges are done with.
    pub(crate) exchange: Jwk,
}

/// A JWS: one signature in it, or a list.
#[derive(Deserialize)]
struct Jws {
    payload: String,
    #[serde(default)]
    signatures: Vec<Signed>,
    #[serde(flatten)]
    only: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    protected: String,
    signature: String,
}

/// What a signature says of itself.
#[derive(Deserialize)]
struct Protected {
    alg: String,
}

/// Keys of other kinds may stand among those that count.
#[derive(Deserialize)]
struct AnySet {
    keys: Vec<serde_json::Value>,
}

impl Advertisement {
    /// Reads what the server said, which a key must have signed that has one of these thumbprints.
    ///
    /// # Errors
    /// It makes no sense, or other keys signed it.
    pub fn read(bytes: &[u8], thumbprints: &[String]) -> Result<Self, Error> {
        const WHAT: &str = "advertisement";
        let jws: Jws = json(bytes, WHAT)?;
        let payload = decode(&jws.payload, "the payload of the advertisement")?;
        let set: AnySet = json(&payload, "set of keys in the advertisement")?;
        let signatures: Vec<&Signed> = jws.signatures.iter().chain(&jws.only).collect();
        if set.keys.len() > MOST_KEYS || signatures.len() > MOST_KEYS {
            return Err(Error::TooLong { what: WHAT });
        }
        let ours = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        let set = JwkSet { keys: ours.filter(|key| key.key(WHAT).is_ok()).collect() };
        let is_signer = |key: &&Jwk| signatures.iter().any(|signed| signed.is_by(key, &jws.payload));
        let signers: Vec<&Jwk> = set.keys.iter().filter(|key| key.is_for("verify")).filter(is_signer).collect();
        if signers.is_empty() {
            return Err(Error::Unsigned);
        }
        let pinned = signers.iter().find(|key| thumbprints.contains(&key.thumbprint()));
        let Some(&pinned) = pinned else {
            return Err(Error::Unpinned { offered: signers.iter().map(|key| key.thumbprint()).collect() });
        };
        let exchange = set.keys.iter().find(|key| key.is_for("deriveKey")).ok_or(Error::NoExchangeKey)?;
        Ok(Self { signer: pinned.clone(), exchange: exchange.clone() })
    }
}

impl Signed {
    fn is_by(&self, key: &Jwk, payload: &str) -> bool {
        self.verify(key, payload).is_some()
    }

    fn verify(&self, key: &Jwk, payload: &str) -> Option<()> {
        const WHAT: &str = "signature";
        let protected = decode(&self.protected, WHAT).ok()?;
        if json::<Protected>(&protected, WHAT).ok()?.alg != "ES512" {
            return None;
        }
        let key = VerifyingKey::from_affine(*key.key(WHAT).ok()?.as_affine()).ok()?;
        let signature = Signature::from_slice(&decode(&self.signature, WHAT).ok()?).ok()?;
        key.verify(format!("{}.{payload}", self.protected).as_bytes(), &signature).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::jose::encode;
    use p521::SecretKey;
    use p521::ecdsa::SigningKey;
    use p521::ecdsa::signature::Signer;
    use proptest::prelude::*;

    /// A key that is this small number.
    pub(crate) fn small(number: u8) -> SecretKey {
        let mut bytes = [0; 66];
        bytes[65] = number;
        SecretKey::from_slice(&bytes).unwrap()
    }

    fn public(number: u8, operation: &str) -> Jwk {
        Jwk { key_ops: vec![operation.to_owned()], ..Jwk::of(small(number).public_key().as_affine()) }
    }

    /// What a server says whose keys are these small numbers.
    pub(crate) fn advertised(signers: &[u8], exchange: u8) -> Vec<u8> {
        let mut keys: Vec<serde_json::Value> = vec![serde_json::json!({"kty": "oct", "k": "AAAA"})];
        keys.extend(signers.iter().map(|number| serde_json::to_value(public(*number, "verify")).unwrap()));
        keys.push(serde_json::to_value(public(exchange, "deriveKey")).unwrap());
        let payload = encode(serde_json::json!({ "keys": keys }).to_string());
        let protected = encode(r#"{"alg":"ES512","cty":"jwk-set+json"}"#);
        let sign = |number: &u8| {
            let key = SigningKey::from_bytes(&small(*number).to_bytes()).unwrap();
            let signature: Signature = key.sign(format!("{protected}.{payload}").as_bytes());
            serde_json::json!({ "protected": protected, "signature": encode(signature.to_bytes()) })
        };
        let mut whole = match signers {
            [only] => sign(only),
            several => serde_json::json!({ "signatures": several.iter().map(sign).collect::<Vec<_>>() }),
        };
        whole["payload"] = payload.into();
        whole.to_string().into_bytes()
    }

    #[test]
    fn what_counts_is_signed_by_a_key_that_was_pinned() {
        let name = |number| public(number, "verify").thumbprint();
        let pins = [name(2)];
        for signers in [&[2_u8][..], &[1, 2]] {
            let read = Advertisement::read(&advertised(signers, 9), &pins).unwrap();
            assert_eq!((read.signer, read.exchange), (public(2, "verify"), public(9, "deriveKey")));
        }
        let refused = Advertisement::read(&advertised(&[1, 3], 9), &pins).unwrap_err();
        let expected = format!("none of the server's signing keys is pinned; it offers {}, {}", name(1), name(3));
        assert_eq!(refused.to_string(), expected);
    }

    #[test]
    fn a_changed_advertisement_is_not_signed() {
        let name = |number| public(number, "verify").thumbprint();
        let mut ours: serde_json::Value = serde_json::from_slice(&advertised(&[2], 9)).unwrap();
        let other: serde_json::Value = serde_json::from_slice(&advertised(&[2], 8)).unwrap();
        ours["payload"] = other["payload"].clone();
        let refused = Advertisement::read(ours.to_string().as_bytes(), &[name(2)]).unwrap_err();
        assert!(matches!(refused, Error::Unsigned), "{refused}");
        let long = vec![b' '; crate::MOST_BYTES + 1];
        assert!(matches!(Advertisement::read(&long, &[]), Err(Error::TooLong { .. })));
    }

    proptest! {
        // Points are slow where nothing is optimized.
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_advertisement_is_read_or_refused(at in 0_usize..1400, byte: u8, rest in any::<Vec<u8>>()) {
            let pins = [public(2, "verify").thumbprint()];
            let mut bytes = advertised(&[2], 9);
            let end = bytes.len();
            bytes[at % end] = byte;
            if let Ok(read) = Advertisement::read(&bytes, &pins) {
                prop_assert_eq!(read.exchange, public(9, "deriveKey"));
            }
            prop_assert!(Advertisement::read(&rest, &pins).is_err());
        }
    }
}
