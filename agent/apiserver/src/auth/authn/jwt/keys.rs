//! An issuer's keys: where its document says they are, fetched when a token needs them.

use std::sync::Arc;
use std::time::Duration;

use client::{Fetcher, HookError};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::jws::{Compact, Curve, Key, decode};

/// Shortest time between two fetches: whoever makes up tokens cannot make us ask more often.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Most keys of one issuer.
const MAX_KEYS: usize = 256;

/// Why nobody can be believed before the issuer told of itself.
pub(super) const NOT_INITIALIZED: &str = "authenticator not initialized";

/// A public key by its name.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    id: String,
    key: Key,
}

/// Why a token is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unverified {
    /// The issuer's document is not known.
    NotInitialized,
    /// No key made the signature, or the keys are not known.
    Signature(String),
}

impl std::fmt::Display for Unverified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInitialized => f.write_str(NOT_INITIALIZED),
            Self::Signature(why) => write!(f, "failed to verify signature: {why}"),
        }
    }
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    fetcher: Fetcher,
    known: Mutex<Arc<Vec<Named>>>,
    /// When keys were last asked for and why they were not told; held while somebody asks.
    asked: tokio::sync::Mutex<Option<(Instant, Option<Unverified>)>>,
}

impl Keys {
    pub(super) fn new(issuer: &str, discovery: Option<&str>, fetcher: Fetcher) -> Self {
        let usual = || format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer));
        Self {
            issuer: issuer.to_owned(),
            discovery: discovery.map_or_else(usual, str::to_owned),
            fetcher,
            known: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        }
    }

    /// Whether one of the keys made a signature; they are fetched anew if none did.
    pub(super) async fn verify(&self, token: &Compact<'_>) -> Result<(), Unverified> {
        let before = self.known.lock().clone();
        if is_signed(token, &before) {
            return Ok(());
        }
        let mut asked = self.asked.lock().await;
        // Somebody else may have asked while this one waited.
        if Arc::ptr_eq(&before, &self.known.lock()) {
            match &*asked {
                Some((at, failure)) if at.elapsed() < MIN_INTERVAL => {
                    return Err(failure.clone().unwrap_or_else(unsigned));
                }
                _ => {}
            }
            let fetched = self.fetch().await;
            *asked = Some((Instant::now(), fetched.as_ref().err().cloned()));
            *self.known.lock() = Arc::new(fetched?);
        }
        drop(asked);
        let now = self.known.lock().clone();
        if is_signed(token, &now) { Ok(()) } else { Err(unsigned()) }
    }

    async fn fetch(&self) -> Result<Vec<Named>, Unverified> {
        let uninitialized = |why: String| {
            tracing::error!(issuer = self.issuer, why, "an issuer of tokens does not tell of itself");
            Unverified::NotInitialized
        };
        let document =
            self.fetcher.get(&self.discovery).await.map_err(|e| uninitialized(stdx::chain(&e).to_string()))?;
        let document: Value = serde_json::from_slice(&document).map_err(|e| uninitialized(e.to_string()))?;
        let told = document["issuer"].as_str().unwrap_or_default();
        if told != self.issuer {
            let expected = &self.issuer;
            return Err(uninitialized(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {expected:?} got {told:?}"
            )));
        }
        let url = document["jwks_uri"].as_str().unwrap_or_default();
        let failed = |why: String| Unverified::Signature(format!("fetching keys oidc: {why}"));
        let keys = self.fetcher.get(url).await.map_err(|error| {
            failed(match &error {
                HookError::Refused { code, text, .. } => format!("get keys failed: {code} {text}"),
                _ => format!("get keys failed {}", stdx::chain(&error)),
            })
        })?;
        keys_of(&keys).map_err(|why| failed(format!("failed to decode keys: {why}")))
    }
}

fn unsigned() -> Unverified {
    Unverified::Signature("failed to verify id token signature".to_owned())
}

/// Whether the key that a token names made its signature, or any if it names none.
fn is_signed(token: &Compact<'_>, keys: &[Named]) -> bool {
    let is_named = |named: &&Named| token.key_id.is_empty() || named.id == token.key_id;
    keys.iter().filter(is_named).any(|named| token.is_signed_by(&named.key))
}

/// The keys of a document. What they are meant for does not count, as an issuer's keys are for its tokens; a document
/// with a key that cannot be read tells of none.
fn keys_of(document: &[u8]) -> Result<Vec<Named>, String> {
    let document: Value = serde_json::from_slice(document).map_err(|e| e.to_string())?;
    let list = document["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().take(MAX_KEYS).map(key).collect()
}

fn key(value: &Value) -> Result<Named, String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    let bytes = |key: &str| match decode(text(key).trim_end_matches('=')) {
        Ok(bytes) if bytes.is_empty() => Err(format!("a key of type {:?} has no {key:?}", text("kty"))),
        other => other,
    };
    let key = match text("kty") {
        "RSA" => Key::Rsa { modulus: bytes("n")?, exponent: bytes("e")? },
        "EC" => {
            let curve =
                Curve::find(text("crv")).ok_or_else(|| format!("unsupported elliptic curve '{}'", text("crv")))?;
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != curve.bytes() || y.len() != curve.bytes() {
                return Err(format!("invalid EC public key, wrong length for {}", curve.name()));
            }
            Key::Point { curve, point: [&[4][..], &x, &y].concat() }
        }
        "oct" | "OKP" => Key::Other,
        other => return Err(format!("unknown json web key type '{other}'")),
    };
    Ok(Named { id: text("kid").to_owned(), key })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(keys: &Value) -> Result<Vec<Named>, String> {
        keys_of(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn keys_are_read_whatever_they_are_meant_for_and_none_if_one_is_broken() {
        let point = "A".repeat(43);
        let found = read(&json!([
            {"kty": "RSA", "use": "enc", "alg": "RS512", "n": "AQAB", "e": "AQAB"},
            {"kty": "oct", "k": "AQAB"},
            {"kty": "EC", "kid": "a", "crv": "P-256", "x": point, "y": point},
        ]));
        let ids: Vec<String> = found.unwrap().into_iter().map(|named| named.id).collect();
        assert_eq!(ids, ["", "", "a"]);
        for (broken, why) in [
            (json!({"kty": "XX"}), "unknown json web key type 'XX'"),
            (json!({"kty": "RSA", "n": "!!", "e": "AQAB"}), "illegal base64 data at input byte 0"),
            (json!({"kty": "EC", "crv": "P-256", "x": "AQ", "y": "Ag"}), "wrong length for P-256"),
            (json!({"kty": "EC", "crv": "P-1"}), "unsupported elliptic curve 'P-1'"),
        ] {
            let told = read(&json!([{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, broken])).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_token_that_names_a_key_is_of_no_other() {
        let token = include_str!("../../testdata/es512.jwt").trim();
        let (point, token) = token.split_once(' ').unwrap();
        let token = Compact::parse(token).unwrap();
        let named = |id: &str| {
            let key = Key::Point { curve: Curve::P521, point: decode(point).unwrap() };
            [Named { id: id.to_owned(), key }]
        };
        assert!(is_signed(&token, &named("a")));
        assert!(!is_signed(&token, &named("b")));
        assert!(!is_signed(&token, &named("")));
    }

    proptest! {
        #[test]
        fn no_document_makes_it_panic(n in "[A-Za-z0-9_=-]{0,20}", kty in "RSA|EC|x", crv in "P-256|P-521|x") {
            let _either_way = read(&json!([{"kty": kty, "n": n, "e": "AQAB", "x": n, "y": n, "crv": crv}, 1, null]));
        }
    }
}
