//! Groups that stand in no token because they are too many: the token says where they are told, and what is told there
//! is a token again.

use std::sync::Arc;

use client::{Fetcher, HookError};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::claims::{Registered, Source, untrusted_issuer};
use super::keys::Keys;
use super::{Wanted, verified};

/// Most issuers that groups may be told by: tokens name them, and nobody said who may.
const MAX_ISSUERS: usize = 16;

/// Finds claims that are told elsewhere.
pub(super) struct Resolver {
    fetcher: Fetcher,
    issuers: Mutex<Vec<(String, Arc<Keys>)>>,
}

impl Resolver {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, issuers: Mutex::default() }
    }

    /// Adds a claim that a verified token does not have but says where to find.
    ///
    /// # Errors
    /// When it is not told there, or not by somebody who can be believed.
    pub(super) async fn expand(
        &self,
        claim: &str,
        registered: &Registered,
        claims: &mut Map<String, Value>,
        wanted: Wanted<'_>,
    ) -> Result<(), String> {
        if claims.contains_key(claim) {
            return Ok(());
        }
        let Some(source) = registered.source_of(claim).filter(|source| !source.endpoint.is_empty()) else {
            return Ok(());
        };
        let value = self.resolve(claim, source, wanted).await;
        claims.insert(claim.to_owned(), value.map_err(|why| format!("could not expand distributed claims: {why}"))?);
        Ok(())
    }

    async fn resolve(&self, claim: &str, source: &Source, wanted: Wanted<'_>) -> Result<Value, String> {
        let Source { endpoint, access_token } = source;
        let answer =
            self.fetcher.get_with(endpoint, Some(access_token.as_str()).filter(|token| !token.is_empty())).await;
        let answer = answer.map_err(|error| {
            let why = match &error {
                HookError::Refused { code, .. } => format!("error while getting distributed claim JWT: {code}"),
                _ => stdx::chain(&error).to_string(),
            };
            format!("while getting distributed claim {claim:?}: {why}")
        })?;
        let token = String::from_utf8_lossy(&answer);
        let token = token.trim();
        let issuer = untrusted_issuer(token).ok_or_else(|| {
            format!("getting untrusted issuer from endpoint {endpoint} failed for claim {claim:?}: malformed token")
        })?;
        let keys = self.keys(&issuer)?;
        let (_, mut told) = verified(token, &Wanted { issuer: &issuer, ..wanted }, &keys)
            .await
            .map_err(|why| format!("verify distributed claim token: {why}"))?;
        told.remove(claim).ok_or_else(|| {
            format!("jwt returned by distributed claim endpoint {endpoint:?} did not contain claim: {claim}")
        })
    }

    fn keys(&self, issuer: &str) -> Result<Arc<Keys>, String> {
        let mut issuers = self.issuers.lock();
        if let Some((_, keys)) = issuers.iter().find(|(known, _)| known == issuer) {
            return Ok(keys.clone());
        }
        if issuers.len() >= MAX_ISSUERS {
            return Err(format!("verifying untrusted issuer {issuer} failed: groups are told by too many issuers"));
        }
        let keys = Arc::new(Keys::new(issuer, None, self.fetcher.clone()));
        issuers.push((issuer.to_owned(), keys.clone()));
        Ok(keys)
    }
}
