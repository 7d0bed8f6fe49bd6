//! Reset: what the machine keeps is made anew at its next start.
//!
//! The partitions are marked as fresh; a start formats those before it mounts them, however often it is cut short.

use disk::layout::{DATA_NAME, STATE_NAME};
use machine_api::{MachineStatus, Plan, ResetRequest, VolumeStatus};
use stdx::chain;
use sys::{Linux, System};
use tonic::Status;

use super::leaving::{self, Member};
use super::refusal::{bad, conflict};
use super::update::{self, Updates};
use super::{Caller, Server};

/// The partitions that are made anew.
fn volumes(asked: &ResetRequest) -> Vec<&'static str> {
    let wanted = [(asked.state, STATE_NAME), (asked.data, DATA_NAME)];
    wanted.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, name)| name).collect()
}

fn plan(asked: &ResetRequest, (machine, known): (&str, &[VolumeStatus]), member: Member) -> Result<Plan, String> {
    let mut steps: Vec<String> = member.step(asked.force)?.into_iter().collect();
    for volume in volumes(asked) {
        let holds = if volume == STATE_NAME { "its keys, its manifest, etcd" } else { "images, pods, logs" };
        steps.push(format!("{volume} is marked to be made anew: {holds}"));
    }
    let kept = known.iter().filter(|volume| volume.mounted_at.is_some());
    let kept: Vec<String> = kept.map(|volume| format!("{} ({})", volume.name, volume.device)).collect();
    if !kept.is_empty() {
        let kept = kept.join(", ");
        steps.push(format!(
            "volumes stay as they are: {kept}; `keelson wipe {machine} DISK` wipes one that is not mounted"
        ));
    }
    steps.push("the machine starts again, formats what is marked, and takes the manifest that it finds".to_owned());
    Ok(Plan { machine: machine.to_owned(), steps, is_dry: asked.dry_run, ..Plan::default() })
}

/// Makes a machine forget.
pub(super) async fn reset(server: &Server, caller: &Caller, asked: &ResetRequest) -> Result<Plan, Status> {
    if volumes(asked).is_empty() {
        return Err(bad("what is made anew: state, data, or both"));
    }
    if *caller == Caller::Maintenance {
        let status = crate::status::read(&server.run).map_err(conflict)?;
        check_stranger(asked, &status).map_err(|reason| conflict(reason.to_owned()))?;
    }
    let updates = update::updates(server)?;
    let _turn = server.turns.take("the machine is being reset")?;
    try_reset(server, updates, asked).await.map_err(conflict)
}

/// Whether somebody whom the machine does not know may have this: only where nothing else is left to do, and nothing that
/// it held comes into their hands.
fn check_stranger(asked: &ResetRequest, status: &MachineStatus) -> Result<(), &'static str> {
    if !status.conditions.iter().any(|condition| condition.name == "DiskUnusable") {
        return Err("this machine knows nobody yet, and its disk is whole: there is nothing to reset");
    }
    if !(asked.state && asked.data) {
        return Err(
            "this machine has lost the keys by which it knew you: only all of it can be made anew (--what all)",
        );
    }
    Ok(())
}

async fn try_reset(server: &Server, updates: &Updates, asked: &ResetRequest) -> Result<Plan, String> {
    let MachineStatus { hostname, volumes: known, .. } = crate::status::read(&server.run)?;
    let etcd = server.etcd.as_deref().filter(|_| asked.state);
    let member = leaving::look(etcd, &hostname, asked.force).await?;
    let plan = plan(asked, (&hostname, &known), member)?;
    if asked.dry_run {
        return Ok(plan);
    }
    if asked.machine != hostname {
        return Err(format!("the machine is called {hostname}, not {:?}: nothing was done", asked.machine));
    }
    leaving::leave(etcd, member, &hostname, asked.force).await?;
    let (booted, volumes) = (updates.booted.clone(), volumes(asked));
    let marked = tokio::task::spawn_blocking(move || install::rest::forget(&mut booted.open()?, &volumes)).await;
    marked.map_err(|error| error.to_string())?.map_err(|error| chain(&error).to_string())?;
    let ordered = Linux.replace(&server.run.join("inbox/reboot"), b"it is reset", 0o600);
    ordered.map_err(|error| chain(&error).to_string())?;
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_resets_all_of_a_machine_that_lost_its_keys_and_no_other() {
        let all = ResetRequest { state: true, data: true, ..ResetRequest::default() };
        let lost = MachineStatus {
            conditions: vec![machine_api::Condition::new("DiskUnusable", "damaged", "reset")],
            ..MachineStatus::default()
        };
        assert!(check_stranger(&all, &lost).is_ok());
        assert!(check_stranger(&all, &MachineStatus::default()).unwrap_err().contains("whole"));
        let state = ResetRequest { data: false, ..all };
        assert!(check_stranger(&state, &lost).unwrap_err().contains("--what all"));
    }

    #[test]
    fn a_reset_says_what_is_lost_and_spares_the_only_member() {
        let asked = ResetRequest { state: true, data: true, ..ResetRequest::default() };
        let told = plan(&asked, ("m1", &[]), Member::Leaves).unwrap();
        assert!(told.steps[0].contains("leaves etcd") && told.steps.len() == 4, "{told:?}");
        assert!(plan(&asked, ("m1", &[]), Member::Last).unwrap_err().contains("only member"));
        let forced = ResetRequest { force: true, ..asked.clone() };
        assert!(plan(&forced, ("m1", &[]), Member::Last).unwrap().steps[0].contains("is lost"));
        let volume = |name: &str, mounted_at: Option<&str>| VolumeStatus {
            name: name.to_owned(),
            device: "/dev/vdb1".to_owned(),
            mounted_at: mounted_at.map(str::to_owned),
            ..VolumeStatus::default()
        };
        let known = [volume("KEELSON-DATA", None), volume("longhorn", Some("/mnt/longhorn"))];
        let told = plan(&asked, ("m1", &known), Member::Leaves).unwrap().steps[3].clone();
        assert!(told.starts_with("volumes stay as they are: longhorn (/dev/vdb1); `keelson wipe m1 DISK`"), "{told}");
        let data = ResetRequest { data: true, ..ResetRequest::default() };
        assert_eq!((volumes(&data), volumes(&ResetRequest::default())), (vec![DATA_NAME], vec![]));
    }
}
