//! `keelson manifest`: the same checks as at boot, before the boot.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};

/// What to do with manifests.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Checks manifests and tells everything that is wrong with them.
    Check {
        /// Files to check.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How to tell.
        #[arg(long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Prints the manifest that a machine runs by, without secrets and comments.
    Show(super::target::Target),
    /// Prints the JSON Schema of manifests.
    Schema,
    /// Prints the manifest that several files make: key by key, and later ones win.
    Merge {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Explains a key, such as `cluster.endpoint`, or tells who set which key of a machine's manifest.
    Explain {
        /// The key.
        #[arg(required_unless_present = "origin")]
        key: Option<String>,
        /// Tell who set it, or all keys, on the machine.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        asked: super::look::Asked,
    },
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Check { files, output } => check(&files, output),
        Command::Show(target) => super::look::manifest(&target).map(|()| ExitCode::SUCCESS),
        Command::Schema => {
            println!("{}", serde_json::to_string_pretty(&manifest::schema()).context("writing the schema")?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Merge { files } => {
            print!("{}", merged(&files)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Explain { key, origin: true, asked } => {
            super::look::origins(&asked, key.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Command::Explain { key, .. } => Ok(explain(&key.unwrap_or_default())),
    }
}

fn check(files: &[PathBuf], output: Output) -> Result<ExitCode> {
    let mut all_good = true;
    let mut reports = Vec::new();
    for file in files {
        let name = file.display().to_string();
        let text = read(file)?;
        let (parsed, diagnostics) = manifest::check(&name, &text);
        all_good &= parsed.is_some();
        match output {
            Output::Json => {
                reports.push(
                    serde_json::json!({"file": name, "valid": parsed.is_some(), "diagnostics": diagnostics.to_json()}),
                );
            }
            Output::Text => {
                if !diagnostics.is_empty() {
                    eprintln!("{diagnostics}");
                }
                if parsed.is_some() {
                    println!("{name}: good");
                }
            }
        }
    }
    if output == Output::Json {
        println!("{}", serde_json::Value::Array(reports));
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The manifest that files make together. One alone is as it was written, and need not be good.
pub(crate) fn merged(files: &[PathBuf]) -> Result<String> {
    let part = |file: &PathBuf| Ok(manifest::Part { source: file.display().to_string(), text: read(file)? });
    let parts = files.iter().map(part).collect::<Result<Vec<_>>>()?;
    manifest::merge(&parts).map_err(|broken| {
        let told: Vec<String> = broken.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the files cannot be merged\n{}", told.join("\n"))
    })
}

/// A file's text, no more of it than shows that it is too long.
fn read(file: &Path) -> Result<String> {
    let name = file.display();
    let opened = File::open(file).with_context(|| format!("reading {name}"))?;
    let mut bytes = Vec::new();
    opened
        .take(manifest::MANIFEST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("reading {name}"))?;
    String::from_utf8(bytes).or_else(|error| {
        let good = error.utf8_error().valid_up_to();
        // What is too long may be cut inside a letter.
        if good >= manifest::MANIFEST_BYTES - 3 {
            return Ok(String::from_utf8_lossy(error.as_bytes()).into_owned());
        }
        let line = error.as_bytes()[..good].split(|byte| *byte == b'\n').count();
        bail!("{name}:{line}: byte {} of the file is not UTF-8 text: a manifest is TOML", good + 1)
    })
}

fn explain(key: &str) -> ExitCode {
    if let Some(explanation) = manifest::explain(key) {
        print!("{explanation}");
        return ExitCode::SUCCESS;
    }
    match manifest::suggest_key(key) {
        Some(similar) => eprintln!("keelson: there is no key {key}; did you mean {similar}?"),
        None => eprintln!("keelson: there is no key {key}"),
    }
    ExitCode::FAILURE
}
