//! Where files are kept: a prefix in a bucket of an S3 store, or a folder of a web server that takes PUT.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use ring::digest::{Context, SHA256};
use stdx::hex;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;
use url::Url;

use crate::access::{Ask, Way, document, empty};
use crate::connection::Body;
use crate::download::Source;
use crate::error::Error;
use crate::outbound::Peer;
use crate::sign::{encode, encode_path};
use crate::{listing, shown};

/// S3 takes no more by one PUT.
pub const MOST_BYTES: u64 = 5 << 30;
/// A slow line carries so much in a second; what takes longer is given up.
const SLOWEST: u64 = 64 << 10;
const LEAST: Duration = Duration::from_secs(120);
/// How much of a file is in memory.
const PART_BYTES: usize = 256 << 10;
/// A page of a list has a thousand objects.
const PAGE_BYTES: usize = 4 << 20;
/// Nobody keeps more.
const PAGES: usize = 20;

/// A file in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its name, without what all names there begin with.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Where files are kept.
#[derive(Clone, Debug)]
pub struct Store {
    /// What names are appended to; it ends with a slash.
    pub url: Url,
    /// Of S3: where the bucket is listed, and what all keys there begin with.
    pub bucket: Option<(Url, String)>,
    /// Who keeps them.
    pub peer: Peer,
}

impl Store {
    /// A prefix of a bucket. The bucket is in the path of `endpoint`'s addresses, or in the name of the host.
    ///
    /// # Errors
    /// When they make no address.
    pub fn s3(endpoint: &str, (bucket, prefix): (&str, &str), in_path: bool, peer: Peer) -> Result<Self, Error> {
        let bad = |reason: String| Error::Address { text: endpoint.to_owned(), reason };
        let mut url: Url = endpoint.parse().map_err(|error: url::ParseError| bad(error.to_string()))?;
        let base = url.path().trim_end_matches('/').to_owned();
        if in_path {
            url.set_path(&format!("{base}/{}", encode(bucket)));
        } else {
            let host = format!("{bucket}.{}", url.host_str().unwrap_or_default());
            url.set_host(Some(&host)).map_err(|error| bad(error.to_string()))?;
            url.set_path(&format!("{base}/"));
        }
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        let listed = url.clone();
        let path = format!("{}/{}", url.path().trim_end_matches('/'), encode_path(&prefix));
        url.set_path(&path);
        Ok(Self { url, bucket: Some((listed, prefix)), peer })
    }

    /// A folder of a web server.
    #[must_use]
    pub fn folder(mut url: Url, peer: Peer) -> Self {
        let path = format!("{}/", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Self { url, bucket: None, peer }
    }

    /// The same below another name.
    #[must_use]
    pub fn below(mut self, name: &str) -> Self {
        let path = format!("{}{}/", self.url.path(), encode_path(name));
        self.url.set_path(&path);
        if let Some((_, prefix)) = &mut self.bucket {
            prefix.push_str(name);
            prefix.push('/');
        }
        self
    }

    fn address(&self, name: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{}", self.url.path(), encode_path(name)));
        url
    }

    /// A file there. It may be so large.
    #[must_use]
    pub fn source(&self, name: &str, limit: u64) -> Source {
        Source { url: self.address(name), peer: self.peer.clone(), limit, bytes: None, sha256: None }
    }

    /// The object with this whole key of the bucket, or the file with this address below the folder; `None` of what is
    /// elsewhere.
    #[must_use]
    pub fn find(&self, bucket: Option<&str>, address: &str, limit: u64) -> Option<Source> {
        let url = match (&self.bucket, bucket) {
            (Some((listed, _)), Some(bucket)) => {
                let key = address.strip_prefix("s3://")?.strip_prefix(bucket)?.strip_prefix('/')?;
                let mut url = listed.clone();
                url.set_path(&format!("{}/{}", listed.path().trim_end_matches('/'), encode_path(key)));
                url
            }
            (None, None) => address.parse().ok().filter(|url: &Url| url.as_str().starts_with(self.url.as_str()))?,
            _ => return None,
        };
        Some(Source { url, peer: self.peer.clone(), limit, bytes: None, sha256: None })
    }

    /// What is there. A web server tells of these names only.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn list(&self, names: &[String]) -> Result<Vec<Stored>, Error> {
        match &self.bucket {
            Some((url, prefix)) => self.list_bucket(url, prefix).await,
            None => {
                let mut found = Vec::new();
                for name in names {
                    found.extend(self.look(name).await?);
                }
                Ok(found)
            }
        }
    }

    async fn list_bucket(&self, url: &Url, prefix: &str) -> Result<Vec<Stored>, Error> {
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        for _page in 0..PAGES {
            let mut page = url.clone();
            let mut words = vec![("list-type", "2"), ("prefix", prefix)];
            words.extend(next.as_deref().map(|next| ("continuation-token", next)));
            words.sort_unstable();
            let query: Vec<String> =
                words.into_iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
            page.set_query(Some(&query.join("&")));
            let answer = self.way().ask(Ask::new(Method::GET, &page), empty()).await?;
            let body = document(&page, answer, PAGE_BYTES).await?;
            let wrong = |reason: String| Error::Answer { url: shown(&page), reason };
            let text = std::str::from_utf8(&body).map_err(|error| wrong(error.to_string()))?;
            let read = listing::parse(text).map_err(wrong)?;
            let own = read.objects.into_iter().filter_map(|(key, bytes)| {
                key.strip_prefix(prefix).map(|name| Stored { name: name.to_owned(), bytes })
            });
            found.extend(own);
            next = read.next;
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(Error::Answer { url: shown(url), reason: format!("it has more than {PAGES} pages") })
    }

    /// Whether one file is there. A server that does not tell is as one that has it not.
    async fn look(&self, name: &str) -> Result<Option<Stored>, Error> {
        let url = self.address(name);
        match self.way().ask(Ask::new(Method::HEAD, &url), empty()).await {
            Ok(answer) => {
                let length = answer.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
                Ok(length.map(|bytes| Stored { name: name.to_owned(), bytes }))
            }
            Err(Error::Refused { status, .. })
                if [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED]
                    .contains(&status) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a file there, by one PUT. It is read twice: what is sent is signed for by its digest, and the store refuses
    /// anything else.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or the store does not take it.
    pub async fn put(&self, name: &str, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let (digest, bytes) = digest_of(path).await.map_err(failed)?;
        if bytes > MOST_BYTES {
            return Err(Error::TooLarge { url: path.display().to_string(), limit: MOST_BYTES });
        }
        let file = File::open(path).await.map_err(failed)?;
        let url = self.address(name);
        let within = LEAST + Duration::from_secs(bytes / SLOWEST);
        let mut ask = Ask { digest: &digest, within, ..Ask::new(Method::PUT, &url) };
        ask.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        ask.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        self.way().ask(ask, body(file, bytes)).await.map(drop)
    }

    /// Forgets a file there.
    ///
    /// # Errors
    /// When the store does not.
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        let url = self.address(name);
        self.way().ask(Ask::new(Method::DELETE, &url), empty()).await.map(drop)
    }

    fn way(&self) -> Way {
        Way::new(self.peer.clone())
    }
}

/// A file as it is read; no more than was there when it was measured.
fn body(file: File, bytes: u64) -> Body {
    let parts = ReaderStream::with_capacity(file.take(bytes), PART_BYTES);
    StreamBody::new(parts.map_ok(Frame::data).boxed()).boxed_unsync()
}

async fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let mut parts = ReaderStream::with_capacity(File::open(path).await?, PART_BYTES);
    let (mut digest, mut bytes) = (Context::new(&SHA256), 0);
    while let Some(part) = parts.try_next().await? {
        digest.update(&part);
        bytes += part.len() as u64;
    }
    Ok((hex(digest.finish().as_ref()), bytes))
}
