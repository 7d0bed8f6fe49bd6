//! What a version of this program reads of manifests, as a text for other versions: an update carries it, and the system
//! that runs compares it with the manifest in force. One key a line, and behind it a number's range or the words that are
//! taken. What is missing in a manifest, or goes wrong between its keys, only that version itself finds out.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::keys::{self, Key, Kind, Scalar};
use crate::structure::join;

/// A longer text is none of ours.
const VOCABULARY_BYTES: usize = 256 * 1024;
/// What stands between a key and its values, and between the words.
const VALUES: char = '\t';
const OR: char = '|';
const TO: &str = "..";

/// What this version reads.
#[must_use]
pub fn vocabulary() -> String {
    keys::all().iter().map(|key| format!("{}{}\n", key.path, values(key))).collect()
}

fn values(key: &Key) -> String {
    match key.kind {
        Kind::One(Scalar::Integer { min, max }) => format!("{VALUES}{min}{TO}{max}"),
        Kind::One(Scalar::Word(format)) | Kind::List(Scalar::Word(format)) if !format.choices.is_empty() => {
            format!("{VALUES}{}", format.choices.join(&OR.to_string()))
        }
        _ => String::new(),
    }
}

/// What of a manifest a version does not read, by the text that it tells: `a.b` or `a.b = "c"`. The manifest is one that
/// this version reads; of one that it does not, and by a text that tells nothing, nothing is known.
#[must_use]
pub fn unread(vocabulary: &str, manifest: &str) -> Vec<String> {
    let Ok(table) = manifest.parse::<Table>() else { return Vec::new() };
    let lines = vocabulary.lines().take_while(|_| vocabulary.len() <= VOCABULARY_BYTES);
    let known: BTreeMap<&str, &str> = lines.map(|line| line.split_once(VALUES).unwrap_or((line, ""))).collect();
    let mut unread = Vec::new();
    if !known.is_empty() {
        look_into(&table, ("", ""), &known, &mut unread);
    }
    unread
}

fn look_into(table: &Table, (row, at): (&str, &str), known: &BTreeMap<&str, &str>, unread: &mut Vec<String>) {
    for (name, value) in table {
        let Some(key) = keys::children(row).find(|key| key.name() == name || key.name() == "*") else { continue };
        let at = join(at, name);
        match (known.get(key.path), key.kind, value) {
            (None, _, _) => unread.push(at),
            (Some(_), Kind::Section | Kind::Map(_), Value::Table(inner)) => {
                look_into(inner, (key.path, &at), known, unread);
            }
            (Some(_), Kind::Sections, Value::Array(elements)) => {
                let row = format!("{}[]", key.path);
                for (number, inner) in elements.iter().enumerate().filter_map(|(n, it)| Some((n, it.as_table()?))) {
                    look_into(inner, (&row, &format!("{at}[{number}]")), known, unread);
                }
            }
            (Some(taken), Kind::List(_), Value::Array(elements)) => {
                unread.extend(elements.iter().filter(|it| !takes(taken, it)).map(|it| format!("{at} = [{it}]")));
            }
            (Some(taken), _, value) if !takes(taken, value) => unread.push(format!("{at} = {value}")),
            (Some(_), _, _) => {}
        }
    }
}

/// Whether a value is among those taken; anything is where nothing is said.
fn takes(taken: &str, value: &Value) -> bool {
    match (taken, value) {
        ("", _) => true,
        (taken, Value::Integer(number)) => taken
            .split_once(TO)
            .and_then(|(min, max)| Some((min.parse::<i64>().ok()?, max.parse::<i64>().ok()?)))
            .is_none_or(|(min, max)| (min..=max).contains(number)),
        (taken, Value::String(word)) => taken.split(OR).any(|one| one == word),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY_KEY: &str = include_str!("../tests/good/every-key.toml");

    /// Without the lines of these keys.
    fn without(gone: &[&str]) -> String {
        let own = vocabulary();
        let lines = own.lines().filter(|line| !gone.contains(&line.split(VALUES).next().unwrap_or_default()));
        lines.map(|line| format!("{line}\n")).collect()
    }

    #[test]
    fn this_version_reads_what_it_reads() {
        assert_eq!(unread(&vocabulary(), EVERY_KEY), Vec::<String>::new());
        assert!(vocabulary().lines().any(|line| line == "version\t1..1"));
        assert!(vocabulary().lines().any(|line| line == "machine.role\tmaster|worker|single"), "{}", vocabulary());
    }

    #[test]
    fn every_key_that_another_version_lost_is_told() {
        // Keys that do not go with others, but are keys.
        let everything = EVERY_KEY
            .replace("\ntoken = ", "\nca = \"\"\nca-hash = \"\"\naccepted-ca-hash = \"\"\ntoken = ")
            .replace("\naccess-key = ", "\nusername = \"\"\npassword = \"\"\nbearer-token = \"\"\naccess-key = ");
        let all = vocabulary();
        for line in all.lines().filter(|line| !line.is_empty()) {
            let path = line.split(VALUES).next().unwrap();
            assert!(!unread(&without(&[path]), &everything).is_empty(), "{path} is not in the manifest of every key");
        }
    }

    #[test]
    fn what_is_not_read_is_told_by_its_place() {
        const MANIFEST: &str = "version = 1\n[machine]\nhostname = \"m\"\nrole = \"single\"\nlabels = { \"a.b/c\" = \"d\" }\n\
                                [[network.interfaces]]\nname = \"eth0\"\nmtu = 1500\n[[network.interfaces]]\nname = \"eth1\"\n";
        let told = |gone: &[&str]| unread(&without(gone), MANIFEST);
        assert_eq!(told(&["network.interfaces[].mtu"]), ["network.interfaces[0].mtu"]);
        assert_eq!(told(&["machine.labels.*"]), ["machine.labels.\"a.b/c\""]);
        assert_eq!(told(&["machine.labels", "machine.labels.*"]), ["machine.labels"]);
        let older =
            vocabulary().replace("master|worker|single", "master|worker").replace("version\t1..1", "version\t2..3");
        assert_eq!(unread(&older, MANIFEST), ["machine.role = \"single\"", "version = 1"]);
        // Who says nothing does not say that it reads nothing.
        assert_eq!(unread("", MANIFEST), Vec::<String>::new());
        assert_eq!(unread("x", "no TOML ["), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn no_text_of_another_version_is_too_strange(text in "(?s).{0,400}", taken in "[0-9.|a-z-]{0,20}") {
            let told = unread(&text, EVERY_KEY);
            prop_assert!(told.len() < 1000);
            drop(unread(&format!("version\t{taken}\nmachine.role\t{taken}"), EVERY_KEY));
        }
    }
}
