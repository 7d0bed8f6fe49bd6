//! `keelson-cni`: hands environment and standard input to the plugin.

use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};

/// The runtime's configuration is a few kilobytes.
const INPUT_BYTES: u64 = 1024 * 1024;

pub(crate) fn run() -> Result<ExitCode> {
    let mut input = Vec::new();
    std::io::stdin().take(INPUT_BYTES).read_to_end(&mut input).context("reading the network configuration")?;
    let env = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let outcome = podnet::cni::main(&env, &input);
    std::io::stdout().write_all(outcome.output.as_bytes()).context("writing the result")?;
    Ok(ExitCode::from(outcome.code))
}
