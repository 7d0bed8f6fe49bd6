//! A file as it comes. Where the connection breaks it goes on from there, after a pause.
//!
//! ```text
//!        ┌── part ──┐                    ┌ no progress, too often ─▶ the error
//! (ask) ─▶ Coming ──┴─ broken ─▶ pause ──┤
//!            │                           └ ask for the rest: 206, or 200 whose beginning is passed over
//!            └─ end: length and digest compared ─▶ None
//! ```

use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use ring::digest::{Context, SHA256};
use stdx::Backoff;
use tokio::time::Instant;
use url::Url;

use crate::access::{Ask, PART, Way};
use crate::error::Error;
use crate::outbound::Peer;
use crate::shown;

/// So often nothing may come before that is given up.
const TRIES: u32 = 7;
const AGAIN: Backoff =
    Backoff { initial: Duration::from_millis(500), factor: 2.0, max: Duration::from_secs(30), jitter: 0.0 };
/// However slowly it comes, it has come by then.
const WHOLE: Duration = Duration::from_secs(2 * 3600);

/// A file on another server.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it is.
    pub url: Url,
    /// Who has it.
    pub peer: Peer,
    /// It may not be longer.
    pub limit: u64,
    /// Its length, where that is known before.
    pub bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal digits, where that is known before.
    pub sha256: Option<String>,
}

/// A file as it comes.
pub struct Download {
    source: Source,
    way: Way,
    body: Option<Incoming>,
    /// So much of it was handed on.
    at: u64,
    /// So much of what comes was handed on before.
    again: u64,
    total: Option<u64>,
    /// What tells this content of the file from another one.
    tag: Option<HeaderValue>,
    digest: Option<Context>,
    failures: u32,
    end: Instant,
}

impl Download {
    /// The way to a file; nothing is asked for yet.
    #[must_use]
    pub fn new(source: Source) -> Self {
        let way = Way::new(source.peer.clone());
        let total = source.bytes;
        Self {
            source,
            way,
            body: None,
            at: 0,
            again: 0,
            total,
            tag: None,
            digest: Some(Context::new(&SHA256)),
            failures: 0,
            end: Instant::now() + WHOLE,
        }
    }

    /// So much of it was handed on.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// How long it is, as far as the server told.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.total
    }

    /// The next part; `None` at the end, when all of it has come and is what it should be. After an error, and where
    /// this is dropped before it is done, nothing more is to be asked for.
    ///
    /// # Errors
    /// When the server refuses, or nothing comes, however often it is asked; when it is not what it should be.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let error = match self.part().await {
                Ok(Some(part)) if part.is_empty() => continue,
                Ok(Some(part)) => {
                    self.failures = 0;
                    return self.hand_on(part).map(Some);
                }
                Ok(None) => return self.finish().map(|()| None),
                Err(error) => error,
            };
            let pause = AGAIN.base(self.failures);
            self.failures += 1;
            if !error.is_passing() || self.failures >= TRIES || Instant::now() + pause > self.end {
                return Err(error);
            }
            tracing::info!(from = shown(&self.source.url), at = self.at, error = %stdx::chain(&error), "asked again");
            self.body = None;
            tokio::time::sleep(pause).await;
        }
    }

    async fn part(&mut self) -> Result<Option<Bytes>, Error> {
        let url = shown(&self.source.url);
        if self.body.is_none() {
            let answer = self.ask().await?;
            self.body = Some(self.begin(answer)?);
        }
        let Some(body) = &mut self.body else { return Ok(None) };
        let frame = tokio::time::timeout_at(self.end.min(Instant::now() + PART), body.frame()).await;
        let frame = match frame.map_err(|_elapsed| Error::Silent { url: url.clone(), seconds: PART.as_secs() })? {
            None => return Ok(None),
            Some(frame) => frame.map_err(|source| Error::Broken { url, source })?,
        };
        let mut part = frame.into_data().unwrap_or_default();
        let known = self.again.min(part.len() as u64);
        self.again -= known;
        part.advance(usize::try_from(known).unwrap_or(part.len()));
        Ok(Some(part))
    }

    async fn ask(&mut self) -> Result<Response<Incoming>, Error> {
        let mut ask = Ask::new(Method::GET, &self.source.url);
        if self.at > 0 {
            ask = ask.header(RANGE, &format!("bytes={}-", self.at))?;
            if let Some(tag) = &self.tag {
                ask.headers.insert(IF_RANGE, tag.clone());
            }
        }
        self.way.get(ask).await
    }

    /// Takes note of what an answer says of the file.
    fn begin(&mut self, answer: Response<Incoming>) -> Result<Incoming, Error> {
        let url = || shown(&self.source.url);
        let wrong = |reason: String| Error::Answer { url: url(), reason };
        let headers = answer.headers();
        if let Some(coding) = headers.get(CONTENT_ENCODING).filter(|coding| *coding != "identity") {
            return Err(wrong(format!("it is encoded: {coding:?}")));
        }
        let tag = headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")).cloned();
        if self.at > 0 && tag.is_some() && self.tag.is_some() && tag != self.tag {
            return Err(Error::Changed { url: url() });
        }
        let total = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = text(headers, CONTENT_RANGE).and_then(parse_range);
                let (first, total) = range.ok_or_else(|| wrong("it does not say which part it brings".to_owned()))?;
                if first != self.at {
                    return Err(wrong(format!("it brings a part from {first} on, not from {}", self.at)));
                }
                self.again = 0;
                total
            }
            // A server that knows no parts brings all of it again.
            StatusCode::OK => {
                self.again = self.at;
                text(headers, CONTENT_LENGTH).and_then(|length| length.parse().ok())
            }
            status => return Err(wrong(format!("{status} is no answer to what was asked"))),
        };
        match (self.total, total) {
            (Some(wanted), Some(found)) if wanted != found && self.at > 0 => return Err(Error::Changed { url: url() }),
            (Some(wanted), Some(found)) if wanted != found => {
                return Err(Error::Length { url: url(), found, wanted });
            }
            (_, Some(found)) if found > self.source.limit => {
                return Err(Error::TooLarge { url: url(), limit: self.source.limit });
            }
            _ => {}
        }
        tracing::debug!(total, ranges = ?headers.get(ACCEPT_RANGES), at = self.at, "it comes");
        (self.total, self.tag) = (self.total.or(total), tag);
        Ok(answer.into_body())
    }

    fn hand_on(&mut self, part: Bytes) -> Result<Bytes, Error> {
        self.at += part.len() as u64;
        if self.at > self.source.limit {
            return Err(Error::TooLarge { url: shown(&self.source.url), limit: self.source.limit });
        }
        if let Some(digest) = &mut self.digest {
            digest.update(&part);
        }
        Ok(part)
    }

    fn finish(&mut self) -> Result<(), Error> {
        let url = || shown(&self.source.url);
        if let Some(wanted) = self.total.filter(|wanted| *wanted != self.at) {
            return Err(Error::Length { url: url(), found: self.at, wanted });
        }
        let Some(digest) = self.digest.take() else { return Ok(()) };
        let found = stdx::hex(digest.finish().as_ref());
        match &self.source.sha256 {
            Some(wanted) if !wanted.eq_ignore_ascii_case(&found) => {
                Err(Error::Digest { url: url(), found, wanted: wanted.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Where a part begins, and how long the whole is: `bytes 5-9/10`.
fn parse_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_where_it_belongs() {
        assert_eq!(parse_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(parse_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes */10", "bytes 5/10", "items 5-9/10", "bytes -9/10", "bytes 5-9/x"] {
            assert_eq!(parse_range(bad), None, "{bad}");
        }
    }
}
