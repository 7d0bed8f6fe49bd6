//! etcd on a master: what operators ask of it, and what is done by itself.
//!
//! By itself, a learner that has caught up gets its vote, a member that the others went on without starts anew, and
//! snapshots are taken. Everything else is asked for, and refused where it would risk the quorum.

mod operations;
mod schedule;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use etcd::{Access, Error};
use lifecycle::Shutdown;
use machine_api::{Condition, EtcdStatus};
use stdx::chain;
use sys::{Linux, System};
use tokio::sync::Semaphore;

pub use schedule::Snapshots;

/// How often the own member is looked at: nothing tells when a learner has caught up.
const LOOK: Duration = Duration::from_secs(10);
/// Its text keeps the machine from being ready.
const CONDITION: &str = "conditions/etcd";
/// Services that the first process starts anew, one a line.
const RESTART: &str = "inbox/restart";
const SERVICE: &str = "etcd";
const STATUS_TELLS: &str = "`keelson etcd status` says what to do";
/// What holds what etcd held before.
const DEPENDENT: &str = "control-plane";

/// What a master needs to know of etcd.
#[derive(Clone, Debug)]
pub struct Master {
    /// Its member.
    pub config: etcd::Config,
    /// The folder of STATE.
    pub state: PathBuf,
    /// Snapshots by schedule.
    pub snapshots: Option<Snapshots>,
}

/// etcd, for the machine API and for the task beside it.
pub(crate) struct Etcd {
    master: Master,
    pki: PathBuf,
    run: PathBuf,
    /// One change at a time.
    turn: Semaphore,
    /// Why the last snapshot by schedule was not taken.
    missed: Mutex<Option<String>>,
}

impl Etcd {
    pub(crate) fn new(master: Master, pki: &Path, run: &Path) -> Arc<Self> {
        let (pki, run) = (pki.to_owned(), run.to_owned());
        Arc::new(Self { master, pki, run, turn: Semaphore::new(1), missed: Mutex::default() })
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
        tokio::select! {
            () = shutdown.wait() => {}
            () = self.keep_member() => {}
            () = snapshots => {}
        }
    }

    async fn keep_member(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.look_after_member().await {
                Ok(lack) => self.tell(lack.as_ref()),
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
        Ok(None)
    }

    async fn start_anew_if_left(&self, access: &Access) -> Result<(), Error> {
        if etcd::is_left_behind(&self.master.config, access).await? {
            tracing::warn!("etcd: the others went on without this master's member, so it starts anew");
            self.restart(&[SERVICE, DEPENDENT])?;
        }
        Ok(())
    }

    fn tell(&self, lack: Option<&Condition>) {
        let path = self.run.join(CONDITION);
        let lack = lack.map(Condition::to_text).unwrap_or_default();
        if Linux.read(&path).unwrap_or_default() == lack.as_bytes() {
            return;
        }
        if let Err(error) = Linux.replace(&path, lack.as_bytes(), 0o644) {
            tracing::warn!(error = %chain(&error), "the condition of etcd was not told");
        }
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

    async fn take_snapshots(&self, snapshots: &Snapshots) {
        loop {
            tokio::time::sleep(snapshots.due_in(SystemTime::now())).await;
            let taken = self.take_snapshot(snapshots).await.map_err(|error| chain(&error).to_string());
            match &taken {
                Ok(path) => tracing::info!(path = %path.display(), "etcd: a snapshot was taken"),
                Err(reason) => tracing::warn!(reason, "etcd: no snapshot was taken"),
            }
            let is_missed = taken.is_err();
            *self.missed.lock().unwrap_or_else(PoisonError::into_inner) = taken.err();
            if is_missed {
                tokio::time::sleep(snapshots.retry()).await;
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
