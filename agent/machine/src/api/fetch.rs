//! Updates that the machine fetches by itself: from web servers and registries, as it fetches images.
//!
//! What comes is judged as a file is that somebody hands in. Beside that, whatever comes without TLS must be proved: by
//! the key for updates, or by a digest that whoever asks for it knows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::Device;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use machine_api::{FileSource, UpdateFound, UpdateProgress};
use remote::{Access, Download, Place, Reference, Source, Trust};
use stdx::chain;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use url::Url;

use super::update::{self, Piece, QUEUE_LEN, Wishes};
use super::{Answer, BODY, Mirrors, NO_SLOTS, Server, Updates, respond, streamed, text, whole};

/// What is asked for is short.
const REQUEST_BYTES: usize = 8 << 10;
/// How often it is told how far it has come.
const TELL: Duration = Duration::from_secs(1);
/// The mirrors of all registries that have none of their own.
const ANY: &str = "_default";
const DIGEST_CHARS: usize = 64;

/// An update on another server.
#[derive(Debug)]
struct Found {
    /// The same by its digest, where it has one.
    asked: FileSource,
    file: Source,
}

/// Tells what an update is.
pub(super) async fn look(server: &Arc<Server>, request: Request<Incoming>) -> Answer {
    let Some(updates) = &server.updates else { return whole(text(StatusCode::CONFLICT, NO_SLOTS.to_owned())) };
    let looked = async {
        let found = find(server, updates, read(request).await?).await?;
        let (start, total) = beginning(found.file).await?;
        let head = disk::Update::parse_head(&start).map_err(|error| error.to_string())?;
        let head = head.ok_or("it ends within its metadata")?;
        let bytes = head.bytes as u64 + head.update.kernel.bytes + head.update.root.bytes;
        match total {
            Some(total) if total != bytes => Err(format!("it has {total} bytes, and its metadata say {bytes}")),
            _ => Ok(UpdateFound { source: found.asked, version: head.update.version, bytes }),
        }
    };
    whole(match looked.await.and_then(|found| serde_json::to_vec(&found).map_err(|error| error.to_string())) {
        Ok(found) => respond(StatusCode::OK, "application/json", found),
        Err(reason) => not_taken(&reason),
    })
}

/// Fetches an update and lets the machine start from it; tells how far it is. Whoever does not listen any more is taken
/// for one who changed their mind.
pub(super) async fn fetch(server: &Arc<Server>, request: Request<Incoming>) -> Answer {
    let Some(updates) = server.updates.clone() else { return whole(text(StatusCode::CONFLICT, NO_SLOTS.to_owned())) };
    let Ok(turn) = server.turn.clone().try_acquire_owned() else {
        return whole(text(StatusCode::CONFLICT, "another update is being taken in\n".to_owned()));
    };
    let wishes = match Wishes::parse(request.uri().query()) {
        Ok(wishes) => wishes,
        Err(reason) => return whole(text(StatusCode::BAD_REQUEST, reason)),
    };
    let found = async {
        update::may_go_down(server, wishes).await?;
        find(server, &updates, read(request).await?).await
    };
    let file = match found.await {
        Ok(found) => found.file,
        Err(reason) => return whole(not_taken(&reason)),
    };
    if wishes.is_dry {
        return whole(match beginning(file).await {
            Ok((start, _)) => update::consider(updates, wishes, start.into()).await,
            Err(reason) => not_taken(&reason),
        });
    }
    let (lines, told) = mpsc::channel(QUEUE_LEN);
    let server = server.clone();
    drop(tokio::spawn(async move {
        let work = async {
            let record = take((&updates, turn), wishes, file, &lines).await?;
            update::start_from(&server, &record, wishes).await
        };
        let end = tokio::select! {
            end = work => end,
            () = lines.closed() => return tracing::info!("nobody waits for the update any more"),
        };
        let last = match end {
            Ok(told) => UpdateProgress::Taken(told),
            Err(reason) => UpdateProgress::Refused(reason),
        };
        lines.send(line(&last)).await.ok();
    }));
    streamed(told, (), "application/x-ndjson")
}

fn not_taken(reason: &str) -> Response<Full<Bytes>> {
    text(StatusCode::UNPROCESSABLE_ENTITY, format!("the update is not taken: {reason}\n"))
}

fn line(progress: &UpdateProgress) -> Bytes {
    let mut line = serde_json::to_vec(progress).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

pub(super) async fn read(request: Request<Incoming>) -> Result<FileSource, String> {
    let body = Limited::new(request.into_body(), REQUEST_BYTES).collect();
    let body = tokio::time::timeout(BODY, body).await.map_err(|_elapsed| "what to fetch did not come".to_owned())?;
    let body = body.map_err(|error| format!("what to fetch was not read: {error}"))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| format!("what to fetch was not read: {error}"))
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
    let (found, is_proved) = match asked.source.split_once("://") {
        Some(("http" | "https", _)) => of_web(asked, limit)?,
        Some(("oci", _)) => of_registry(&server.mirrors, asked, limit).await?,
        _ => return Err(format!("{:?} begins with none of https://, http://, oci://", asked.source)),
    };
    if !is_proved && updates.key.is_none() {
        let reason = "it comes without TLS, or from whom nobody vouches for, and nothing proves what it is: tell its \
                      digest, or make images with a key for updates";
        return Err(reason.to_owned());
    }
    Ok(found)
}

fn of_web(asked: FileSource, limit: u64) -> Result<(Found, bool), String> {
    let url: Url = asked.source.parse().map_err(|error| format!("the address of the update: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("an address with a user name or password is not taken here".to_owned());
    }
    let is_proved = asked.sha256.is_some() || remote::is_private(&url, &Trust::Host);
    let (trust, access) = (Trust::Host, Access::Nobody);
    let file = Source { url, trust, access, limit, bytes: None, sha256: asked.sha256.clone() };
    Ok((Found { asked, file }, is_proved))
}

async fn of_registry(mirrors: &Mirrors, asked: FileSource, limit: u64) -> Result<(Found, bool), String> {
    let in_words = |error: remote::Error| chain(&error).to_string();
    let reference: Reference = asked.source.parse().map_err(in_words)?;
    let places = places(mirrors, &reference).map_err(in_words)?;
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

/// Where a registry's content comes from, as the manifest has it for images.
fn places(mirrors: &Mirrors, reference: &Reference) -> Result<Vec<Place>, remote::Error> {
    let named = |name: &str| mirrors.iter().find(|(registry, _)| registry.to_string() == name).map(|(_, it)| it);
    let mirror = named(&reference.registry).or_else(|| named(ANY));
    let mut places = Vec::new();
    for endpoint in mirror.into_iter().flat_map(|mirror| &mirror.endpoints) {
        let text = endpoint.to_string();
        let url = text
            .parse()
            .map_err(|error: url::ParseError| remote::Error::Address { text, reason: error.to_string() })?;
        let trust = match mirror.map(|mirror| (mirror.skip_verify, &mirror.ca)) {
            Some((true, _)) => Trust::Anybody,
            Some((false, Some(ca))) => Trust::These(ca.as_str().as_bytes().to_vec()),
            Some((false, None)) | None => Trust::Host,
        };
        places.push(Place { url, trust, is_mirror: true });
    }
    if mirror.is_none_or(|mirror| mirror.fallback) {
        places.push(Place::of(reference)?);
    }
    Ok(places)
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
    (updates, turn): (&Updates, OwnedSemaphorePermit),
    wishes: Wishes,
    file: Source,
    lines: &mpsc::Sender<Bytes>,
) -> Result<install::Record, String> {
    let own = updates.clone();
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let writing = tokio::task::spawn_blocking(move || {
        // It is on until the disk is left alone, whatever becomes of this.
        let _turn = turn;
        update::write(&own, wishes, receiver)
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
            let progress = UpdateProgress::Fetched { bytes: download.at(), of: download.total() };
            lines.try_send(line(&progress)).ok();
        }
    }
    drop(sender);
    let written = writing.await.map_err(|error| format!("the update failed: {error}"))?;
    written.map_err(|reason| format!("the update is not taken: {reason}"))
}

#[cfg(test)]
mod tests;
