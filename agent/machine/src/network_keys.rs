//! Keys of the machine's encrypted disks that servers of the network give (Tang), for the first process, which has no
//! network: it writes down what it asks for, and gets what came by its inbox.
//!
//! Of the keys of one partition that could be given back any will do: its servers are asked in order, until one answers.
//! New keys are asked of every server, and handed on once the server gave them back.

mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lifecycle::Shutdown;
use machine_api::{Condition, NetworkStatus};
use stdx::chain;
use sys::{FileWatch, Linux, System};
use tang::{Ask, Asked, Fetched};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use crate::unmet;

/// Below the folder of this boot.
const FOLDER: &str = "network-keys";
const ASKED: &str = "asked.json";
const INBOX: &str = "inbox/network-keys";
/// What is told where disks are closed, and where they are not as they should be: by files of these names.
const LOCKED: &str = "conditions/network-keys";
const CONCERN: &str = "conditions/network-keys.concern";
/// Whoever writes what is asked for has servers, not a book.
const ASKED_BYTES: usize = 1 << 20;
/// After a try at which something is still lacking.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A key that did not come.
#[derive(Debug, PartialEq, Eq)]
struct Miss {
    volume: String,
    url: String,
    why: String,
    /// Somebody has to look whether it is still the same server.
    is_other_server: bool,
}

/// What came of one try.
#[derive(Debug, Default)]
struct Round {
    fetched: Vec<Fetched>,
    missed: Vec<Miss>,
}

/// Runs until shutdown.
pub(crate) async fn run(run: PathBuf, mut network: watch::Receiver<NetworkStatus>, shutdown: Shutdown) {
    let watch = match Watch::open(&run.join(FOLDER)) {
        Ok(watch) => watch,
        Err(error) => {
            // Without the first process beside it nobody asks.
            tracing::debug!(error = %chain(&error), "nobody asks for keys of disks");
            return;
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let asked = read(&run.join(FOLDER).join(ASKED));
        let round = tokio::select! {
            round = round(&asked) => round,
            () = shutdown.wait() => return,
        };
        hand_on(&run, &asked, &round);
        let is_lacking = !round.missed.is_empty();
        tokio::select! {
            () = watch.changed() => pause = FIRST_PAUSE,
            // What was not reached may be now.
            Ok(()) = network.changed(), if is_lacking => {}
            () = tokio::time::sleep(pause), if is_lacking => pause = (pause * 2).min(LONGEST_PAUSE),
            () = shutdown.wait() => return,
        }
    }
}

fn read(path: &Path) -> Asked {
    let text = match Linux.read_at(path, 0, ASKED_BYTES) {
        Ok(text) => text,
        Err(_nothing_yet) => return Asked::default(),
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(%error, "what is asked for as keys of disks makes no sense");
        Asked::default()
    })
}

/// Tries once to get everything.
async fn round(asked: &Asked) -> Round {
    let mut round = Round::default();
    let mut opened: BTreeSet<&str> = BTreeSet::new();
    for (volume, ask) in &asked.asks {
        let outcome = match ask {
            Ask::Recover(_) if opened.contains(volume.as_str()) => continue,
            Ask::Recover(binding) => server::recover(binding).await.map(|secret| ((**binding).clone(), secret)),
            Ask::Bind(server) => server::bind(server).await,
        };
        match outcome {
            Ok((binding, secret)) => {
                opened.insert(volume);
                round.fetched.push(Fetched { volume: volume.clone(), binding, secret });
            }
            Err(failure) => round.missed.push(Miss {
                volume: volume.clone(),
                url: ask.url().to_owned(),
                why: chain(&failure).to_string(),
                is_other_server: failure.is_other_server(),
            }),
        }
    }
    if asked.is_locked {
        // Where another server opens it, nothing is lacking.
        let Round { fetched, missed } = &mut round;
        missed.retain(|miss| fetched.iter().all(|fetched| fetched.volume != miss.volume));
    }
    round
}

/// Gives the first process what came, and tells what did not.
fn hand_on(run: &Path, asked: &Asked, round: &Round) {
    if !round.fetched.is_empty() {
        let handed = serde_json::to_vec(&round.fetched).map_err(io::Error::other);
        let handed = handed.and_then(|text| Linux.replace(&run.join(INBOX), &text, 0o600).map_err(io::Error::other));
        if let Err(error) = handed {
            tracing::warn!(error = %chain(&error), "keys of disks were not handed on");
        }
    }
    let (locked, concern) = if asked.is_locked { (lack(round, true), None) } else { (None, lack(round, false)) };
    unmet::tell(&run.join(LOCKED), locked.as_ref());
    unmet::tell(&run.join(CONCERN), concern.as_ref());
}

/// What is told of keys that did not come.
fn lack(round: &Round, is_locked: bool) -> Option<Condition> {
    let why: Vec<String> =
        round.missed.iter().map(|miss| format!("{} from {}: {}", miss.volume, miss.url, miss.why)).collect();
    let compare = "compare the thumbprints with those that `tang-show-keys` tells on the server, and name one of them in \
                   install.encryption.network";
    let help = match (round.missed.iter().any(|miss| miss.is_other_server), is_locked) {
        (true, _) => compare,
        (false, true) => {
            "a server that runs and can be reached from this machine, whose network is as a manifest outside of STATE says; \
             `keelson unlock --endpoint MACHINE` takes a passphrase or the recovery key meanwhile"
        }
        (false, false) => {
            "a server that runs and can be reached from this machine; what opened the disk before still does"
        }
    };
    let name = if is_locked { "NetworkKeyMissing" } else { "NetworkKeyNotMade" };
    (!why.is_empty()).then(|| Condition::new(name, format!("no key came for {}", why.join("; for ")), help))
}

/// Tells when something is asked for.
struct Watch(FileWatch, AsyncFd<OwnedFd>);

impl Watch {
    fn open(folder: &Path) -> io::Result<Self> {
        let watch = FileWatch::new().map_err(io::Error::other)?;
        watch.add_folder(folder).map_err(io::Error::other)?;
        // The safe way is deprecated, as a descriptor could be closed behind the runtime's back; this one is ours alone.
        #[allow(deprecated)]
        let readable = AsyncFd::new(watch.as_fd().try_clone_to_owned()?)?;
        Ok(Self(watch, readable))
    }

    async fn changed(&self) {
        loop {
            match self.1.readable().await {
                Ok(mut ready) => ready.clear_ready(),
                // The runtime ends.
                Err(_gone) => return std::future::pending().await,
            }
            if self.0.changed().iter().any(|name| name == ASKED) {
                return;
            }
        }
    }
}
