//! etcd on a master: what operators ask of it, and what is done by itself.
//!
//! By itself, a learner that has caught up gets its vote, a member that the others went on without starts anew, and
//! snapshots are taken. Everything else is asked for, and refused where it would risk the quorum.

mod operations;
mod schedule;
mod upload;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use etcd::{Access, Error, Member, Whereabouts};
use lifecycle::Shutdown;
use machine_api::{Condition, EtcdStatus, NetworkStatus};
use stdx::chain;
use sys::{Linux, System};
use tokio::sync::{Notify, Semaphore, watch};

use crate::unmet;

pub use schedule::Snapshots;
pub use upload::Kept;

/// How often the own member is looked at: nothing tells when a learner has caught up.
const LOOK: Duration = Duration::from_secs(10);
/// Its text keeps the machine from being ready.
const CONDITION: &str = "conditions/etcd";
/// Its text does not.
const MISSED: &str = "conditions/etcd-snapshots.concern";
const NAMES: &str = "conditions/etcd-members.concern";
/// Services that the first process starts anew, one a line.
const RESTART: &str = "inbox/restart";
const SERVICE: &str = "etcd";
const STATUS_TELLS: &str = "`keelson etcd status` says what to do";
/// What holds what etcd held before.
const DEPENDENT: &str = "control-plane";
/// What knows the machine by its address: the first issues certificates for a new one.
const ADDRESSED: [&str; 4] = ["bootstrap", SERVICE, DEPENDENT, "node"];
/// An address that was there so often, one look after the other, is taken for the machine's new one.
const LASTS: u32 = 3;

/// What a master needs to know of etcd.
#[derive(Clone, Debug)]
pub struct Master {
    /// Its member.
    pub config: etcd::Config,
    /// The folder of STATE.
    pub state: PathBuf,
    /// Where the manifest says that the member is; otherwise it is where the network says that the machine is.
    pub address: Option<IpAddr>,
    /// Snapshots by schedule.
    pub snapshots: Option<Snapshots>,
    /// How servers elsewhere are reached.
    pub outbound: remote::Outbound,
}

/// etcd, for the machine API and for the task beside it.
pub(crate) struct Etcd {
    master: Master,
    pki: PathBuf,
    run: PathBuf,
    network: watch::Receiver<NetworkStatus>,
    /// An address that the member does not run with, and how often it was found.
    moved: Mutex<Option<(IpAddr, u32)>>,
    /// One change at a time.
    turn: Semaphore,
    /// That a snapshot was taken.
    taken: Notify,
    /// Why the last snapshot by schedule was not taken.
    missed: Mutex<Option<String>>,
}

impl Etcd {
    pub(crate) fn new(
        master: Master,
        (pki, run): (&Path, &Path),
        network: watch::Receiver<NetworkStatus>,
    ) -> Arc<Self> {
        let (pki, run) = (pki.to_owned(), run.to_owned());
        let (turn, taken) = (Semaphore::new(1), Notify::new());
        let (missed, moved) = (Mutex::default(), Mutex::default());
        Arc::new(Self { master, pki, run, network, moved, turn, taken, missed })
    }

    /// One of a machine that has nothing else.
    #[cfg(test)]
    pub(crate) fn of_nothing(run: &Path) -> Arc<Self> {
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n";
        let manifest = manifest::parse("m.toml", text).unwrap();
        let config = etcd::Config::new(&manifest, std::net::Ipv4Addr::LOCALHOST.into(), run);
        let master = Master {
            config,
            state: run.to_owned(),
            address: None,
            snapshots: None,
            outbound: remote::Outbound::default(),
        };
        Self::new(master, (run, run), watch::channel(NetworkStatus::default()).1)
    }

    /// Read anew each time, so that renewed certificates count at once.
    fn access(&self) -> Result<Access, Error> {
        Access::load(&self.pki)
    }

    /// How the members are, and what was taken of them.
    pub(crate) async fn status(&self) -> Result<EtcdStatus, Error> {
        let mut status = etcd::observe(&self.master.config, &self.access()?).await?;
        if let Some(snapshots) = &self.master.snapshots {
            status.snapshots = snapshots.list();
            let missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner).clone();
            status.conditions.extend(missed.map(|why| format!("EtcdSnapshotMissed: {why}")));
        }
        Ok(status)
    }

    /// Does what is done by itself until shutdown.
    pub(crate) async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let snapshots = async {
            match &self.master.snapshots {
                Some(snapshots) => self.take_snapshots(snapshots).await,
                None => std::future::pending().await,
            }
        };
        let elsewhere = async {
            match self.master.snapshots.as_ref().and_then(|snapshots| Some((snapshots, snapshots.kept.as_ref()?))) {
                Some((snapshots, kept)) => self.keep_elsewhere(snapshots, kept).await,
                None => self.tell(upload::CONDITION, None),
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.wait() => {}
            () = self.keep_member() => {}
            () = snapshots => {}
            () = elsewhere => {}
        }
    }

    async fn keep_member(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look_after_member().await {
                Ok(lack) => self.tell(CONDITION, lack.as_ref()),
                Err(error) => tracing::debug!(error = %chain(&error), "etcd cannot be looked after now"),
            }
        }
    }

    /// Does what the own member needs; answers what it lacks.
    async fn look_after_member(&self) -> Result<Option<Condition>, Error> {
        let access = self.access()?;
        let config = &self.master.config;
        let own = config.local_url();
        let Ok((id, state, is_learner)) = access.link(&own).await?.state().await else {
            // The supervisor tells of a member that does not run.
            self.start_anew_if_left(&access).await?;
            return Ok(None);
        };
        if is_learner {
            if etcd::promote(config, &access, id).await? {
                tracing::info!("etcd: this master's member has caught up and has its vote");
                return Ok(None);
            }
            let why = "this master's member of etcd has no vote until it has caught up";
            return Ok(Some(Condition::new(
                "EtcdLearner",
                why,
                "it catches up by itself; `keelson etcd status` tells how far",
            )));
        }
        if let Some(lack) = self.follow_address(&access, id).await? {
            return Ok(Some(lack));
        }
        if etcd::is_secluded(config) {
            self.restart(&[SERVICE])?;
            let why = "etcd makes ready for the other masters after a snapshot was restored";
            return Ok(Some(Condition::new("EtcdRestored", why, "it is ready by itself soon")));
        }
        let alarms = state.alarms.join(", ");
        if !alarms.is_empty() {
            let why = format!("etcd has raised {alarms}");
            return Ok(Some(Condition::new("EtcdAlarm", why, STATUS_TELLS)));
        }
        if access.link(&own).await?.prove_quorum().await.is_err() {
            self.start_anew_if_left(&access).await?;
            let why = "this master's member of etcd takes part in no majority";
            return Ok(Some(Condition::new("EtcdQuorumLost", why, STATUS_TELLS)));
        }
        let members = access.link(&own).await?.members().await?;
        let differ = etcd::differ(config, &members);
        self.tell(NAMES, differ.map(|why| Condition::new(etcd::DIFFER, why, etcd::DIFFER_FIX)).as_ref());
        Ok(None)
    }

    /// How many snapshots by schedule are here, and where.
    pub(crate) fn snapshots_here(&self) -> Option<(usize, &Path)> {
        let snapshots = self.master.snapshots.as_ref()?;
        let count = snapshots.list().len();
        (count > 0).then_some((count, snapshots.folder.as_path()))
    }

    /// Lets the member follow the machine to another address; answers what it lacks meanwhile.
    async fn follow_address(&self, access: &Access, id: u64) -> Result<Option<Condition>, Error> {
        let Some(address) = self.address() else { return Ok(None) };
        let own = Member { name: self.master.config.member.name.clone(), address };
        let link = access.link(&self.master.config.local_url()).await?;
        match etcd::follow_address(&link, id, &own).await? {
            Whereabouts::Known => {
                *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Ok(None)
            }
            Whereabouts::Told => {
                tracing::warn!(%address, "etcd: the members know this master's new address");
                Ok(None)
            }
            Whereabouts::Elsewhere => {
                if self.has_lasted(address) {
                    tracing::warn!(%address, "the machine has another address: etcd and all that serves by it start anew");
                    self.restart(&ADDRESSED)?;
                }
                let why = format!("this master's address is {address}, and etcd still runs with another one");
                Ok(Some(Condition::new("EtcdAddress", why, "it starts anew with the new address by itself soon")))
            }
        }
    }

    /// Where the member should be. One that the manifest names stays there, whatever else the machine has.
    fn address(&self) -> Option<IpAddr> {
        let network = self.network.borrow();
        self.master.address.or(network.primary).or(network.secondary)
    }

    /// Whether an address has been there for a while, counted anew after it has.
    fn has_lasted(&self, address: IpAddr) -> bool {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        let times = moved.filter(|(known, _)| *known == address).map_or(1, |(_, times)| times + 1);
        *moved = (times < LASTS).then_some((address, times));
        times >= LASTS
    }

    async fn start_anew_if_left(&self, access: &Access) -> Result<(), Error> {
        if etcd::is_left_behind(&self.master.config, access).await? {
            tracing::warn!("etcd: the others went on without this master's member, so it starts anew");
            self.restart(&[SERVICE, DEPENDENT])?;
        }
        Ok(())
    }

    fn tell(&self, condition: &str, lack: Option<&Condition>) {
        unmet::tell(&self.run.join(condition), lack);
    }

    /// Asks the first process to start services anew.
    fn restart(&self, services: &[&str]) -> Result<(), Error> {
        let path = self.run.join(RESTART);
        let asked = Linux.replace(&path, services.join("\n").as_bytes(), 0o600);
        asked.map_err(|error| Error::File {
            step: "ask for new starts by",
            path,
            source: std::io::Error::other(chain(&error).to_string()),
        })
    }

    /// Until the own member answers. The supervisor tells of one that does not; no snapshot of it is missed before.
    async fn wait_for_member(&self) {
        let own = self.master.config.local_url();
        let answers = async || self.access()?.link(&own).await?.state().await;
        while let Err(error) = answers().await {
            tracing::debug!(error = %chain(&error), "etcd: snapshots wait for the own member");
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn take_snapshots(&self, snapshots: &Snapshots) {
        self.wait_for_member().await;
        loop {
            tokio::time::sleep(snapshots.due_in(SystemTime::now())).await;
            let taken = self.take_snapshot(snapshots).await.map_err(|error| chain(&error).to_string());
            match &taken {
                Ok(path) => tracing::info!(path = %path.display(), "etcd: a snapshot was taken"),
                Err(reason) => tracing::warn!(reason, "etcd: no snapshot was taken"),
            }
            let lack = taken.as_ref().err().map(|reason| {
                let why = format!("the last snapshot of etcd by schedule was not taken: {reason}");
                Condition::new(
                    "EtcdSnapshotMissed",
                    why,
                    "it is tried again by itself; `keelson etcd status` tells more",
                )
            });
            self.tell(MISSED, lack.as_ref());
            let is_missed = taken.is_err();
            *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = taken.err();
            if is_missed {
                tokio::time::sleep(snapshots.retry()).await;
            } else {
                self.taken.notify_one();
            }
        }
    }

    async fn take_snapshot(&self, snapshots: &Snapshots) -> Result<PathBuf, Error> {
        let path = snapshots.next_path(SystemTime::now())?;
        let own = self.master.config.local_url();
        let mut parts = self.access()?.link(&own).await?.snapshot().await?;
        let mut incoming = etcd::Incoming::create(&path)?;
        while let Some(part) = parts.next().await? {
            incoming.add(&part)?;
        }
        incoming.finish()?;
        snapshots.remove_old();
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_snapshot_is_missed_before_the_member_first_answers() {
        let folder = tempfile::tempdir().unwrap();
        let etcd = Etcd::of_nothing(folder.path());
        let snapshots =
            Snapshots { interval: Duration::from_secs(3600), keep: 3, folder: folder.path().to_owned(), kept: None };
        let taking = etcd.take_snapshots(&snapshots);
        assert!(tokio::time::timeout(Duration::from_secs(7200), taking).await.is_err());
        assert_eq!(*etcd.missed.lock().unwrap(), None);
        assert!(!folder.path().join(MISSED).exists());
    }
}
