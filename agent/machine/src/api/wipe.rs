//! Disks that the machine does not use are wiped.

use std::path::Path;
use std::time::Duration;

use install::FileDevice;
use install::wipe::{self, WipeDenied, WipePlan};
use machine_api::{Event, EventKind, Plan, WipeRequest};
use stdx::chain;
use sys::{Linux, System};
use tokio::time::Instant;
use tonic::Status;

use super::refusal::{absent, bad, conflict, failed};
use super::{Known, Server, update};
use crate::event;

/// Where the first process is told that a disk's partitions are others: nobody else may tell the kernel.
const PARTITIONS: &str = "inbox/partitions";
/// What that takes at most, and how often it is looked for.
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(100);

/// Wipes a disk or a partition, or tells what that does.
pub(super) async fn wipe(server: &Server, caller: &Known, asked: WipeRequest) -> Result<Plan, Status> {
    if asked.device.is_empty() {
        return Err(bad("which disk or partition: its name"));
    }
    let hostname = crate::status::read(&server.run).map_err(conflict)?.hostname;
    // An installation, or an update, may be about to use it.
    let turn = update::turn(server)?;
    let name = asked.device.clone();
    let planned = tokio::task::spawn_blocking(move || wipe::plan(&wipe::observe(&Linux), &name)).await;
    let plan = planned.map_err(|error| failed(error.to_string()))?.map_err(refused)?;
    let steps = plan.holds.iter().map(|held| format!("wiped is {held}")).chain(plan.steps.clone()).collect();
    let told = Plan { machine: hostname, steps, is_dry: asked.dry_run };
    if asked.dry_run {
        return Ok(told);
    }
    if asked.machine != told.machine {
        let reason = format!("the machine is called {}, not {:?}: nothing was wiped", told.machine, asked.machine);
        return Err(conflict(reason));
    }
    let (device, disk, held) = (plan.device.clone(), plan.had_partitions.clone(), plan.holds.join("; "));
    let tell = |what: &str| {
        let event = Event::new(EventKind::DiskWiped, &device, format!("{device}: {what} for {}", caller.name));
        event::tell(&server.run, "wipe", &event.with("caller", &caller.name).with("held", &held));
    };
    tell("is wiped");
    let done = tokio::task::spawn_blocking(move || {
        // It goes on, alone, if the caller goes.
        let _turn = turn;
        carry_out(&plan)
    });
    let done = done.await.map_err(|error| failed(error.to_string()))?;
    let remark = done.inspect_err(|why| tell(&format!("was not wiped ({why})")))?;
    let unknown = match disk {
        Some(disk) => make_known(server, &disk).await,
        None => None,
    };
    tell("was wiped");
    Ok(Plan { steps: told.steps.into_iter().chain(remark).chain(unknown).collect(), ..told })
}

fn refused(denied: WipeDenied) -> Status {
    match denied {
        WipeDenied::Unknown { .. } => absent(denied.to_string()),
        WipeDenied::Own { .. } | WipeDenied::ReadOnly(_) | WipeDenied::InUse { .. } => conflict(denied.to_string()),
    }
}

fn carry_out(plan: &WipePlan) -> Result<Option<String>, Status> {
    let path = Path::new("/dev").join(&plan.device);
    let mut device = FileDevice::claim(&path).map_err(|error| {
        let is_busy = matches!(&error, install::Error::System(error) if error.is_busy());
        let who = if is_busy { ": something in a pod, or out of sight, has it" } else { "" };
        conflict(format!("nothing was wiped: {}{who}", chain(&error)))
    })?;
    let failure = |error| failed(format!("{} is not wiped, or in part: {}", plan.device, chain(&error)));
    wipe::apply(plan, &mut device).map_err(failure)
}

/// Lets the kernel forget the partitions of a disk. Answers, for people, what came of it if that is not what should.
async fn make_known(server: &Server, disk: &str) -> Option<String> {
    if let Err(error) = Linux.replace(&server.run.join(PARTITIONS), disk.as_bytes(), 0o600) {
        return Some(format!("the partitions go at the machine's next start: {}", chain(&error)));
    }
    let until = Instant::now() + KNOWN_WITHIN;
    let has_partitions = || {
        let inside = Linux.list(&Path::new("/sys/class/block").join(disk)).unwrap_or_default();
        inside.iter().any(|name| name.starts_with(disk))
    };
    while has_partitions() {
        if Instant::now() >= until {
            return Some("the kernel still knows the partitions; `keelson events` may tell why".to_owned());
        }
        tokio::time::sleep(LOOK).await;
    }
    None
}
