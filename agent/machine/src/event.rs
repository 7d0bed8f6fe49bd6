//! What is told to the machine's events, which the first process keeps: it says it, too.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use machine_api::Event;
use sys::{Linux, System};

/// Tells something, once. `about` tells it from what others tell at the same time.
pub(crate) fn tell(run: &Path, about: &str, event: &Event) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    tracing::info!("{}", event.message);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = run.join(format!("inbox/say-{about}-{number}"));
    if let Err(error) = Linux.replace(&file, event.to_json().as_bytes(), 0o600) {
        tracing::warn!(error = %stdx::chain(&error), "the machine's events were not told");
    }
}
