//! `keelson manifest`: the same checks as at boot, before the boot.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
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
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {name}"))?;
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
                    eprint!("{diagnostics}");
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
    let read = |file: &PathBuf| {
        let source = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| format!("reading {source}"))?;
        Ok(manifest::Part { source, text })
    };
    let parts = files.iter().map(read).collect::<Result<Vec<_>>>()?;
    manifest::merge(&parts).map_err(|broken| {
        let told: Vec<String> = broken.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the files cannot be merged\n{}", told.join("\n"))
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
