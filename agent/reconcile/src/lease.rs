//! Leadership by a `coordination.k8s.io` Lease, as upstream's components do it.
//!
//! ```text
//!   Waiting ──(free, expired or ours)──▶ Leading ──(renewal failed for too long)──▶ lost: the work is stopped
//!      ▲                                    │
//!      └────────────── (shutdown: the lease is given back) ◀──────┘
//! ```
//!
//! Only local time spans are compared: clocks of machines may differ.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::coordination::v1::Lease;
use api::meta::v1::MicroTime;
use client::Client;
use lifecycle::Shutdown;
use stdx::chain;
use tokio::time::Instant;
use tracing::{debug, info, warn};

/// Which lease, who asks, how fast.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// Namespace of the lease.
    pub namespace: String,
    /// Name of the lease.
    pub name: String,
    /// Who asks; has to differ between processes.
    pub identity: String,
    /// A lease that was not renewed for so long is free.
    pub duration: Duration,
    /// A leader that could not renew for so long stops.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
}

impl LeaseConfig {
    /// Upstream's times: 15 s, 10 s, 2 s.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why leading ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The lease could not be renewed in time, or somebody else has it.
    #[error("lease {namespace}/{name} was lost")]
    Lost {
        /// Namespace of the lease.
        namespace: String,
        /// Name of the lease.
        name: String,
    },
    /// The work ended although nobody asked it to.
    #[error("the work under lease {namespace}/{name} ended by itself")]
    WorkEnded {
        /// Namespace of the lease.
        namespace: String,
        /// Name of the lease.
        name: String,
    },
}

/// A claim to leadership.
pub struct LeaderLease {
    client: Client,
    config: LeaseConfig,
    seen: Option<Seen>,
}

/// The lease as last seen, and since when it looks like that.
struct Seen {
    lease: Lease,
    since: Instant,
}

/// What to do about a lease.
#[derive(Debug, PartialEq, Eq)]
enum Claim {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free: take it.
    Take,
    /// Somebody else has it.
    Wait,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// The lease is ours now.
    Ours,
    /// Somebody else has it, or was faster.
    Others,
    /// The server did not answer, or refused.
    Failed,
}

/// Before the second attempt at a server that does not answer; doubled up to the retry period.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

impl LeaderLease {
    /// A claim that nobody has made yet.
    #[must_use]
    pub fn new(client: Client, config: LeaseConfig) -> Self {
        Self { client, config, seen: None }
    }

    /// Waits for leadership, then runs `lead` and renews the lease beside it. `lead` gets a shutdown of its own, which
    /// is triggered by `shutdown` and by the loss of the lease; `run` returns after `lead` has.
    ///
    /// # Errors
    /// When leadership was lost, or the work ended by itself. Without a shutdown there is no orderly end.
    pub async fn run<F, Fut>(mut self, shutdown: Shutdown, lead: F) -> Result<(), LeaseError>
    where
        F: FnOnce(Shutdown) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut patience = FIRST_PAUSE;
        loop {
            let pause = match self.attempt().await {
                Attempt::Ours => break,
                Attempt::Others => self.config.retry_period,
                // A cluster that is just starting need not wait for a whole period.
                Attempt::Failed => {
                    let pause = patience;
                    patience = (patience * 2).min(self.config.retry_period);
                    pause
                }
            };
            tokio::select! {
                () = shutdown.wait() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
        info!(lease = self.config.name, identity = self.config.identity, "leading");
        let work_shutdown = shutdown.child();
        let work = lead(work_shutdown.clone());
        tokio::pin!(work);
        let (name, namespace) = (self.config.name.clone(), self.config.namespace.clone());
        tokio::select! {
            () = &mut work => {
                self.release().await;
                if shutdown.is_triggered() { Ok(()) } else { Err(LeaseError::WorkEnded { namespace, name }) }
            }
            () = shutdown.wait() => {
                work.await;
                self.release().await;
                Ok(())
            }
            () = self.keep() => {
                warn!(lease = name, "leadership was lost");
                work_shutdown.trigger();
                work.await;
                Err(LeaseError::Lost { namespace, name })
            }
        }
    }

    /// Renews until that has failed for too long.
    async fn keep(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.config.renew_deadline {
            tokio::time::sleep(self.config.retry_period).await;
            let left = self.config.renew_deadline.saturating_sub(renewed.elapsed()).max(self.config.retry_period);
            if tokio::time::timeout(left, self.attempt()).await == Ok(Attempt::Ours) {
                renewed = Instant::now();
            } else if self.seen.as_ref().is_some_and(|seen| holder(&seen.lease) != self.config.identity) {
                return;
            }
        }
    }

    /// One look at the lease and, where it may be ours, one write.
    async fn attempt(&mut self) -> Attempt {
        match self.try_attempt().await {
            Ok(true) => Attempt::Ours,
            Ok(false) => Attempt::Others,
            Err(error) if error.is_conflict() || error.is_already_exists() => {
                debug!(lease = self.config.name, "somebody else was faster");
                self.seen = self.seen.take().filter(|seen| holder(&seen.lease) != self.config.identity);
                Attempt::Others
            }
            Err(error) => {
                warn!(lease = self.config.name, error = %chain(&error), "lease cannot be claimed");
                Attempt::Failed
            }
        }
    }

    async fn try_attempt(&mut self) -> Result<bool, client::Error> {
        // A leader writes from what it wrote last; a conflict makes it look again.
        let ours = self.seen.as_ref().filter(|seen| holder(&seen.lease) == self.config.identity);
        if ours.is_none() {
            self.observe().await?;
        }
        let now = wall_clock();
        let written = match plan_claim(self.seen.as_ref(), &self.config, Instant::now()) {
            Claim::Wait => return Ok(false),
            Claim::Create => self.client.create(&claimed(Lease::default(), &self.config, &now)).await?,
            Claim::Renew | Claim::Take => {
                let current = self.seen.as_ref().map(|seen| seen.lease.clone()).unwrap_or_default();
                self.client.update(&claimed(current, &self.config, &now)).await?
            }
        };
        self.seen = Some(Seen { lease: written, since: Instant::now() });
        Ok(true)
    }

    async fn observe(&mut self) -> Result<(), client::Error> {
        match self.client.get::<Lease>(Some(&self.config.namespace), &self.config.name).await {
            Ok(lease) => {
                let unchanged = self.seen.as_ref().is_some_and(|seen| seen.lease.spec == lease.spec);
                let since = self.seen.as_ref().filter(|_| unchanged).map_or_else(Instant::now, |seen| seen.since);
                self.seen = Some(Seen { lease, since });
                Ok(())
            }
            Err(error) if error.is_not_found() => {
                self.seen = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the lease back, so that the next leader need not wait.
    async fn release(&mut self) {
        let Some(seen) = self.seen.take().filter(|seen| holder(&seen.lease) == self.config.identity) else { return };
        let mut lease = seen.lease;
        lease.spec.holder_identity = Some(String::new());
        lease.spec.lease_duration_seconds = Some(1);
        lease.spec.renew_time = Some(wall_clock());
        if let Err(error) = self.client.update(&lease).await {
            debug!(lease = self.config.name, error = %chain(&error), "lease was not given back");
        }
    }
}

fn holder(lease: &Lease) -> &str {
    lease.spec.holder_identity.as_deref().unwrap_or_default()
}

fn plan_claim(seen: Option<&Seen>, config: &LeaseConfig, now: Instant) -> Claim {
    let Some(seen) = seen else { return Claim::Create };
    let duration = seen.lease.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.map_or(config.duration, Duration::from_secs);
    match holder(&seen.lease) {
        identity if identity == config.identity => Claim::Renew,
        "" => Claim::Take,
        _ if now.duration_since(seen.since) > duration => Claim::Take,
        _ => Claim::Wait,
    }
}

/// The lease as it is when `config.identity` holds it.
fn claimed(mut lease: Lease, config: &LeaseConfig, now: &MicroTime) -> Lease {
    lease.metadata.namespace.clone_from(&config.namespace);
    lease.metadata.name.clone_from(&config.name);
    if holder(&lease) != config.identity {
        let transitions = lease.spec.lease_transitions.unwrap_or(0);
        let first = lease.metadata.resource_version.is_empty();
        lease.spec.lease_transitions = Some(if first { 0 } else { transitions.saturating_add(1) });
        lease.spec.acquire_time = Some(*now);
        lease.spec.holder_identity = Some(config.identity.clone());
    }
    lease.spec.lease_duration_seconds = Some(i32::try_from(config.duration.as_secs()).unwrap_or(i32::MAX));
    lease.spec.renew_time = Some(*now);
    lease
}

pub(crate) fn wall_clock() -> MicroTime {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    MicroTime::from_unix_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(holder: &str, since: Instant) -> Seen {
        let mut lease = Lease::default();
        lease.spec.holder_identity = Some(holder.to_owned());
        lease.spec.lease_duration_seconds = Some(15);
        Seen { lease, since }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_only_when_free_or_unrenewed() {
        let config = LeaseConfig::new("kube-system", "x", "me");
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(plan_claim(None, &config, start), Claim::Create);
        assert_eq!(plan_claim(Some(&seen("me", start)), &config, after(100)), Claim::Renew);
        assert_eq!(plan_claim(Some(&seen("", start)), &config, start), Claim::Take);
        assert_eq!(plan_claim(Some(&seen("other", start)), &config, after(15)), Claim::Wait);
        assert_eq!(plan_claim(Some(&seen("other", start)), &config, after(16)), Claim::Take);
    }

    #[test]
    fn a_takeover_counts_and_a_renewal_does_not() {
        let config = LeaseConfig::new("kube-system", "x", "me");
        let mut lease = claimed(Lease::default(), &config, &MicroTime::from_unix(1));
        assert_eq!(lease.spec.lease_transitions, Some(0));
        lease.metadata.resource_version = "1".to_owned();
        let renewed = claimed(lease.clone(), &config, &MicroTime::from_unix(2));
        assert_eq!(renewed.spec.lease_transitions, Some(0));
        assert_eq!(renewed.spec.acquire_time, lease.spec.acquire_time);
        let other = LeaseConfig { identity: "other".to_owned(), ..config };
        assert_eq!(claimed(renewed, &other, &MicroTime::from_unix(3)).spec.lease_transitions, Some(1));
    }
}
