//! A thread waits for a child of its own while the process collects all that end, as the first process does. In a process
//! of its own, as that would take the children of other tests.

#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sys::{Ended, Linux, Spawn, System};

#[test]
fn whoever_waits_for_a_child_learns_how_it_ended_and_others_are_collected() {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collected = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                collected.extend(Linux.reap());
            }
            collected
        });
        let run = |script: &str| Linux.run(&["/bin/sh", "-c", script], Duration::from_secs(60)).unwrap();
        let ended: Vec<_> = (0..50).map(|code| run(&format!("echo {code}; exit {code}"))).collect();
        let argv = ["/bin/sh", "-c", "exit 7"].map(str::to_owned).to_vec();
        let other = Linux.spawn(&Spawn { argv, ..Spawn::default() }).unwrap();
        // The next child ends after that one has been there for a while, or is collected when that is over.
        let wanted: Vec<_> = (0..50).map(|code| (Ended::Code(code), format!("{code}\n"))).collect();
        while std::path::Path::new(&format!("/proc/{}", other.pid)).exists() {
            std::thread::yield_now();
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!((ended, collector.join().unwrap()), (wanted, vec![(other.pid, Ended::Code(7))]));
    });
}
