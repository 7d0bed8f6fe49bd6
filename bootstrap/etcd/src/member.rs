//! Speaking to one member.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use etcd_client::{
    AlarmAction, AlarmOptions, AlarmType, Certificate, Client, ConnectOptions, GetOptions, Identity, MemberAddOptions,
    TlsOptions,
};
use machine_api::{EtcdMember, EtcdMemberState};

use crate::Error;

const CONNECT: Duration = Duration::from_secs(2);
/// For what a member answers from its memory or with the others' agreement.
const ANSWER: Duration = Duration::from_secs(5);
/// A member rewrites its whole database.
const DEFRAGMENT: Duration = Duration::from_secs(600);
/// How long members may be busy with another change.
const PATIENCE: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(500);
/// Between two parts of a snapshot.
const PART: Duration = Duration::from_secs(30);
/// Never there; asking for it needs a quorum.
const PROBE: &str = "health";
/// Names of members that an operator took out.
const DISMISSED: &str = "/keelson/etcd/dismissed/";

/// What members accept a master by.
#[derive(Clone)]
pub struct Access {
    ca_pem: Vec<u8>,
    identity: (Vec<u8>, Vec<u8>),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the certificates in the folder of all of them.
    ///
    /// # Errors
    /// When one is not there.
    pub fn load(pki: &Path) -> Result<Self, Error> {
        let read = |name: &str| fs::read(pki.join(name)).map_err(Error::file("read", pki.join(name)));
        let identity = (read("apiserver-etcd-client.crt")?, read("apiserver-etcd-client.key")?);
        Ok(Self { ca_pem: read("etcd/ca.crt")?, identity })
    }

    /// The way to a member; nothing is sent yet.
    ///
    /// # Errors
    /// When the address or the certificates cannot be used.
    pub async fn link(&self, url: &str) -> Result<Link, Error> {
        let tls = TlsOptions::new()
            .ca_certificate(Certificate::from_pem(&self.ca_pem))
            .identity(Identity::from_pem(&self.identity.0, &self.identity.1));
        let options = ConnectOptions::new().with_connect_timeout(CONNECT).with_tls(tls);
        let client = Client::connect([url], Some(options)).await;
        let client = client.map_err(|error| Error::Settings { url: url.to_owned(), reason: error.to_string() })?;
        Ok(Link { client, url: url.to_owned() })
    }
}

/// The way to one member.
#[derive(Clone)]
pub struct Link {
    client: Client,
    url: String,
}

impl Link {
    async fn ask<T>(
        &self,
        what: &'static str,
        within: Duration,
        call: impl Future<Output = Result<T, etcd_client::Error>>,
    ) -> Result<T, Error> {
        let url = || self.url.clone();
        match tokio::time::timeout(within, call).await {
            Ok(answer) => answer.map_err(|error| Error::Refused { url: url(), what, reason: reason(&error) }),
            Err(_elapsed) => Err(Error::Timeout { url: url(), what, seconds: within.as_secs() }),
        }
    }

    /// The member's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for something that a member can only answer with a majority of the others.
    ///
    /// # Errors
    /// When there is no quorum, or the member does not take part in it.
    pub async fn prove_quorum(&self) -> Result<(), Error> {
        let mut kv = self.client.kv_client();
        let options = GetOptions::new().with_count_only();
        self.ask("agree with the others", ANSWER, kv.get(PROBE, Some(options))).await.map(drop)
    }

    /// The members that this one knows of, also without a quorum. Learners refuse.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn members(&self) -> Result<Vec<EtcdMember>, Error> {
        let mut cluster = self.client.cluster_client();
        let answer = self.ask("list the members", ANSWER, cluster.member_list()).await?;
        Ok(answer.members().iter().map(member).collect())
    }

    /// How the member is, and its number. Works without a quorum.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn state(&self) -> Result<(u64, EtcdMemberState, bool), Error> {
        let mut maintenance = self.client.maintenance_client();
        let answer = self.ask("tell its status", ANSWER, maintenance.status()).await?;
        let id = answer.header().map_or(0, etcd_client::ResponseHeader::member_id);
        let bytes = |size: i64| u64::try_from(size).unwrap_or(0);
        let alarms = answer.errors().iter().filter_map(|text| text.rsplit_once("alarm:"));
        let state = EtcdMemberState {
            version: answer.version().to_owned(),
            is_leader: id != 0 && answer.leader() == id,
            database_bytes: bytes(answer.db_size()),
            used_bytes: bytes(answer.raft_used_db_size()),
            term: answer.raft_term(),
            raft_index: answer.raft_index(),
            applied_index: answer.raft_applied_index(),
            alarms: alarms.map(|(_, name)| name.trim().to_owned()).collect(),
        };
        Ok((id, state, answer.is_learner()))
    }

    /// Clears the alarm `NOSPACE` of a member. etcd raises it anew where there is still no space.
    ///
    /// # Errors
    /// When there is no quorum.
    pub async fn clear_no_space(&self, id: u64) -> Result<(), Error> {
        let mut maintenance = self.client.maintenance_client();
        let mut options = AlarmOptions::new();
        options.with_member(id);
        let call = maintenance.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(options));
        self.ask("clear the alarm NOSPACE", ANSWER, call).await.map(drop)
    }

    /// Forgets all revisions before the present one.
    ///
    /// # Errors
    /// When there is no quorum.
    pub async fn compact(&self) -> Result<(), Error> {
        let mut kv = self.client.kv_client();
        let options = GetOptions::new().with_count_only();
        let answer = self.ask("tell its revision", ANSWER, kv.get(PROBE, Some(options))).await?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        let options = etcd_client::CompactionOptions::new().with_physical();
        match self.ask("compact", DEFRAGMENT, kv.compact(revision, Some(options))).await {
            // Somebody else was faster.
            Err(Error::Refused { reason, .. }) if reason.contains("has been compacted") => Ok(()),
            done => done.map(drop),
        }
    }

    /// Lets the member give unused space back. It answers nobody else meanwhile.
    ///
    /// # Errors
    /// When it fails or takes too long.
    pub async fn defragment(&self) -> Result<(), Error> {
        let mut maintenance = self.client.maintenance_client();
        self.ask("defragment its database", DEFRAGMENT, maintenance.defragment()).await.map(drop)
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// When the member does not answer.
    pub async fn snapshot(&self) -> Result<SnapshotStream, Error> {
        let mut maintenance = self.client.maintenance_client();
        let parts = self.ask("send a snapshot", PART, maintenance.snapshot()).await?;
        Ok(SnapshotStream { link: self.clone(), parts })
    }

    /// Lets a master join without a vote.
    ///
    /// # Errors
    /// When the members do not agree.
    pub async fn add_learner(&self, peer_url: &str) -> Result<(), Error> {
        let add = || -> Change<'_> {
            Box::pin(async {
                let mut cluster = self.client.cluster_client();
                let options = MemberAddOptions::new().with_is_learner();
                let call = cluster.member_add([peer_url.to_owned()], Some(options));
                self.ask("add a learner", ANSWER, call).await.map(drop)
            })
        };
        patiently(add).await
    }

    /// Gives a learner its vote. Answers whether it had caught up and has it now.
    ///
    /// # Errors
    /// When the members do not agree.
    pub async fn promote(&self, id: u64) -> Result<bool, Error> {
        let mut cluster = self.client.cluster_client();
        match self.ask("promote a learner", ANSWER, cluster.member_promote(id)).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { reason, .. }) if reason.contains("in sync with leader") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// When the members do not agree: also when too few of them would remain.
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let remove = || -> Change<'_> {
            Box::pin(async move {
                let mut cluster = self.client.cluster_client();
                self.ask("remove a member", ANSWER, cluster.member_remove(id)).await.map(drop)
            })
        };
        patiently(remove).await
    }

    /// Tells the others where a member is now.
    ///
    /// # Errors
    /// When the members do not agree.
    pub async fn move_to(&self, id: u64, peer_url: &str) -> Result<(), Error> {
        let mut cluster = self.client.cluster_client();
        self.ask("change a member's address", ANSWER, cluster.member_update(id, [peer_url.to_owned()])).await.map(drop)
    }

    /// Remembers that an operator took a member out, so that it does not come back by itself with its old data.
    ///
    /// # Errors
    /// When there is no quorum.
    pub async fn dismiss(&self, name: &str) -> Result<(), Error> {
        let mut kv = self.client.kv_client();
        let call = kv.put(format!("{DISMISSED}{name}"), "", None);
        self.ask("note that a member was taken out", ANSWER, call).await.map(drop)
    }

    /// Whether an operator took a member out.
    ///
    /// # Errors
    /// When there is no quorum.
    pub async fn is_dismissed(&self, name: &str) -> Result<bool, Error> {
        let mut kv = self.client.kv_client();
        let answer = self.ask("tell who was taken out", ANSWER, kv.get(format!("{DISMISSED}{name}"), None)).await?;
        Ok(answer.count() > 0)
    }

    /// Forgets that: a new machine has the name now.
    ///
    /// # Errors
    /// When there is no quorum.
    pub async fn welcome(&self, name: &str) -> Result<(), Error> {
        let mut kv = self.client.kv_client();
        let call = kv.delete(format!("{DISMISSED}{name}"), None);
        self.ask("forget that a member was taken out", ANSWER, call).await.map(drop)
    }
}

type Change<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Changes the membership. After each change, and after each loss, members refuse the next one for some seconds.
async fn patiently<'a>(change: impl Fn() -> Change<'a> + Send) -> Result<(), Error> {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match change().await {
            Err(Error::Refused { reason, .. })
                if reason.contains("unhealthy cluster") && tokio::time::Instant::now() < end =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            done => return done,
        }
    }
}

/// A snapshot as it comes.
pub struct SnapshotStream {
    link: Link,
    parts: etcd_client::SnapshotStreaming,
}

impl SnapshotStream {
    /// The next part; `None` at the end, where its digest has been.
    ///
    /// # Errors
    /// When the member stops sending.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let part = self.link.ask("send a snapshot", PART, self.parts.message()).await?;
        Ok(part.map(|part| part.0.blob))
    }
}

fn member(member: &etcd_client::Member) -> EtcdMember {
    EtcdMember {
        id: format!("{:x}", member.id()),
        name: member.name().to_owned(),
        peer_urls: member.peer_urls().to_vec(),
        client_urls: member.client_urls().to_vec(),
        is_learner: member.is_learner(),
        ..EtcdMember::default()
    }
}

/// What a member said, or what is wrong with the way to it.
fn reason(error: &etcd_client::Error) -> String {
    match error {
        // The status alone mostly says no more than "transport error".
        etcd_client::Error::GRpcStatus(status) => match std::error::Error::source(status) {
            Some(cause) => format!("{}: {}", status.message(), stdx::chain(cause)),
            None => status.message().to_owned(),
        },
        other => other.to_string(),
    }
}
