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
    /// Explains a key, such as `cluster.endpoint`.
    Explain {
        /// The key.
        key: String,
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
        Command::Explain { key } => Ok(explain(&key)),
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
