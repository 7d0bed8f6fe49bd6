//! Updates, rollback and new starts: what changes which system runs.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use disk::Around;
use install::migrate::{self, FORMATS};
use install::{Booted, Policy, Receiver, Record, Side, extension};
use machine_api::{StartOptions, UpdatePart};
use stdx::chain;
use sys::{Linux, System};
use tokio::sync::mpsc;
use tonic::Status;

use super::refusal::{bad, conflict, failed};
use super::{Incoming, NO_SLOTS, Server, around, next, preflight};

/// How much of an update waits for the disk.
pub(super) const QUEUE_LEN: usize = 16;
/// Orders to the first process.
pub(super) const REBOOT: &str = "inbox/reboot";
const SHUTDOWN: &str = "inbox/shutdown";
/// A manifest in the folder of what is in force, and on STATE.
const MANIFEST: &str = "manifest.toml";
/// What is under way while an update comes.
pub(super) const TAKES_IN: &str = "an update is being taken in";

/// What the machine knows about its own updates.
#[derive(Clone, Debug)]
pub struct Updates {
    /// What runs.
    pub booted: Booted,
    /// The Ed25519 key that updates must be signed with; without one they need no signature.
    pub key: Option<Vec<u8>>,
    /// Where the update under way is remembered.
    pub record: PathBuf,
    /// STATE, which whatever is started must be able to read.
    pub state: PathBuf,
    /// The folder of the extensions that the machine has on its own.
    pub extensions: PathBuf,
}

/// Nobody waits longer for pods to end.
const GRACE_SECONDS: u64 = 600;

/// What is wished for, if it can be.
pub(super) fn checked(options: Option<StartOptions>) -> Result<StartOptions, Status> {
    let options = options.unwrap_or_default();
    if options.grace_seconds.is_some_and(|seconds| seconds > GRACE_SECONDS) {
        return Err(bad(format!("the grace is at most {GRACE_SECONDS} seconds")));
    }
    Ok(options)
}

/// What the machine knows about its updates, if it takes any.
pub(super) fn updates(server: &Server) -> Result<&Updates, Status> {
    server.updates.as_ref().ok_or_else(|| conflict(NO_SLOTS))
}

/// Takes an update in and lets the machine start from it.
pub(super) async fn receive(server: &Server, mut parts: Incoming<UpdatePart>) -> Result<String, Status> {
    let own = updates(server)?.clone();
    let turn = server.turns.take(TAKES_IN)?;
    let mut part = next(&mut parts).await?.unwrap_or_default();
    let options = checked(part.options)?;
    // Asked again before the machine goes down; here it saves the long way to the same refusal.
    may_go_down(server, options).await.map_err(|reason| not_taken(&reason))?;
    let cluster = cluster(server, &own, options).await.map_err(|reason| not_taken(&reason))?;
    if options.dry_run {
        let mut start = part.data.to_vec();
        while let Some(more) = next(&mut parts).await? {
            start.extend_from_slice(&more.data);
            if start.len() > disk::HEAD_BYTES {
                return Err(bad(format!("metadata have at most {} bytes", disk::HEAD_BYTES)));
            }
        }
        return consider((own, cluster), options, start.into()).await;
    }
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let writing = tokio::task::spawn_blocking(move || {
        // It is on until the disk is left alone, whatever becomes of the call.
        let _turn = turn;
        write((&own, cluster), options, receiver)
    });
    // Whoever refuses it says why.
    while sender.send(Piece::Part(part.data)).await.is_ok() {
        match next(&mut parts).await? {
            Some(more) => part = more,
            None => {
                sender.send(Piece::End).await.ok();
                break;
            }
        }
    }
    drop(sender);
    match writing.await {
        Ok(Ok(record)) => start_from(server, &record, options).await.map_err(conflict),
        Ok(Err(reason)) => Err(not_taken(&reason)),
        Err(error) => Err(failed(format!("the update failed: {error}"))),
    }
}

pub(super) fn not_taken(reason: &str) -> Status {
    conflict(format!("the update is not taken: {reason}"))
}

/// Answers whether an update would be taken that begins so.
pub(super) async fn consider(
    (updates, cluster): (Updates, Cluster),
    options: StartOptions,
    start: Bytes,
) -> Result<String, Status> {
    let work = move || Receiver::new(updates.booted.open()?, policy(&updates, cluster, options))?.consider(&start);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok("the update would be taken".to_owned()),
        Ok(Err(error)) => Err(not_taken(&chain(&error).to_string())),
        Err(error) => Err(failed(format!("the update was not looked at: {error}"))),
    }
}

/// What a machine serves, and what its next system has to go with.
pub(super) struct Cluster {
    around: Around,
    manifests: Vec<String>,
}

/// Looks at what the next system has to go with. Whoever insists on its Kubernetes goes without the cluster's leave.
pub(super) async fn cluster(server: &Server, updates: &Updates, options: StartOptions) -> Result<Cluster, String> {
    let manifests = manifests(&server.run, &updates.state)?;
    let around = if options.any_kubernetes { Around::Nobody } else { around::observe(server).await };
    Ok(Cluster { around, manifests })
}

/// The manifest in force, and the one that the next start reads, which is another one where that has to start again for it.
fn manifests(run: &Path, state: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for folder in [run, state] {
        match Linux.read(&folder.join(MANIFEST)) {
            Ok(content) => found.push(String::from_utf8_lossy(&content).into_owned()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(format!("the manifest that it has to read is not known: {}", chain(&error))),
        }
    }
    Ok(found)
}

fn policy(updates: &Updates, cluster: Cluster, options: StartOptions) -> Policy {
    Policy {
        running: updates.booted.slot,
        version: updates.booted.version.clone(),
        state: FORMATS.span(),
        key: updates.key.clone(),
        may_downgrade: options.allow_downgrade,
        extensions: extension::held(&Linux, &updates.extensions, updates.key.as_deref())
            .iter()
            .filter_map(|held| held.about().cloned())
            .collect(),
        around: cluster.around,
        manifests: cluster.manifests,
    }
}

/// A piece of an update.
pub(super) enum Piece {
    /// More of it.
    Part(Bytes),
    /// There is no more.
    End,
    /// There is more, and it does not come, because of this.
    Broken(String),
}

/// Writes the update to the idle slot as it comes. Without its end it is as if it had not come.
pub(super) fn write(
    (updates, cluster): (&Updates, Cluster),
    options: StartOptions,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Record, String> {
    let in_words = |error: install::Error| chain(&error).to_string();
    let disk = updates.booted.open().map_err(in_words)?;
    let mut receiver = Receiver::new(disk, policy(updates, cluster, options)).map_err(in_words)?;
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Part(part)) => receiver.add(&part).map_err(in_words)?,
            Some(Piece::End) => break,
            Some(Piece::Broken(reason)) => return Err(reason),
            None => return Err("whoever sent it went away".to_owned()),
        }
    }
    let put = || {
        let prepared = receiver.finish()?;
        // PID 1 makes it what that system reads when nothing else writes there.
        migrate::check(&Linux, &updates.state, &FORMATS, prepared.state_format())?;
        let record = prepared.record().clone();
        record.store(&Linux, &updates.record)?;
        prepared.commit()?;
        Ok(record)
    };
    put().map_err(in_words)
}

/// Goes back to what is in the other slot.
pub(super) async fn roll_back(server: &Server, options: StartOptions) -> Result<String, Status> {
    let own = updates(server)?.clone();
    let _turn = server.turns.take("the machine goes back to the system before")?;
    let options = checked(Some(options))?;
    let may = may_go_down(server, options).await;
    may.map_err(|reason| conflict(format!("the machine does not go back: {reason}")))?;
    match tokio::task::spawn_blocking(move || turn_back(&own)).await {
        Ok(Ok(record)) => start_from(server, &record, options).await.map_err(conflict),
        Ok(Err(error)) => Err(conflict(format!("there is no way back: {}", chain(&error)))),
        Err(error) => Err(failed(format!("the rollback failed: {error}"))),
    }
}

/// Lets the loader start what is in the other slot, if that can read what STATE can be made.
fn turn_back(own: &Updates) -> Result<Record, install::Error> {
    let booted = &own.booted;
    let mut disk = booted.open()?;
    let (from, _) = disk.entries(booted.slot)?;
    let (_, format) = disk.way_back(booted.slot)?;
    migrate::check(&Linux, &own.state, &FORMATS, format)?;
    let before = Record::load(&Linux, &own.record);
    let to = disk.roll_back(booted.slot)?;
    // Whoever was updated from is known by version; of anything else the slot says enough.
    let sides = before.into_iter().flat_map(|record| [record.from, record.to]);
    let version = sides.into_iter().find(|side| side.slot == to.slot).map(|side| side.version);
    let from = Side { slot: from.slot, generation: from.generation, version: booted.version.clone() };
    let version = version.unwrap_or_else(|| "what was there before".to_owned());
    let record = Record::new(from, Side { slot: to.slot, generation: to.generation, version });
    record.store(&Linux, &own.record)?;
    Ok(record)
}

/// Lets the machine start from what was put in a slot, or leaves that to the next start; answers which.
pub(super) async fn start_from(server: &Server, record: &Record, options: StartOptions) -> Result<String, String> {
    let what = format!("{} is in slot {}", record.to.version, record.to.slot);
    if options.stage {
        return Ok(format!("{what}; the next start tries it"));
    }
    match go_down(server, options, (REBOOT, &format!("{what} and is tried"))).await {
        Ok(()) => Ok(format!("{what}; the machine starts from it")),
        Err(reason) => Err(format!("{what}, and the next start tries it; that is not now: {reason}")),
    }
}

/// Starts the machine again because somebody wants it.
pub(super) async fn start_again(server: &Server, options: StartOptions) -> Result<String, Status> {
    let gone = go_down(server, checked(Some(options))?, (REBOOT, "it was asked for")).await;
    gone.map_err(|reason| conflict(format!("the machine does not start again: {reason}")))?;
    Ok("the machine starts again".to_owned())
}

/// Ends the machine because somebody wants it.
pub(super) async fn shut_down(server: &Server, options: StartOptions) -> Result<String, Status> {
    let gone = go_down(server, checked(Some(options))?, (SHUTDOWN, "it was asked for")).await;
    gone.map_err(|reason| conflict(format!("the machine is not shut down: {reason}")))?;
    Ok("the machine is shut down".to_owned())
}

/// Asks the first process for a new start or the end, where the cluster goes on meanwhile.
async fn go_down(server: &Server, options: StartOptions, (order, why): (&str, &str)) -> Result<(), String> {
    may_go_down(server, options).await?;
    if options.dry_run {
        return Ok(());
    }
    let file = server.run.join(order);
    let grace = options.grace_seconds.map(|seconds| format!("grace={seconds}\n")).unwrap_or_default();
    Linux.replace(&file, format!("{grace}{why}").as_bytes(), 0o600).map_err(|error| chain(&error).to_string())
}

pub(super) async fn may_go_down(server: &Server, options: StartOptions) -> Result<(), String> {
    if options.force || options.stage {
        return Ok(());
    }
    preflight::check(&preflight::others(server).await, &server.pki).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_ever() {
        let grace = |seconds| checked(Some(StartOptions { grace_seconds: Some(seconds), ..StartOptions::default() }));
        assert_eq!(grace(600).unwrap().grace_seconds, Some(600));
        assert!(grace(601).unwrap_err().message().contains("at most 600"));
        assert_eq!(checked(None).unwrap(), StartOptions::default());
    }

    #[test]
    fn an_update_has_to_read_the_manifest_of_the_next_start_too() {
        let (run, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let found = || manifests(run.path(), state.path());
        // Before there is one.
        assert_eq!(found(), Ok(Vec::new()));
        std::fs::write(run.path().join(MANIFEST), "now").unwrap();
        std::fs::write(state.path().join(MANIFEST), "next").unwrap();
        assert_eq!(found(), Ok(vec!["now".to_owned(), "next".to_owned()]));
        // One that cannot be read is there all the same.
        std::fs::remove_file(state.path().join(MANIFEST)).unwrap();
        std::fs::create_dir(state.path().join(MANIFEST)).unwrap();
        assert!(found().unwrap_err().contains("is not known"));
    }
}
