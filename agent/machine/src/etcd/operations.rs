//! What operators ask for. A refusal is a text for them.

use std::time::Duration;

use bytes::Bytes;
use etcd::{Access, Link, Restore, SnapshotStream};
use machine_api::{EtcdDefragmentation, EtcdDefragmented, EtcdMember, EtcdStatus, FileSource};
use remote::{Download, Source};
use stdx::chain;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{DEPENDENT, Etcd, SERVICE};

/// A member that was started anew, with a large database, has it read by then.
const BACK: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_millis(500);
/// How much of a snapshot waits for the disk.
const QUEUE_LEN: usize = 16;
/// etcd advises against databases of half the size.
const SNAPSHOT_BYTES: u64 = 16 << 30;

fn text(error: &etcd::Error) -> String {
    chain(error).to_string()
}

impl Etcd {
    /// A snapshot of this master's member.
    pub(crate) async fn snapshot(&self) -> Result<SnapshotStream, String> {
        self.own().await?.snapshot().await.map_err(|error| text(&error))
    }

    /// Takes a member out.
    pub(crate) async fn remove(&self, which: &str) -> Result<EtcdStatus, String> {
        let _turn = self.turn()?;
        let status = self.status().await.map_err(|error| text(&error))?;
        let member = etcd::may_remove(&status, which)?;
        let id = member.number().ok_or("etcd's number of the member is none")?;
        // A member that takes itself out cannot tell how that went.
        let other = status.members.iter().find(|other| other.id != member.id && other.state.is_some());
        let link = self.link(other.ok_or("no other member takes part")?).await?;
        if !member.name.is_empty() {
            link.dismiss(&member.name).await.map_err(|error| text(&error))?;
        }
        link.remove(id).await.map_err(|error| text(&error))?;
        self.until(|status| status.members.iter().all(|member| member.number() != Some(id))).await
    }

    /// Notes that etcd is given up when this machine is no master any more.
    pub(crate) fn give_up(&self) -> Result<(), etcd::Error> {
        etcd::give_up(&self.master.state)
    }

    /// Makes this member a cluster of its own with the data that it has.
    pub(crate) async fn recover(&self, is_forced: bool) -> Result<EtcdStatus, String> {
        let _turn = self.turn()?;
        // Where nobody answers there is no quorum either.
        if let (false, Ok(status)) = (is_forced, self.status().await) {
            etcd::may_recover(&status)?;
        }
        etcd::order_recovery(&self.master.config.data_dir, &self.master.state).map_err(|error| text(&error))?;
        self.restart(&[SERVICE]).map_err(|error| text(&error))?;
        self.until(|status| status.has_quorum && status.members.len() == 1).await
    }

    /// Begins to take a snapshot in.
    pub(crate) async fn restore(&self, is_forced: bool) -> Result<Restoring<'_>, String> {
        let turn = self.turn()?;
        if let (false, Ok(status)) = (is_forced, self.status().await) {
            etcd::may_replace(&status)?;
        }
        let state = self.master.state.clone();
        let (sender, mut receiver) = mpsc::channel::<Option<Bytes>>(QUEUE_LEN);
        let work = tokio::task::spawn_blocking(move || {
            let mut restore = Restore::create(&state)?;
            loop {
                match receiver.blocking_recv() {
                    Some(Some(part)) => restore.add(&part)?,
                    Some(None) => return restore.finish(),
                    None => return Err(etcd::Error::Snapshot("whoever sent it went away")),
                }
            }
        });
        Ok(Restoring { etcd: self, sender, work, _turn: turn })
    }

    /// Fetches a snapshot and takes it in.
    pub(crate) async fn fetch(&self, asked: &FileSource, is_forced: bool) -> Result<EtcdStatus, String> {
        let mut download = Download::new(self.snapshot_at(asked)?);
        let restoring = self.restore(is_forced).await?;
        while let Some(part) = download.next().await.map_err(|error| chain(&error).to_string())? {
            if !restoring.add(part).await {
                break;
            }
        }
        restoring.finish().await
    }

    /// A snapshot somewhere else. What is in this master's own store is asked for as its manifest says.
    fn snapshot_at(&self, asked: &FileSource) -> Result<Source, String> {
        let address = &asked.source;
        let kept = self.master.snapshots.as_ref().and_then(|snapshots| snapshots.kept.as_ref());
        let own = kept.and_then(|kept| kept.store.find(kept.bucket.as_deref(), address, SNAPSHOT_BYTES));
        let source = match own {
            Some(own) => own,
            None if address.starts_with("s3://") => {
                return Err(format!("{address} is in no store that `etcd.snapshots.store` in the manifest names"));
            }
            None => {
                let url = address.parse().map_err(|error| format!("{address:?}: {error}"))?;
                let peer = self.master.outbound.web(&url);
                Source { url, peer, limit: SNAPSHOT_BYTES, bytes: None, sha256: None }
            }
        };
        if !["http", "https"].contains(&source.url.scheme()) {
            return Err(format!("{address:?} begins with none of https://, http://, s3://"));
        }
        if asked.sha256.is_none() && !remote::is_private(&source.url, &source.peer.trust) {
            return Err("it comes without TLS, and nothing proves what it is: tell its SHA-256".to_owned());
        }
        Ok(Source { sha256: asked.sha256.clone(), ..source })
    }

    /// Lets all members give unused space back, one at a time.
    pub(crate) async fn defragment(&self) -> Result<EtcdDefragmentation, String> {
        let _turn = self.turn()?;
        let status = self.status().await.map_err(|error| text(&error))?;
        let order = etcd::defragmentation_order(&status)?;
        let is_full = |member: &&EtcdMember| {
            member.state.as_ref().is_some_and(|state| state.alarms.iter().any(|alarm| alarm == "NOSPACE"))
        };
        let full: Vec<EtcdMember> = order.iter().copied().filter(is_full).cloned().collect();
        if !full.is_empty() {
            self.own().await?.compact().await.map_err(|error| text(&error))?;
        }
        let mut done = EtcdDefragmentation::default();
        for member in order {
            let link = self.link(member).await?;
            let before_bytes = size(&link).await?;
            link.defragment().await.map_err(|error| text(&error))?;
            // The next one only when this one takes part again.
            let id = member.id.clone();
            let takes_part = |member: &EtcdMember| member.state.is_some();
            self.until(|now| now.has_quorum && now.members.iter().any(|m| m.id == id && takes_part(m))).await?;
            done.members.push(EtcdDefragmented {
                name: member.label().to_owned(),
                before_bytes,
                after_bytes: size(&link).await?,
            });
        }
        for member in full {
            let id = member.number().ok_or("etcd's number of the member is none")?;
            self.own().await?.clear_no_space(id).await.map_err(|error| text(&error))?;
            done.cleared.push(format!("NOSPACE of {}", member.label()));
        }
        Ok(done)
    }

    fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, String> {
        self.turn.try_acquire().map_err(|_taken| "another change of etcd is under way on this master".to_owned())
    }

    async fn own(&self) -> Result<Link, String> {
        let url = self.master.config.local_url();
        self.at(&url).await
    }

    async fn link(&self, member: &EtcdMember) -> Result<Link, String> {
        let url = member.client_urls.first().ok_or_else(|| format!("{} has not started yet", member.label()))?;
        self.at(url).await
    }

    async fn at(&self, url: &str) -> Result<Link, String> {
        let access: Access = self.access().map_err(|error| text(&error))?;
        access.link(url).await.map_err(|error| text(&error))
    }

    /// Waits until the members are as they should be.
    async fn until(&self, is_it: impl Fn(&EtcdStatus) -> bool) -> Result<EtcdStatus, String> {
        let end = Instant::now() + BACK;
        loop {
            let missing = match self.status().await {
                Ok(status) if is_it(&status) => return Ok(status),
                Ok(status) => match status.conditions.is_empty() {
                    true => format!("there are {} members", status.members.len()),
                    false => status.conditions.join("; "),
                },
                Err(error) => text(&error),
            };
            if Instant::now() > end {
                let seconds = BACK.as_secs();
                return Err(format!(
                    "it was done, and after {seconds} s etcd is not as it should be: {missing}; `keelson status` tells \
                     of the service etcd"
                ));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Takes all other members out, so that they join what comes.
    async fn stand_alone(&self) -> Result<(), String> {
        let Ok(status) = self.status().await else { return Ok(()) };
        if !status.has_quorum {
            return Ok(());
        }
        let own = self.own().await?;
        // Those that are down first: each that is taken out makes the majority of the rest easier.
        let mut others: Vec<&EtcdMember> =
            status.members.iter().filter(|member| member.name != self.master.config.member.name).collect();
        others.sort_by_key(|member| (!member.is_learner, member.state.is_some()));
        for id in others.into_iter().filter_map(EtcdMember::number) {
            own.remove(id).await.map_err(|error| text(&error))?;
        }
        Ok(())
    }
}

async fn size(link: &Link) -> Result<u64, String> {
    link.state().await.map(|(_, state, _)| state.database_bytes).map_err(|error| text(&error))
}

/// A snapshot that is being taken in.
pub(crate) struct Restoring<'a> {
    etcd: &'a Etcd,
    /// Parts, and at the end nothing.
    sender: mpsc::Sender<Option<Bytes>>,
    work: tokio::task::JoinHandle<Result<(), etcd::Error>>,
    _turn: tokio::sync::SemaphorePermit<'a>,
}

impl Restoring<'_> {
    /// The next part. What comes after the disk failed is dropped; answers whether it has not. The end tells why.
    pub(crate) async fn add(&self, part: Bytes) -> bool {
        self.sender.send(Some(part)).await.is_ok()
    }

    /// Verifies the snapshot and lets etcd start from it.
    pub(crate) async fn finish(self) -> Result<EtcdStatus, String> {
        // Whoever takes no more has failed, and says why.
        self.sender.send(None).await.ok();
        drop(self.sender);
        let finished = self.work.await.map_err(|error| error.to_string())?;
        finished.map_err(|error| text(&error))?;
        self.etcd.stand_alone().await?;
        self.etcd.restart(&[SERVICE, DEPENDENT]).map_err(|error| text(&error))?;
        let new = self.etcd.master.state.join("etcd.new");
        let is_alone = |status: &EtcdStatus| !new.exists() && status.has_quorum && status.members.len() == 1;
        self.etcd.until(is_alone).await?;
        // The task beside starts etcd anew until the others may join.
        self.etcd.until(|status| is_alone(status) && !etcd::is_secluded(&self.etcd.master.config)).await
    }
}
