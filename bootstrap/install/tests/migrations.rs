//! STATE between systems of three made-up formats: whatever is started finds it whole and in a format that it reads, with the
//! power cut after every single effect on STATE and every write to the disk.
#![allow(clippy::unwrap_used)]

mod machine;

use std::path::Path;

use disk::{ENTRIES, Entry, Esp, Memory, Slot, layout};
use install::migrate::{self, Change, Form, Formats, MigrateError, Step, View};
use install::{Error, OwnDisk, Policy, Receiver};
use machine::{disk, policy, update_file, window};
use sys::{FakeSystem, System};

/// The system of each number writes the format of that number.
const SYSTEMS: [Formats; 3] = [
    Formats { oldest: 1, steps: &[] },
    Formats { oldest: 1, steps: &[NOTES] },
    Formats { oldest: 1, steps: &[NOTES, KEYS] },
];
/// Format 2 has `notes.json` in the place of `notes`.
const NOTES: Step = Step {
    forward: |view| rewrite(view, ("notes", "notes.json"), |text| format!("{{\"text\":\"{text}\"}}")),
    back: |view| {
        rewrite(view, ("notes.json", "notes"), |text| {
            text.trim_start_matches("{\"text\":\"").trim_end_matches("\"}").to_owned()
        })
    },
};
/// Format 3 has the key in another folder, and says in the notes so.
const KEYS: Step = Step {
    forward: |view| {
        let mut changes = rewrite(view, ("key", "keys/first"), str::to_owned)?;
        changes.extend(rewrite(view, ("notes.json", "notes.json"), |text| format!("{text}moved"))?);
        Ok(changes)
    },
    back: |view| {
        let mut changes = rewrite(view, ("keys/first", "key"), str::to_owned)?;
        let plain = |text: &str| text.trim_end_matches("moved").to_owned();
        changes.extend(rewrite(view, ("notes.json", "notes.json"), plain)?);
        Ok(changes)
    },
};

fn rewrite(view: &View<'_>, (from, to): (&str, &str), work: impl Fn(&str) -> String) -> Result<Vec<Change>, String> {
    let content = view.read(from)?.ok_or_else(|| format!("there is no {from}"))?;
    let content = work(&String::from_utf8(content).map_err(|error| error.to_string())?).into_bytes();
    let removed = (from != to).then(|| Change::Remove { path: from.to_owned() });
    Ok(removed.into_iter().chain([Change::Put { path: to.to_owned(), mode: 0o600, content }]).collect())
}

const STATE: &str = "/state";
/// What every format leaves alone.
const OTHERS: [(&str, &str); 2] = [("machine-id", "0f"), ("etcd/db", "much")];
/// The other files of each format.
const FILES: [&[(&str, &str)]; 3] = [
    &[("notes", "hello"), ("key", "secret")],
    &[("notes.json", "{\"text\":\"hello\"}"), ("key", "secret")],
    &[("notes.json", "{\"text\":\"hello\"}moved"), ("keys/first", "secret")],
];

fn at(path: &str) -> std::path::PathBuf {
    Path::new(STATE).join(path)
}

/// STATE of this format, as a machine has it that never told its format, if it is the first.
fn state_of(format: usize) -> FakeSystem {
    let state = FakeSystem::new();
    for (path, content) in OTHERS.iter().chain(FILES[format - 1]) {
        state.file(at(path), content);
    }
    if format > 1 {
        state.file(at("format.json"), format!("{{\"stage\":\"settled\",\"format\":{format}}}"));
    }
    state
}

/// STATE is wholly of this format, and nothing of another one is in it.
fn assert_format(state: &FakeSystem, format: usize, when: &str) {
    for (path, content) in OTHERS.iter().chain(FILES[format - 1]) {
        assert_eq!(state.text(at(path)), *content, "{path}, {when}");
    }
    let foreign = FILES
        .iter()
        .flat_map(|files| files.iter())
        .filter(|(path, _)| !FILES[format - 1].iter().any(|own| own.0 == *path));
    for (path, _) in foreign {
        assert!(!state.exists(&at(path)), "{path} of another format, {when}");
    }
}

/// What the record says once nothing is kept.
fn assert_settled(state: &FakeSystem, format: usize, when: &str) {
    assert_eq!(state.text(at("format.json")), format!("{{\"stage\":\"settled\",\"format\":{format}}}"), "{when}");
    assert!(!state.exists(&at(".formats")), "{when}");
}

fn bring(state: &FakeSystem, format: usize) -> Result<Vec<String>, MigrateError> {
    migrate::bring(state, Path::new(STATE), &SYSTEMS[format - 1])
}

fn prepare(state: &FakeSystem, (from, to): (usize, u32)) -> Result<(), MigrateError> {
    migrate::prepare(state, Path::new(STATE), &SYSTEMS[from - 1], to)
}

/// Cuts `work` on STATE of this format after each of its effects, and hands each STATE that is left to `then`.
fn cut_everywhere(
    format: usize,
    work: impl Fn(&FakeSystem) -> Result<(), MigrateError>,
    then: impl Fn(&FakeSystem, &str),
) -> usize {
    for effects in 0..1000 {
        let state = state_of(format);
        state.cut_after(Some(effects));
        let done = work(&state);
        state.cut_after(None);
        then(&state, &format!("after {effects} effects"));
        if done.is_ok() {
            return effects;
        }
    }
    panic!("it has no end")
}

#[test]
fn a_system_on_trial_that_is_cut_anywhere_goes_on_or_gives_way() {
    for (from, to) in [(1, 2), (1, 3), (2, 3)] {
        // It starts again and proves itself.
        let effects = cut_everywhere(
            from,
            |state| bring(state, to).map(drop),
            |state, when| {
                bring(state, to).unwrap();
                assert_format(state, to, when);
                migrate::settle(state, Path::new(STATE)).unwrap();
                assert_settled(state, to, when);
                assert_format(state, to, when);
            },
        );
        assert!(effects > 8, "only {effects}");
        // It never starts again: the one before it does, which knows nothing of its format.
        cut_everywhere(
            from,
            |state| bring(state, to).map(drop),
            |state, when| {
                bring(state, from).unwrap();
                assert_format(state, from, when);
                migrate::settle(state, Path::new(STATE)).unwrap();
                assert_settled(state, from, when);
                assert_format(state, from, when);
            },
        );
    }
}

#[test]
fn a_fall_back_that_is_cut_anywhere_is_done_by_whoever_starts() {
    for (old, new) in [(1, 2), (1, 3), (2, 3)] {
        let there_and_back = |state: &FakeSystem| {
            bring(state, new)?;
            // Written on trial, by whom no step is about.
            state.file(at("update.json"), "seen");
            bring(state, old).map(drop)
        };
        for next in [old, new] {
            cut_everywhere(old, there_and_back, |state, when| {
                bring(state, next).unwrap();
                assert_format(state, next, when);
                migrate::settle(state, Path::new(STATE)).unwrap();
                assert_settled(state, next, when);
            });
        }
        let state = state_of(old);
        there_and_back(&state).unwrap();
        assert_eq!(state.text(at("update.json")), "seen");
    }
}

#[test]
fn settling_that_is_cut_anywhere_is_done_again() {
    cut_everywhere(
        1,
        |state| {
            bring(state, 3)?;
            migrate::settle(state, Path::new(STATE)).map(drop)
        },
        |state, when| {
            bring(state, 3).unwrap();
            migrate::settle(state, Path::new(STATE)).unwrap();
            assert_settled(state, 3, when);
            assert_format(state, 3, when);
        },
    );
}

#[test]
fn a_way_back_that_is_cut_anywhere_leaves_the_running_system_its_state() {
    for (new, old) in [(2, 1), (3, 2), (3, 1)] {
        let wanted = u32::try_from(old).unwrap();
        cut_everywhere(
            new,
            |state| prepare(state, (new, wanted)),
            |state, when| {
                assert_format(state, new, when);
                bring(state, new).unwrap();
                assert_format(state, new, when);
                // Asked for again, also where it was ready before.
                prepare(state, (new, wanted)).unwrap();
                prepare(state, (new, wanted)).unwrap();
                bring(state, old).unwrap();
                assert_format(state, old, when);
                // The old one does not prove itself.
                bring(state, new).unwrap();
                assert_format(state, new, when);
            },
        );
    }
}

#[test]
fn an_unknown_format_changes_nothing_but_the_reason() {
    for (format, own) in [(2, 1), (3, 1), (3, 2)] {
        let state = state_of(format);
        let refused = bring(&state, own).unwrap_err();
        assert!(matches!(refused, MigrateError::Newer { .. }), "{refused}");
        assert_format(&state, format, "refused");
        assert_eq!(migrate::take_failure(&state, Path::new(STATE)), Some(refused.to_string()));
        assert_eq!(migrate::take_failure(&state, Path::new(STATE)), None);
        assert_settled(&state, format, "refused");
    }
    const LATE: Formats = Formats { oldest: 2, steps: &[KEYS] };
    let state = state_of(1);
    let refused = migrate::bring(&state, Path::new(STATE), &LATE).unwrap_err();
    assert!(matches!(refused, MigrateError::Older { found: 1, oldest: 2 }), "{refused}");
    assert_format(&state, 1, "too old");
    let state = state_of(3);
    let refused = migrate::prepare(&state, Path::new(STATE), &LATE, 1).unwrap_err();
    assert!(matches!(refused, MigrateError::Unknown { wanted: 1, oldest: 2, newest: 3 }), "{refused}");
    assert_settled(&state, 3, "no way");
}

#[test]
fn a_step_that_fails_or_oversteps_leaves_everything() {
    fn one(path: &str, bytes: usize) -> Vec<Change> {
        vec![Change::Put { path: path.to_owned(), mode: 0o600, content: vec![7; bytes] }]
    }
    const BAD: [Formats; 5] = [
        Formats { oldest: 1, steps: &[Step { forward: |_| Err("no".to_owned()), back: |_| Ok(Vec::new()) }] },
        Formats { oldest: 1, steps: &[Step { forward: |_| Ok(one("../etc/x", 1)), back: |_| Ok(Vec::new()) }] },
        Formats { oldest: 1, steps: &[Step { forward: |_| Ok(one("etcd/db", 1)), back: |_| Ok(Vec::new()) }] },
        Formats { oldest: 1, steps: &[Step { forward: |_| Ok(one("machine-id", 1)), back: |_| Ok(Vec::new()) }] },
        Formats { oldest: 1, steps: &[Step { forward: |_| Ok(one("x", (16 << 20) + 1)), back: |_| Ok(Vec::new()) }] },
    ];
    for own in BAD {
        let state = state_of(1);
        let refused = migrate::bring(&state, Path::new(STATE), &own).unwrap_err();
        let is_told = matches!(
            refused,
            MigrateError::Step { from: 1, to: 2, .. } | MigrateError::Path { .. } | MigrateError::TooMuch { .. }
        );
        assert!(is_told, "{refused}");
        bring(&state, 1).unwrap();
        assert_format(&state, 1, "refused");
        assert_eq!(migrate::take_failure(&state, Path::new(STATE)), Some(refused.to_string()));
        assert_settled(&state, 1, "refused");
    }
}

#[test]
fn a_blank_state_is_of_the_format_of_whoever_makes_it() {
    let state = FakeSystem::new();
    bring(&state, 3).unwrap();
    assert_settled(&state, 3, "blank");
    for (own, is_brought) in [(1, true), (2, false)] {
        let full = state_of(1);
        full.fail("format.json", 28);
        assert_eq!(bring(&full, own).is_ok(), is_brought);
        assert_format(&full, 1, "full");
    }
    // Nothing is known of the files of a record that cannot be read.
    for record in ["", "{}", "{\"stage\":\"settled\"}", "{\"stage\":\"settled\",\"format\":-1}"] {
        let state = state_of(1);
        state.file(at("format.json"), record);
        assert!(matches!(bring(&state, 2), Err(MigrateError::Record { .. })), "{record}");
        assert_format(&state, 1, record);
    }
    let lost = state_of(2);
    lost.file(at("format.json"), serde_json::to_string(&Form::Moving { from: 2, to: 1 }).unwrap());
    assert!(matches!(bring(&lost, 1), Err(MigrateError::System(_))));
    assert_format(&lost, 2, "what was beside is gone");
}

/// A disk with two slots, and STATE.
struct Machine {
    disk: Memory,
    state: FakeSystem,
}

impl Machine {
    /// The power is on again: the loader starts a system, which counts it if it is on trial, and the system begins.
    /// Answers its number and whether it is on trial.
    fn start(&mut self, when: &str) -> (usize, Option<Entry>) {
        self.disk.restore_power();
        self.state.cut_after(None);
        let (entry, id) = machine::starts(&mut self.disk);
        let id = usize::from(id);
        if let Err(error) = bring(&self.state, id) {
            // The power was cut on the way out: it is on trial, has changed nothing, and gives way at once.
            assert!(matches!(error, MigrateError::Newer { found: 2, newest: 1 }), "system {id} {when}: {error}");
            assert_format(&self.state, 2, when);
            assert!(entry.tries.is_some(), "{when}");
            self.own().give_up(entry).unwrap();
            return self.start(when);
        }
        assert_format(&self.state, id, when);
        if entry.tries.is_none() {
            migrate::settle(&self.state, Path::new(STATE)).unwrap();
            return (id, None);
        }
        let mut esp = Esp::open(window(&mut self.disk, layout::ESP_NAME));
        let counted = Entry { tries: Some(disk::Tries { left: 1, done: 1 }), ..entry };
        if entry != counted {
            esp.rename(&format!("{ENTRIES}/{entry}"), &format!("{ENTRIES}/{counted}")).unwrap();
        }
        (id, Some(counted))
    }

    fn own(&mut self) -> OwnDisk<&mut Memory> {
        OwnDisk::open(&mut self.disk).unwrap()
    }

    /// The same order as in the machine API.
    fn update(&mut self, id: u8, running: (Slot, usize)) -> Result<(), Error> {
        let own = SYSTEMS[running.1 - 1];
        let policy = Policy { state: own.span(), may_downgrade: true, ..policy(running.0) };
        let mut receiver = Receiver::new(OwnDisk::open(&mut self.disk)?, policy)?;
        receiver.add(&update_file(id))?;
        let prepared = receiver.finish()?;
        migrate::check(&self.state, Path::new(STATE), &own, prepared.state_format())?;
        prepared.commit()?;
        self.leave(running)
    }

    fn roll_back(&mut self, running: (Slot, usize)) -> Result<(), Error> {
        let mut disk = OwnDisk::open(&mut self.disk)?;
        let (_, format) = disk.way_back(running.0)?;
        migrate::check(&self.state, Path::new(STATE), &SYSTEMS[running.1 - 1], format)?;
        disk.roll_back(running.0)?;
        self.leave(running)
    }

    /// The way out, as the first process takes it.
    fn leave(&mut self, running: (Slot, usize)) -> Result<(), Error> {
        let next = OwnDisk::open(&mut self.disk)?.next_state_format(running.0)?;
        let prepare = |format| migrate::prepare(&self.state, Path::new(STATE), &SYSTEMS[running.1 - 1], format);
        Ok(next.map_or(Ok(()), prepare)?)
    }
}

/// Does it with the power cut after every write to the disk and after every effect on STATE.
fn cut_both(
    begin: impl Fn() -> Machine,
    work: impl Fn(&mut Machine) -> Result<(), Error>,
    then: impl Fn(&mut Machine, &str),
) {
    let mut whole = begin();
    let before = whole.disk.writes();
    work(&mut whole).unwrap();
    for kept in 0..=whole.disk.writes() - before {
        let mut machine = begin();
        machine.disk.cut_after(kept);
        drop(work(&mut machine));
        then(&mut machine, &format!("after {kept} writes to the disk"));
    }
    for effects in 0..1000 {
        let mut machine = begin();
        machine.state.cut_after(Some(effects));
        let done = work(&mut machine);
        then(&mut machine, &format!("after {effects} effects on STATE"));
        if done.is_ok() {
            return;
        }
    }
    panic!("it has no end")
}

#[test]
fn whatever_the_loader_starts_reads_its_state() {
    let old = || Machine { disk: disk(), state: state_of(1) };
    cut_both(
        old,
        |machine| machine.update(2, (Slot::A, 1)),
        |machine, when| {
            let (id, trial) = machine.start(when);
            let Some(trial) = trial else { return assert_eq!(id, 1) };
            assert_eq!(id, 2);
            machine.own().give_up(trial).unwrap();
            assert_eq!(machine.start(when), (1, None));
            assert_settled(&machine.state, 1, when);
        },
    );
    let updated = || {
        let mut machine = old();
        machine.update(2, (Slot::A, 1)).unwrap();
        let (_, trial) = machine.start("on trial");
        machine.own().commit(trial.unwrap()).unwrap();
        machine.start("proved");
        machine
    };
    let prove = |machine: &mut Machine| {
        let (_, trial) = machine.start("back, on trial");
        machine.own().commit(trial.unwrap()).unwrap();
        machine.start("back");
        assert_settled(&machine.state, 1, "back");
    };
    let back = |machine: &mut Machine| machine.roll_back((Slot::B, 2));
    cut_both(updated, back, |machine, when| {
        let (id, trial) = machine.start(when);
        let Some(trial) = trial else { return assert_eq!(id, 2, "{when}") };
        assert_eq!(id, 1);
        // It does not prove itself, and the newer one finds its STATE again.
        machine.own().give_up(trial).unwrap();
        assert_eq!(machine.start(when), (2, None));
        assert_settled(&machine.state, 2, when);
    });
    let mut machine = updated();
    back(&mut machine).unwrap();
    prove(&mut machine);
    // The same by an update that is older.
    let down = |machine: &mut Machine| machine.update(1, (Slot::B, 2));
    cut_both(updated, down, |machine, when| {
        machine.start(when);
    });
    let mut machine = updated();
    down(&mut machine).unwrap();
    prove(&mut machine);
}

#[test]
fn an_update_without_a_way_is_refused_before_anything_is_written() {
    const LATE: disk::StateFormats = disk::StateFormats { format: 3, oldest: 2 };
    let mut machine = Machine { disk: disk(), state: state_of(3) };
    let before = machine.disk.writes();
    let mut receiver =
        Receiver::new(machine.own(), Policy { state: LATE, may_downgrade: true, ..policy(Slot::A) }).unwrap();
    let refused = receiver.consider(&update_file(1)).unwrap_err();
    assert!(matches!(refused, Error::Update(disk::UpdateError::State { .. })), "{refused}");
    receiver.add(&update_file(1)).unwrap_err();
    drop(receiver);
    assert_eq!(machine.disk.writes(), before);
}
