//! The roles, one file each.

mod apiserver;
mod cni;
mod controller_manager;
mod manifest;
mod sample;
mod scheduler;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What the process is.
#[derive(Subcommand)]
pub(crate) enum Role {
    /// Checks and explains manifests.
    #[command(subcommand)]
    Manifest(manifest::Command),
    /// The API server alone, with upstream's flags.
    Apiserver(Box<apiserver::Options>),
    /// The controllers alone, with upstream's flags.
    ControllerManager(Box<controller_manager::Options>),
    /// The scheduler alone, with upstream's flags.
    Scheduler(scheduler::Options),
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
            Self::Apiserver(options) => done(apiserver::run(*options)),
            Self::ControllerManager(options) => done(controller_manager::run(&options)),
            Self::Scheduler(options) => done(scheduler::run(&options)),
            Self::Cni => cni::run(),
            Self::SampleServer(options) => done(sample::run(&options)),
        }
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
