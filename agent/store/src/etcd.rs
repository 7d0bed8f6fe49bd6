//! A store in an etcd cluster.
//!
//! Every write is one transaction that compares the key's last modification and returns the key when that differs.
//! Reads are linearizable. Every call has a deadline; another member is asked when one does not answer, writes only
//! when nothing can have been sent. Nothing runs in the background here: a watch works while it is polled.

mod endpoints;
mod follow;
mod lease;
mod refusal;
mod way;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::proto::PbKeyValue;
use etcd_client::{
    AlarmAction, AlarmType, Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures::StreamExt;

use self::endpoints::{Endpoints, Member};
use self::follow::Follower;
use self::lease::Leases;
use self::refusal::Refusal;
pub use self::way::Way;
use crate::model::{GetResult, KeyValue, RangeRequest, RangeResult, Revision, WriteResult};
use crate::watch::{ProgressHandle, WatchRequest, WatchStream};
use crate::{Error, Result, Store};

/// The largest answer taken. A page of the largest objects stays below it; it only guards against a broken server.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// A key that never exists, asked for to learn the revision.
const PROBE_KEY: &str = "health";

/// How to reach the cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// The members' client addresses, each a URL.
    pub endpoints: Vec<String>,
    /// Certificates; `None` for plain HTTP on loopback.
    pub tls: Option<Tls>,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for one member's answer.
    pub request_timeout: Duration,
    /// By which way members are reached; straight without.
    pub way: Option<Way>,
}

impl Config {
    /// The usual deadlines.
    #[must_use]
    pub fn new(endpoints: Vec<String>, tls: Option<Tls>) -> Self {
        let (connect_timeout, request_timeout) = (Duration::from_secs(2), Duration::from_secs(10));
        Self { endpoints, tls, connect_timeout, request_timeout, way: None }
    }
}

/// Certificates of the connection, as PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who signs the members' certificates.
    pub ca_pem: Vec<u8>,
    /// Our own certificate and key.
    pub client_pem: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// A client of an etcd cluster.
pub struct Etcd {
    endpoints: Arc<Endpoints>,
    leases: Leases,
}

impl Etcd {
    /// Checks the settings. Nothing is connected before the first call, so the cluster need not run yet.
    pub async fn new(config: Config) -> Result<Self> {
        Ok(Self { endpoints: Arc::new(Endpoints::new(&config).await?), leases: Leases::default() })
    }

    /// How many members are known.
    #[must_use]
    pub fn members(&self) -> usize {
        self.endpoints.len()
    }

    async fn guarded(
        &self,
        key: &Bytes,
        expected: Revision,
        write: TxnOp,
    ) -> std::result::Result<WriteResult, Refusal> {
        let txn = Txn::new()
            .when([Compare::mod_revision(&key[..], CompareOp::Equal, expected)])
            .and_then([write])
            .or_else([TxnOp::get(&key[..], None)]);
        let answer = self
            .endpoints
            .write("write", |member| {
                let txn = txn.clone();
                async move { member.kv().txn(txn).await }
            })
            .await?;
        write_result(&answer).map_err(Refusal::from)
    }

    async fn put(
        &self,
        key: &Bytes,
        value: &Bytes,
        expected: Revision,
        lease: Option<i64>,
    ) -> std::result::Result<WriteResult, Refusal> {
        let options = lease.map(|id| PutOptions::new().with_lease(id));
        self.guarded(key, expected, TxnOp::put(&key[..], &value[..], options)).await
    }

    async fn get_range(&self, key: &[u8], options: GetOptions) -> Result<etcd_client::GetResponse> {
        self.endpoints
            .read("read", |member| {
                let options = options.clone();
                async move { member.kv().get(key, Some(options)).await }
            })
            .await
    }
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<GetResult> {
        let answer = self.get_range(key, GetOptions::new().with_revision(revision.unwrap_or(0))).await?.0;
        let revision = header_revision(answer.header.as_ref())?;
        Ok(GetResult { kv: answer.kvs.into_iter().next().map(key_value), revision })
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResult> {
        if !request.end.is_empty() && request.end <= request.start {
            return Ok(RangeResult { revision: self.current_revision().await?, ..RangeResult::default() });
        }
        let mut options = GetOptions::new()
            .with_range(or_zero(&request.end))
            .with_limit(i64::try_from(request.limit).unwrap_or(i64::MAX))
            .with_revision(request.revision.unwrap_or(0));
        if request.keys_only {
            options = options.with_keys_only();
        }
        if request.count_only {
            options = options.with_count_only();
        }
        let answer = self.get_range(or_zero(&request.start), options).await?.0;
        Ok(RangeResult {
            revision: header_revision(answer.header.as_ref())?,
            more: answer.more,
            count: usize::try_from(answer.count).unwrap_or(0),
            kvs: answer.kvs.into_iter().map(key_value).collect(),
        })
    }

    async fn create(&self, key: Bytes, value: Bytes, ttl: Option<Duration>) -> Result<WriteResult> {
        self.update(key, value, 0, ttl).await
    }

    async fn update(&self, key: Bytes, value: Bytes, expected: Revision, ttl: Option<Duration>) -> Result<WriteResult> {
        let Some(ttl) = ttl else {
            return self.put(&key, &value, expected, None).await.map_err(|refusal| refusal.error);
        };
        let lease = self.leases.get(&self.endpoints, ttl).await?;
        match self.put(&key, &value, expected, Some(lease)).await {
            Err(refusal) if refusal.lease_lost => {
                self.leases.forget(lease).await;
                let lease = self.leases.get(&self.endpoints, ttl).await?;
                self.put(&key, &value, expected, Some(lease)).await.map_err(|refusal| refusal.error)
            }
            result => result.map_err(|refusal| refusal.error),
        }
    }

    async fn delete(&self, key: Bytes, expected: Revision) -> Result<WriteResult> {
        if expected == 0 {
            // The guard would hold for a missing key, and nothing would be deleted.
            let found = self.get(&key, None).await?;
            return Ok(WriteResult::Conflict { current: found.kv, revision: found.revision });
        }
        let write = TxnOp::delete(&key[..], None);
        self.guarded(&key, expected, write).await.map_err(|refusal| refusal.error)
    }

    async fn watch(&self, request: WatchRequest) -> Result<WatchStream> {
        let next = match request.from_revision {
            0 => self.current_revision().await? + 1,
            from => from,
        };
        let progress = ProgressHandle::default();
        let follower = Follower::new(Arc::clone(&self.endpoints), request.prefix, next, progress.clone());
        let batches = futures::stream::unfold(Some(follower), |follower| async move {
            let mut follower = follower?;
            match follower.next_batch().await {
                Ok(batch) => Some((Ok(batch), Some(follower))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(WatchStream::new(batches.boxed(), progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        let answer = self.get_range(PROBE_KEY.as_bytes(), GetOptions::new().with_count_only()).await?;
        header_revision(answer.0.header.as_ref())
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let call = |member: Arc<Member>| async move { member.kv().compact(revision, None).await };
        self.endpoints.write("compact", call).await.map(drop).map_err(|refusal| refusal.error)
    }

    async fn size(&self) -> Result<Option<u64>> {
        // Members grow apart until they are defragmented; the one that answers stands for all.
        let call = |member: Arc<Member>| async move { member.client.maintenance_client().status().await };
        let status = self.endpoints.read("status", call).await?;
        Ok(Some(status.db_size().unsigned_abs()))
    }

    async fn health(&self) -> Result<()> {
        self.current_revision().await?;
        let call = |member: Arc<Member>| async move {
            member.client.maintenance_client().alarm(AlarmAction::Get, AlarmType::None, None).await
        };
        let alarms = self.endpoints.read("alarms", call).await?;
        match alarms.alarms().first().map(etcd_client::AlarmMember::alarm) {
            None | Some(AlarmType::None) => Ok(()),
            Some(AlarmType::Nospace) => Err(Error::NoSpace),
            Some(AlarmType::Corrupt) => Err(Error::Unavailable { reason: "a member's data is corrupt".to_owned() }),
        }
    }
}

fn write_result(answer: &TxnResponse) -> Result<WriteResult> {
    let revision = header_revision(answer.0.header.as_ref())?;
    if answer.succeeded() {
        return Ok(WriteResult::Committed { revision });
    }
    match answer.op_responses().into_iter().next() {
        Some(TxnOpResponse::Get(found)) => {
            Ok(WriteResult::Conflict { current: found.0.kvs.into_iter().next().map(key_value), revision })
        }
        _ => Err(Error::Protocol { reason: "a failed transaction without the key".to_owned() }),
    }
}

/// etcd spells "from the first key" and "to the last key" as a zero byte.
fn or_zero(bound: &[u8]) -> &[u8] {
    if bound.is_empty() { b"\0" } else { bound }
}

fn header_revision(header: Option<&etcd_client::proto::PbResponseHeader>) -> Result<Revision> {
    header.map(|header| header.revision).ok_or_else(|| Error::Protocol { reason: "no header".to_owned() })
}

fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.into(),
        value: kv.value.into(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    }
}

#[cfg(test)]
mod tests;
