//! An issuer's keys: where its document says they are, fetched when a token needs them.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use client::Fetcher;
use parking_lot::Mutex;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::Value;
use tokio::time::Instant;

/// Shortest time between two fetches: whoever makes up tokens cannot make us ask more often.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
/// Most keys of one issuer.
const MAX_KEYS: usize = 256;

/// A public key.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    id: String,
    material: Material,
}

#[derive(Debug, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Point { curve: String, point: Vec<u8> },
}

/// What a token is signed with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'t> {
    pub(super) algorithm: &'t str,
    pub(super) key_id: &'t str,
    pub(super) message: &'t [u8],
    pub(super) signature: &'t [u8],
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    fetcher: Fetcher,
    known: Mutex<Arc<Vec<Key>>>,
    /// When keys were last asked for; held while somebody asks.
    asked_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Keys {
    pub(super) fn new(issuer: &str, discovery: Option<&str>, ca_pem: Option<Vec<u8>>) -> Self {
        let usual = || format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        Self {
            issuer: issuer.to_owned(),
            discovery: discovery.map_or_else(usual, str::to_owned),
            fetcher: Fetcher::new(ca_pem),
            known: Mutex::default(),
            asked_at: tokio::sync::Mutex::default(),
        }
    }

    /// Whether one of the keys made a signature; they are fetched anew if none did.
    pub(super) async fn verify(&self, signed: Signed<'_>) -> Result<(), String> {
        let before = self.known.lock().clone();
        if before.iter().any(|key| key.verifies(signed)) {
            return Ok(());
        }
        let mut asked_at = self.asked_at.lock().await;
        let now = self.known.lock().clone();
        if Arc::ptr_eq(&before, &now) {
            if asked_at.is_some_and(|at| at.elapsed() < MIN_INTERVAL) {
                return Err("failed to verify signature: no key of the issuer made it".to_owned());
            }
            let fetched = self.fetch().await;
            *asked_at = Some(Instant::now());
            *self.known.lock() = Arc::new(fetched?);
        }
        drop(asked_at);
        let now = self.known.lock().clone();
        let is_good = now.iter().any(|key| key.verifies(signed));
        if is_good { Ok(()) } else { Err("failed to verify signature: no key of the issuer made it".to_owned()) }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let read = async |url: &str| -> Result<Value, String> {
            let text = self.fetcher.get(url).await.map_err(|e| format!("fetching {url}: {}", stdx::chain(&e)))?;
            serde_json::from_slice(&text).map_err(|e| format!("fetching {url}: {e}"))
        };
        let document = read(&self.discovery).await?;
        let told = document["issuer"].as_str().unwrap_or_default();
        if told != self.issuer {
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {:?} got {told:?}",
                self.issuer
            ));
        }
        let url = document["jwks_uri"].as_str().ok_or("provider did not return JWKS URL")?;
        Ok(keys_of(&read(url).await?))
    }
}

/// The keys of a document that we can do something with.
fn keys_of(document: &Value) -> Vec<Key> {
    let list = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().take(MAX_KEYS).filter_map(Key::parse).collect()
}

impl Key {
    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or_default();
        let bytes = |key: &str| URL_SAFE_NO_PAD.decode(text(key).trim_end_matches('=')).ok().filter(|b| !b.is_empty());
        if !matches!(text("use"), "" | "sig") {
            return None;
        }
        let material = match text("kty") {
            "RSA" => Material::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
            "EC" => {
                // An uncompressed point: a marker byte, then both coordinates in full length.
                let point = [&[4][..], &bytes("x")?, &bytes("y")?].concat();
                Material::Point { curve: text("crv").to_owned(), point }
            }
            _ => return None,
        };
        Some(Self { id: text("kid").to_owned(), material })
    }

    fn verifies(&self, signed: Signed<'_>) -> bool {
        if !signed.key_id.is_empty() && !self.id.is_empty() && self.id != signed.key_id {
            return false;
        }
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let parameters = match signed.algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
                    "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
                    "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(parameters, signed.message, signed.signature).is_ok()
            }
            Material::Point { curve, point } => {
                let algorithm = match (curve.as_str(), signed.algorithm) {
                    ("P-256", "ES256") => &signature::ECDSA_P256_SHA256_FIXED,
                    ("P-384", "ES384") => &signature::ECDSA_P384_SHA384_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(algorithm, point).verify(signed.message, signed.signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_for_other_purposes_are_left_out() {
        let found = keys_of(&json!({"keys": [
            {"kty": "RSA", "use": "enc", "n": "AQAB", "e": "AQAB"},
            {"kty": "oct", "k": "AQAB"},
            {"kty": "EC", "kid": "a", "crv": "P-256", "x": "AQ", "y": "Ag"},
        ]}));
        let material = Material::Point { curve: "P-256".to_owned(), point: vec![4, 1, 2] };
        assert_eq!(found, [Key { id: "a".to_owned(), material }]);
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(n in "[A-Za-z0-9_=-]{0,20}", kty in "RSA|EC|x", alg in "RS256|ES256|PS512") {
            let document = json!({"keys": [{"kty": kty, "n": n, "e": "AQAB", "x": n, "y": n, "crv": "P-256"}, 1, null]});
            let signed = Signed { algorithm: &alg, key_id: "", message: b"m", signature: b"s" };
            prop_assert!(!keys_of(&document).iter().any(|key| key.verifies(signed)));
        }
    }
}
