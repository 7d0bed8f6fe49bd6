//! `keelson wipe`: a disk that a machine does not use, made blank.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use machine_api::{Plan, WipeRequest};

use super::change::show;
use super::look::Asked;
use crate::process;

/// A device that is told to discard all of a large disk.
const WITHIN: Duration = Duration::from_secs(900);

/// What is wiped.
#[derive(Args)]
pub(crate) struct Wipe {
    /// The machine's name, which has to be the right one.
    machine: String,
    /// The disk, or one of its partitions, by its name in `keelson get disks`, such as `sdb` or `nvme1n1p2`.
    device: String,
    /// Do what is shown. Without, nothing is done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asked: Asked,
}

pub(crate) fn wipe(options: &Wipe) -> Result<()> {
    process::ask(WITHIN, async {
        let ask = async |digest: Option<String>| -> Result<Plan> {
            let (machine, device) = (options.machine.clone(), options.device.clone());
            let wanted = WipeRequest { machine, device, dry_run: digest.is_none(), digest: digest.unwrap_or_default() };
            options.asked.target.ask(async |machine| machine.wipe(wanted).await).await
        };
        let plan = ask(None).await?;
        show(&plan, &options.machine, &options.asked)?;
        if !options.yes {
            eprintln!("nothing was done; --yes does it");
            return Ok(());
        }
        let known = plan.steps.len();
        // What was shown, and no other disk that has its name by now.
        let done = ask(Some(plan.digest)).await?;
        for remark in done.steps.iter().skip(known) {
            eprintln!("{remark}");
        }
        eprintln!("{} is wiped", options.device);
        Ok(())
    })
}
