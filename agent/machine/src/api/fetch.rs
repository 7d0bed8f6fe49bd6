//! Updates that the machine fetches by itself: from web servers and registries, as it fetches images.
//!
//! What comes is judged as a file is that somebody hands in. Beside that, whatever comes without TLS must be proved: by
//! the key for updates, or by a digest that whoever asks for it knows.

use std::sync::Arc;
use std::time::Duration;

use disk::Device;
use machine_api::{FetchUpdateRequest, FileSource, StartOptions, UpdateFound, UpdateProgress};
use manifest::Manifest;
use remote::{Download, Outbound, Reference, Source};
use stdx::chain;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;
use url::Url;

use super::refusal::{bad, conflict};
use super::turn::Turn;
use super::update::{self, Piece, QUEUE_LEN, not_taken};
use super::{Messages, Server, Updates, streamed};
use crate::outbound::{outbound, places};

/// How often it is told how far it has come.
const TELL: Duration = Duration::from_secs(1);
const DIGEST_CHARS: usize = 64;

/// An update on another server.
#[derive(Debug)]
struct Found {
    /// The same by its digest, where it has one.
    asked: FileSource,
    file: Source,
}

/// What goes to the caller.
type Progress = mpsc::Sender<Result<UpdateProgress, Status>>;

/// Tells what an update is.
pub(super) async fn look(server: &Server, asked: FileSource) -> Result<UpdateFound, Status> {
    let updates = update::updates(server)?;
    let looked = async {
        let found = find(server, updates, asked).await?;
        let (start, total) = beginning(found.file).await?;
        let head = disk::Update::parse_head(&start).map_err(|error| error.to_string())?;
        let head = head.ok_or("it ends within its metadata")?;
        let bytes = head.bytes as u64 + head.update.kernel.bytes + head.update.root.bytes;
        match total {
            Some(total) if total != bytes => Err(format!("it has {total} bytes, and its metadata say {bytes}")),
            _ => Ok(UpdateFound { source: Some(found.asked), version: head.update.version, bytes }),
        }
    };
    looked.await.map_err(|reason| not_taken(&reason))
}

/// Fetches an update and lets the machine start from it; tells how far it is. Whoever does not listen any more is taken
/// for one who changed their mind.
pub(super) async fn fetch(server: &Arc<Server>, asked: FetchUpdateRequest) -> Result<Messages<UpdateProgress>, Status> {
    let updates = update::updates(server)?.clone();
    let turn = server.turns.take(update::TAKES_IN)?;
    let options = update::checked(asked.options)?;
    let source = asked.source.ok_or_else(|| bad("where the update is: source"))?;
    let found = async {
        update::may_go_down(server, options).await?;
        find(server, &updates, source).await
    };
    let file = found.await.map_err(|reason| not_taken(&reason))?.file;
    let cluster = update::cluster(server, &updates, options).await.map_err(|reason| not_taken(&reason))?;
    let (sender, told) = mpsc::channel(QUEUE_LEN);
    let done = |taken: String| UpdateProgress { taken: Some(taken), ..UpdateProgress::default() };
    if options.dry_run {
        let (start, _) = beginning(file).await.map_err(|reason| not_taken(&reason))?;
        sender.send(update::consider((updates, cluster), options, start.into()).await.map(done)).await.ok();
        return Ok(streamed(told, (), std::convert::identity));
    }
    let server = server.clone();
    drop(tokio::spawn(async move {
        let work = async {
            let record =
                take((&updates, cluster, turn), options, file, &sender).await.map_err(|reason| not_taken(&reason))?;
            update::start_from(&server, &record, options).await.map(done).map_err(conflict)
        };
        let end = tokio::select! {
            end = work => end,
            () = sender.closed() => return tracing::info!("nobody waits for the update any more"),
        };
        sender.send(end).await.ok();
    }));
    Ok(streamed(told, (), std::convert::identity))
}

/// Looks for an update, as far as that is needed to know what to fetch.
async fn find(server: &Server, updates: &Updates, asked: FileSource) -> Result<Found, String> {
    let own = updates.clone();
    let limit = tokio::task::spawn_blocking(move || -> Result<u64, install::Error> {
        let slot = own.booted.slot.other();
        Ok(disk::Update::most_bytes(own.booted.open()?.slot(slot)?.bytes()))
    });
    let limit = limit.await.map_err(|error| error.to_string())?.map_err(|error| chain(&error).to_string())?;
    let is_digest = |text: &String| text.len() == DIGEST_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(bad) = asked.sha256.as_ref().filter(|text| !is_digest(text)) {
        return Err(format!("{bad:?} is no SHA-256 in hexadecimal digits"));
    }
    let in_words = |error: remote::Error| chain(&error).to_string();
    let outbound = server.manifest.as_ref().map(outbound).transpose().map_err(in_words)?.unwrap_or_default();
    let (found, is_proved) = match asked.source.split_once("://") {
        Some(("http" | "https", _)) => of_web(&outbound, asked, limit)?,
        Some(("oci", _)) => of_registry((server.manifest.as_ref(), &outbound), asked, limit).await?,
        _ => return Err(format!("{:?} begins with none of https://, http://, oci://", asked.source)),
    };
    if !is_proved && updates.key.is_none() {
        let reason = "it comes without TLS, or from whom nobody vouches for, and nothing proves what it is: tell its \
                      digest, or make images with a key for updates";
        return Err(reason.to_owned());
    }
    Ok(found)
}

fn of_web(outbound: &Outbound, asked: FileSource, limit: u64) -> Result<(Found, bool), String> {
    let url: Url = asked.source.parse().map_err(|error| format!("the address of the update: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address with a user name or password is not taken here".to_owned());
    }
    let peer = outbound.web(&url);
    let is_proved = asked.sha256.is_some() || remote::is_private(&url, &peer.trust);
    let file = Source { url, peer, limit, bytes: None, sha256: asked.sha256.clone() };
    Ok((Found { asked, file }, is_proved))
}

async fn of_registry(
    (manifest, outbound): (Option<&Manifest>, &Outbound),
    asked: FileSource,
    limit: u64,
) -> Result<(Found, bool), String> {
    let in_words = |error: remote::Error| chain(&error).to_string();
    let reference: Reference = asked.source.parse().map_err(in_words)?;
    let places = places(manifest, outbound, &reference).map_err(in_words)?;
    let found = remote::resolve(&reference, &places, limit).await.map_err(in_words)?;
    let own = found.source.sha256.clone().unwrap_or_default();
    match &asked.sha256 {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&own) => {
            Err(format!("{reference} has the SHA-256 {own}, not {wanted}"))
        }
        sha256 => {
            let is_proved = found.is_proved || sha256.is_some();
            let asked = FileSource { source: found.reference.to_string(), ..asked };
            Ok((Found { asked, file: found.source }, is_proved))
        }
    }
}

/// The beginning of an update, and how long all of it is.
async fn beginning(file: Source) -> Result<(Vec<u8>, Option<u64>), String> {
    let mut download = Download::new(file);
    let mut start = Vec::new();
    while let Some(part) = download.next().await.map_err(|error| chain(&error).to_string())? {
        start.extend_from_slice(&part);
        let is_enough = disk::Update::parse_head(&start).map_err(|error| error.to_string())?.is_some();
        if is_enough {
            break;
        }
    }
    Ok((start, download.total()))
}

/// Writes an update to the idle slot as it comes.
async fn take(
    (updates, cluster, turn): (&Updates, update::Cluster, Turn),
    options: StartOptions,
    file: Source,
    caller: &Progress,
) -> Result<install::Record, String> {
    let own = updates.clone();
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let writing = tokio::task::spawn_blocking(move || {
        // It is on until the disk is left alone, whatever becomes of this.
        let _turn = turn;
        update::write((&own, cluster), options, receiver)
    });
    let mut download = Download::new(file);
    let mut told = None;
    loop {
        let piece = match download.next().await {
            Ok(Some(part)) => Piece::Part(part),
            Ok(None) => Piece::End,
            Err(error) => Piece::Broken(chain(&error).to_string()),
        };
        let is_last = !matches!(piece, Piece::Part(_));
        // Whoever refuses it has said why.
        if sender.send(piece).await.is_err() || is_last {
            break;
        }
        if told.is_none_or(|told: Instant| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            let progress = UpdateProgress { bytes: download.at(), of: download.total(), taken: None };
            caller.try_send(Ok(progress)).ok();
        }
    }
    drop(sender);
    writing.await.map_err(|error| format!("writing it failed: {error}"))?
}

#[cfg(test)]
mod tests;
