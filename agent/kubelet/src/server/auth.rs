//! Who asks, and whether they may.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use client::Client;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a reviewed token is believed.
const TOKEN_KEPT: Duration = Duration::from_secs(120);
/// How long a permission is believed, and a refusal.
const ALLOWED_KEPT: Duration = Duration::from_secs(300);
const DENIED_KEPT: Duration = Duration::from_secs(30);
/// How long a caller waits for the API server's opinion.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);
/// Verdicts that are remembered.
const REMEMBERED: usize = 1024;
/// The group that may do everything, also when the API server is away.
const MASTERS: &str = "system:masters";

/// A known caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unauthenticated,
    Forbidden(String),
    /// The API server could not be asked.
    Unknown(String),
}

/// What is asked for, in the API's words: a verb on `nodes/SUBRESOURCE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Deed {
    verb: &'static str,
    subresource: &'static str,
}

/// Authenticates and authorizes.
pub(super) struct Gate {
    client: Client,
    tokens: Remembered<String, Option<User>>,
    verdicts: Remembered<(User, Deed), bool>,
}

impl Gate {
    pub(super) fn new(client: Client) -> Self {
        Self { client, tokens: Remembered::default(), verdicts: Remembered::default() }
    }

    /// Lets a request pass or says why not.
    pub(super) async fn admit<B>(
        &self,
        node: &str,
        request: &Request<B>,
        certificate: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let user = self.authenticate(request, certificate).await?;
        if user.groups.iter().any(|g| g == MASTERS) {
            return Ok(());
        }
        let deeds = deeds(request.method(), request.uri().path());
        for deed in &deeds {
            if self.may(node, &user, deed).await? {
                return Ok(());
            }
        }
        let deed = deeds.first().map_or("proxy", |d| d.subresource);
        let verb = deeds.first().map_or("get", |d| d.verb);
        Err(Refusal::Forbidden(format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{deed}])\n",
            user.name
        )))
    }

    async fn authenticate<B>(&self, request: &Request<B>, certificate: Option<&[u8]>) -> Result<User, Refusal> {
        if let Some(user) = certificate.and_then(certificate_user) {
            return Ok(user);
        }
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|h| h.strip_prefix("Bearer ")).map(str::trim).filter(|t| !t.is_empty());
        let token = token.ok_or(Refusal::Unauthenticated)?.to_owned();
        if let Some(known) = self.tokens.get(&token) {
            return known.ok_or(Refusal::Unauthenticated);
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}
        });
        let status = self.review("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
        let user = (status["authenticated"] == true).then(|| parse_user(&status["user"]));
        self.tokens.put(token, user.clone(), TOKEN_KEPT);
        user.ok_or(Refusal::Unauthenticated)
    }

    /// Posts a review and returns its status.
    async fn review(&self, path: &str, review: &Value) -> Result<Value, Refusal> {
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(Bytes::from(review.to_string()))
            .map_err(|error| unknown(&error))?;
        let exchange = async {
            let response = self.client.raw(request).await.map_err(|error| unknown(&stdx::chain(&error)))?;
            let code = response.status();
            let body = response.into_body().collect().await.map_err(|error| unknown(&error))?.to_bytes();
            if !code.is_success() {
                return Err(unknown(&format!("{path}: {code}")));
            }
            let answer: Value = serde_json::from_slice(&body).map_err(|error| unknown(&error))?;
            Ok(answer.get("status").cloned().unwrap_or_default())
        };
        let late = |_elapsed| unknown(&"no answer in time");
        tokio::time::timeout(REVIEW_TIMEOUT, exchange).await.map_err(late)?
    }

    async fn may(&self, node: &str, user: &User, deed: &Deed) -> Result<bool, Refusal> {
        let key = (user.clone(), deed.clone());
        if let Some(known) = self.verdicts.get(&key) {
            return Ok(known);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name, "uid": user.uid, "groups": user.groups,
                "resourceAttributes": {
                    "verb": deed.verb, "version": "v1", "resource": "nodes",
                    "subresource": deed.subresource, "name": node,
                },
            }
        });
        let status = self.review("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
        let allowed = status["allowed"] == true;
        self.verdicts.put(key, allowed, if allowed { ALLOWED_KEPT } else { DENIED_KEPT });
        Ok(allowed)
    }
}

fn unknown(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::Unknown(format!("the API server could not be asked: {why}\n"))
}

fn parse_user(user: &Value) -> User {
    let text = |name: &str| user[name].as_str().unwrap_or_default().to_owned();
    let groups = user["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let groups = groups.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    User { name: text("username"), uid: text("uid"), groups }
}

fn certificate_user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned);
    let groups = groups.chain(["system:authenticated".to_owned()]).collect();
    Some(User { name, uid: String::new(), groups })
}

/// What a request does; any one that is allowed suffices (the finer one, or the old `nodes/proxy`).
fn deeds(method: &Method, path: &str) -> Vec<Deed> {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let first = path.split('/').nth(1).unwrap_or_default();
    let (subresource, is_fine) = match first {
        "stats" => ("stats", false),
        "metrics" => ("metrics", false),
        "logs" => ("log", false),
        "spec" => ("spec", false),
        "checkpoint" => ("checkpoint", false),
        "healthz" => ("healthz", true),
        "configz" => ("configz", true),
        "pods" | "runningpods" => ("pods", true),
        _ => ("proxy", false),
    };
    let mut deeds = vec![Deed { verb, subresource }];
    if is_fine {
        deeds.push(Deed { verb, subresource: "proxy" });
    }
    deeds
}

/// Answers kept for a while, at most so many.
struct Remembered<K, V> {
    entries: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: Mutex::new(HashMap::new()) }
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(key).filter(|(_, until)| *until > Instant::now()).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, kept: Duration) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if entries.len() >= REMEMBERED {
            entries.retain(|_, (_, until)| *until > now);
        }
        if entries.len() >= REMEMBERED {
            entries.clear();
        }
        entries.insert(key, (value, now + kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_subresources() {
        for (path, expected) in [
            ("/pods", vec!["pods", "proxy"]),
            ("/metrics/resource", vec!["metrics"]),
            ("/stats/summary", vec!["stats"]),
            ("/exec/ns/pod/c", vec!["proxy"]),
            ("/healthz", vec!["healthz", "proxy"]),
        ] {
            let found: Vec<_> = deeds(&Method::GET, path).into_iter().map(|d| d.subresource).collect();
            assert_eq!(found, expected, "{path}");
        }
        assert_eq!(deeds(&Method::POST, "/run/x")[0].verb, "create");
    }
}
