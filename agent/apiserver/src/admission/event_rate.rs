//! EventRateLimit: events come in masses when something goes wrong; only so many are taken.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;

use crate::app::Call;
use crate::status::{Failure, FieldError, Result};
use crate::tree;

/// Keys whose allowance is remembered, unless the limit says how many.
const KEYS: usize = 4096;
const KINDS: [&str; 4] = ["Server", "Namespace", "User", "SourceAndObject"];

/// A limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limit {
    /// What has an allowance of its own.
    r#type: String,
    /// Events a second.
    qps: i32,
    /// Events at once.
    burst: i32,
    cache_size: i32,
}

/// What is wrong with limits, in upstream's words.
pub(super) fn errors(limits: &[Limit]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if limits.is_empty() {
        errors.push(FieldError::invalid("limits", Value::Null, "must not be empty"));
    }
    for (index, limit) in limits.iter().enumerate() {
        let field = |name: &str| format!("limits[{index}].{name}");
        if !KINDS.contains(&limit.r#type.as_str()) {
            errors.push(FieldError::not_supported(field("type"), limit.r#type.as_str(), &KINDS));
        }
        if limit.burst <= 0 {
            errors.push(FieldError::invalid(field("burst"), i64::from(limit.burst), "must be positive"));
        }
        if limit.qps <= 0 {
            errors.push(FieldError::invalid(field("qps"), i64::from(limit.qps), "must be positive"));
        }
        if limit.r#type != "Server" && limit.cache_size < 0 {
            errors.push(FieldError::invalid(field("cacheSize"), i64::from(limit.cache_size), "must not be negative"));
        }
    }
    errors
}

/// What is left of all allowances.
#[derive(Default)]
pub struct EventRates(Vec<(Limit, Mutex<Buckets>)>);

/// Allowances by key, those that were used last.
#[derive(Default)]
struct Buckets {
    by_key: HashMap<String, Bucket>,
    /// Keys by when they were used.
    used: BTreeMap<u64, String>,
    uses: u64,
}

struct Bucket {
    tokens: f64,
    filled: Instant,
    used: u64,
}

impl Buckets {
    fn take(&mut self, key: &str, limit: &Limit, now: Instant) -> bool {
        self.uses += 1;
        let most = f64::from(limit.burst);
        let fresh = || Bucket { tokens: most, filled: now, used: 0 };
        let bucket = self.by_key.entry(key.to_owned()).or_insert_with(fresh);
        self.used.remove(&bucket.used);
        bucket.used = self.uses;
        self.used.insert(self.uses, key.to_owned());
        let gained = now.duration_since(bucket.filled).as_secs_f64() * f64::from(limit.qps);
        bucket.tokens = (bucket.tokens + gained).min(most);
        bucket.filled = now;
        let is_left = bucket.tokens >= 1.0;
        if is_left {
            bucket.tokens -= 1.0;
        }
        let keys = usize::try_from(limit.cache_size).ok().filter(|size| *size > 0).unwrap_or(KEYS);
        if self.by_key.len() > keys
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.by_key.remove(&oldest);
        }
        is_left
    }
}

impl EventRates {
    /// Full allowances.
    #[must_use]
    pub fn new(limits: &[Limit]) -> Self {
        Self(limits.iter().map(|limit| (limit.clone(), Mutex::default())).collect())
    }
}

/// Refuses an event that is too much for one of the limits; the others have counted it all the same.
pub(super) fn check(call: &Call, new: &Value) -> Result<()> {
    let is_event = call.kind.plural == "events" && matches!(call.kind.group, "" | "events.k8s.io");
    if !is_event || call.is_dry_run()? {
        return Ok(());
    }
    let now = Instant::now();
    let mut refused = Vec::new();
    for (limit, buckets) in &call.app.event_rates.0 {
        let key = key(call, new, &limit.r#type);
        if !buckets.lock().take(&key, limit, now) {
            refused.push(format!("limit reached on type {} for key {key}", limit.r#type));
        }
    }
    let text = match refused.as_slice() {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let message = format!("Too many requests: {text}");
    Err(Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message))
}

fn key(call: &Call, event: &Value, kind: &str) -> String {
    let is_core = call.kind.group.is_empty();
    let (source, object) = if is_core { ("source", "involvedObject") } else { ("deprecatedSource", "regarding") };
    let of_source = ["component", "host"].map(|field| format!("/{source}/{field}"));
    let of_object = ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| format!("/{object}/{field}"));
    match kind {
        "Namespace" => call.namespace().to_owned(),
        "User" => call.user.name.clone(),
        "SourceAndObject" => of_source.iter().chain(&of_object).map(|path| tree::text(event, path)).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn allowances_fill_up_again() {
        let limit = Limit { r#type: "User".to_owned(), qps: 2, burst: 2, cache_size: 1 };
        let (mut buckets, start) = (Buckets::default(), Instant::now());
        let mut take = |key: &str, millis: u64| buckets.take(key, &limit, start + Duration::from_millis(millis));
        assert_eq!([take("a", 0), take("a", 0), take("a", 0)], [true, true, false]);
        assert_eq!([take("a", 500), take("a", 500)], [true, false]);
        // Who is forgotten begins anew.
        assert_eq!([take("b", 500), take("a", 500)], [true, true]);
    }

    #[test]
    fn limits_are_positive() {
        let texts = |limits: &[Limit]| errors(limits).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&[]), ["limits: Invalid value: null: must not be empty"]);
        let limit = Limit { r#type: "Server".to_owned(), qps: 1, burst: 0, cache_size: -1 };
        assert_eq!(texts(&[limit]), ["limits[0].burst: Invalid value: 0: must be positive"]);
    }
}
