//! The last steps of a server.
//!
//! ```text
//!  serving ── asked to stop ─▶ not ready ── delay ─▶ closing ── requests and watches are done ─▶ gone
//!                              (serves on)           (takes no new ones)
//! ```
//! While it is not ready, balancers take it off their lists, and clients notice nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::answer::{self, Body};
use crate::app::App;
use crate::config::Stopping;

/// Watches that are ended in a second at least, as upstream.
const MIN_ENDED: f64 = 200.0;
/// What is served to the very end: how the server is.
const TO_THE_END: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
/// Servers' own requests are, too.
const OWN_AGENT: &str = "kube-apiserver/";
/// Seconds after which a client may try elsewhere.
const ELSEWHERE: HeaderValue = HeaderValue::from_static("5");

/// Marks an answer after which its connection takes no further requests.
#[derive(Clone, Copy)]
pub struct LastOfConnection;

/// What has to be finished, and in which order watches are.
#[derive(Default)]
pub struct Ending {
    requests: TaskTracker,
    watches: Arc<()>,
    /// How many there were when the end began.
    at_end: OnceLock<usize>,
    ended: AtomicU64,
}

/// A watch that is counted.
pub struct WatchToken {
    _counted: Arc<()>,
}

impl Ending {
    /// Counts a request until this is dropped; those that go on for long are not waited for.
    pub fn request(&self) -> TaskTrackerToken {
        self.requests.token()
    }

    /// Counts a watch until this is dropped.
    pub fn watch(&self) -> WatchToken {
        WatchToken { _counted: self.watches.clone() }
    }

    /// In how long the next watch is to be ended: they come back to other servers, and not all in one moment.
    #[must_use]
    pub fn turn(&self, grace: Duration) -> Duration {
        if grace.is_zero() {
            return Duration::ZERO;
        }
        let before = self.ended.fetch_add(1, Relaxed);
        turn_of(before, self.begin() as u64, grace)
    }

    /// The end begins. Returns how many watches there were then: they keep their pace while they become fewer.
    fn begin(&self) -> usize {
        *self.at_end.get_or_init(|| Arc::strong_count(&self.watches) - 1)
    }

    /// Returns once no request runs that is waited for.
    pub async fn drained(&self) {
        self.requests.close();
        self.requests.wait().await;
    }
}

/// When the watch is ended that has so many before it, of so many.
#[allow(clippy::cast_precision_loss, reason = "there are not as many watches")]
fn turn_of(before: u64, at_end: u64, grace: Duration) -> Duration {
    let in_a_second = (at_end as f64 / grace.as_secs_f64()).max(MIN_ENDED);
    Duration::from_secs_f64(before as f64 / in_a_second).min(grace)
}

/// Closes the server some time after it was asked to stop.
pub async fn run(app: &App) {
    app.stopping.wait().await;
    let Stopping { delay, .. } = app.config.conduct.stopping;
    if !delay.is_zero() {
        tracing::info!(?delay, "asked to stop: not ready any more, and serving on for a while");
        tokio::time::sleep(delay).await;
    }
    let watches = app.ending.begin();
    tracing::info!(watches, "taking no new requests");
    app.shutdown.trigger();
    app.cache.wake_watches();
}

/// What a request is answered that came too late.
#[must_use]
pub fn refusal<B>(app: &App, request: &Request<B>) -> Option<Response<Body>> {
    if !app.config.conduct.stopping.sends_elsewhere || !app.shutdown.is_triggered() {
        return None;
    }
    let agent = request.headers().get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    let path = request.uri().path();
    if agent.starts_with(OWN_AGENT.as_bytes()) || TO_THE_END.iter().any(|prefix| path.starts_with(prefix)) {
        return None;
    }
    let text = "The apiserver is shutting down, please try again later.\n";
    let mut response = answer::text(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, ELSEWHERE);
    response.extensions_mut().insert(LastOfConnection);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watches_end_one_after_the_other_and_all_in_time() {
        let grace = Duration::from_secs(2);
        assert_eq!(turn_of(0, 1_000, grace), Duration::ZERO);
        assert_eq!(turn_of(10, 1_000, grace), Duration::from_millis(20));
        assert_eq!(turn_of(2_000, 1_000, grace), grace);
        // Few of them are not stretched over all of the time.
        assert_eq!(turn_of(4, 5, grace), Duration::from_millis(20));
    }

    #[test]
    fn many_watches_take_all_of_the_time_while_they_become_fewer() {
        let (ending, grace) = (Ending::default(), Duration::from_secs(60));
        let count: u32 = 24_000;
        let mut watches: Vec<WatchToken> = (0..count).map(|_| ending.watch()).collect();
        assert_eq!(ending.begin(), count as usize);
        // Some end at once, and others have their turn before them.
        let turn = |at| {
            let turn = ending.turn(grace);
            (at % 3 == 0).then(|| watches.pop());
            turn
        };
        let turns: Vec<Duration> = (0..count).map(turn).collect();
        assert!(turns.is_sorted() && turns.last().is_some_and(|last| (grace.mul_f64(0.95)..grace).contains(last)));
        let half = turns[turns.len() / 2];
        assert!((grace.mul_f64(0.49)..grace.mul_f64(0.51)).contains(&half), "{half:?}");
        // One that came in between does not wait for longer than there is time.
        let _another = ending.watch();
        assert_eq!(ending.turn(grace), grace);
        let two = Ending::default();
        let _watches = [two.watch(), two.watch()];
        assert_eq!([two.turn(grace), two.turn(grace)], [Duration::ZERO, Duration::from_millis(5)]);
    }

    #[tokio::test]
    async fn requests_are_waited_for() {
        let ending = Ending::default();
        let request = ending.request();
        let mut drained = std::pin::pin!(ending.drained());
        assert!(futures::poll!(drained.as_mut()).is_pending());
        drop(request);
        drained.await;
    }
}
