//! What the machine lacks that no service tells: room on its disk, and a clock to rely on.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lifecycle::Shutdown;
use machine_api::{Condition, TimeStatus};
use sys::{Linux, Space, System};
use tokio::sync::watch;

use crate::{clock, unmet};

/// Nothing tells when a disk fills up.
const LOOK: Duration = Duration::from_secs(10);
/// Less than one part of so many that is left is too little.
const LEAST: u64 = 50;
/// ... and so few files that can still be made.
const LEAST_FILES: u64 = 100;
/// How often the time is kept, in looks: the disk is not to be busy with it.
const KEEP_EVERY: u32 = 30;
/// Where it is told; the clock keeps nothing from being ready.
const CLOCK: &str = "conditions/clock.concern";

/// What fills up: where it is, where it is told, by which name, and what helps.
const ROOMS: [(&str, &str, &str, &str); 2] = [
    (
        "/state",
        "conditions/state-full",
        "StateFull",
        "on a master etcd is there: `keelson etcd status` tells how large it is, and `keelson etcd defrag` makes it smaller; \
         `keelson reset NAME --what state` makes STATE anew, and the machine joins again",
    ),
    (
        "/var",
        "conditions/data-full",
        "DataFull",
        "images, logs and folders of pods are there, of which the kubelet removes what is not used; `keelson get mounts` \
         tells how much is left; `keelson reset NAME --what data` makes DATA anew",
    ),
];

/// What is known of the machine's clock.
pub(crate) struct Clock {
    /// No clock is earlier.
    pub(crate) built: SystemTime,
    /// The machine started with one before the last time that it knew.
    pub(crate) was_early: bool,
    /// Where the time is kept; nowhere, if the clock is another one's.
    pub(crate) kept: Option<PathBuf>,
}

impl Clock {
    /// Whether it says what cannot be, this soon after the system was built.
    fn is_ahead(&self, now: SystemTime) -> bool {
        now > self.built + clock::IN_USE
    }
}

/// Looks until shutdown.
pub(crate) async fn run(run: PathBuf, known: Clock, time: watch::Receiver<TimeStatus>, shutdown: Shutdown) {
    for look in 0_u32.. {
        for (folder, file, name, fix) in ROOMS {
            let space = sys::space(Path::new(folder)).ok();
            unmet::tell(&run.join(file), space.and_then(|space| room((folder, name, fix), space)).as_ref());
        }
        let is_told = time.borrow().synchronized_seconds.is_some();
        let now = Linux.now();
        unmet::tell(&run.join(CLOCK), doubt(now, &known).filter(|_| !is_told).as_ref());
        // Also a clock that was behind, and goes on from what was known: else it is there again after the next start.
        let kept = known.kept.as_ref().filter(|_| is_told || !known.is_ahead(now));
        if let Some(kept) = kept.filter(|_| look % KEEP_EVERY == 0) {
            clock::keep(kept);
        }
        tokio::select! {
            () = shutdown.wait() => {
                // The next start goes on from here, if its clock has forgotten.
                kept.inspect(|kept| clock::keep(kept));
                return;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn room((folder, name, fix): (&str, &str, &str), space: Space) -> Option<Condition> {
    let why = if space.free_bytes < space.bytes / LEAST {
        // Rounded, so that it is not told anew with every byte.
        format!("less than {} MiB of {folder} are left", (space.free_bytes >> 20) + 1)
    } else if space.free_inodes < LEAST_FILES {
        format!("{folder} takes fewer than {LEAST_FILES} further files")
    } else {
        return None;
    };
    Some(Condition::new(name, why, fix))
}

/// What is wrong with a clock that no time server has told.
fn doubt(now: SystemTime, known: &Clock) -> Option<Condition> {
    let why = if known.was_early {
        "its clock was before the last time that it knew, and was set to that"
    } else if known.is_ahead(now) {
        "its clock is years after the time at which this system was built"
    } else {
        return None;
    };
    let fix = "it is set as soon as a time server answers (`network.ntp-servers`, `keelson get time`); without one, set the \
               hardware's clock and start the machine again";
    Some(Condition::new("ClockDoubtful", format!("{why}; no time server has answered"), fix))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_full_disk_is_told_and_one_with_room_is_not() {
        let row = ("/state", "StateFull", "remove");
        let space = |free_bytes, free_inodes| Space { bytes: 100 << 20, free_bytes, free_inodes };
        assert_eq!(room(row, space(3 << 20, 1000)), None);
        assert_eq!(room(row, space(1 << 20, 1000)).unwrap().why, "less than 2 MiB of /state are left");
        assert!(room(row, space(50 << 20, 3)).unwrap().why.contains("further files"));
    }

    #[tokio::test]
    async fn the_time_is_kept_on_the_way_out_unless_it_cannot_be() {
        let year = Duration::from_secs(365 * 24 * 3600);
        for (built, is_kept) in [(SystemTime::now() - year, true), (SystemTime::now() - 20 * year, false)] {
            let folder = tempfile::tempdir().unwrap();
            let kept = folder.path().join("clock");
            std::fs::create_dir(folder.path().join("conditions")).unwrap();
            let known = Clock { built, was_early: true, kept: Some(kept.clone()) };
            let shutdown = Shutdown::new();
            let (_sender, time) = watch::channel(TimeStatus::default());
            let running = tokio::spawn(run(folder.path().to_owned(), known, time, shutdown.clone()));
            until(|| folder.path().join("conditions/clock.concern").exists()).await;
            std::fs::remove_file(&kept).ok();
            shutdown.trigger();
            running.await.unwrap();
            assert_eq!(kept.exists(), is_kept);
        }
    }

    async fn until(is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap();
    }

    #[test]
    fn a_clock_that_is_years_off_is_told() {
        let year = Duration::from_secs(365 * 24 * 3600);
        let built = UNIX_EPOCH + 56 * year;
        let known = |was_early| Clock { built, was_early, kept: None };
        assert_eq!(doubt(built + year, &known(false)), None);
        assert!(doubt(built, &known(true)).unwrap().why.contains("was before"));
        assert!(doubt(built + 10 * year, &known(false)).unwrap().why.contains("years after"));
    }
}
