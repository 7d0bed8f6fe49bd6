//! Every bad manifest that the crate of manifests knows, handed to a machine in each way that one can be: it stays what it
//! is, or waits for a good one, and says why. And what becomes of a good one when the power goes while it is written down.

use std::path::Path;
use std::sync::Arc;

use sys::{FakeSystem, System};

use super::tests::GOOD;
use crate::machine::Machine;
use crate::runner::Runner;
use crate::sources::Offer;
use crate::{conditions, phases, renew};

const IN_FORCE: &str = "/run/keelson/manifest.toml";
const KEPT: &str = "/state/manifest.toml";
const IMAGE: &str = "/usr/share/keelson/manifest.toml";

/// The names and texts of those that nothing could be made of.
fn bad() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bootstrap/manifest/tests/bad");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        Some((name, std::fs::read_to_string(&path).unwrap())).filter(|(name, _)| name.ends_with(".toml"))
    };
    // Some are merely warned of, and taken.
    let texts: Vec<_> = files.filter_map(read).filter(|(name, text)| manifest::parse(name, text).is_err()).collect();
    assert!(texts.len() >= 190, "only {} bad manifests", texts.len());
    texts
}

/// A machine that has just started: what it kept, and what its image says.
fn machine(kept: Option<&str>, offered: Option<&str>) -> (Arc<FakeSystem>, Machine) {
    let system = Arc::new(FakeSystem::new());
    for (path, text) in [(KEPT, kept), (IMAGE, offered)] {
        text.inspect(|text| system.file(path, text));
    }
    let mut machine = Machine::of_a_test(&system);
    phases::take_manifest(&mut machine);
    (system, machine)
}

fn handed_in(text: &str) -> Offer {
    Offer { source: "handed in".to_owned(), text: Ok(text.to_owned()) }
}

fn assert_unchanged(name: &str, (system, machine): (&FakeSystem, &Machine)) {
    assert_eq!(system.text(IN_FORCE), GOOD, "{name}");
    assert_eq!(system.text(KEPT), GOOD, "{name}");
    assert_eq!(machine.accepted.as_ref().map(|accepted| accepted.text.as_str()), Some(GOOD), "{name}");
    assert!(machine.diagnostics.as_ref().is_some_and(|told| !told.is_empty()), "{name} is not told");
    assert!(conditions::observe(machine, &[]).iter().all(|condition| condition.name != "NoManifest"), "{name}");
}

#[test]
fn none_that_is_found_takes_the_place_of_one_that_worked() {
    for (name, text) in bad() {
        let (system, machine) = machine(Some(GOOD), Some(&text));
        assert_unchanged(&name, (&system, &machine));
    }
}

#[test]
fn none_that_is_handed_in_takes_the_place_of_the_one_in_force() {
    let logs = tempfile::tempdir().unwrap();
    for (name, text) in bad() {
        for is_found in [false, true] {
            let (system, mut machine) = machine(None, Some(GOOD));
            renew::offered(&mut machine, &mut Runner::new(logs.path()), (handed_in(&text), is_found), None);
            assert_unchanged(&name, (&system, &machine));
        }
    }
}

#[test]
fn a_machine_that_has_no_other_waits_for_a_good_one_and_says_why() {
    for (name, text) in bad() {
        let (system, mut machine) = machine(None, Some(&text));
        assert!(machine.accepted.is_none() && machine.diagnostics.is_some(), "{name}");
        // Without a manifest in force the machine API is the one of maintenance, to which one can be handed in.
        assert!(!system.exists(Path::new(IN_FORCE)) && !system.exists(Path::new(KEPT)), "{name}");
        let told = conditions::observe(&machine, &[]).into_iter().find(|condition| condition.name == "NoManifest");
        assert!(told.is_some_and(|told| told.fix.contains("keelson apply")), "{name}");
        machine.handed = Some(handed_in(GOOD));
        phases::take_manifest(&mut machine);
        assert_eq!((system.text(IN_FORCE), system.text(KEPT)), (GOOD.to_owned(), GOOD.to_owned()), "{name}");
    }
}

#[test]
fn a_manifest_that_is_being_kept_when_the_power_goes_is_the_old_one_or_the_new_one() {
    let logs = tempfile::tempdir().unwrap();
    let (renamed, labelled) =
        (GOOD.replace("m1", "m2"), GOOD.replace("[cluster]", "labels = { a = \"1\" }\n[cluster]"));
    // In force at once, and from the next start on, with and without a source that says something else.
    for (changed, source) in [(&labelled, None), (&renamed, None), (&labelled, Some(GOOD)), (&renamed, Some(GOOD))] {
        let mut seen = Vec::new();
        for effects in 0.. {
            let (system, mut running) = machine(Some(GOOD), source);
            let before = system.calls().len();
            system.cut_after(Some(effects));
            renew::offered(&mut running, &mut Runner::new(logs.path()), (handed_in(changed), false), None);
            system.cut_after(None);
            let is_over = system.calls().len() - before < effects;
            // The next start has what was on STATE.
            let started = Arc::new(FakeSystem::new());
            for path in [KEPT, "/state/manifest.superseded", IMAGE] {
                system.read(Path::new(path)).into_iter().for_each(|content| started.file(path, content));
            }
            let mut next = Machine::of_a_test(&started);
            phases::take_manifest(&mut next);
            let text = next.accepted.map(|accepted| accepted.text).unwrap_or_default();
            assert!(text == GOOD || text == *changed, "after {effects} effects: {text:?}");
            seen.push(text == *changed);
            if is_over {
                break;
            }
        }
        assert!(seen.is_sorted() && !seen[0] && seen.last() == Some(&true), "{seen:?}");
    }
}
