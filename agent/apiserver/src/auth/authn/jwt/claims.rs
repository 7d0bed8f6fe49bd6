//! What a token of an issuer says of itself: for whom it is, and how long.

use serde_json::{Map, Value};

use crate::codec::json_type;

/// How far an issuer's clock may be ahead.
const LEEWAY_SECONDS: i64 = 60;

/// The claims that every token may have, as far as they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Registered {
    issuer: String,
    audience: Vec<String>,
    expiry: Option<i64>,
    not_before: Option<i64>,
    /// Claims that are told elsewhere, with the name of where.
    elsewhere: Vec<(String, String)>,
    sources: Vec<(String, Source)>,
}

/// Who tells a claim that is not in the token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// The URL to ask; empty for what stands in the token after all.
    pub(super) endpoint: String,
    /// The token to ask with; empty for none.
    pub(super) access_token: String,
}

/// The issuer that a token names, which may be anybody; none if it is no token of three parts with claims.
pub(super) fn untrusted_issuer(token: &str) -> Option<String> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let claims = object(&crate::auth::jws::decode(payload).ok()?).ok()?;
    let of_issuer = |(key, _): &(&String, &Value)| key.eq_ignore_ascii_case("iss");
    match claims.iter().rfind(of_issuer) {
        Some((_, Value::String(issuer))) if issuer == "accounts.google.com" => Some(format!("https://{issuer}")),
        Some((_, Value::String(issuer))) => Some(issuer.clone()),
        Some((_, Value::Null)) | None => Some(String::new()),
        Some(_) => None,
    }
}

/// The claims of a token. Bytes that are no text become signs that say so.
pub(super) fn object(payload: &[u8]) -> Result<Map<String, Value>, String> {
    serde_json::from_str(&String::from_utf8_lossy(payload)).map_err(|e| e.to_string())
}

impl Registered {
    /// Reads them.
    ///
    /// # Errors
    /// When one has not the type that it has to have.
    pub(super) fn read(claims: &Map<String, Value>) -> Result<Self, String> {
        let mut read = Self::default();
        for (key, value) in claims {
            read.take(key, value).map_err(|why| format!("oidc: failed to unmarshal claims: {why}"))?;
        }
        Ok(read)
    }

    fn take(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "iss" => self.issuer = text(&key, value)?,
            "sub" | "nonce" | "at_hash" => drop(text(&key, value)?),
            "aud" => self.audience = audience(value)?,
            "exp" => self.expiry = Some(time(value)?),
            "iat" => drop(time(value)?),
            "nbf" if value.is_null() => self.not_before = None,
            "nbf" => self.not_before = Some(time(value)?),
            "_claim_names" => {
                let names = map(&key, value, "map[string]string")?;
                let one = |(name, source): (&String, &Value)| Ok((name.clone(), text(&key, source)?));
                self.elsewhere = names.into_iter().map(one).collect::<Result<_, String>>()?;
            }
            "_claim_sources" => {
                let sources = map(&key, value, "map[string]oidc.claimSource")?;
                let one = |(name, value): (&String, &Value)| Ok((name.clone(), source(&key, value)?));
                self.sources = sources.into_iter().map(one).collect::<Result<_, String>>()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the token is this issuer's, for one of these audiences, and for now.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn check(&self, issuer: &str, audiences: &[String], now: i64) -> Result<(), String> {
        for (_, source) in &self.elsewhere {
            if source.is_empty() {
                return Err("oidc: failed to obtain source from claim name".to_owned());
            }
            if !self.sources.iter().any(|(name, _)| name == source) {
                return Err("oidc: source does not exist".to_owned());
            }
        }
        let is_google = issuer == "https://accounts.google.com" && self.issuer == "accounts.google.com";
        if self.issuer != issuer && !is_google {
            let found = &self.issuer;
            return Err(format!("oidc: id token issued by a different provider, expected {issuer:?} got {found:?}"));
        }
        // Of several the signature is looked at first.
        if let [audience] = audiences
            && !self.audience.contains(audience)
        {
            return Err(format!("oidc: expected audience {audience:?} got {}", list(&self.audience)));
        }
        if self.expiry.is_none_or(|until| until <= now) {
            return Err(format!("oidc: token is expired (Token Expiry: {})", shown(self.expiry)));
        }
        if let Some(from) = self.not_before.filter(|from| now + LEEWAY_SECONDS < *from) {
            let (now, from) = (shown(Some(now)), shown(Some(from)));
            return Err(format!("oidc: current time {now} before the nbf (not before) time: {from}"));
        }
        Ok(())
    }

    /// Whether the token is for one of several.
    ///
    /// # Errors
    /// For whom it is instead.
    pub(super) fn check_audiences(&self, audiences: &[String]) -> Result<(), String> {
        if self.audience.iter().any(|audience| audiences.contains(audience)) {
            return Ok(());
        }
        let mut wanted = audiences.to_vec();
        wanted.sort();
        Err(format!("oidc: expected audience in {} got {}", list(&wanted), list(&self.audience)))
    }

    /// Who tells a claim; none if nobody does.
    pub(super) fn source_of(&self, claim: &str) -> Option<&Source> {
        let (_, name) = self.elsewhere.iter().find(|(name, _)| name == claim)?;
        self.sources.iter().find(|(source, _)| source == name).map(|(_, source)| source)
    }
}

fn mistyped(key: &str, value: &Value, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field idToken.{key} of type {wanted}", json_type(value))
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        other => Err(mistyped(key, other, "string")),
    }
}

fn map<'v>(key: &str, value: &'v Value, wanted: &str) -> Result<Vec<(&'v String, &'v Value)>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Object(map) => Ok(map.iter().collect()),
        other => Err(mistyped(key, other, wanted)),
    }
}

fn source(key: &str, value: &Value) -> Result<Source, String> {
    let fields = map(key, value, "oidc.claimSource")?;
    let mut source = Source::default();
    for (name, value) in fields {
        match name.to_ascii_lowercase().as_str() {
            "endpoint" => source.endpoint = text(&format!("{key}.endpoint"), value)?,
            "access_token" => source.access_token = text(&format!("{key}.access_token"), value)?,
            _ => {}
        }
    }
    Ok(source)
}

fn audience(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(many) => many.iter().map(|one| text("aud", one)).collect(),
        Value::Null | Value::String(_) => Ok(vec![text("aud", value)?]),
        other => Err(mistyped("aud", other, "[]string")),
    }
}

/// Seconds since 1970, also as a text. What is beyond all times is before them.
fn time(value: &Value) -> Result<i64, String> {
    let number = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.parse::<f64>().is_ok_and(f64::is_finite) => text.clone(),
        Value::Null => return Err("strconv.ParseFloat: parsing \"\": invalid syntax".to_owned()),
        Value::String(text) => {
            let text = format!("{text:?}");
            return Err(format!("json: invalid number literal, trying to unmarshal {text:?} into Number"));
        }
        other => {
            return Err(format!("json: cannot unmarshal {} into Go value of type json.Number", json_type(other)));
        }
    };
    if let Ok(whole) = number.parse::<i64>() {
        return Ok(whole);
    }
    let seconds: f64 = number.parse().map_err(|_| format!("no time: {number}"))?;
    // Beyond these bounds a time would be cut off, and mean something else.
    #[allow(clippy::cast_possible_truncation, reason = "the fraction says nothing here, and the bounds are looked at")]
    let whole = if seconds.abs() < 1e18 { seconds as i64 } else { i64::MIN };
    Ok(whole)
}

fn shown(seconds: Option<i64>) -> String {
    let Some(seconds) = seconds else { return "0001-01-01 00:00:00 +0000 UTC".to_owned() };
    api::time::format_seconds(seconds).replace('T', " ").replace('Z', " +0000 UTC")
}

fn list(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| stdx::quoted(text).to_string()).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn judged(claims: &Value, audiences: &[&str]) -> String {
        let audiences: Vec<String> = audiences.iter().map(|&a| a.to_owned()).collect();
        let read = Registered::read(claims.as_object().unwrap());
        let judged = read.and_then(|read| {
            read.check("https://i", &audiences, 1_000)?;
            read.check_audiences(&audiences)
        });
        judged.err().unwrap_or_default()
    }

    #[test]
    fn a_token_is_for_somebody_and_for_a_time() {
        let good = json!({"iss": "https://i", "aud": "a", "exp": 2_000, "nbf": 1_060, "iat": 5_000});
        assert_eq!(judged(&good, &["a"]), "");
        for (key, value, why) in [
            ("exp", json!(1_000), "oidc: token is expired (Token Expiry: 1970-01-01 00:16:40 +0000 UTC)"),
            ("exp", json!(1e30), "oidc: token is expired"),
            ("exp", json!(null), "oidc: failed to unmarshal claims: strconv.ParseFloat: parsing \"\": invalid syntax"),
            ("exp", json!("1001"), ""),
            ("exp", json!(1001.9), ""),
            ("nbf", json!(1_061), "oidc: current time 1970-01-01 00:16:40 +0000 UTC before the nbf"),
            ("nbf", json!(null), ""),
            (
                "nbf",
                json!("x"),
                "oidc: failed to unmarshal claims: json: invalid number literal, trying to unmarshal \"\\\"x\\\"\" into Number",
            ),
            ("iat", json!("x"), "invalid number literal"),
            ("aud", json!("b"), "oidc: expected audience \"a\" got [\"b\"]"),
            ("aud", json!(null), "oidc: expected audience \"a\" got [\"\"]"),
            ("aud", json!(["b", "a"]), ""),
            ("aud", json!(["a", 1]), "cannot unmarshal number into Go struct field idToken.aud of type string"),
            ("aud", json!(1), "cannot unmarshal number into Go struct field idToken.aud of type []string"),
            ("sub", json!(true), "cannot unmarshal bool into Go struct field idToken.sub of type string"),
            ("iss", json!("https://j"), "oidc: id token issued by a different provider"),
            ("_claim_names", json!({"g": "s"}), "oidc: source does not exist"),
            ("_claim_names", json!({"g": ""}), "oidc: failed to obtain source from claim name"),
            ("_claim_names", json!(1), "of type map[string]string"),
        ] {
            let mut claims = good.clone();
            claims[key] = value;
            let told = judged(&claims, &["a"]);
            assert!(if why.is_empty() { told.is_empty() } else { told.contains(why) }, "{claims}: {told}");
        }
        let told = judged(&good, &["c", "b"]);
        assert_eq!(told, "oidc: expected audience in [\"b\" \"c\"] got [\"a\"]");
        assert_eq!(
            judged(&json!({"iss": "https://i", "aud": "a"}), &["a"]),
            "oidc: token is expired (Token Expiry: 0001-01-01 00:00:00 +0000 UTC)"
        );
    }

    #[test]
    fn claims_may_be_told_elsewhere() {
        let claims =
            json!({"_claim_names": {"groups": "s"}, "_claim_sources": {"s": {"endpoint": "https://e", "JWT": 1}}});
        let read = Registered::read(claims.as_object().unwrap()).unwrap();
        assert_eq!(read.source_of("groups").unwrap().endpoint, "https://e");
        assert_eq!(read.source_of("other"), None);
    }

    proptest! {
        #[test]
        fn no_token_makes_it_panic(token in "[A-Za-z0-9_.-]{0,80}", payload in "[a-z{}\":0-9,\\[\\]]{0,60}") {
            let _either_way = untrusted_issuer(&token);
            let _read = object(payload.as_bytes()).and_then(|claims| Registered::read(&claims));
        }
    }
}
