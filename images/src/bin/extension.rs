//! `cargo extension`: a layer of further files for machines, as one file.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use disk::About;
use images::signing::SigningKey;

/// Makes an extension file of a folder: what lies below its `usr` becomes part of the system of the machines that it is
/// added to (`keelson extension add`), or of an image (`cargo image --extension`). What it holds is told beside it, in a
/// file with the ending `.sbom.json`.
#[derive(Parser)]
#[command(name = "cargo extension")]
struct Arguments {
    /// The folder, with files such as `usr/lib/firmware/…`, `usr/lib/modules/RELEASE/…/X.ko`, `usr/bin/…`
    folder: PathBuf,
    /// The extension's name: small letters, digits and dashes
    #[arg(long)]
    name: String,
    /// Its version, for people
    #[arg(long = "version", value_name = "VERSION")]
    version: String,
    /// The least version of Keelson that it is for
    #[arg(long, value_name = "VERSION")]
    least_system: Option<String>,
    /// The extension file; without it NAME.extension
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sign it with this key, the one that the machines' images were made with: a file with 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

fn main() -> ExitCode {
    images::tools::conclude(run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<()> {
    let Arguments { folder, name, version, least_system: system, output, signing_key } = arguments;
    let about = About { name, version, kernel: None, system };
    about.check()?;
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    let key = signing_key.as_deref().map(SigningKey::load).transpose()?;
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{}{}", about.name, disk::EXTENSION_ENDING)));
    let work = images::workspace().join("target/images/extension").join(&about.name);
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let sign = |line: &[u8]| key.as_ref().map(|key| key.sign(line)).unwrap_or_default();
    let list = images::extension::make((&folder, about), (&work, &output), sign)?;
    let beside = PathBuf::from(format!("{}.sbom.json", output.display()));
    fs::write(&beside, list).with_context(|| format!("write {}", beside.display()))?;
    println!("{}", output.display());
    Ok(())
}
