//! The roles, one file each.

mod cni;
mod manifest;
mod sample;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What the process is.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Checks and explains manifests.
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// The CNI plugin; the container runtime calls it.
    #[command(hide = true)]
    Cni,
    /// A small web server that answers with its host's name, for trying a cluster.
    #[command(hide = true)]
    SampleServer(sample::Options),
}

impl Role {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Manifest(command) => manifest::run(command),
            Self::Cni => cni::run(),
            Self::SampleServer(options) => done(sample::run(&options)),
        }
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
