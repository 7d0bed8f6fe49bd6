//! Tokens that others issue: who they say their holder is, and how much of that is believed.
//!
//! ```text
//!   token ─▶ issuer ─▶ claims of every token ─▶ algorithm ─▶ signature (keys) ─▶ audiences
//!         ─▶ groups told elsewhere (distributed) ─▶ user
//! ```

mod claims;
mod distributed;
mod keys;
mod user;

use std::sync::Arc;

use client::{Fetcher, Way};
use egress::{Egress, Selection};
use serde_json::{Map, Value};

use self::claims::{Registered, object, untrusted_issuer};
use self::distributed::Resolver;
use self::keys::Keys;
use super::AuthnError;
use super::settings::{Issuer, Mapping};
use crate::auth::identity::UserInfo;
use crate::auth::jws::Compact;

/// Believes the tokens of one issuer.
pub(super) struct JwtAuthenticator {
    issuer: Arc<Issuer>,
    keys: Keys,
    resolver: Resolver,
}

/// The way to an issuer. Whoever names one wants it to be there.
fn way(egress: &Egress, selection: Selection) -> Result<Option<Arc<dyn Way>>, String> {
    if !egress.is_configured() {
        return Err(format!("oidc: egress lookup required with egress selector type {:?}", selection.name()));
    }
    if !egress.names(selection) {
        return Err(format!("oidc: egress lookup for {:?} is not configured", selection.name()));
    }
    Ok(egress.way(selection))
}

/// What a token has to be to be believed.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    issuer: &'w str,
    audiences: &'w [String],
    algorithms: &'w [String],
    now: i64,
}

impl JwtAuthenticator {
    /// # Errors
    /// When the issuer is to be reached by a way that nobody describes.
    pub(super) fn new(issuer: Arc<Issuer>, egress: &Egress) -> Result<Self, String> {
        let way = issuer.egress.map(|selection| way(egress, selection)).transpose()?.flatten();
        let fetcher = Fetcher::new(issuer.ca_pem.clone()).with_way(way);
        let keys = Keys::new(&issuer.url, issuer.discovery.as_deref(), fetcher.clone());
        Ok(Self { issuer, keys, resolver: Resolver::new(fetcher) })
    }

    /// The holder of a token; `None` if it is another issuer's.
    pub(super) async fn authenticate(&self, token: &str, now: i64) -> Result<Option<UserInfo>, AuthnError> {
        let Issuer { url, audiences, algorithms, groups, .. } = &*self.issuer;
        if untrusted_issuer(token).as_ref() != Some(url) {
            return Ok(None);
        }
        let refused = |why: String| AuthnError::Token(format!("oidc: {why}"));
        let wanted = Wanted { issuer: url, audiences, algorithms, now };
        let (registered, mut claims) = verified(token, &wanted, &self.keys)
            .await
            .map_err(|why| refused(if why == keys::NOT_INITIALIZED { why } else { format!("verify token: {why}") }))?;
        if let Mapping::Claim { name, .. } = groups {
            self.resolver.expand(name, &registered, &mut claims, wanted).await.map_err(refused)?;
        }
        user::user_of(&self.issuer, &claims).map(Some).map_err(AuthnError::Token)
    }
}

/// The claims of a token that is what it has to be.
///
/// # Errors
/// Why it is not.
async fn verified(token: &str, wanted: &Wanted<'_>, keys: &Keys) -> Result<(Registered, Map<String, Value>), String> {
    let (compact, registered, claims) = checked(token, wanted)?;
    keys.verify(&compact).await.map_err(|error| error.to_string())?;
    registered.check_audiences(wanted.audiences)?;
    Ok((registered, claims))
}

/// Everything that can be said before asking anybody for keys.
fn checked<'t>(token: &'t str, wanted: &Wanted<'_>) -> Result<(Compact<'t>, Registered, Map<String, Value>), String> {
    let compact = Compact::parse(token).map_err(|why| format!("oidc: malformed jwt: {why}"))?;
    let claims = object(&compact.payload).map_err(|why| format!("oidc: failed to unmarshal claims: {why}"))?;
    let registered = Registered::read(&claims)?;
    registered.check(wanted.issuer, wanted.audiences, wanted.now)?;
    if !wanted.algorithms.contains(&compact.algorithm) {
        let known: Vec<String> = wanted.algorithms.iter().map(|name| format!("{name:?}")).collect();
        let (known, found) = (known.join(" "), &compact.algorithm);
        return Err(format!("oidc: id token signed with unsupported algorithm, expected [{known}] got {found:?}"));
    }
    Ok((compact, registered, claims))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_judged_before_anybody_is_asked_for_keys() {
        let texts = |list: &[&str]| -> Vec<String> { list.iter().map(|&text| text.to_owned()).collect() };
        let (audiences, algorithms) = (texts(&["a"]), texts(&["ES256", "RS256"]));
        let wanted = Wanted { issuer: "https://i", audiences: &audiences, algorithms: &algorithms, now: 1_000 };
        let judged = |header: Value, claims: Value| {
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let token = format!("{}.{}.", encode(&header), encode(&claims));
            checked(&token, &wanted).err().unwrap_or_default()
        };
        let good = json!({"iss": "https://i", "aud": "a", "exp": 2_000});
        assert_eq!(judged(json!({"alg": "ES256"}), good.clone()), "");
        let unsupported =
            "oidc: id token signed with unsupported algorithm, expected [\"ES256\" \"RS256\"] got \"none\"";
        assert_eq!(judged(json!({"alg": "none"}), good.clone()), unsupported);
        assert!(
            judged(json!({"alg": 1}), good.clone()).starts_with("oidc: malformed jwt: failed to unmarshal algorithm")
        );
        let mut late = good;
        late["exp"] = json!(10);
        assert!(judged(json!({"alg": "none"}), late).starts_with("oidc: token is expired"));
        assert!(judged(json!({"alg": "none"}), json!([])).starts_with("oidc: failed to unmarshal claims"));
    }
}
