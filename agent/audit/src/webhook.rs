//! The webhook: events are posted to another server as a list.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Hook, Way};
use stdx::Backoff;

/// Which server is told, and how patiently.
#[derive(Clone, Debug, PartialEq)]
pub struct WebhookConfig {
    /// A kubeconfig that says where the server is.
    pub kubeconfig: PathBuf,
    /// The pause before the second try.
    pub initial_backoff: Duration,
}

/// How often a batch is posted before it is given up.
const TRIES: u32 = 5;
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(300);

pub(crate) struct Webhook {
    hook: Hook,
    backoff: Backoff,
}

impl Webhook {
    pub(crate) fn new(config: &WebhookConfig, way: Option<Arc<dyn Way>>) -> client::Result<Self> {
        let hook = Hook::from_kubeconfig_by(way, &config.kubeconfig, "audit")?;
        let backoff = Backoff { initial: config.initial_backoff, factor: 1.5, max: MAX_PAUSE, jitter: 0.2 };
        Ok(Self { hook, backoff })
    }

    /// Posts events; false if nobody took them, whatever the reason.
    pub(crate) async fn deliver(&self, events: &[Bytes]) -> bool {
        let body = list(events);
        for attempt in 0..TRIES {
            match self.hook.post(body.clone()).await {
                Ok(_) => return true,
                Err(error) => {
                    let error = stdx::chain(&error).to_string();
                    tracing::warn!(error, events = events.len(), attempt, "audit events were not taken");
                }
            }
            if attempt + 1 < TRIES {
                tokio::time::sleep(self.backoff.next(attempt, rand::random())).await;
            }
        }
        false
    }
}

/// An `EventList` of events that are JSON text. Within a list the names of kind and version are left out upstream;
/// readers take them either way.
fn list(events: &[Bytes]) -> Bytes {
    let len: usize = events.iter().map(|event| event.len() + 1).sum();
    let mut body = Vec::with_capacity(len + 96);
    body.extend_from_slice(br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#);
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let named = br#""kind":"Event","apiVersion":"audit.k8s.io/v1","#;
        let event = event.strip_suffix(b"\n").unwrap_or(event);
        match event.strip_prefix(b"{").and_then(|rest| rest.strip_prefix(named)) {
            Some(rest) => {
                body.push(b'{');
                body.extend_from_slice(rest);
            }
            None => body.extend_from_slice(event),
        }
    }
    body.extend_from_slice(b"]}");
    body.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_go_as_a_list() {
        let event =
            Bytes::from_static(b"{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"level\":\"Metadata\"}\n");
        assert_eq!(
            list(&[event.clone(), event]),
            r#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":[{"level":"Metadata"},{"level":"Metadata"}]}"#
        );
    }
}
