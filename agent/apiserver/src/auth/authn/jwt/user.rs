//! The user whom an issuer's claims tell of, and whether they tell of a user that is let in; pure.

use std::collections::BTreeMap;

use cel::{Activation, Budget, CALL_LIMIT, OBJECT_BUDGET, Value};
use serde_json::{Map, Value as Json, json};

use crate::auth::authn::settings::{Expression, Issuer, Mapping, Rule};
use crate::auth::identity::{CREDENTIAL_ID, UserInfo};
use crate::codec::json_type;

/// The user that claims tell of.
///
/// # Errors
/// Which claim, or what about the user, is not as it has to be.
pub(super) fn user_of(issuer: &Issuer, claims: &Map<String, Json>) -> Result<UserInfo, String> {
    let told = Claims { exact: claims, evaluated: as_doubles(claims) };
    let name = username(&issuer.username, &told)?;
    let groups = groups(&issuer.groups, &told)?;
    let uid = uid(&issuer.uid, &told)?;
    let mut extra = extra(issuer, &told)?;
    // Upstream tells it before other facts, which must not have its name.
    if let Some(id) = claims.get("jti").and_then(Json::as_str).filter(|id| !id.is_empty()) {
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    for (claim, value) in &issuer.required {
        if !claims.contains_key(claim) {
            return Err(format!("oidc: required claim {claim} not present in ID token"));
        }
        let found = told.text(claim).map_err(|e| format!("oidc: parse claim {claim}: {e}"))?;
        if found != *value {
            return Err(format!("oidc: required claim {claim} value does not match. Got = {found}, want = {value}"));
        }
    }
    check(&issuer.validations, "claims", &told.evaluated)
        .map_err(|e| format!("oidc: error evaluating claim validation expression: {e}"))?;
    let user = UserInfo { name, uid, groups, extra };
    if !issuer.user_validations.is_empty() {
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        check(&issuer.user_validations, "user", &shown)
            .map_err(|e| format!("oidc: error evaluating user info validation rule: {e}"))?;
    }
    Ok(user)
}

/// The claims as they stand in the token, and as expressions see them.
struct Claims<'c> {
    exact: &'c Map<String, Json>,
    evaluated: Json,
}

impl Claims<'_> {
    /// A claim that is a text; one that is `null` is none that says anything.
    fn text(&self, name: &str) -> Result<String, String> {
        match self.exact.get(name) {
            None => Err("claim not present".to_owned()),
            Some(Json::Null) => Ok(String::new()),
            Some(Json::String(text)) => Ok(text.clone()),
            Some(other) => Err(mistyped(other, "string")),
        }
    }

    fn evaluate(&self, expression: &Expression) -> Result<Json, String> {
        let activation = Activation::new().with("claims", Value::json(&self.evaluated));
        let result = expression.program.evaluate(&activation, &Budget::new(CALL_LIMIT));
        let result = result.map_err(|e| failed(expression, &e.to_string()))?;
        cel::to_json(&result).map_err(|e| failed(expression, &e.to_string()))
    }

    fn one_text(&self, expression: &Expression, what: &str) -> Result<String, String> {
        match self.evaluate(expression)? {
            Json::String(text) => Ok(text),
            _ => Err(format!("{what} claim expression must return a string")),
        }
    }
}

fn failed(expression: &Expression, why: &str) -> String {
    format!("expression '{}' resulted in error: {why}", expression.source)
}

fn mistyped(value: &Json, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go value of type {wanted}", json_type(value))
}

/// Expressions see every number of a token as one with a fraction, which is what numbers of JSON are.
fn as_doubles(claims: &Map<String, Json>) -> Json {
    fn one(value: &Json) -> Json {
        match value {
            Json::Number(number) => number.as_f64().map_or(Json::Null, Json::from),
            Json::Array(items) => items.iter().map(one).collect(),
            Json::Object(map) => map.iter().map(|(key, value)| (key.clone(), one(value))).collect(),
            Json::Null | Json::Bool(_) | Json::String(_) => value.clone(),
        }
    }
    claims.iter().map(|(key, value)| (key.clone(), one(value))).collect()
}

fn username(mapping: &Mapping, claims: &Claims<'_>) -> Result<String, String> {
    match mapping {
        Mapping::Nothing => Err("oidc: no claim is the username".to_owned()),
        Mapping::Expression(expression) => {
            let failed = |why: String| format!("oidc: error evaluating username claim expression: {why}");
            let name = claims.one_text(expression, "username").map_err(failed)?;
            match name.as_str() {
                "" => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
                _ => Ok(name),
            }
        }
        Mapping::Claim { name, prefix } => {
            let text = claims.text(name).map_err(|e| format!("oidc: parse username claims {name:?}: {e}"))?;
            // Who may choose an address freely could choose somebody else's.
            if name == "email" {
                match claims.exact.get("email_verified") {
                    None | Some(Json::Bool(true)) => {}
                    Some(Json::Bool(false) | Json::Null) => return Err("oidc: email not verified".to_owned()),
                    Some(other) => {
                        return Err(format!("oidc: parse 'email_verified' claim: {}", mistyped(other, "bool")));
                    }
                }
            }
            Ok(format!("{prefix}{text}"))
        }
    }
}

fn groups(mapping: &Mapping, claims: &Claims<'_>) -> Result<Vec<String>, String> {
    match mapping {
        Mapping::Nothing => Ok(Vec::new()),
        Mapping::Expression(expression) => claims
            .evaluate(expression)
            .and_then(|value| texts(&value))
            .map_err(|e| format!("oidc: error evaluating group claim expression: {e}")),
        Mapping::Claim { name, prefix } => {
            let Some(value) = claims.exact.get(name) else { return Ok(Vec::new()) };
            let list = some_or_one(value).map_err(|e| format!("oidc: parse groups claim {name:?}: {e}"))?;
            Ok(list.into_iter().map(|group| format!("{prefix}{group}")).collect())
        }
    }
}

/// Texts, or a text alone.
fn some_or_one(value: &Json) -> Result<Vec<String>, String> {
    let text = |item: &Json| match item {
        Json::Null => Some(String::new()),
        other => other.as_str().map(str::to_owned),
    };
    match value {
        Json::Null => Ok(Vec::new()),
        Json::String(one) => Ok(vec![one.clone()]),
        Json::Array(many) => many.iter().map(text).collect::<Option<_>>().ok_or_else(|| mistyped(value, "string")),
        other => Err(mistyped(other, "string")),
    }
}

fn uid(mapping: &Mapping, claims: &Claims<'_>) -> Result<String, String> {
    match mapping {
        Mapping::Nothing => Ok(String::new()),
        Mapping::Claim { name, .. } => claims.text(name).map_err(|e| format!("oidc: parse uid claim {name:?}: {e}")),
        Mapping::Expression(expression) => {
            claims.one_text(expression, "uid").map_err(|e| format!("oidc: error evaluating uid claim expression: {e}"))
        }
    }
}

fn extra(issuer: &Issuer, claims: &Claims<'_>) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut extra = BTreeMap::new();
    for (key, expression) in &issuer.extra {
        let values = texts(&claims.evaluate(expression)?);
        let values =
            values.map_err(|e| format!("oidc: error evaluating extra claim expression: {}: {e}", expression.source))?;
        if !values.is_empty() {
            extra.insert(key.clone(), values);
        }
    }
    Ok(extra)
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
    for Rule { expression, message } in rules {
        let result = expression.program.evaluate(&activation, &budget);
        match result.map_err(|e| failed(expression, &e.to_string()))? {
            Value::Bool(true) => {}
            _ => return Err(format!("validation expression '{}' failed: {message}", expression.source)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
- issuer: {url: https://email, audiences: [a]}
  claimMappings: {username: {claim: email, prefix: ''}, groups: {claim: groups, prefix: 'g:'}, uid: {claim: id}}
";

    fn told(issuer: usize, key: &str, value: Json) -> Result<UserInfo, String> {
        let mut claims = json!({
            "sub": "jane", "email": "j@x", "hd": "example.com", "roles": "x,y", "id": "7", "exp": 2_000, "nbf": 1_000,
            "jti": "j", "tenant": "t",
        });
        claims[key] = value;
        let Json::Object(claims) = claims else { panic!("no object") };
        user_of(&Settings::parse(CONFIG, &[]).unwrap().jwt[issuer], &claims)
    }

    #[test]
    fn users_are_made_of_claims() {
        let user = told(0, "x", json!(1)).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jwt:jane", "7"));
        assert_eq!(user.groups, ["x", "y"]);
        assert_eq!(user.extra["example.com/tenant"], ["t"]);
        assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=j"]);
        assert!(!told(0, "tenant", "".into()).unwrap().extra.contains_key("example.com/tenant"));
        assert!(!told(0, "jti", "".into()).unwrap().extra.contains_key(CREDENTIAL_ID));
        assert!(told(0, "exp", json!(2_000.5)).is_ok());
    }

    #[test]
    fn what_is_null_says_nothing() {
        let user = |key: &str, value: Json| told(1, key, value).unwrap();
        assert_eq!(user("groups", json!("one")).groups, ["g:one"]);
        assert_eq!(user("groups", json!([null, "b"])).groups, ["g:", "g:b"]);
        assert!(user("groups", Json::Null).groups.is_empty());
        assert_eq!(user("id", Json::Null).uid, "");
        assert_eq!(user("email", Json::Null).name, "");
        assert_eq!(told(1, "email_verified", Json::Null).unwrap_err(), "oidc: email not verified");
        assert!(told(1, "email_verified", json!(true)).is_ok());
    }

    #[test]
    fn claims_that_break_a_rule_are_refused_with_the_reason() {
        let no_text = "json: cannot unmarshal number into Go value of type string";
        for (issuer, key, value, why) in [
            (0, "hd", json!("o"), "oidc: required claim hd value does not match. Got = o, want = example.com".to_owned()),
            (0, "hd", json!(1), format!("oidc: parse claim hd: {no_text}")),
            (0, "exp", json!(200_000), "failed: too long".to_owned()),
            (0, "sub", json!("system:x"), "failed: reserved".to_owned()),
            (0, "sub", json!(1), "oidc: error evaluating username claim expression: expression '\"jwt:\" + claims.sub' resulted in error: no such overload".to_owned()),
            (0, "tenant", json!(1), "oidc: error evaluating extra claim expression: claims.?tenant.orValue(\"\"): expression must".to_owned()),
            (0, "id", json!(1), format!("oidc: parse uid claim \"id\": {no_text}")),
            (1, "groups", json!(["a", 1]), "oidc: parse groups claim \"groups\": json: cannot unmarshal array".to_owned()),
            (1, "email_verified", json!(1), "oidc: parse 'email_verified' claim: json: cannot unmarshal number into Go value of type bool".to_owned()),
        ] {
            let refusal = told(issuer, key, value.clone()).unwrap_err();
            assert!(refusal.contains(&why), "{refusal}");
        }
    }
}
