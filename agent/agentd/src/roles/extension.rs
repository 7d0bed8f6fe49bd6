//! `keelson extension`: layers of further files that a machine has beside its system, and keeps when that is updated.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Subcommand;
use disk::{EXTENSION_BYTES, ExtensionHead};
use futures::stream;
use machine_api::{Chunk, RemoveExtensionRequest, View};

use super::look::{self, Asked};
use super::target::{PART_BYTES, Target};

const WITHIN: Duration = Duration::from_secs(60);
/// Half a gigabyte over a slow line to a slow disk.
const ADDED_WITHIN: Duration = Duration::from_secs(3600);

/// What to do with extensions.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Adds an extension to a machine, or replaces the one of its name. It counts from the next start (`keelson reboot`),
    /// and stays when the system is updated.
    Add {
        /// The extension, as `cargo extension` makes it.
        file: PathBuf,
        #[command(flatten)]
        target: Target,
    },
    /// Lists the extensions of a machine, and why one is not in use.
    List(Asked),
    /// Removes an extension that was added to a machine. It is in use until the next start.
    Remove {
        /// Its name.
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Add { file, target } => {
            let file = read(&file)?;
            target.tell(ADDED_WITHIN, async |machine| machine.add_extension(stream::iter(parts(file))).await)
        }
        Command::List(asked) => look::show(View::Extensions, &asked),
        Command::Remove { name, target } => {
            let asked = RemoveExtensionRequest { name };
            target.tell(WITHIN, async |machine| machine.remove_extension(asked).await)
        }
    }
}

/// What is plainly wrong need not travel.
fn read(path: &Path) -> Result<Bytes> {
    let shown = path.display();
    let bytes = std::fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
    ensure!(bytes <= EXTENSION_BYTES, "{shown} has {bytes} bytes, and no extension has more than {EXTENSION_BYTES}");
    let file = std::fs::read(path).with_context(|| format!("reading {shown}"))?;
    let head = ExtensionHead::parse(&file).with_context(|| format!("reading {shown}"))?;
    ensure!(file.len() as u64 == head.bytes(), "{shown} has {} bytes, not {}", file.len(), head.bytes());
    Ok(file.into())
}

/// A file as it travels.
fn parts(file: Bytes) -> impl Iterator<Item = Chunk> + Send + 'static {
    let places = (0..file.len()).step_by(PART_BYTES);
    places.map(move |start| Chunk { data: file.slice(start..file.len().min(start + PART_BYTES)) })
}
