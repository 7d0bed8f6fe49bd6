//! Disks that the machine does not use are wiped.

use std::path::{Path, PathBuf};
use std::time::Duration;

use install::FileDevice;
use install::wipe::{self, WipeDenied, WipePlan};
use machine_api::{Event, EventKind, Plan, WipeRequest, detail};
use stdx::chain;
use sys::{Linux, System};
use tokio::time::Instant;
use tonic::Status;

use super::refusal::{absent, bad, conflict, failed};
use super::turn::Turn;
use super::{Known, Server};
use crate::event;

/// Where the first process is told that a disk's partitions are others, or that it has none: nobody else may tell the
/// kernel, and a volume may wait for a blank disk.
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
    // An installation, or an update, may be about to use it; a look at it disturbs nobody.
    let turn = if asked.dry_run { None } else { Some(server.turns.take("a disk is being wiped")?) };
    let name = asked.device.clone();
    let planned = tokio::task::spawn_blocking(move || wipe::plan(&wipe::observe(&Linux), &name)).await;
    let plan = planned.map_err(|error| failed(error.to_string()))?.map_err(refused)?;
    let steps = plan.holds.iter().map(|held| format!("wiped is {held}")).chain(plan.steps.clone()).collect();
    let told = Plan { machine: hostname, steps, is_dry: asked.dry_run, digest: plan.digest.clone() };
    if asked.dry_run {
        return Ok(told);
    }
    check(&asked, &told)?;
    let job = Job { run: server.run.clone(), caller: caller.name.clone(), plan, turn };
    let remarks = job.carried_out(carry_out).await?;
    Ok(Plan { steps: told.steps.into_iter().chain(remarks).collect(), ..told })
}

/// Whether this is the machine, and the disk, that is meant.
fn check(asked: &WipeRequest, told: &Plan) -> Result<(), Status> {
    if asked.machine != told.machine {
        let reason = format!("the machine is called {}, not {:?}: nothing was wiped", told.machine, asked.machine);
        return Err(conflict(reason));
    }
    if asked.digest.is_empty() {
        return Err(bad("which plan: the digest of what was told of the disk before"));
    }
    if asked.digest != told.digest {
        let reason = format!("the disk {} is another one than was shown: nothing was wiped", asked.device);
        return Err(conflict(reason));
    }
    Ok(())
}

fn refused(denied: WipeDenied) -> Status {
    match denied {
        WipeDenied::Unknown { .. } => absent(denied.to_string()),
        WipeDenied::Own { .. } | WipeDenied::ReadOnly(_) | WipeDenied::InUse { .. } => conflict(denied.to_string()),
    }
}

/// What came of a device that is not wiped.
#[derive(Debug)]
enum Failure {
    /// It is as it was.
    Untouched(String),
    /// Some of it may be gone.
    InPart(String),
}

/// A wipe, with all that it takes.
struct Job {
    run: PathBuf,
    caller: String,
    plan: WipePlan,
    turn: Option<Turn>,
}

impl Job {
    /// Does it, and goes on to its end, which the machine's events tell, if nobody waits any more. Answers, for people,
    /// what did not go as it should.
    async fn carried_out<W>(self, wipe: W) -> Result<Vec<String>, Status>
    where
        W: FnOnce(&WipePlan) -> Result<Option<String>, Failure> + Send + 'static,
    {
        let done = tokio::spawn(self.carry_out(wipe)).await;
        done.map_err(|error| failed(error.to_string()))?
    }

    async fn carry_out<W>(self, wipe: W) -> Result<Vec<String>, Status>
    where
        W: FnOnce(&WipePlan) -> Result<Option<String>, Failure> + Send + 'static,
    {
        let Self { run, caller, plan, turn: _turn } = self;
        let (device, disk, held) = (plan.device.clone(), plan.disk.clone(), plan.holds.join("; "));
        let tell = |what: &str, why: &str| {
            let event = Event::new(EventKind::DiskWiped, &device, format!("{device}: {what} for {caller}{why}"));
            event::tell(&run, "wipe", &event.with(detail::CALLER, &caller).with(detail::HELD, &held));
        };
        tell("is wiped", "");
        let done = tokio::task::spawn_blocking(move || wipe(&plan)).await;
        let remark = match done.map_err(|error| failed(error.to_string()))? {
            Ok(remark) => remark,
            Err(Failure::Untouched(why)) => {
                tell("was not wiped", &format!(": {why}"));
                return Err(conflict(format!("nothing was wiped: {why}")));
            }
            Err(Failure::InPart(why)) => {
                tell("was wiped in part, or not at all,", &format!(": {why}"));
                return Err(failed(format!("{device} is wiped in part, or not at all: {why}")));
            }
        };
        let unknown = match disk {
            Some(disk) => make_known(&run, &disk).await,
            None => None,
        };
        tell("was wiped", "");
        Ok(remark.into_iter().chain(unknown).collect())
    }
}

fn carry_out(plan: &WipePlan) -> Result<Option<String>, Failure> {
    let path = Path::new("/dev").join(&plan.device);
    let mut device = FileDevice::claim(&path).map_err(|error| {
        let is_busy = matches!(&error, install::Error::System(error) if error.is_busy());
        let who = if is_busy { ": something in a pod, or out of sight, has it" } else { "" };
        Failure::Untouched(format!("{}{who}", chain(&error)))
    })?;
    wipe::apply(plan, &mut device).map_err(|error| Failure::InPart(chain(&error).to_string()))
}

/// Lets the kernel forget the partitions of a disk. Answers, for people, what came of it if that is not what should.
async fn make_known(run: &Path, disk: &str) -> Option<String> {
    if let Err(error) = Linux.replace(&run.join(PARTITIONS), disk.as_bytes(), 0o600) {
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use sys::FakeSystem;
    use tonic::Code;

    use super::super::turn::Turns;
    use super::*;

    fn plan() -> WipePlan {
        let system = FakeSystem::new();
        system.file("/sys/class/block/vdz/size", "2048\n");
        wipe::plan(&wipe::observe(&system), "vdz").unwrap()
    }

    /// The events that were told, in order.
    fn told(run: &Path) -> Vec<String> {
        let numbered = |name: String| Some((name.rsplit('-').next()?.parse::<u64>().ok()?, name));
        let inbox = run.join("inbox");
        let mut names: Vec<_> = Linux.list(&inbox).unwrap().into_iter().filter_map(numbered).collect();
        names.sort_unstable();
        let event = |name: &str| Event::parse(&std::fs::read_to_string(inbox.join(name)).unwrap());
        names.iter().map(|(_, name)| event(name).message).collect()
    }

    fn job(run: &Path, turns: &Turns) -> Job {
        std::fs::create_dir_all(run.join("inbox")).unwrap();
        let turn = Some(turns.take("a disk is being wiped").unwrap());
        Job { run: run.to_owned(), caller: "ann".to_owned(), plan: plan(), turn }
    }

    #[test]
    fn only_the_machine_and_the_disk_that_were_shown_are_meant() {
        let told = Plan { machine: "m1".to_owned(), digest: "d".to_owned(), ..Plan::default() };
        let asked = |machine: &str, digest: &str| WipeRequest {
            machine: machine.to_owned(),
            device: "sdb".to_owned(),
            digest: digest.to_owned(),
            dry_run: false,
        };
        assert!(check(&asked("m1", "d"), &told).is_ok());
        assert!(check(&asked("m2", "d"), &told).unwrap_err().message().contains("is called m1"));
        assert_eq!(check(&asked("m1", ""), &told).unwrap_err().code(), Code::InvalidArgument);
        let other = check(&asked("m1", "e"), &told).unwrap_err();
        assert!(other.code() == Code::FailedPrecondition && other.message().contains("another one than was shown"));
    }

    #[tokio::test]
    async fn a_wipe_goes_on_and_tells_its_end_when_its_caller_goes() {
        let folder = tempfile::tempdir().unwrap();
        let turns = Turns::default();
        let (go, wait) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel::<()>();
        let job = job(folder.path(), &turns);
        let waiting = job.carried_out(move |_plan| {
            begun.send(()).unwrap();
            wait.recv().unwrap();
            Ok(None)
        });
        tokio::select! {
            _ = waiting => panic!("it has not ended"),
            begun = has_begun => begun.unwrap(),
        }
        // The caller is gone, and the disk is still being written.
        assert!(turns.take("another change").is_err());
        go.send(()).unwrap();
        let ended = async {
            while turns.take("another change").is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
        assert_eq!(told(folder.path()), ["vdz: is wiped for ann", "vdz: was wiped for ann"]);
    }

    #[tokio::test]
    async fn what_was_not_wiped_and_what_was_in_part_is_told_in_words() {
        for (failure, event, code) in [
            (
                Failure::Untouched("it is busy".to_owned()),
                "was not wiped for ann: it is busy",
                Code::FailedPrecondition,
            ),
            (
                Failure::InPart("write error".to_owned()),
                "was wiped in part, or not at all, for ann: write error",
                Code::Internal,
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let refused = job(folder.path(), &Turns::default()).carried_out(|_plan| Err(failure)).await.unwrap_err();
            assert_eq!(refused.code(), code);
            assert_eq!(told(folder.path())[1], format!("vdz: {event}"));
        }
    }
}
