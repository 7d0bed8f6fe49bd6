//! Notes at Secrets when the tokens in them were last used, so that those that nobody uses can be found.

use std::sync::Arc;

use lifecycle::Shutdown;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::mpsc;

use crate::app::{App, now};
use crate::auth::authn::SecretToken;
use crate::handlers::write::modify_tree;
use crate::start::internal_call;
use crate::status::Result;
use crate::strategy::Part;
use crate::tree;

/// Where the day of the last use stands.
const LABEL: &str = "kubernetes.io/legacy-token-last-used";
/// Uses that wait to be noted; more are forgotten, as the next one will be noted.
const QUEUE_LEN: usize = 64;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Uses that are to be noted.
pub struct Uses {
    sender: mpsc::Sender<SecretToken>,
    receiver: Mutex<Option<mpsc::Receiver<SecretToken>>>,
}

impl Default for Uses {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LEN);
        Self { sender, receiver: Mutex::new(Some(receiver)) }
    }
}

impl Uses {
    /// Lets a use be noted, unless there is too much to note already.
    pub fn tell(&self, used: &SecretToken) {
        if self.sender.try_send(used.clone()).is_err() {
            tracing::debug!(secret = used.name, "the use of a token is not noted: too many are");
        }
    }
}

/// Notes uses until shutdown.
pub async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let Some(mut uses) = app.access.uses.receiver.lock().take() else { return };
    loop {
        let used = tokio::select! {
            used = uses.recv() => used,
            () = shutdown.wait() => return,
        };
        let Some(used) = used else { return };
        if let Err(failure) = note(app, &used, now()).await {
            tracing::warn!(%failure, secret = used.name, "the use of a token could not be noted");
        }
    }
}

async fn note(app: &Arc<App>, used: &SecretToken, now: i64) -> Result<()> {
    let Some(kind) = api::kind_by_name("v1", "Secret") else { return Ok(()) };
    let Some(stored) = app.cache.known("", "secrets").get(&used.namespace, &used.name) else { return Ok(()) };
    if is_noted(stored.label(LABEL), now) {
        return Ok(());
    }
    let call = internal_call(app, kind, &used.namespace, "patch").on(&used.name);
    modify_tree(&call, Part::Main, |old| Ok(noted(old, used, now))).await.map(|_| ())
}

/// Whether this day is noted; clocks of other servers may be in the next one.
fn is_noted(label: Option<&str>, now: i64) -> bool {
    label.is_some_and(|label| label == day(now) || label == day(now + DAY_SECONDS))
}

fn day(seconds: i64) -> String {
    api::time::format_seconds(seconds).chars().take_while(|c| *c != 'T').collect()
}

/// The Secret with the day of its use, if it is the one that was used and not another by that name.
fn noted(old: &Value, used: &SecretToken, now: i64) -> Value {
    let mut new = old.clone();
    if tree::text(old, "/metadata/uid") == used.uid {
        let labels = tree::object_at(&mut new["metadata"], "labels");
        labels.insert(LABEL.to_owned(), day(now).into());
    }
    new
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_use_is_noted_once_a_day_at_the_secret_that_it_was_of() {
        let used =
            SecretToken { namespace: "ns".to_owned(), name: "s".to_owned(), uid: "u".to_owned(), is_generated: false };
        let now = 1_700_000_000;
        let label =
            |uid: &str| noted(&json!({"metadata": {"uid": uid}}), &used, now)["metadata"]["labels"][LABEL].clone();
        assert_eq!(label("u"), json!("2023-11-14"));
        assert_eq!(label("other"), Value::Null);
        assert!(is_noted(Some("2023-11-14"), now) && is_noted(Some("2023-11-15"), now));
        assert!(!is_noted(Some("2023-11-13"), now) && !is_noted(None, now));
    }
}
