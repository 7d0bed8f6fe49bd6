//! Since when legacy tokens of service accounts are tracked, as a ConfigMap says. What cleans such tokens up reads it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::Shutdown;
use serde_json::{Value, json};

use super::change;
use crate::app::App;
use crate::codec;
use crate::start::make;
use crate::status::Result;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const DATE: &str = "%Y-%m-%d";
/// How soon the ConfigMap is made again: servers that want it gone would otherwise be fought.
const PAUSE: Duration = Duration::from_secs(30 * 60);
/// How soon what failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the ConfigMap as it should be, until shutdown.
pub(super) async fn run(app: &Arc<App>, shutdown: &Shutdown) {
    let storage = app.cache.known("", "configmaps");
    let mut news = storage.subscribe();
    let mut made: Option<Instant> = None;
    loop {
        news.mark_unchanged();
        let wait = match mend(app, &mut made).await {
            Ok(wait) => wait,
            Err(failure) => {
                tracing::warn!(%failure, "the ConfigMap about legacy tokens could not be written");
                RETRY
            }
        };
        tokio::select! {
            () = news.changed() => {}
            () = tokio::time::sleep(wait) => {}
            () = shutdown.wait() => return,
        }
    }
}

fn today() -> String {
    jiff::Timestamp::now().strftime(DATE).to_string()
}

fn is_date(text: &Value) -> bool {
    text.as_str().is_some_and(|text| text.len() == 10 && jiff::civil::Date::strptime(DATE, text).is_ok())
}

/// Makes or mends it; returns when to look again at the latest.
async fn mend(app: &Arc<App>, made: &mut Option<Instant>) -> Result<Duration> {
    let storage = app.cache.known("", "configmaps");
    let Some(object) = storage.get(NAMESPACE, NAME) else {
        let left = made.map(|at| PAUSE.saturating_sub(at.elapsed())).filter(|left| !left.is_zero());
        if let Some(left) = left {
            return Ok(left);
        }
        let data = json!({"since": today()});
        make(
            app,
            NAMESPACE,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}),
        )
        .await?;
        *made = Some(Instant::now());
        return Ok(PAUSE);
    };
    if !is_date(&codec::to_value(storage, storage.kind, &object)?["data"]["since"]) {
        change(app, ("v1", "ConfigMap"), (NAMESPACE, NAME), |old| {
            if !is_date(&old["data"]["since"]) {
                old["data"]["since"] = today().into();
            }
        })
        .await?;
    }
    Ok(PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days() {
        assert!(is_date(&json!(today())));
        assert!(is_date(&json!("2026-11-21")));
        assert!(["", "2026-13-01", "2026-1-1", "yesterday"].iter().all(|text| !is_date(&json!(text))));
    }
}
