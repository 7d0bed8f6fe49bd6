//! Another server that knows tokens, asked with a `TokenReview`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Hook, Way};
use serde_json::{Value, json};
use stdx::Backoff;

use super::remembered::Remembered;
use super::{AuthnError, TokenUser, remember_key};
use crate::auth::identity::UserInfo;
use crate::reviewed::{self, Asked};

const KIND: &str = "TokenReview";
/// What answers have to fit.
const SCHEMA: &str = "k8s.io.api.authentication.v1.TokenReview";

/// Pauses between tries, as upstream has them.
pub(in crate::auth) const BACKOFF: Backoff =
    Backoff { initial: Duration::from_millis(500), factor: 1.5, max: Duration::from_secs(30), jitter: 0.2 };

/// Where the server is, and how long it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWebhook {
    /// A kubeconfig whose cluster is the server.
    pub kubeconfig: PathBuf,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long an answer counts.
    pub ttl: Duration,
}

/// Asks the server.
pub(super) struct Webhook {
    hook: Hook,
    version: String,
    ttl: i64,
    answers: Remembered<Option<TokenUser>>,
}

impl Webhook {
    pub(super) fn new(settings: &TokenWebhook, way: Option<Arc<dyn Way>>) -> Result<Self, String> {
        if !matches!(settings.version.as_str(), "v1" | "v1beta1") {
            return Err(format!("unsupported webhook authenticator version {:?}", settings.version));
        }
        let hook = Hook::from_kubeconfig_by(way, &settings.kubeconfig, "authentication");
        let hook = hook.map_err(|e| format!("{}: {}", settings.kubeconfig.display(), stdx::chain(&e)))?;
        let ttl = i64::try_from(settings.ttl.as_secs()).unwrap_or(i64::MAX);
        Ok(Self { hook, version: settings.version.clone(), ttl, answers: Remembered::default() })
    }

    /// The holder of a token, if the server knows it. `own` are the audiences of this server.
    pub(super) async fn authenticate(
        &self,
        token: &str,
        audiences: Option<&[String]>,
        own: &[String],
        now: i64,
    ) -> Result<Option<TokenUser>, AuthnError> {
        let key = remember_key(token, audiences);
        if let Some(known) = self.answers.get(&key, now) {
            return Ok(known);
        }
        let wanted = audiences.unwrap_or(own);
        let api_version = format!("authentication.k8s.io/{}", self.version);
        let review = json!({
            "kind": KIND, "apiVersion": api_version, "metadata": {},
            "spec": {"token": token, "audiences": wanted}, "status": {"user": {}},
        });
        let failed = |why: String| AuthnError::Token(why);
        // The fields of an answer are the same in both versions.
        let asked = Asked { api_version: &api_version, kind: KIND, schema: SCHEMA };
        let answer = reviewed::ask(&self.hook, &asked, &review, &BACKOFF).await.map_err(|error| {
            tracing::error!(error, "the webhook that knows tokens could not be asked");
            failed(error)
        })?;
        let found = holder(&answer["status"], wanted, own).map_err(failed)?;
        self.answers.put(key, found.clone(), now.saturating_add(self.ttl), now);
        Ok(found)
    }
}

/// What the status of a review says.
fn holder(status: &Value, wanted: &[String], own: &[String]) -> Result<Option<TokenUser>, String> {
    let list = |value: &Value| -> Vec<String> {
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let told = list(&status["audiences"]);
    let meant_for = if told.is_empty() { own } else { &told };
    let audiences: Vec<String> = wanted.iter().filter(|audience| meant_for.contains(audience)).cloned().collect();
    if audiences.is_empty() && !wanted.is_empty() {
        return Ok(None);
    }
    if status["authenticated"] != true {
        return match status["error"].as_str() {
            None | Some("") => Ok(None),
            Some(why) => Err(why.to_owned()),
        };
    }
    let user = &status["user"];
    let text = |key: &str| user[key].as_str().unwrap_or_default().to_owned();
    let extra = user["extra"].as_object().into_iter().flatten();
    let extra: BTreeMap<String, Vec<String>> = extra.map(|(key, values)| (key.clone(), list(values))).collect();
    let user = UserInfo { name: text("username"), uid: text("uid"), groups: list(&user["groups"]), extra };
    Ok(Some(TokenUser { user, audiences, secret: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_is_known_and_meant_for_us_is_believed() {
        let own = ["api".to_owned()];
        let user = json!({"username": "jane", "uid": "7", "groups": ["g"], "extra": {"k": ["v"]}});
        let found = holder(&json!({"authenticated": true, "user": user}), &own, &own).unwrap().unwrap();
        assert_eq!((found.user.name.as_str(), found.user.groups.len(), found.audiences.len()), ("jane", 1, 1));
        assert_eq!(found.user.extra["k"], ["v"]);
        assert_eq!(holder(&json!({"authenticated": true, "user": user, "audiences": ["x"]}), &own, &own), Ok(None));
        assert_eq!(holder(&json!({"authenticated": false}), &own, &own), Ok(None));
        assert_eq!(holder(&json!({"error": "why"}), &own, &own), Err("why".to_owned()));
        assert_eq!(holder(&Value::Null, &own, &own), Ok(None));
    }
}
