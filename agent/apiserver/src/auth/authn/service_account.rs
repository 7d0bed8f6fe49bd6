//! Service account tokens: signed by a key we know, and bound to objects that still exist.

use std::collections::BTreeMap;

use super::{AuthnError, Found, Lookup, SecretToken, TokenUser, secrets_match};
use crate::auth::identity::{self, CREDENTIAL_ID, UserInfo};
use crate::auth::keys::VerifyKey;
use crate::auth::token::{Binding, Claims, LegacyBinding, Reference, Unverified};

/// How far clocks may differ, and how long a token outlives the beginning of its object's deletion.
const LEEWAY_SECONDS: i64 = 60;

/// Marks a Secret whose token nobody used for long.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// The issuer of tokens that lie in Secrets.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// Which tokens are accepted.
#[derive(Clone, Debug)]
pub struct ServiceAccounts {
    /// Issuers; the first is the one that new tokens name.
    pub issuers: Vec<String>,
    /// Audiences of the API server itself.
    pub audiences: Vec<String>,
    /// Keys that tokens may be signed with.
    pub keys: Vec<VerifyKey>,
}

impl ServiceAccounts {
    /// The account behind a token; `None` if it is no token of these issuers.
    pub(super) fn authenticate(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        lookup: &dyn Lookup,
        now: i64,
    ) -> Result<Option<TokenUser>, AuthnError> {
        let Some(unverified) = Unverified::parse(token) else { return Ok(None) };
        let is_legacy = unverified.claims.iss == LEGACY_ISSUER;
        if !is_legacy && !self.issuers.contains(&unverified.claims.iss) {
            return Ok(None);
        }
        if !unverified.is_signed_by(&self.keys) {
            return Err(refused("the signature is not one of a known key"));
        }
        let claims = &unverified.claims;
        let asked = audiences.unwrap_or(&self.audiences);
        let meant_for = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        let audiences: Vec<String> = meant_for.iter().filter(|audience| asked.contains(audience)).cloned().collect();
        if audiences.is_empty() {
            return Err(refused(format!(
                "token audiences {meant_for:?} is invalid for the target audiences {asked:?}"
            )));
        }
        check_times(claims, now)?;
        let (user, secret) = match &claims.kubernetes {
            Some(binding) if !is_legacy => (check_binding(claims, binding, lookup, now)?, None),
            Some(_) | None => check_legacy(token, claims, lookup).map(|(user, secret)| (user, Some(secret)))?,
        };
        Ok(Some(TokenUser { user, audiences, secret }))
    }
}

fn refused(reason: impl Into<String>) -> AuthnError {
    AuthnError::Token(reason.into())
}

fn check_times(claims: &Claims, now: i64) -> Result<(), AuthnError> {
    if claims.exp.is_some_and(|exp| now > exp + LEEWAY_SECONDS) {
        return Err(refused("service account token has expired"));
    }
    if claims.nbf.is_some_and(|nbf| now + LEEWAY_SECONDS < nbf) {
        return Err(refused("service account token is not valid yet"));
    }
    if claims.iat.is_some_and(|iat| now + LEEWAY_SECONDS < iat) {
        return Err(refused("service account token is issued in the future"));
    }
    Ok(())
}

fn check_binding(claims: &Claims, binding: &Binding, lookup: &dyn Lookup, now: i64) -> Result<UserInfo, AuthnError> {
    let Binding { namespace, serviceaccount, .. } = binding;
    let account = lookup
        .service_account(namespace, &serviceaccount.name)
        .ok_or_else(|| refused(format!("serviceaccounts {:?} not found", serviceaccount.name)))?;
    if account.uid != serviceaccount.uid {
        let uids = (&account.uid, &serviceaccount.uid);
        return Err(refused(format!("service account UID ({}) does not match claim ({})", uids.0, uids.1)));
    }
    if is_gone(&account, now) {
        return Err(refused(format!("service account {namespace}/{} has been deleted", serviceaccount.name)));
    }
    if let Some(secret) = &binding.secret {
        let found = lookup.secret(namespace, &secret.name).map(|secret| Found {
            uid: secret.metadata.uid.clone(),
            deleted_at: secret.metadata.deletion_timestamp.as_ref().and_then(api::meta::v1::Time::unix),
        });
        check_bound("secret", secret, found, now)?;
    }
    if let Some(pod) = &binding.pod {
        check_bound("pod", pod, lookup.pod(namespace, &pod.name), now)?;
    }
    if let (Some(node), None) = (&binding.node, &binding.pod) {
        check_bound("node", node, lookup.node(&node.name), now)?;
    }
    let mut user = account_user(namespace, serviceaccount);
    let mut tell = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(key.to_owned(), vec![value.to_owned()]);
        }
    };
    for (kind, reference) in [("pod", &binding.pod), ("node", &binding.node)] {
        if let Some(reference) = reference {
            tell(&format!("authentication.kubernetes.io/{kind}-name"), &reference.name);
            tell(&format!("authentication.kubernetes.io/{kind}-uid"), &reference.uid);
        }
    }
    if !claims.jti.is_empty() {
        tell(CREDENTIAL_ID, &format!("JTI={}", claims.jti));
    }
    Ok(user)
}

fn check_bound(kind: &str, reference: &Reference, found: Option<Found>, now: i64) -> Result<(), AuthnError> {
    match found {
        Some(found) if found.uid != reference.uid => Err(refused(format!(
            "{kind} UID ({}) does not match service account {kind} ref claim ({})",
            found.uid, reference.uid
        ))),
        Some(found) if !is_gone(&found, now) => Ok(()),
        Some(_) | None => Err(refused("service account token has been invalidated")),
    }
}

fn is_gone(found: &Found, now: i64) -> bool {
    found.deleted_at.is_some_and(|at| at < now - LEEWAY_SECONDS)
}

fn account_user(namespace: &str, account: &Reference) -> UserInfo {
    UserInfo {
        name: identity::service_account_name(namespace, &account.name),
        uid: account.uid.clone(),
        groups: identity::service_account_groups(namespace),
        extra: BTreeMap::new(),
    }
}

/// A token that lies in a Secret is good as long as it lies there.
fn check_legacy(token: &str, claims: &Claims, lookup: &dyn Lookup) -> Result<(UserInfo, SecretToken), AuthnError> {
    let legacy = &claims.legacy;
    if identity::split_service_account(&claims.sub) != Some((&legacy.namespace, &legacy.name)) {
        return Err(refused("sub claim is invalid"));
    }
    let secret = lookup.secret(&legacy.namespace, &legacy.secret);
    let secret = secret
        .filter(|secret| secret.metadata.deletion_timestamp.is_none())
        .ok_or_else(|| refused("Token has been invalidated"))?;
    let copy = secret.data.get("token").map(Vec::as_slice).unwrap_or_default();
    if !secrets_match(copy, token.as_bytes()) {
        return Err(refused("Token does not match server's copy"));
    }
    let account = lookup
        .service_account(&legacy.namespace, &legacy.name)
        .ok_or_else(|| refused(format!("serviceaccounts {:?} not found", legacy.name)))?;
    if account.deleted_at.is_some() {
        return Err(refused(format!("ServiceAccount {}/{} has been deleted", legacy.namespace, legacy.name)));
    }
    if account.uid != legacy.uid {
        return Err(refused(format!("ServiceAccount UID ({}) does not match claim ({})", account.uid, legacy.uid)));
    }
    let LegacyBinding { namespace, secret: name, name: of, .. } = legacy;
    if secret.metadata.labels.get(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
        return Err(refused(format!(
            "the token in secret {namespace}/{name} for service account {namespace}/{of} has been marked invalid. Use \
             tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
             '{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        )));
    }
    let used = SecretToken {
        namespace: namespace.clone(),
        name: name.clone(),
        uid: secret.metadata.uid.clone(),
        is_generated: lookup.is_of_account(namespace, of, name),
    };
    Ok((account_user(namespace, &Reference { name: of.clone(), uid: account.uid }), used))
}
