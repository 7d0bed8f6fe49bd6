//! Connections on which nothing happens.
//!
//! Each takes memory and a descriptor, and whoever never asks anything needs no name to hold as many as there are. As
//! with upstream's server one ends when nothing was asked for a while, and sooner when nothing was ever asked.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use lifecycle::Shutdown;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::stall::Patience;

/// How long a client may take to ask for something.
const FIRST: Duration = Duration::from_secs(32);
/// How long a connection may be idle between requests.
const BETWEEN: Duration = Duration::from_secs(90);
/// How long a client may take to leave once it is told to.
const GRACE: Duration = Duration::from_secs(5);

/// Requests of one connection.
#[derive(Clone)]
pub struct Activity(Arc<(Mutex<Requests>, Notify)>);

struct Requests {
    running: usize,
    /// When the connection is idle if none runs.
    until: Instant,
}

/// A request that runs until this is dropped.
pub struct Busy(Activity);

impl Activity {
    /// A connection that was just made.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new((Mutex::new(Requests { running: 0, until: Instant::now() + FIRST }), Notify::new())))
    }

    /// A request begins.
    #[must_use]
    pub fn begin(&self) -> Busy {
        self.0.0.lock().running += 1;
        Busy(self.clone())
    }

    /// Whether a request runs.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.0.0.lock().running > 0
    }

    /// Returns once nothing was asked for too long.
    async fn idle(&self, patience: &Patience) {
        loop {
            let until = {
                let requests = self.0.0.lock();
                // What a terminal or a tunnel does is no request, and one that runs may end at once.
                let is_busy = requests.running > 0 || patience.is_granted();
                if is_busy { Instant::now() + BETWEEN } else { requests.until }
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

impl Busy {
    /// This is the last request of its connection; those that run go on.
    pub fn dismiss(&self) {
        self.0.0.1.notify_one();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut requests = self.0.0.0.lock();
        requests.running -= 1;
        requests.until = Instant::now() + BETWEEN;
    }
}

/// Runs a connection until it ends. One that is idle for too long is closed: `close` tells it to take no further
/// requests, as it does once the connection is dismissed or the server stops; then those that run go on. None where it did
/// not end when it had to.
pub async fn run<C: Future>(
    mut connection: Pin<&mut C>,
    close: impl Fn(Pin<&mut C>),
    (activity, patience): (&Activity, &Patience),
    shutdown: &Shutdown,
) -> Option<C::Output> {
    let told = async {
        tokio::select! { () = shutdown.wait() => {}, () = activity.0.1.notified() => {} }
    };
    tokio::select! {
        output = connection.as_mut() => return Some(output),
        () = activity.idle(patience) => close(connection.as_mut()),
        () = told => {
            close(connection.as_mut());
            // A client that is not there any more does not leave either.
            tokio::select! {
                output = connection.as_mut() => return Some(output),
                () = activity.idle(patience) => {}
            }
        }
    }
    tokio::time::timeout(GRACE, connection).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_nothing_is_waited_for_a_while_and_longer_between_requests() {
        let (activity, patience) = (Activity::new(), Patience::default());
        let start = Instant::now();
        activity.idle(&patience).await;
        assert_eq!(start.elapsed().as_secs(), FIRST.as_secs());
        let busy = activity.begin();
        assert!(tokio::time::timeout(BETWEEN * 10, activity.idle(&patience)).await.is_err());
        drop(busy);
        let start = Instant::now();
        activity.idle(&patience).await;
        assert_eq!(start.elapsed().as_secs(), BETWEEN.as_secs());
        patience.grant();
        assert!(tokio::time::timeout(BETWEEN * 10, activity.idle(&patience)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_idle_is_closed_and_one_that_does_not_leave_is_left() {
        let closed = std::cell::Cell::new(false);
        let mut connection = std::pin::pin!(std::future::pending::<()>());
        let (activity, patience) = (Activity::new(), Patience::default());
        let start = Instant::now();
        let output = run(connection.as_mut(), |_| closed.set(true), (&activity, &patience), &Shutdown::new()).await;
        assert!(output.is_none() && closed.get());
        assert_eq!(start.elapsed().as_secs(), (FIRST + GRACE).as_secs());
    }
    #[tokio::test(start_paused = true)]
    async fn a_dismissed_connection_whose_client_is_gone_ends_too() {
        let mut connection = std::pin::pin!(std::future::pending::<()>());
        let (activity, patience) = (Activity::new(), Patience::default());
        let busy = activity.begin();
        busy.dismiss();
        let (start, answered) = (Instant::now(), Duration::from_secs(300));
        let (closed, shutdown) = (std::cell::Cell::new(0), Shutdown::new());
        let ended = run(connection.as_mut(), |_| closed.set(closed.get() + 1), (&activity, &patience), &shutdown);
        let answers = async {
            tokio::time::sleep(answered).await;
            drop(busy);
        };
        let ended = async { tokio::join!(ended, answers).0 };
        assert_eq!(tokio::time::timeout(BETWEEN * 10, ended).await, Ok(None));
        assert_eq!((start.elapsed(), closed.get()), (answered + BETWEEN + GRACE, 1));
    }
}
