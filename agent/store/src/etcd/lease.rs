//! Leases shared by keys with the same time to live.
//!
//! One lease per key would cost etcd far more than the key. Keys written within about a minute of each other share
//! one, which therefore lives a little longer than any of them asked for.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoints::Endpoints;
use crate::Result;

/// How long a lease is handed out at most, and so how much longer than asked a key may live.
const REUSE_MAX: Duration = Duration::from_secs(60);

/// Short-lived keys may outlive their time by this share of it only.
const REUSE_SHARE: u32 = 20;

/// The most keys on one lease: its end deletes them all in one go.
const KEYS_PER_LEASE: usize = 1_000;

/// Times to live remembered at once; there are only a handful in practice.
const LEASES_LEN: usize = 16;

#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<u64, Shared>>);

struct Shared {
    id: i64,
    ends: Instant,
    keys: usize,
}

impl Leases {
    /// A lease that ends no sooner than after `ttl`.
    pub(super) async fn get(&self, endpoints: &Endpoints, ttl: Duration) -> Result<i64> {
        let seconds = ttl.as_secs().max(1);
        let ttl = Duration::from_secs(seconds);
        let reuse = (ttl / REUSE_SHARE).min(REUSE_MAX);
        let mut leases = self.0.lock().await;
        let now = Instant::now();
        if let Some(shared) = leases.get_mut(&seconds)
            && shared.ends >= now + ttl
            && shared.keys < KEYS_PER_LEASE
        {
            shared.keys += 1;
            return Ok(shared.id);
        }
        let granted = seconds + reuse.as_secs();
        let ask = i64::try_from(granted).unwrap_or(i64::MAX);
        let lease = endpoints
            .read("lease grant", |member| async move { member.client.lease_client().grant(ask, None).await })
            .await?;
        leases.retain(|_, shared| shared.ends > now);
        if leases.len() < LEASES_LEN {
            let ends = now + Duration::from_secs(granted);
            leases.insert(seconds, Shared { id: lease.id(), ends, keys: 1 });
        }
        Ok(lease.id())
    }

    /// Forgets a lease that the cluster does not know any more.
    pub(super) async fn forget(&self, id: i64) {
        self.0.lock().await.retain(|_, shared| shared.id != id);
    }
}
