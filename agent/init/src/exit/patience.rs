//! Waiting for the kernel as long as it gets on: what hangs must not hold up the way out, and what is merely slow must
//! not be cut off.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use sys::System;

use crate::machine::Machine;
use crate::watchdog;

/// How often it is looked whether something gets on.
const STEP: Duration = Duration::from_millis(100);
/// What has not got on for so long hangs.
const HANGS: Duration = Duration::from_secs(1);
/// Disks that get on are not waited for longer than this: somebody would think that the machine does not go down.
const SLOW: Duration = Duration::from_secs(60);

/// Ends everything in time even if something hangs that is not waited for here.
pub(super) struct Guard(Option<Sender<Duration>>);

impl Guard {
    /// Calls `end` after this time, or once this is dropped.
    pub(super) fn set(after: Duration, end: impl FnOnce() + Send + 'static) -> Self {
        let (sender, more) = mpsc::channel::<Duration>();
        let started = std::thread::Builder::new().name("exit-guard".to_owned()).spawn(move || {
            let mut at = Instant::now() + after;
            while let Ok(time) = more.recv_timeout(at.saturating_duration_since(Instant::now())) {
                at += time;
            }
            end();
        });
        // Without it, what hangs where nobody waits for it has the last word.
        Self(started.is_ok().then_some(sender))
    }

    fn extend(&self, by: Duration) {
        if let Some(sender) = &self.0 {
            sender.send(by).ok();
        }
    }
}

/// What is left to wait for things that may hang.
pub(super) struct Patience {
    hanging: Duration,
    slow: Duration,
    guard: Guard,
}

impl Patience {
    /// So much for all that hangs together.
    pub(super) fn new(hanging: Duration, guard: Guard) -> Self {
        Self { hanging, slow: SLOW, guard }
    }

    /// Begins something that nobody has to wait for. What it answers can be received.
    pub(super) fn begin<T, F>(&self, machine: &Machine, name: &str, work: F) -> Option<Receiver<T>>
    where
        T: Send + 'static,
        F: FnOnce(&dyn System) -> T + Send + 'static,
    {
        let (done, waiting) = mpsc::sync_channel(1);
        let system = machine.system.clone();
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Whoever waited may have given up.
            done.send(work(&*system)).ok();
        });
        started.is_ok().then_some(waiting)
    }

    /// Does something and answers what came of it; nothing if it hangs. Then it goes on hanging in a thread of its own.
    pub(super) fn give<T, F>(&mut self, machine: &mut Machine, name: &str, work: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(&dyn System) -> T + Send + 'static,
    {
        let done = self.begin(machine, name, work)?;
        let (mut least, mut hung) = (unwritten(&*machine.system), Duration::ZERO);
        loop {
            match done.recv_timeout(STEP) {
                Ok(value) => return Some(value),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => watchdog::pet(machine),
            }
            let now = unwritten(&*machine.system);
            hung += STEP;
            self.hanging = self.hanging.saturating_sub(STEP);
            if now < least && hung <= self.slow {
                // That was no hanging.
                self.hanging += hung;
                self.slow -= hung;
                self.guard.extend(hung);
                (least, hung) = (now, Duration::ZERO);
            } else if hung >= HANGS || self.hanging.is_zero() {
                return None;
            }
        }
    }
}

/// Kilobytes that are not on a disk yet.
pub(super) fn unwritten(system: &dyn System) -> u64 {
    let text = system.read(Path::new("/proc/meminfo")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let amounts = text.lines().filter_map(|line| {
        let (name, amount) = line.split_once(':')?;
        let amount = amount.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        ["Dirty", "Writeback"].contains(&name).then_some(amount)
    });
    amounts.sum()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    /// Patience that nobody watches over.
    pub(in crate::exit) fn unguarded(hanging: Duration) -> Patience {
        Patience::new(hanging, Guard(None))
    }

    fn meminfo(dirty: u64) -> String {
        format!("MemTotal: 9 kB\nDirty:   {dirty} kB\nWriteback:  1 kB\nWritebackTmp: 7 kB\n")
    }

    #[test]
    fn what_hangs_is_left_and_all_of_it_together_gets_no_more_than_its_time() {
        let system = Arc::new(sys::FakeSystem::new());
        system.file("/proc/meminfo", meminfo(5));
        system.stall("Sync");
        let mut machine = Machine::of_a_test(&system);
        let mut patience = unguarded(STEP * 3);
        let began = Instant::now();
        for _ in 0..3 {
            assert_eq!(patience.give(&mut machine, "sync", |system| system.sync()), None);
        }
        assert!(began.elapsed() < STEP * 10, "{:?}", began.elapsed());
        assert_eq!(patience.give(&mut machine, "read", |system| unwritten(system)), Some(6));
    }

    #[test]
    fn what_gets_on_is_waited_for_and_the_guard_with_it() {
        let system = Arc::new(sys::FakeSystem::new());
        system.file("/proc/meminfo", meminfo(100));
        let mut machine = Machine::of_a_test(&system);
        let (ended, end) = mpsc::channel();
        let guard = Guard::set(STEP * 4, move || ended.send(()).unwrap());
        let mut patience = Patience::new(STEP * 2, guard);
        let disk = system.clone();
        let slow = move |_: &dyn System| {
            let (_open, silence) = mpsc::channel::<()>();
            // Twice as long as anything may hang, and as the guard waits.
            for left in (0..8).rev() {
                silence.recv_timeout(STEP).ok();
                disk.file("/proc/meminfo", meminfo(left));
            }
        };
        assert_eq!(patience.give(&mut machine, "slow", slow), Some(()));
        assert!(end.try_recv().is_err(), "the guard ended it");
        drop(patience);
        end.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
