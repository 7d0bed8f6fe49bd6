//! What a machine is updated to.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use machine_api::{FileSource, UpdateFound, UpdateProgress, size};
use remote::Reference;

use super::{Options, with_query};
use crate::roles::target::{Download, Target};

/// A line of a machine's progress is not longer.
const LINE_BYTES: usize = 64 << 10;

/// An update as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Image {
    /// A file here.
    File(PathBuf),
    /// One that the machine fetches.
    Remote(String),
}

impl FromStr for Image {
    type Err = Infallible;

    /// Files come first; what has the form of an image in a registry, and is no file, is one.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let registry = text.parse::<Reference>().ok().map(|reference| reference.registry);
        let is_registry = |name: &String| name.contains(['.', ':']) || name == "localhost";
        Ok(match registry.filter(is_registry) {
            _ if text.contains("://") => Self::Remote(text.to_owned()),
            Some(_) if !Path::new(text).exists() => Self::Remote(format!("oci://{text}")),
            _ => Self::File(text.into()),
        })
    }
}

impl Image {
    /// Finds out which version it is. What is somewhere else is looked at by the machine.
    pub(super) async fn look(&self, target: &Target, options: &Options) -> Result<Update> {
        match self {
            Self::File(_) if options.sha256.is_some() => bail!("--sha256 is for an update that is fetched"),
            Self::File(path) => read(path),
            Self::Remote(source) => {
                let asked = FileSource { source: source.clone(), sha256: options.sha256.clone() };
                let body = serde_json::to_vec(&asked).context("writing the request")?;
                let found = target.ask(Method::POST, "/update/look", body.into()).await?;
                let found: UpdateFound = serde_json::from_slice(&found).context("reading the machine's answer")?;
                eprintln!("{}: version {}, {}", found.source.source, found.version, size(found.bytes));
                Ok(Update { version: found.version, content: Content::Remote(found.source) })
            }
        }
    }
}

fn read(path: &Path) -> Result<Update> {
    let shown = path.display();
    let update = std::fs::read(path).with_context(|| format!("reading {shown}"))?;
    // What is plainly wrong need not travel.
    let head = disk::Update::parse_head(&update).with_context(|| format!("reading {shown}"))?;
    let head = head.with_context(|| format!("{shown} ends within its metadata"))?;
    let wanted = head.bytes as u64 + head.update.kernel.bytes + head.update.root.bytes;
    if update.len() as u64 != wanted {
        bail!("{shown} has {} bytes, not {wanted}", update.len());
    }
    eprintln!("{shown}: version {}, {wanted} bytes", head.update.version);
    let content = Content::File { head_bytes: head.bytes, file: update.into() };
    Ok(Update { version: head.update.version, content })
}

/// An update that was looked at.
pub(super) struct Update {
    pub(super) version: String,
    content: Content,
}

enum Content {
    File {
        /// Of what comes before the contents.
        head_bytes: usize,
        file: Bytes,
    },
    Remote(FileSource),
}

impl Update {
    /// Lets a machine look at the update and at itself, before anything travels or changes.
    pub(super) async fn try_on(&self, target: &Target, options: &Options) -> Result<()> {
        let start = &options.start;
        let words = [("dry-run", true), ("force", start.force), ("stage", start.stage)];
        let (method, uri, body) = match &self.content {
            Content::File { head_bytes, file } => (Method::PUT, "/update", file.slice(..*head_bytes)),
            Content::Remote(source) => (Method::POST, "/update/fetch", written(source)?),
        };
        target.ask(method, &with_query(&wished(uri, options), &words), body).await.map(drop)
    }

    /// Lets a machine take it in, and leave its start to us; answers what the machine says.
    pub(super) async fn give(&self, target: &Target, options: &Options) -> Result<String> {
        let staged = |uri| with_query(&wished(uri, options), &[("stage", true)]);
        match &self.content {
            Content::File { file, .. } => {
                let answer = target.ask(Method::PUT, &staged("/update"), file.clone()).await?;
                Ok(String::from_utf8_lossy(&answer).into_owned())
            }
            Content::Remote(source) => {
                let lines = target.stream(Method::POST, &staged("/update/fetch"), written(source)?).await?;
                follow(lines).await
            }
        }
    }
}

fn written(source: &FileSource) -> Result<Bytes> {
    Ok(serde_json::to_vec(source).context("writing the request")?.into())
}

fn wished(uri: &str, options: &Options) -> String {
    with_query(uri, &[("downgrade", options.allow_downgrade)])
}

/// Shows how far a machine is, until it says how it ended.
async fn follow(mut lines: Download) -> Result<String> {
    let mut meter = Meter::default();
    let mut rest = Vec::new();
    while let Some(part) = lines.next().await? {
        rest.extend_from_slice(&part);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            match serde_json::from_slice(&line).context("reading the machine's answer")? {
                UpdateProgress::Fetched { bytes, of } => meter.show(bytes, of),
                UpdateProgress::Taken(told) => {
                    meter.end();
                    return Ok(told);
                }
                UpdateProgress::Refused(reason) => {
                    meter.end();
                    bail!("{reason}");
                }
            }
        }
        if rest.len() > LINE_BYTES {
            bail!("the machine's answer has a line without an end");
        }
    }
    bail!("the machine did not say how it ended; `keelson status` tells whether it took the update")
}

/// Tells a person how far it is: in one line of a terminal, and elsewhere by tenths.
#[derive(Default)]
struct Meter {
    tenths: u64,
    is_open: bool,
}

impl Meter {
    fn show(&mut self, bytes: u64, of: Option<u64>) {
        let mut out = std::io::stderr();
        let text = match of {
            Some(of) => format!("{} of {} fetched", size(bytes), size(of)),
            None => format!("{} fetched", size(bytes)),
        };
        if out.is_terminal() {
            self.is_open = true;
            // Who cannot be told goes on.
            write!(out, "\r{text}   ").and_then(|()| out.flush()).ok();
            return;
        }
        let tenths = of.filter(|of| *of > 0).map_or(0, |of| bytes.saturating_mul(10) / of);
        if tenths > self.tenths {
            self.tenths = tenths;
            eprintln!("{text}");
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_open) {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_file_or_is_fetched() {
        let remote = |text: &str| Image::Remote(text.to_owned());
        for (text, wanted) in [
            ("keelson.update", Image::File("keelson.update".into())),
            ("./a.b/keelson:1", Image::File("./a.b/keelson:1".into())),
            ("images/keelson:1", Image::File("images/keelson:1".into())),
            ("https://example.com/keelson.update", remote("https://example.com/keelson.update")),
            ("oci://images/keelson:1", remote("oci://images/keelson:1")),
            ("registry.example.com/os/keelson:0.2.0", remote("oci://registry.example.com/os/keelson:0.2.0")),
            ("localhost:5000/keelson:1", remote("oci://localhost:5000/keelson:1")),
        ] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
    }
}
