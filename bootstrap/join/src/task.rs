//! Does one step after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use client::Identity;
use lifecycle::Shutdown;
use pki::San;
use stdx::{Backoff, chain};
use tokio::sync::watch;

use crate::config::{Config, Trust};
use crate::discovery::{connect, discover};
use crate::error::Error;
use crate::files::{self, NodeIdentity};
use crate::plan::{Credential, Step, plan};
use crate::request::{Wanted, obtain};

/// A control plane that starts beside the worker is there within seconds; one that is down is not pestered.
const RETRY: Backoff =
    Backoff { initial: Duration::from_millis(250), factor: 2.0, max: Duration::from_secs(1), jitter: 0.5 };
/// Clocks jump and machines sleep: the longest time between two looks at the clock.
const LONGEST_SLEEP: Duration = Duration::from_secs(600);
/// Between two looks for a CA that the manifest trusts and the masters do not tell of yet.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// The node's certificates as they are at present.
#[derive(Debug, Clone)]
pub struct Certificates(watch::Receiver<Option<Arc<NodeIdentity>>>);

impl Certificates {
    /// The present certificates; `None` until the machine has joined.
    #[must_use]
    pub fn current(&self) -> Option<Arc<NodeIdentity>> {
        self.0.borrow().clone()
    }

    /// Waits until the machine has joined. `None` if joining was given up. Cancel safe.
    pub async fn joined(&mut self) -> Option<Arc<NodeIdentity>> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Waits for the next change. `None` if there will be none. Cancel safe.
    pub async fn changed(&mut self) -> Option<Arc<NodeIdentity>> {
        self.0.changed().await.ok()?;
        self.0.borrow_and_update().clone()
    }
}

/// The joining of one machine.
pub struct Join {
    config: Config,
    sans: BTreeSet<San>,
    publish: watch::Sender<Option<Arc<NodeIdentity>>>,
    client_rejected: bool,
}

impl Join {
    /// A join that has not begun, and where its results will be.
    #[must_use]
    pub fn new(config: Config) -> (Self, Certificates) {
        let (publish, receiver) = watch::channel(None);
        let mut sans: BTreeSet<San> = config.addresses.iter().copied().map(San::Ip).collect();
        sans.insert(San::Dns(config.node.clone()));
        (Self { config, sans, publish, client_rejected: false }, Certificates(receiver))
    }

    /// Joins, and keeps the certificates fresh until shutdown. Failures are logged and tried again.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut failures = 0;
        loop {
            let wait = tokio::select! {
                () = shutdown.wait() => return,
                result = self.step() => match result {
                    Ok(wait) => {
                        failures = 0;
                        wait
                    }
                    Err(error) => {
                        tracing::warn!(error = %chain(&error), "joining the cluster, will try again");
                        let wait = RETRY.next(failures, random_share());
                        failures = failures.saturating_add(1);
                        wait
                    }
                },
            };
            tokio::select! {
                () = shutdown.wait() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// One step; returns how long nothing is to be done.
    async fn step(&mut self) -> Result<Duration, Error> {
        let (mut observed, identity) = files::observe(&self.config)?;
        observed.client_rejected = self.client_rejected;
        let now = SystemTime::now();
        let step = plan(&observed, self.config.wants_serving.then_some(&self.sans), now);
        let is_usable = !matches!(step, Step::Discover | Step::RequestClient(Credential::Token));
        if let (true, Some(identity)) = (is_usable, &identity) {
            files::export(&self.config, identity)?;
            self.publish_if_new(identity);
        }
        tracing::debug!(?step, "joining the cluster");
        match step {
            Step::SleepUntil(time) => return Ok(time.duration_since(now).unwrap_or_default().min(LONGEST_SLEEP)),
            Step::Discover => self.discover().await?,
            Step::Complete(until) => return self.complete(until.duration_since(now).unwrap_or_default()).await,
            Step::RequestClient(credential) => {
                let result = self.request(credential, identity, &Wanted::client()).await;
                self.note_rejection(credential, &result);
                result?;
            }
            Step::RequestServing => {
                let wanted = Wanted::serving(self.sans.clone());
                let result = self.request(Credential::Certificate, identity, &wanted).await;
                self.note_rejection(Credential::Certificate, &result);
                result?;
            }
        }
        Ok(Duration::ZERO)
    }

    fn publish_if_new(&self, identity: &NodeIdentity) {
        self.publish.send_if_modified(|present| {
            let is_new = present.as_deref() != Some(identity);
            if is_new {
                *present = Some(Arc::new(identity.clone()));
            }
            is_new
        });
    }

    async fn discover(&self) -> Result<(), Error> {
        let pem = match &self.config.trust {
            Trust::Authority { pem, .. } => pem.clone(),
            Trust::Hashes(hashes) => pki::bundle(&discover(&self.config, hashes).await?),
        };
        files::write(&files::authority_path(&self.config), &pem, false)
    }

    /// Looks for what the manifest trusts beside what is known. The node works meanwhile, so that this is nothing to
    /// hurry for.
    async fn complete(&self, left: Duration) -> Result<Duration, Error> {
        let (Trust::Hashes(hashes), Some(known)) = (&self.config.trust, files::authorities(&self.config)?) else {
            return Ok(Duration::ZERO);
        };
        let more = discover(&self.config, hashes).await.map(|found| known.with(&found));
        match more {
            Ok(pem) if pem != known.pem => {
                files::write(&files::authority_path(&self.config), &pem, false).map(|()| Duration::ZERO)
            }
            Ok(_) => {
                tracing::warn!("the masters do not trust the other CA of the manifest yet");
                Ok(left.min(LOOK_AGAIN))
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "looking for the other CA of the manifest");
                Ok(left.min(LOOK_AGAIN))
            }
        }
    }

    async fn request(
        &self,
        credential: Credential,
        identity: Option<NodeIdentity>,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let trusted = files::authorities(&self.config)?.ok_or(Error::ClusterInfo)?;
        let identity = match (credential, identity) {
            (Credential::Certificate, Some(identity)) => Identity::Certificate {
                cert_pem: identity.client.cert_pem.into_bytes(),
                key_pem: identity.client.key_pem.into_bytes(),
            },
            (Credential::Certificate, None) | (Credential::Token, _) => {
                Identity::Token(self.config.token.as_ref().ok_or(Error::NoToken)?.bearer())
            }
        };
        let client = connect(&self.config, Some(&trusted.pem), identity)?;
        obtain(&self.config, &client, &trusted, wanted).await
    }

    /// A certificate that the server does not know is given up for the token, until there is another one.
    fn note_rejection(&mut self, credential: Credential, result: &Result<(), Error>) {
        match (credential, result) {
            (Credential::Certificate, Err(error)) if error.is_unauthorized() => self.client_rejected = true,
            (Credential::Token, Ok(())) => self.client_rejected = false,
            (Credential::Certificate | Credential::Token, _) => {}
        }
    }
}

/// A share from 0 to 1 for the spread of retries.
fn random_share() -> f64 {
    let mut byte = [0];
    // Without random bytes machines retry in step, which is no reason to stop.
    pki::os_random(&mut byte).map_or(0.5, |()| f64::from(byte[0]) / 255.0)
}
