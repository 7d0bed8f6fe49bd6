//! `keelson status`: what a machine says of itself.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use machine_api::MachineStatus;

use super::target::Target;
use super::token::Output;
use crate::process;

const WITHIN: Duration = Duration::from_secs(10);
/// The machine answered, and it is not ready.
const NOT_READY: u8 = 2;

/// Which machine, and how to tell. Ends with 0 if the machine is ready, with 2 if it is not.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// How to tell.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let status = process::ask(WITHIN, options.target.ask(async |machine| machine.get_status(()).await))?;
    options.output.show(&status, MachineStatus::describe)?;
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY) })
}

/// `keelson metrics`
pub(crate) fn metrics(target: &Target) -> Result<()> {
    target.tell(WITHIN, async |machine| machine.get_metrics(()).await)
}

/// `keelson crash`
pub(crate) fn crash(target: &Target) -> Result<()> {
    target.tell(WITHIN, async |machine| machine.get_crash(()).await)
}
