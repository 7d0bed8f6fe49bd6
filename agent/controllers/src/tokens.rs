//! `serviceaccount-token-controller`: Secrets that ask for a token of their account get one and go with it.
//! `token-cleaner-controller`: bootstrap tokens go when their time is over.

mod key;

use std::time::Duration;

use api::core::v1::{Secret, ServiceAccount};
use client::DeleteOptions;
use reconcile::{Action, EventType, Queue};

use crate::caches::{Need, Reflectors, need};
use crate::controller::{Context, Controller, Key, enqueue, now, subject};
use crate::error::{During, Error};

pub(crate) use key::TokenKey;

const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const TOKEN: &str = "token";
const CA: &str = "ca.crt";
const NAMESPACE: &str = "namespace";
const EXPIRATION: &str = "expiration";

/// Fills token Secrets.
pub(crate) struct AccountTokens {
    context: Context,
    key: Option<TokenKey>,
}

impl Controller for AccountTokens {
    const NAME: &'static str = "serviceaccount-token-controller";
    const NEEDS: &'static [Need] = &[need::account_tokens, need::service_accounts];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.account_tokens.handle(enqueue(queue));
        let (queue, secrets) = (queue.clone(), self.context.caches.account_tokens.clone());
        reflectors.service_accounts.handle(move |event| {
            let Some(account) = subject(event) else { return };
            let of_account =
                |s: &&std::sync::Arc<Secret>| s.metadata.annotations.get(ACCOUNT_NAME) == Some(&account.metadata.name);
            let secrets = secrets.list_namespace(&account.metadata.namespace);
            secrets.iter().filter(of_account).for_each(|secret| queue.add(Key::of(&secret.metadata)));
        });
    }

    fn new(context: Context) -> Self {
        let key = context.config.service_account_key_pem.as_deref().and_then(|pem| match TokenKey::from_pem(pem) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, "the key for service account tokens: Secrets that ask for one stay empty");
                None
            }
        });
        Self { context, key }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let caches = &self.context.caches;
        let Some(secret) = caches.account_tokens.get(&key.namespace, &key.name) else { return Ok(Action::Done) };
        let Some(name) = secret.metadata.annotations.get(ACCOUNT_NAME) else { return Ok(Action::Done) };
        let account = match caches.service_accounts.get(&key.namespace, name) {
            Some(account) => Some(account),
            None => match self.context.client.get::<ServiceAccount>(Some(&key.namespace), name).await {
                Err(error) if error.is_not_found() => None,
                account => Some(account.during("looking for a token's account")?.into()),
            },
        };
        let uid = secret.metadata.annotations.get(ACCOUNT_UID).filter(|uid| !uid.is_empty());
        let Some(account) = account.filter(|account| uid.is_none_or(|uid| *uid == account.metadata.uid)) else {
            return delete(&self.context, &secret).await;
        };
        let Some(signer) = &self.key else { return Ok(Action::Done) };
        match filled(&secret, &account, &self.context.config.root_ca_pem, signer) {
            Ok(None) => {}
            Ok(Some(changed)) => {
                self.context.client.update(&changed).await.during("filling a token Secret")?;
            }
            Err(error) => {
                self.context.recorder.event(&*secret, EventType::Warning, "TokenNotSigned", error.to_string());
            }
        }
        Ok(Action::Done)
    }
}

/// The Secret with what it lacks, where it lacks anything.
fn filled(
    secret: &Secret,
    account: &ServiceAccount,
    ca: &str,
    signer: &TokenKey,
) -> Result<Option<Secret>, key::KeyError> {
    let mut changed = secret.clone();
    changed.metadata.annotations.insert(ACCOUNT_UID.to_owned(), account.metadata.uid.clone());
    if !ca.is_empty() {
        changed.data.insert(CA.to_owned(), ca.as_bytes().to_vec());
    }
    changed.data.insert(NAMESPACE.to_owned(), secret.metadata.namespace.as_bytes().to_vec());
    if changed.data.get(TOKEN).is_none_or(Vec::is_empty) {
        let (namespace, name) = (&account.metadata.namespace, &account.metadata.name);
        let token = signer.sign(&serde_json::json!({
            "iss": "kubernetes/serviceaccount",
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret.metadata.name,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": account.metadata.uid,
        }))?;
        changed.data.insert(TOKEN.to_owned(), token.into_bytes());
    }
    Ok((changed != *secret).then_some(changed))
}

async fn delete(context: &Context, secret: &Secret) -> Result<Action, Error> {
    let meta = &secret.metadata;
    let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
    match context.client.delete::<Secret>(Some(&meta.namespace), &meta.name, &options).await {
        Err(error) if !error.is_not_found() => Err(error).during("deleting a token Secret"),
        _ => Ok(Action::Done),
    }
}

/// Deletes bootstrap tokens that have expired.
pub(crate) struct BootstrapTokens {
    context: Context,
}

impl Controller for BootstrapTokens {
    const NAME: &'static str = "token-cleaner-controller";
    const WORKERS: usize = 1;
    const NEEDS: &'static [Need] = &[need::bootstrap_tokens];

    fn watch(&self, queue: &Queue<Key>, reflectors: &mut Reflectors) {
        reflectors.bootstrap_tokens.handle(enqueue(queue));
    }

    fn new(context: Context) -> Self {
        Self { context }
    }

    async fn reconcile(&self, key: Key) -> Result<Action, Error> {
        let Some(secret) = self.context.caches.bootstrap_tokens.get(&key.namespace, &key.name) else {
            return Ok(Action::Done);
        };
        match expiry(&secret).map(|expiry| expiry - now()) {
            None => Ok(Action::Done),
            Some(rest) if rest > 0 => Ok(Action::RequeueAfter(Duration::from_secs(rest.unsigned_abs()))),
            Some(_) => delete(&self.context, &secret).await,
        }
    }
}

/// When the token ends: never without a time, at once with one that cannot be read.
fn expiry(secret: &Secret) -> Option<i64> {
    let text = std::str::from_utf8(secret.data.get(EXPIRATION)?).unwrap_or("");
    Some(api::time::parse(text).map_or(0, |(seconds, _)| seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bootstrap_token_ends_when_it_says() {
        let mut secret = Secret::default();
        assert_eq!(expiry(&secret), None);
        secret.data.insert(EXPIRATION.to_owned(), b"1970-01-01T00:01:00Z".to_vec());
        assert_eq!(expiry(&secret), Some(60));
        secret.data.insert(EXPIRATION.to_owned(), b"soon".to_vec());
        assert_eq!(expiry(&secret), Some(0));
    }

    #[test]
    fn a_secret_is_filled_once() {
        let signer = TokenKey::generate();
        let mut account = ServiceAccount::default();
        account.metadata.name = "a".to_owned();
        account.metadata.uid = "u".to_owned();
        let full = filled(&Secret::default(), &account, "CA", &signer).unwrap().unwrap();
        assert_eq!(full.metadata.annotations[ACCOUNT_UID], "u");
        assert_eq!(full.data[TOKEN].iter().filter(|b| **b == b'.').count(), 2);
        assert_eq!(filled(&full, &account, "CA", &signer).unwrap(), None);
    }
}
