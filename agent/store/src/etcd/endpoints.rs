//! The members of the cluster and which of them to ask.
//!
//! Every member has its own connection, made when it is first needed and kept alive. All calls go to one member until
//! it fails; then the next one is asked, and stays in use.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Certificate, Channel, Client, ConnectOptions, Identity, KvClient, TlsOptions};

use tonic::transport::Endpoint;

use super::refusal::Refusal;
use super::{Config, MAX_MESSAGE_BYTES, Tls};
use crate::{Error, Result};

/// How often an idle connection is probed, so that a dead member is noticed by watches too.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a probe may stay unanswered.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Endpoints {
    members: Vec<Arc<Member>>,
    /// The member in use, modulo their number.
    preferred: AtomicUsize,
    request_timeout: Duration,
}

/// A member of the cluster.
pub(super) struct Member {
    pub(super) client: Client,
    /// Ready for calls: to make one for each is half the work of a small call.
    kv: KvClient,
}

impl Member {
    /// What keys are read and written with.
    pub(super) fn kv(&self) -> KvClient {
        self.kv.clone()
    }
}

/// A member as it was picked for a call.
pub(super) struct Picked {
    pub(super) member: Arc<Member>,
    index: usize,
}

impl Endpoints {
    pub(super) async fn new(config: &Config) -> Result<Self> {
        let mut members = Vec::with_capacity(config.endpoints.len());
        for endpoint in &config.endpoints {
            let failed = |error: etcd_client::Error| Error::Settings { reason: format!("{endpoint}: {error}") };
            let client = connect(endpoint, config).await.map_err(failed)?;
            let kv = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
            members.push(Arc::new(Member { client, kv }));
        }
        if members.is_empty() {
            return Err(Error::Settings { reason: "no endpoints".to_owned() });
        }
        Ok(Self { members, preferred: AtomicUsize::new(0), request_timeout: config.request_timeout })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// The member in use.
    pub(super) fn pick(&self) -> Picked {
        let index = self.preferred.load(Ordering::Relaxed);
        Picked { member: self.members[index % self.members.len()].clone(), index }
    }

    /// Makes the next member the one in use, unless somebody else did so already.
    pub(super) fn give_up(&self, picked: &Picked) {
        let next = picked.index.wrapping_add(1);
        // Losing the race means that another caller has moved on, which is just as good.
        let _moved = self.preferred.compare_exchange(picked.index, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    }

    /// A call that may be repeated: every member is asked once before giving up.
    pub(super) async fn read<T, F, Fut>(&self, operation: &'static str, call: F) -> Result<T>
    where
        F: Fn(Arc<Member>) -> Fut,
        Fut: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        self.call(operation, |refusal| refusal.error.is_retryable(), call).await.map_err(|refusal| refusal.error)
    }

    /// A call that must happen at most once: another member is asked only when nothing was sent.
    pub(super) async fn write<T, F, Fut>(&self, operation: &'static str, call: F) -> std::result::Result<T, Refusal>
    where
        F: Fn(Arc<Member>) -> Fut,
        Fut: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        self.call(operation, |refusal| refusal.unsent, call).await
    }

    async fn call<T, F, Fut>(
        &self,
        operation: &'static str,
        may_repeat: impl Fn(&Refusal) -> bool,
        call: F,
    ) -> std::result::Result<T, Refusal>
    where
        F: Fn(Arc<Member>) -> Fut,
        Fut: Future<Output = std::result::Result<T, etcd_client::Error>>,
    {
        let mut attempts_left = self.members.len();
        loop {
            let picked = self.pick();
            let refusal = match tokio::time::timeout(self.request_timeout, call(picked.member.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Refusal::from(error),
                Err(_) => Refusal::from(Error::Timeout { operation }),
            };
            if matches!(refusal.error, Error::Unavailable { .. } | Error::Timeout { .. }) {
                self.give_up(&picked);
            }
            attempts_left -= 1;
            if attempts_left == 0 || !may_repeat(&refusal) {
                return Err(refusal);
            }
            tracing::debug!(error = %refusal.error, operation, "asking the next etcd member");
        }
    }
}

async fn connect(endpoint: &str, config: &Config) -> std::result::Result<Client, etcd_client::Error> {
    let options = connect_options(config);
    match &config.way {
        None => Client::connect([endpoint], Some(options)).await,
        Some(way) => {
            let channel = way.channel(member(endpoint, config)?);
            Client::from_channel(Channel::Tonic(channel), Some(options)).await
        }
    }
}

/// A member that is reached by another way; the settings are those of [`connect_options`].
fn member(endpoint: &str, config: &Config) -> std::result::Result<Endpoint, etcd_client::Error> {
    // The proxy on the way has deadlines of its own, and no call waits for longer.
    let member = Endpoint::from_shared(endpoint.to_owned())?
        .connect_timeout(config.request_timeout)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Ok(match &config.tls {
        Some(tls) => member.tls_config(tls_options(tls))?,
        None => member,
    })
}

fn connect_options(config: &Config) -> ConnectOptions {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_keep_alive(KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT)
        .with_keep_alive_while_idle(true)
        // A member that lost its cluster then says so instead of going quiet.
        .with_require_leader(true);
    if let Some(tls) = &config.tls {
        options = options.with_tls(tls_options(tls));
    }
    options
}

fn tls_options(tls: &Tls) -> TlsOptions {
    let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
    if let Some((certificate, key)) = &tls.client_pem {
        options = options.identity(Identity::from_pem(certificate, key));
    }
    options
}
