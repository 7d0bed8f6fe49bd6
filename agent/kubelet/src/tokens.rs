//! Service account tokens for pods, renewed before they expire.

use std::collections::BTreeMap;
use std::time::Duration;

use api::authentication::v1::{BoundObjectReference, TokenRequest};
use api::core::v1::ServiceAccount;
use client::Client;

use crate::observed::Nanos;
use crate::pod::PodView;
use crate::volumes::payload::{TokenKey, token_keys};

/// A token older than this is renewed, however long it lasts.
const MAX_AGE_SECONDS: i64 = 24 * 3600;
/// Wait after a renewal that failed while the old token still serves.
const RETRY_SECONDS: i64 = 30;
const NANOS: i64 = 1_000_000_000;

struct Held {
    token: String,
    renew_at: Nanos,
    expires_at: Nanos,
}

/// The tokens of one pod.
#[derive(Default)]
pub(crate) struct PodTokens {
    held: BTreeMap<TokenKey, Held>,
}

impl PodTokens {
    /// Fetches what is missing or due. An old token that still serves is kept when the API server does not answer.
    pub(crate) async fn refresh(&mut self, client: &Client, view: &PodView, now: Nanos) -> Result<(), client::Error> {
        for key in token_keys(view) {
            let is_due = self.held.get(&key).is_none_or(|held| held.renew_at <= now);
            if !is_due {
                continue;
            }
            match request(client, view, &key, now).await {
                Ok(held) => {
                    self.held.insert(key, held);
                }
                Err(error) => match self.held.get_mut(&key).filter(|held| held.expires_at > now) {
                    Some(held) => {
                        tracing::warn!(pod = view.name(), error = %stdx::chain(&error), "token not renewed");
                        held.renew_at = now + RETRY_SECONDS * NANOS;
                    }
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }

    pub(crate) fn texts(&self) -> BTreeMap<TokenKey, String> {
        self.held.iter().map(|(key, held)| (key.clone(), held.token.clone())).collect()
    }

    /// How long until the next renewal.
    pub(crate) fn next_renewal(&self, now: Nanos) -> Option<Duration> {
        let next = self.held.values().map(|held| held.renew_at).min()?;
        Some(Duration::from_nanos(u64::try_from(next - now).unwrap_or(0)))
    }
}

async fn request(client: &Client, view: &PodView, key: &TokenKey, now: Nanos) -> Result<Held, client::Error> {
    let mut body = TokenRequest::default();
    if !key.audience.is_empty() {
        body.spec.audiences = vec![key.audience.clone()];
    }
    body.spec.expiration_seconds = Some(key.seconds);
    body.spec.bound_object_ref = Some(BoundObjectReference {
        kind: "Pod".to_owned(),
        api_version: "v1".to_owned(),
        name: view.name().to_owned(),
        uid: view.uid().to_owned(),
    });
    let account = match view.spec().service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let answer: TokenRequest = client
        .create_subresource::<ServiceAccount, _, _>(
            Some(view.namespace()),
            account,
            "token",
            ("authentication.k8s.io/v1", "TokenRequest"),
            &body,
        )
        .await?;
    let expires = answer.status.expiration_timestamp.unix().unwrap_or(0);
    let lifetime = expires - now / NANOS;
    let age = (lifetime * 8 / 10).clamp(1, MAX_AGE_SECONDS);
    Ok(Held { token: answer.status.token, renew_at: now + age * NANOS, expires_at: expires * NANOS })
}
