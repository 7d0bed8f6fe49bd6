//! `keelson upgrade`, `rollback` and `reboot`: which system a machine runs.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http::Method;

use super::target::Target;

/// An update over a slow line to a slow disk.
const UPDATE_WITHIN: Duration = Duration::from_secs(1800);
const WITHIN: Duration = Duration::from_secs(60);

/// The update and what to do with it.
#[derive(Args)]
pub(crate) struct Options {
    /// The update file: `cargo image --format update`.
    file: PathBuf,
    /// Take an older version than the one that runs.
    #[arg(long)]
    allow_downgrade: bool,
    /// Write it, and leave the next start to somebody else.
    #[arg(long)]
    stage: bool,
    #[command(flatten)]
    target: Target,
}

/// How to go back.
#[derive(Args)]
pub(crate) struct RollbackOptions {
    /// Leave the next start to somebody else.
    #[arg(long)]
    stage: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let path = options.file.display();
    let update = std::fs::read(&options.file).with_context(|| format!("reading {path}"))?;
    // What is plainly wrong need not travel.
    let head = disk::Update::parse_head(&update).with_context(|| format!("reading {path}"))?;
    let head = head.with_context(|| format!("{path} ends within its metadata"))?;
    eprintln!("{path}: version {}, {} bytes", head.update.version, update.len());
    let uri = with_query("/update", &[("downgrade", options.allow_downgrade), ("stage", options.stage)]);
    options.target.tell(UPDATE_WITHIN, Method::PUT, &uri, Bytes::from(update))
}

pub(crate) fn roll_back(options: &RollbackOptions) -> Result<()> {
    let uri = with_query("/rollback", &[("stage", options.stage)]);
    options.target.tell(WITHIN, Method::POST, &uri, Bytes::new())
}

pub(crate) fn reboot(target: &Target) -> Result<()> {
    target.tell(WITHIN, Method::POST, "/reboot", Bytes::new())
}

fn with_query(path: &str, words: &[(&str, bool)]) -> String {
    let words: Vec<&str> = words.iter().filter(|(_, is_set)| *is_set).map(|(word, _)| *word).collect();
    if words.is_empty() { path.to_owned() } else { format!("{path}?{}", words.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wished_is_asked_for() {
        assert_eq!(with_query("/update", &[("downgrade", false), ("stage", false)]), "/update");
        assert_eq!(with_query("/update", &[("downgrade", true), ("stage", true)]), "/update?downgrade&stage");
    }
}
