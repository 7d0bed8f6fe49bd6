//! Bootstrap tokens, `ID.SECRET`, which lie in Secrets of `kube-system`.

use std::str;

use api::core::v1::Secret;

use super::{Lookup, secrets_match};
use crate::auth::identity::{BOOTSTRAPPERS, UserInfo};

const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

/// The most characters of an extra group after the common prefix and its colon.
const GROUP_SUFFIX_LEN: usize = 256;

/// The user behind a token. A token that is not good is not told from one that does not exist.
pub(super) fn authenticate(token: &str, lookup: &dyn Lookup, now: i64) -> Option<UserInfo> {
    let (id, secret) = split(token)?;
    let stored = lookup.secret("kube-system", &format!("bootstrap-token-{id}"))?;
    let is_good = stored.metadata.deletion_timestamp.is_none()
        && stored.r#type == "bootstrap.kubernetes.io/token"
        && secrets_match(stored.data.get("token-secret")?, secret.as_bytes())
        && value(&stored, "token-id") == id
        && value(&stored, "usage-bootstrap-authentication") == "true"
        && !has_expired(&stored, now);
    if !is_good {
        return None;
    }
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups: groups(&stored)?, ..UserInfo::default() })
}

fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_good = |part: &str, len| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (is_good(id, ID_LEN) && is_good(secret, SECRET_LEN)).then_some((id, secret))
}

fn value<'s>(secret: &'s Secret, key: &str) -> &'s str {
    secret.data.get(key).and_then(|value| str::from_utf8(value).ok()).unwrap_or_default()
}

/// A time that cannot be read counts as past.
fn has_expired(secret: &Secret, now: i64) -> bool {
    let expiration = value(secret, "expiration");
    !expiration.is_empty() && api::time::parse(expiration).is_none_or(|(seconds, _)| seconds <= now)
}

fn groups(secret: &Secret) -> Option<Vec<String>> {
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    for group in value(secret, "auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty()) {
        let suffix = group.strip_prefix(BOOTSTRAPPERS)?.strip_prefix(':')?;
        let is_good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b':' || byte == b'-';
        let ends_well = suffix.bytes().last().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if !ends_well || suffix.len() > GROUP_SUFFIX_LEN || !suffix.bytes().all(is_good) {
            return None;
        }
        if !groups.iter().any(|known| known == group) {
            groups.push(group.to_owned());
        }
    }
    groups[1..].sort();
    Some(groups)
}
