//! Extensions of the system: added to the machine on their own, removed, and what becomes of each.

use std::path::Path;

use disk::About;
use install::extension::{self, Admission, Held, HeldError, TakeError, Taker, Trial};
use machine_api::{Chunk, ExtensionStatus};
use stdx::chain;
use sys::Linux;
use tokio::sync::mpsc;
use tonic::Status;

use super::refusal::{absent, bad, conflict, failed};
use super::update::{QUEUE_LEN, updates};
use super::{Incoming, Server, Updates, next};

/// Takes one in as it comes.
pub(super) async fn add(server: &Server, mut parts: Incoming<Chunk>) -> Result<String, Status> {
    let own = updates(server)?.clone();
    if own.booted.is_read_only {
        return Err(conflict("the machine runs from a medium that keeps nothing: install it first"));
    }
    let turn = server.turns.take("an extension is being taken in")?;
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let writing = tokio::task::spawn_blocking(move || {
        // It is on until STATE is left alone, whatever becomes of the call.
        let _turn = turn;
        take(&own, receiver)
    });
    // Whoever refuses it says why.
    while let Some(part) = next(&mut parts).await? {
        if sender.send(part).await.is_err() {
            break;
        }
    }
    drop(sender);
    let taken = writing.await.map_err(|error| failed(format!("the extension failed: {error}")))?;
    let about = taken.map_err(|error| not_taken(error.as_ref()))?;
    let kernel = about.kernel.map(|kernel| format!(" with the kernel {kernel}")).unwrap_or_default();
    Ok(format!("{} {} counts from the next start{kernel}", about.name, about.version))
}

/// Writes it to STATE as it comes. What does not come to its end is refused for its length.
fn take(updates: &Updates, mut parts: mpsc::Receiver<Chunk>) -> Result<About, Box<TakeError>> {
    let room = updates.extensions.parent().and_then(|state| sys::space(state).ok()).map_or(0, |it| it.free_bytes / 2);
    let (folder, key) = (updates.extensions.clone(), updates.key.clone());
    let mut taker = Taker::new(Admission { folder, key, room })?;
    while let Some(part) = parts.blocking_recv() {
        taker.add(&part.data)?;
    }
    Ok(taker.finish()?)
}

fn not_taken(error: &TakeError) -> Status {
    let words = format!("the extension is not taken: {}", chain(error));
    match error {
        TakeError::Head(_) | TakeError::Length { .. } | TakeError::Damaged => bad(words),
        TakeError::Signature(_) | TakeError::Many | TakeError::Room { .. } => conflict(words),
        TakeError::Write { .. } | TakeError::System(_) => failed(words),
    }
}

/// Removes all files of a name.
pub(super) fn remove(server: &Server, name: &str) -> Result<String, Status> {
    let updates = updates(server)?;
    let _turn = server.turns.take("an extension is being removed")?;
    match extension::remove(&Linux, &updates.extensions, name) {
        Ok(()) => Ok(format!("{name} is removed; if it is in use, it is so until the next start")),
        Err(error @ HeldError::Absent(_)) => Err(absent(error.to_string())),
        Err(error) => Err(failed(chain(&error).to_string())),
    }
}

/// All of them: those that the start found, and what has become of them since.
pub(crate) fn list(server: &Server) -> Result<Vec<ExtensionStatus>, String> {
    let found = crate::status::read(&server.run)?.extensions;
    let Some(updates) = &server.updates else { return Ok(found) };
    let held = extension::held(&Linux, &updates.extensions, updates.key.as_deref());
    Ok(since(found, &held, |path| extension::trial(&Linux, path)))
}

/// What the start found, with what was added and removed since.
fn since(found: Vec<ExtensionStatus>, held: &[Held], trial: impl Fn(&Path) -> Trial) -> Vec<ExtensionStatus> {
    let (of_image, mut of_state): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|status| status.origin == ExtensionStatus::IMAGE);
    let mut rows = of_image;
    for held in held {
        let (name, kernel) = (held.name(), held.about().and_then(|about| about.kernel.clone()));
        let known = of_state.iter().position(|row| row.name == name && row.kernel == kernel);
        // What was tried is what the start found. One that it could not use was not tried, and is not by being there.
        let is_same = |row: &ExtensionStatus| {
            let version = held.about().map(|about| about.version.as_str()).unwrap_or_default();
            row.version == version && (row.state != ExtensionStatus::IN_USE || trial(&held.path) != Trial::Begun(0))
        };
        match known {
            Some(place) if is_same(&of_state[place]) => rows.push(of_state.remove(place)),
            Some(_) | None => rows.push(added(held)),
        }
    }
    let gone = of_state.into_iter().filter(|row| row.state == ExtensionStatus::IN_USE);
    rows.extend(gone.map(|row| ExtensionStatus { state: ExtensionStatus::REMOVED.to_owned(), ..row }));
    rows
}

fn added(held: &Held) -> ExtensionStatus {
    let origin = ExtensionStatus::STATE.to_owned();
    match &held.head {
        Ok(head) => {
            let About { name, version, kernel, .. } = head.about.clone();
            let state = ExtensionStatus::ADDED.to_owned();
            ExtensionStatus { name, version, kernel, origin, state, why: String::new() }
        }
        Err(error) => {
            let (state, why) = (ExtensionStatus::NOT_USED.to_owned(), chain(error).to_string());
            ExtensionStatus { name: held.name(), origin, state, why, ..ExtensionStatus::default() }
        }
    }
}

#[cfg(test)]
mod tests {
    use disk::{Extension, ExtensionHead, Verity};
    use std::time::UNIX_EPOCH;
    use tonic::Code;

    use super::*;
    use crate::Config;

    fn file(name: &str, version: &str) -> Vec<u8> {
        let data = vec![3; 4096];
        let (verity, tree) = Verity::build(data.as_slice(), &[0x0f; 16]).unwrap();
        let about = About { name: name.to_owned(), version: version.to_owned(), ..About::default() };
        let head = Extension::new(about, &"0f".repeat(16), &verity).head(|_line| String::new()).unwrap();
        [head, data, tree].concat()
    }

    fn row(name: &str, version: &str, origin: &str, state: &str) -> ExtensionStatus {
        let [name, version, origin, state] = [name, version, origin, state].map(str::to_owned);
        ExtensionStatus { name, version, origin, state, ..ExtensionStatus::default() }
    }

    #[test]
    fn what_came_and_went_since_the_start_is_told() {
        let head = |name, version| {
            let head = ExtensionHead::parse(&file(name, version)).unwrap();
            Held { path: format!("/state/extensions/{name}.extension").into(), head: Ok(head) }
        };
        let held = [head("gpu", "2"), head("net", "1"), head("old", "1"), head("twice", "1")];
        let found = vec![
            row("own", "1", "image", "in use"),
            row("gpu", "1", "STATE", "in use"),
            row("net", "1", "STATE", "in use"),
            row("old", "1", "STATE", "not used"),
            row("gone", "1", "STATE", "in use"),
            row("twice", "1", "STATE", "in use"),
        ];
        let is_added = |path: &Path| path.ends_with("twice.extension") || path.ends_with("old.extension");
        let trial = |path: &Path| if is_added(path) { Trial::Begun(0) } else { Trial::Proved };
        let rows = since(found, &held, trial);
        let told: Vec<String> = rows.iter().map(|row| format!("{} {} {}", row.name, row.version, row.state)).collect();
        let expected = [
            "own 1 in use",
            "gpu 2 from the next start",
            "net 1 in use",
            "old 1 not used",
            "twice 1 from the next start",
            "gpu 1 until the next start",
            "gone 1 until the next start",
            "twice 1 until the next start",
        ];
        assert_eq!(told, expected);
    }

    #[tokio::test]
    async fn one_is_added_listed_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (run, state) = (folder.path().to_owned(), folder.path().join("state"));
        std::fs::create_dir(&state).unwrap();
        std::fs::write(run.join("status.json"), "{}").unwrap();
        let booted = install::Booted {
            disk: "sda".to_owned(),
            slot: disk::Slot::A,
            version: "0.1.0".to_owned(),
            is_read_only: false,
        };
        let extensions = state.join("extensions");
        let record = state.join("update.json");
        let updates = Updates { booted, key: None, record, state: state.clone(), extensions: extensions.clone() };
        let server = Server::alone(&Config { run, state, updates: Some(updates), ..Config::new(None, UNIX_EPOCH) });
        let send = async |file: &[u8]| {
            let parts: Vec<_> = file.chunks(1000).map(|data| Ok(Chunk { data: data.to_vec().into() })).collect();
            add(&server, Box::pin(futures::stream::iter(parts))).await
        };
        let mut damaged = file("gpu", "1");
        *damaged.last_mut().unwrap() ^= 1;
        let refused = send(&damaged).await.unwrap_err();
        assert_eq!((refused.code(), refused.message().contains("is damaged")), (Code::InvalidArgument, true));
        assert_eq!(std::fs::read_dir(&extensions).unwrap().count(), 0);
        assert!(send(&file("gpu", "1")).await.unwrap().contains("gpu 1 counts from the next start"));
        let rows = list(&server).unwrap();
        assert_eq!(rows, [row("gpu", "1", "STATE", ExtensionStatus::ADDED)]);
        remove(&server, "gpu").unwrap();
        assert_eq!(remove(&server, "gpu").unwrap_err().code(), Code::NotFound);
        assert!(list(&server).unwrap().is_empty());
        let alone = Server::alone(&Config::new(None, UNIX_EPOCH));
        assert_eq!(remove(&alone, "gpu").unwrap_err().code(), Code::FailedPrecondition);
    }
}
