//! Updates, rollback and new starts: what changes which system runs.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use install::{Booted, Policy, Receiver, Record, Side};
use stdx::chain;
use sys::{Linux, System};
use tokio::sync::mpsc;

use super::{BODY, Server, preflight, text};

/// How much of an update waits for the disk.
pub(super) const QUEUE_LEN: usize = 16;
/// Orders to the first process.
const REBOOT: &str = "inbox/reboot";
const SHUTDOWN: &str = "inbox/shutdown";

/// What the machine knows about its own updates.
#[derive(Clone, Debug)]
pub struct Updates {
    /// What runs.
    pub booted: Booted,
    /// The Ed25519 key that updates must be signed with; without one they need no signature.
    pub key: Option<Vec<u8>>,
    /// Where the update under way is remembered.
    pub record: PathBuf,
}

/// What is asked for beside the update itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// An older version is taken.
    may_downgrade: bool,
    /// The machine does not start again by itself.
    is_staged: bool,
    /// It does, whatever becomes of the cluster.
    is_forced: bool,
    /// Nothing is done; the answer is whether it would be.
    pub(super) is_dry: bool,
    /// What pods get to end, in seconds.
    grace: Option<u64>,
}

/// Nobody waits longer for pods to end.
const GRACE_SECONDS: u64 = 600;

const WORDS: [&str; 5] = ["downgrade", "dry-run", "force", "grace=SECONDS", "stage"];

impl Wishes {
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let mut wishes = Self::default();
        for word in query.unwrap_or_default().split('&').filter(|word| !word.is_empty()) {
            match word {
                "downgrade" => wishes.may_downgrade = true,
                "stage" => wishes.is_staged = true,
                "force" => wishes.is_forced = true,
                "dry-run" => wishes.is_dry = true,
                grace if grace.starts_with("grace=") => wishes.grace = Some(parse_grace(grace)?),
                other => return Err(format!("{other:?} is not understood; there are {}\n", WORDS.join(", "))),
            }
        }
        Ok(wishes)
    }
}

fn parse_grace(word: &str) -> Result<u64, String> {
    let seconds = word.trim_start_matches("grace=").parse().ok().filter(|seconds| *seconds <= GRACE_SECONDS);
    seconds.ok_or_else(|| format!("{word:?}: the grace is a whole number of seconds, at most {GRACE_SECONDS}\n"))
}

/// Takes an update in and lets the machine start from it.
pub(super) async fn receive(server: &Server, updates: &Updates, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Ok(_turn) = server.turn.try_acquire() else {
        return text(StatusCode::CONFLICT, "another update is being taken in\n".to_owned());
    };
    let wishes = match Wishes::parse(request.uri().query()) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    // Asked again before the machine goes down; here it saves the long way to the same refusal.
    if let Err(reason) = may_go_down(server, wishes).await {
        return text(StatusCode::CONFLICT, format!("the update is not taken: {reason}\n"));
    }
    let own = updates.clone();
    let mut body = request.into_body();
    if wishes.is_dry {
        return match tokio::time::timeout(BODY, Limited::new(body, disk::HEAD_BYTES).collect()).await {
            Ok(Ok(start)) => consider(own, wishes, start.to_bytes()).await,
            Ok(Err(error)) => text(StatusCode::BAD_REQUEST, format!("the metadata were not read: {error}\n")),
            Err(_elapsed) => text(StatusCode::REQUEST_TIMEOUT, "the metadata did not come\n".to_owned()),
        };
    }
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let writing = tokio::task::spawn_blocking(move || write(&own, wishes, receiver));
    // An update that does not come to its end is refused for its length. One that is refused is read to its end all the
    // same: its sender reads no answer before.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(BODY, body.frame()).await {
        if let Ok(data) = frame.into_data() {
            sender.send(Piece::Part(data)).await.ok();
        }
    }
    sender.send(Piece::End).await.ok();
    drop(sender);
    match writing.await {
        Ok(Ok(record)) => try_out(server, &record, wishes).await,
        Ok(Err(reason)) => not_taken(&reason),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the update failed: {error}\n")),
    }
}

fn not_taken(reason: &str) -> Response<Full<Bytes>> {
    text(StatusCode::UNPROCESSABLE_ENTITY, format!("the update is not taken: {reason}\n"))
}

/// Answers whether an update would be taken that begins so.
pub(super) async fn consider(updates: Updates, wishes: Wishes, start: Bytes) -> Response<Full<Bytes>> {
    let work = move || Receiver::new(updates.booted.open()?, policy(&updates, wishes))?.consider(&start);
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => text(StatusCode::OK, "the update would be taken\n".to_owned()),
        Ok(Err(error)) => not_taken(&chain(&error).to_string()),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the update was not looked at: {error}\n")),
    }
}

fn policy(updates: &Updates, wishes: Wishes) -> Policy {
    Policy {
        running: updates.booted.slot,
        version: updates.booted.version.clone(),
        key: updates.key.clone(),
        may_downgrade: wishes.may_downgrade,
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
pub(super) fn write(updates: &Updates, wishes: Wishes, mut pieces: mpsc::Receiver<Piece>) -> Result<Record, String> {
    let in_words = |error: install::Error| chain(&error).to_string();
    let disk = updates.booted.open().map_err(in_words)?;
    let mut receiver = Receiver::new(disk, policy(updates, wishes)).map_err(in_words)?;
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
        let record = prepared.record().clone();
        record.store(&Linux, &updates.record)?;
        prepared.commit()?;
        Ok(record)
    };
    put().map_err(in_words)
}

/// Goes back to what is in the other slot.
pub(super) async fn roll_back(server: &Server, updates: &Updates, query: Option<&str>) -> Response<Full<Bytes>> {
    let Ok(_turn) = server.turn.try_acquire() else {
        return text(StatusCode::CONFLICT, "an update is being taken in\n".to_owned());
    };
    let wishes = match Wishes::parse(query) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    if let Err(reason) = may_go_down(server, wishes).await {
        return text(StatusCode::CONFLICT, format!("the machine does not go back: {reason}\n"));
    }
    let own = updates.clone();
    let work = move || -> Result<Record, install::Error> {
        let booted = &own.booted;
        let mut disk = booted.open()?;
        let (from, _) = disk.entries(booted.slot)?;
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
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(record)) => try_out(server, &record, wishes).await,
        Ok(Err(error)) => text(StatusCode::CONFLICT, format!("there is no way back: {}\n", chain(&error))),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("the rollback failed: {error}\n")),
    }
}

async fn try_out(server: &Server, record: &Record, wishes: Wishes) -> Response<Full<Bytes>> {
    match start_from(server, record, wishes).await {
        Ok(told) => text(StatusCode::OK, format!("{told}\n")),
        Err(reason) => text(StatusCode::CONFLICT, format!("{reason}\n")),
    }
}

/// Lets the machine start from what was put in a slot, or leaves that to the next start; answers which.
pub(super) async fn start_from(server: &Server, record: &Record, wishes: Wishes) -> Result<String, String> {
    let what = format!("{} is in slot {}", record.to.version, record.to.slot);
    if wishes.is_staged {
        return Ok(format!("{what}; the next start tries it"));
    }
    match go_down(server, wishes, (REBOOT, &format!("{what} and is tried"))).await {
        Ok(()) => Ok(format!("{what}; the machine starts from it")),
        Err(reason) => Err(format!("{what}, and the next start tries it; that is not now: {reason}")),
    }
}

/// Starts the machine again because somebody wants it.
pub(super) async fn start_again(server: &Server, query: Option<&str>) -> Response<Full<Bytes>> {
    let wishes = match Wishes::parse(query) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    match go_down(server, wishes, (REBOOT, "it was asked for")).await {
        Ok(()) => text(StatusCode::OK, "the machine starts again\n".to_owned()),
        Err(reason) => text(StatusCode::CONFLICT, format!("the machine does not start again: {reason}\n")),
    }
}

/// Ends the machine because somebody wants it.
pub(super) async fn shut_down(server: &Server, query: Option<&str>) -> Response<Full<Bytes>> {
    let wishes = match Wishes::parse(query) {
        Ok(wishes) => wishes,
        Err(reason) => return text(StatusCode::BAD_REQUEST, reason),
    };
    match go_down(server, wishes, (SHUTDOWN, "it was asked for")).await {
        Ok(()) => text(StatusCode::OK, "the machine is shut down\n".to_owned()),
        Err(reason) => text(StatusCode::CONFLICT, format!("the machine is not shut down: {reason}\n")),
    }
}

/// Asks the first process for a new start or the end, where the cluster goes on meanwhile.
async fn go_down(server: &Server, wishes: Wishes, (order, why): (&str, &str)) -> Result<(), String> {
    may_go_down(server, wishes).await?;
    if wishes.is_dry {
        return Ok(());
    }
    let file = server.run.join(order);
    let grace = wishes.grace.map(|seconds| format!("grace={seconds}\n")).unwrap_or_default();
    Linux.replace(&file, format!("{grace}{why}").as_bytes(), 0o600).map_err(|error| chain(&error).to_string())
}

pub(super) async fn may_go_down(server: &Server, wishes: Wishes) -> Result<(), String> {
    if wishes.is_forced || wishes.is_staged { Ok(()) } else { preflight::check(&server.peers, &server.pki).await }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_words_and_unknown_ones_are_refused() {
        assert_eq!(Wishes::parse(None), Ok(Wishes::default()));
        let both = Wishes { may_downgrade: true, is_staged: true, ..Wishes::default() };
        assert_eq!(Wishes::parse(Some("stage&downgrade")), Ok(both));
        assert!(Wishes::parse(Some("downgrade=no")).is_err());
        assert_eq!(Wishes::parse(Some("grace=60")), Ok(Wishes { grace: Some(60), ..Wishes::default() }));
        assert!(Wishes::parse(Some("grace=601")).unwrap_err().contains("at most 600"));
    }
}
