//! What a machine is updated to.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::stream;
use machine_api::{FetchUpdateRequest, FileSource, StartOptions, UpdatePart, UpdateProgress, size};
use remote::Reference;
use tonic::Streaming;

use super::Options;
use crate::roles::target::{PART_BYTES, Target, next};

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
                let found = target.ask(async |machine| machine.look_at_update(asked).await).await?;
                let source = found.source.context("the machine does not say where the update is")?;
                eprintln!("{}: version {}, {}", source.source, found.version, size(found.bytes));
                Ok(Update { version: found.version, content: Content::Remote(source) })
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
    /// Lets a machine look at the update, at itself, and unless any Kubernetes will do at its cluster, before anything
    /// travels or changes.
    pub(super) async fn try_on(&self, target: &Target, options: &Options, any_kubernetes: bool) -> Result<()> {
        let wished = StartOptions { dry_run: true, stage: options.start.stage, any_kubernetes, ..wished(options) };
        self.send(target, wished, true).await.map(drop)
    }

    /// Lets a machine take it in, and leave its start to us; answers what the machine says.
    pub(super) async fn give(&self, target: &Target, options: &Options) -> Result<String> {
        let wished = StartOptions { stage: true, ..wished(options) };
        self.send(target, wished, false).await
    }

    async fn send(&self, target: &Target, options: StartOptions, is_head: bool) -> Result<String> {
        match &self.content {
            Content::File { head_bytes, file } => {
                let parts = parts(if is_head { file.slice(..*head_bytes) } else { file.clone() }, options);
                Ok(target.ask(async |machine| machine.update(stream::iter(parts)).await).await?.text)
            }
            Content::Remote(source) => {
                let wanted = FetchUpdateRequest { source: Some(source.clone()), options: Some(options) };
                follow(target.ask(async |machine| machine.fetch_update(wanted).await).await?).await
            }
        }
    }
}

fn wished(options: &Options) -> StartOptions {
    StartOptions {
        allow_downgrade: options.allow_downgrade,
        force: options.start.force,
        any_kubernetes: options.any_kubernetes,
        ..StartOptions::default()
    }
}

/// A file as it travels.
fn parts(file: Bytes, options: StartOptions) -> impl Iterator<Item = UpdatePart> + Send + 'static {
    (0..file.len()).step_by(PART_BYTES).map(move |start| {
        let data = file.slice(start..file.len().min(start + PART_BYTES));
        UpdatePart { options: (start == 0).then_some(options), data }
    })
}

/// Shows how far a machine is, until it says how it ended.
async fn follow(mut messages: Streaming<UpdateProgress>) -> Result<String> {
    let mut meter = Meter::default();
    loop {
        match next(&mut messages).await {
            Ok(Some(UpdateProgress { taken: None, bytes, of })) => meter.show(bytes, of),
            Ok(Some(UpdateProgress { taken: Some(told), .. })) => {
                meter.end();
                return Ok(told);
            }
            Ok(None) => {
                meter.end();
                bail!("the machine did not say how it ended; `keelson status` tells whether it took the update");
            }
            Err(error) => {
                meter.end();
                return Err(error);
            }
        }
    }
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
