//! Tokens that others issue: who they say their holder is, and how much of that is believed.

mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cel::{Activation, Budget, CALL_LIMIT, OBJECT_BUDGET, Program, Value};
use serde_json::{Value as Json, json};

use self::keys::{Keys, Signed};
use super::AuthnError;
use super::settings::{Issuer, Mapping, Rule};
use crate::auth::identity::{CREDENTIAL_ID, UserInfo};

/// How far an issuer's clock may be ahead.
const LEEWAY_SECONDS: f64 = 300.0;

/// Believes the tokens of one issuer.
pub(super) struct JwtAuthenticator {
    issuer: Arc<Issuer>,
    keys: Keys,
}

fn refused(why: impl std::fmt::Display) -> AuthnError {
    AuthnError::Token(format!("oidc: {why}"))
}

impl JwtAuthenticator {
    pub(super) fn new(issuer: Arc<Issuer>) -> Self {
        let keys = Keys::new(&issuer.url, issuer.discovery.as_deref(), issuer.ca_pem.clone());
        Self { issuer, keys }
    }

    /// The holder of a token; `None` if it is another issuer's.
    pub(super) async fn authenticate(&self, token: &str, now: i64) -> Result<Option<UserInfo>, AuthnError> {
        let Some(parsed) = Token::parse(token) else { return Ok(None) };
        if parsed.claims["iss"].as_str() != Some(&self.issuer.url) {
            return Ok(None);
        }
        let failed = |why: String| refused(format!("verify token: {why}"));
        self.check_claims(&parsed, now).map_err(failed)?;
        self.keys.verify(parsed.signed()).await.map_err(failed)?;
        user_of(&self.issuer, &parsed.claims).map(Some).map_err(refused)
    }

    fn check_claims(&self, token: &Token<'_>, now: i64) -> Result<(), String> {
        if !self.issuer.algorithms.contains(&token.algorithm) {
            return Err(format!("unexpected signature algorithm {:?}", token.algorithm));
        }
        let claims = &token.claims;
        let meant_for: Vec<&str> = match &claims["aud"] {
            Json::String(one) => vec![one],
            Json::Array(many) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        let audiences = &self.issuer.audiences;
        if !meant_for.iter().any(|audience| audiences.iter().any(|own| own == audience)) {
            return Err(format!("expected audience in {audiences:?} got {meant_for:?}"));
        }
        // Seconds of this century are exact in this type.
        #[allow(clippy::cast_precision_loss, reason = "seconds since 1970")]
        let now = now as f64;
        if claims["exp"].as_f64().is_none_or(|until| until < now) {
            return Err("token is expired".to_owned());
        }
        if claims["nbf"].as_f64().is_some_and(|from| now + LEEWAY_SECONDS < from) {
            return Err("current time before the nbf (not before) time".to_owned());
        }
        Ok(())
    }
}

/// A token taken apart, its signature unchecked.
struct Token<'t> {
    algorithm: String,
    key_id: String,
    claims: Json,
    message: &'t [u8],
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    fn parse(token: &'t str) -> Option<Self> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Json = serde_json::from_slice(&decode(header)?).ok()?;
        let claims: Json = serde_json::from_slice(&decode(claims)?).ok()?;
        Some(Self {
            algorithm: header["alg"].as_str()?.to_owned(),
            key_id: header["kid"].as_str().unwrap_or_default().to_owned(),
            claims,
            message: message.as_bytes(),
            signature: decode(signature)?,
        })
    }

    fn signed(&self) -> Signed<'_> {
        let Self { algorithm, key_id, message, signature, .. } = self;
        Signed { algorithm, key_id, message, signature }
    }
}

/// The user that claims tell of.
fn user_of(issuer: &Issuer, claims: &Json) -> Result<UserInfo, String> {
    let name = username(issuer, claims)?;
    let groups = groups(issuer, claims)?;
    let uid = match &issuer.uid {
        Mapping::Nothing => String::new(),
        Mapping::Claim { name, .. } => {
            text_claim(claims, name).map_err(|e| format!("parse uid claim {name:?}: {e}"))?
        }
        Mapping::Expression(program) => {
            one_text(program, claims, "uid").map_err(|e| format!("error evaluating uid claim expression: {e}"))?
        }
    };
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if let Some(id) = claims["jti"].as_str() {
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    for (key, program) in &issuer.extra {
        let values = evaluate(program, "claims", claims).and_then(|value| texts(&value));
        let values = values.map_err(|e| format!("error evaluating extra claim expression: {e}"))?;
        if !values.is_empty() {
            extra.insert(key.clone(), values);
        }
    }
    for (claim, value) in &issuer.required {
        if claims.get(claim).is_none() {
            return Err(format!("required claim {claim} not present in ID token"));
        }
        let found = text_claim(claims, claim).map_err(|e| format!("parse claim {claim}: {e}"))?;
        if found != *value {
            return Err(format!("required claim {claim} value does not match. Got = {found}, want = {value}"));
        }
    }
    check(&issuer.validations, "claims", claims)
        .map_err(|e| format!("error evaluating claim validation expression: {e}"))?;
    let user = UserInfo { name, uid, groups, extra };
    if !issuer.user_validations.is_empty() {
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        check(&issuer.user_validations, "user", &shown)
            .map_err(|e| format!("error evaluating user info validation rule: {e}"))?;
    }
    Ok(user)
}

fn username(issuer: &Issuer, claims: &Json) -> Result<String, String> {
    match &issuer.username {
        Mapping::Nothing => Err("no claim is the username".to_owned()),
        Mapping::Expression(program) => {
            let name = one_text(program, claims, "username")
                .map_err(|e| format!("error evaluating username claim expression: {e}"))?;
            if name.is_empty() { Err("empty username via CEL expression is not allowed".to_owned()) } else { Ok(name) }
        }
        Mapping::Claim { name, prefix } => {
            let text = text_claim(claims, name).map_err(|e| format!("parse username claims {name:?}: {e}"))?;
            // Who may choose an address freely could choose somebody else's.
            if name == "email" {
                match claims.get("email_verified") {
                    None | Some(Json::Bool(true)) => {}
                    Some(Json::Bool(false)) => return Err("email not verified".to_owned()),
                    Some(_) => return Err("parse 'email_verified' claim: it is no boolean".to_owned()),
                }
            }
            Ok(format!("{prefix}{text}"))
        }
    }
}

fn groups(issuer: &Issuer, claims: &Json) -> Result<Vec<String>, String> {
    match &issuer.groups {
        Mapping::Nothing => Ok(Vec::new()),
        Mapping::Expression(program) => evaluate(program, "claims", claims)
            .and_then(|value| texts(&value))
            .map_err(|e| format!("error evaluating group claim expression: {e}")),
        Mapping::Claim { name, prefix } => {
            let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
            let list = match value {
                Json::String(one) => vec![one.clone()],
                Json::Array(many) => {
                    let texts: Option<Vec<String>> = many.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                    texts.ok_or_else(|| format!("parse groups claim {name:?}: it is no list of strings"))?
                }
                _ => return Err(format!("parse groups claim {name:?}: it is no list of strings")),
            };
            Ok(list.into_iter().map(|group| format!("{prefix}{group}")).collect())
        }
    }
}

fn text_claim(claims: &Json, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".to_owned()),
        Some(Json::String(text)) => Ok(text.clone()),
        Some(_) => Err("it is no string".to_owned()),
    }
}

/// What an expression makes of claims or a user.
fn evaluate(program: &Program, variable: &str, value: &Json) -> Result<Json, String> {
    let activation = Activation::new().with(variable, Value::json(value));
    let result = program.evaluate(&activation, &Budget::new(CALL_LIMIT)).map_err(|e| e.to_string())?;
    cel::to_json(&result).map_err(|e| e.to_string())
}

fn one_text(program: &Program, claims: &Json, what: &str) -> Result<String, String> {
    match evaluate(program, "claims", claims)? {
        Json::String(text) => Ok(text),
        _ => Err(format!("{what} claim expression must return a string")),
    }
}

/// Texts that are not empty.
fn texts(value: &Json) -> Result<Vec<String>, String> {
    let list = match value {
        Json::Null => Vec::new(),
        Json::String(text) => vec![text.clone()],
        Json::Array(list) => {
            let found: Option<Vec<String>> = list.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            found.ok_or("expression must return a string or a list of strings")?
        }
        _ => return Err("expression must return a string or a list of strings".to_owned()),
    };
    Ok(list.into_iter().filter(|text| !text.is_empty()).collect())
}

/// Fails on the first rule that does not hold.
fn check(rules: &[Rule], variable: &str, value: &Json) -> Result<(), String> {
    let budget = Budget::new(OBJECT_BUDGET);
    let activation = Activation::new().with(variable, Value::json(value));
    for rule in rules {
        let result = rule.program.evaluate(&activation, &budget);
        match result.map_err(|e| format!("expression '{}' resulted in error: {e}", rule.expression))? {
            Value::Bool(true) => {}
            _ if rule.message.is_empty() => {
                return Err(format!("validation expression '{}' failed", rule.expression));
            }
            _ => return Err(format!("validation expression '{}' failed: {}", rule.expression, rule.message)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::authn::settings::Settings;

    const CONFIG: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: https://issuer, audiences: [a, b], audienceMatchPolicy: MatchAny}
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  - {expression: 'claims.exp - claims.nbf <= 86400', message: too long}
  claimMappings:
    username: {expression: '\"jwt:\" + claims.sub'}
    groups: {expression: 'claims.roles.split(\",\")'}
    uid: {claim: id}
    extra: [{key: example.com/tenant, valueExpression: 'claims.?tenant.orValue(\"\")'}]
  userValidationRules:
  - {expression: \"!user.username.startsWith('jwt:system:')\", message: reserved}
";

    fn claims() -> Json {
        json!({
            "iss": "https://issuer", "aud": "b", "sub": "jane", "hd": "example.com", "roles": "x,y", "id": "7",
            "exp": 2_000, "nbf": 1_000, "jti": "j", "tenant": "t",
        })
    }

    fn issuer() -> Arc<Issuer> {
        Settings::parse(CONFIG, &[]).unwrap().jwt[0].clone()
    }

    fn told(change: impl Fn(&mut Json)) -> Result<UserInfo, String> {
        let mut claims = claims();
        change(&mut claims);
        user_of(&issuer(), &claims)
    }

    #[test]
    fn users_are_made_of_claims() {
        let user = told(|_| {}).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jwt:jane", "7"));
        assert_eq!(user.groups, ["x", "y"]);
        assert_eq!(user.extra["example.com/tenant"], ["t"]);
        assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=j"]);
        assert!(!told(|c| c["tenant"] = "".into()).unwrap().extra.contains_key("example.com/tenant"));
    }

    #[test]
    fn claims_that_break_a_rule_are_refused_with_the_reason() {
        for (key, value, why) in [
            ("hd", json!("other.com"), "required claim hd value does not match. Got = other.com, want = example.com"),
            ("exp", json!(200_000), "failed: too long"),
            ("sub", json!("system:x"), "failed: reserved"),
            ("sub", json!(1), "error evaluating username claim expression"),
            ("id", json!(1), "parse uid claim \"id\": it is no string"),
        ] {
            let refusal = told(|c| c[key] = value.clone()).unwrap_err();
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn audience_time_and_algorithm_are_looked_at() {
        let authenticator = JwtAuthenticator::new(issuer());
        let checked = |claims: Json, algorithm: &str, now| {
            let token = Token {
                algorithm: algorithm.to_owned(),
                key_id: String::new(),
                claims,
                message: b"",
                signature: Vec::new(),
            };
            authenticator.check_claims(&token, now).err().unwrap_or_default()
        };
        assert_eq!(checked(claims(), "RS256", 1_500), "");
        assert!(checked(claims(), "none", 1_500).contains("unexpected signature algorithm"));
        assert_eq!(checked(claims(), "ES256", 2_001), "token is expired");
        assert!(checked(claims(), "ES256", 600).contains("not before"));
        let other = json!({"aud": ["c"], "exp": 2_000});
        assert!(checked(other, "ES256", 1_500).starts_with("expected audience in"));
        assert_eq!(checked(json!({"aud": "a"}), "ES256", 1_500), "token is expired");
    }

    proptest! {
        #[test]
        fn no_token_makes_it_panic(token in "[A-Za-z0-9_.-]{0,80}") {
            let _either_way = Token::parse(&token).is_some();
        }
    }
}
