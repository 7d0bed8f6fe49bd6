//! What is remembered of an update across starts, and what a start tells about it.

use std::path::Path;

use disk::{Entry, Slot};
use serde::{Deserialize, Serialize};
use sys::System;

use crate::error::Error;

/// More is no record.
const RECORD_BYTES: usize = 64 * 1024;

/// One of the two systems.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// Its slot.
    pub slot: Slot,
    /// The generation of its boot entry.
    pub generation: u64,
    /// Its version.
    pub version: String,
}

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new system proved itself.
    Good,
    /// It did not; the old one runs.
    FellBack {
        /// Why.
        reason: String,
    },
    /// It was never ready to be started.
    CutShort,
}

/// An update, under way or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What ran.
    pub from: Side,
    /// What is to run.
    pub to: Side,
    /// What the new system last lacked, as it told itself.
    #[serde(default)]
    pub seen: Option<String>,
    /// How it ended; not there while it has not.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

impl Record {
    /// Of an update that begins.
    #[must_use]
    pub fn new(from: Side, to: Side) -> Self {
        Self { from, to, seen: None, outcome: None }
    }

    /// The record that is kept there; `None` if there is none, or none that can be read.
    #[must_use]
    pub fn load(system: &dyn System, path: &Path) -> Option<Self> {
        let text = system.read_at(path, 0, RECORD_BYTES).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps it there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, system: &dyn System, path: &Path) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(self).map_err(Error::Record)?;
        Ok(system.replace(path, &text, 0o600)?)
    }

    /// For people.
    #[must_use]
    pub fn describe(&self) -> String {
        let step = format!("update to {} (slot {})", self.to.version, self.to.slot);
        let from = format!("{} (slot {})", self.from.version, self.from.slot);
        match &self.outcome {
            None => format!("{step}: not proved yet; before it ran {from}"),
            Some(Outcome::Good) => format!("{step}: proved itself; before it ran {from}"),
            Some(Outcome::FellBack { reason }) => format!("{step}: taken back to {from}: {reason}"),
            Some(Outcome::CutShort) => format!("{step}: was cut short before it could be started; {from} runs on"),
        }
    }
}

/// What the start of a system tells about the update under way: the record with its outcome, if it has one now. The
/// system runs by one of all entries; `crash` is how the start before it ended.
#[must_use]
pub fn judge(record: &Record, (running, entries): (Entry, &[Entry]), crash: Option<&str>) -> Option<Record> {
    let to = (record.to.slot, record.to.generation);
    let new = entries.iter().find(|entry| (entry.slot, entry.generation) == to);
    let has_run = (running.slot, running.generation) == to;
    let outcome = match (&record.outcome, new) {
        (None, _) if has_run => running.tries.is_none().then_some(Outcome::Good),
        (None, None) => Some(Outcome::CutShort),
        (None, Some(new)) if new.is_bad() => Some(Outcome::FellBack { reason: reason(record, new, crash) }),
        // The first stage has abandoned it.
        (Some(Outcome::Good), Some(new)) if new.is_bad() => Some(Outcome::FellBack { reason: lost(crash) }),
        // It will be started next time, and somebody has chosen the old one by hand; or everything is told.
        _ => None,
    };
    outcome.map(|outcome| Record { outcome: Some(outcome), ..record.clone() })
}

/// Why a system that had proved itself does not run any more.
fn lost(crash: Option<&str>) -> String {
    let crash = crash.map(|crash| format!("; {crash}")).unwrap_or_default();
    format!("it had proved itself, but its root could not be reached any more{crash}")
}

fn reason(record: &Record, entry: &Entry, crash: Option<&str>) -> String {
    let times = match entry.tries.map_or(0, |tries| tries.done) {
        1 => "once".to_owned(),
        done => format!("{done} times"),
    };
    let seen = match &record.seen {
        None => "never got as far as its agent: its kernel, its root or its first process failed".to_owned(),
        Some(seen) => format!("ended before it proved itself; the last that it said: {seen}"),
    };
    let crash = crash.map(|crash| format!("; {crash}")).unwrap_or_default();
    format!("it was started {times} and {seen}{crash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let side = |slot, generation, version: &str| Side { slot, generation, version: version.to_owned() };
        Record::new(side(Slot::A, 1, "1.0"), side(Slot::B, 2, "2.0"))
    }

    fn judged(record: &Record, running: &str, entries: &[&str]) -> Option<Outcome> {
        let entries: Vec<Entry> = entries.iter().map(|name| Entry::parse(name).unwrap()).collect();
        judge(record, (Entry::parse(running).unwrap(), &entries), Some("the kernel ended"))
            .and_then(|record| record.outcome)
    }

    #[test]
    fn a_start_tells_how_the_update_ended() {
        let old = "keelson-1-a.efi";
        assert_eq!(judged(&record(), "keelson-2-b+1-1.efi", &[old, "keelson-2-b+1-1.efi"]), None);
        assert_eq!(judged(&record(), "keelson-2-b.efi", &[old, "keelson-2-b.efi"]), Some(Outcome::Good));
        assert_eq!(judged(&record(), old, &[old]), Some(Outcome::CutShort));
        assert_eq!(judged(&record(), old, &[old, "keelson-2-b+2.efi"]), None);
        let Some(Outcome::FellBack { reason }) = judged(&record(), old, &[old, "keelson-2-b+0-2.efi"]) else {
            panic!()
        };
        assert!(reason.contains("2 times and never got as far as its agent"), "{reason}");
        assert!(reason.ends_with("; the kernel ended"), "{reason}");
        let told = Record { seen: Some("etcd is starting".to_owned()), ..record() };
        let Some(Outcome::FellBack { reason }) = judged(&told, old, &[old, "keelson-2-b+0-1.efi"]) else { panic!() };
        assert!(reason.contains("once") && reason.contains("etcd is starting"), "{reason}");
        let done = Record { outcome: Some(Outcome::Good), ..record() };
        assert_eq!(judged(&done, old, &[old]), None);
        assert_eq!(judged(&done, old, &[old, "keelson-2-b.efi"]), None);
        let Some(Outcome::FellBack { reason }) = judged(&done, old, &[old, "keelson-2-b+0-1.efi"]) else { panic!() };
        assert!(reason.contains("had proved itself") && reason.ends_with("; the kernel ended"), "{reason}");
    }

    #[test]
    fn a_record_outlives_a_start() {
        let system = sys::FakeSystem::new();
        let path = Path::new("/state/update.json");
        assert_eq!(Record::load(&system, path), None);
        record().store(&system, path).unwrap();
        assert_eq!(Record::load(&system, path), Some(record()));
        assert!(record().describe().contains("not proved yet"));
    }
}
