//! Several parts of one manifest become one, and each key stays known by who set it.
//!
//! ```text
//! image        version = 1                      ┐
//!              registries…, cluster.endpoint    ├─▶ one text: KEY = VALUE # SOURCE:LINE
//! disk vdc     machine.hostname, machine.role   ┘
//! ```
//!
//! Tables merge key by key, and the later part wins; everything else, lists and arrays of tables too, is replaced as a
//! whole. A part is checked by itself first, so that what is wrong with it is told with its own lines; what is missing,
//! and what does not go together, can only be wrong with the whole. The origins stand in the merged text, as comments:
//! it is one file that cannot contradict itself after a power cut, and a finding shows its line with them.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::diagnostic::Diagnostics;
use crate::keys::Kind;
use crate::source::Source;
use crate::structure::join;
use crate::{change, check_part, explain};

/// How a text begins that was merged.
const MARK: &str = "# Merged, the later ones winning: ";

/// A part of a manifest: it need not be whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it is from, for people.
    pub source: String,
    /// The TOML text.
    pub text: String,
}

/// Who set a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The path.
    pub key: String,
    /// The TOML value. Secrets are not shown.
    pub value: String,
    /// `SOURCE:LINE`.
    pub from: String,
}

/// A value with who set it, or a table of such.
enum Node {
    Table(BTreeMap<String, Self>),
    Value(Value, String),
}

/// Makes one manifest of its parts, of which later ones win. One part alone stays as it was written.
///
/// # Errors
/// What is wrong with parts by themselves, for each of them. The result was not looked at as a whole.
pub fn merge(parts: &[Part]) -> Result<String, Vec<Diagnostics>> {
    if let [part] = parts {
        return Ok(part.text.clone());
    }
    let found = parts.iter().map(|part| check_part(&part.source, &part.text));
    let broken: Vec<Diagnostics> = found.filter(|found| found.errors().next().is_some()).collect();
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut whole = BTreeMap::new();
    for part in parts {
        overlay(&mut whole, read(part));
    }
    let sources: Vec<&str> = parts.iter().map(|part| part.source.as_str()).collect();
    let mut text = format!("{MARK}{}\n", sources.join(", "));
    write("", &whole, &mut text);
    Ok(text)
}

/// Who set each key of a manifest, by path. `source` is where the text is from, if it was not merged.
#[must_use]
pub fn origins(source: &str, text: &str) -> Vec<Origin> {
    let is_merged = text.starts_with(MARK);
    let part = Part { source: source.to_owned(), text: text.to_owned() };
    let mut all = Vec::new();
    list("", read(&part), &mut all);
    if is_merged {
        for origin in &mut all {
            let line = origin.from.rsplit_once(':').and_then(|(_, line)| line.parse::<usize>().ok());
            let line = line.and_then(|line| text.lines().nth(line - 1)).unwrap_or_default();
            if let Some((_, from)) = line.rsplit_once(" # ") {
                from.clone_into(&mut origin.from);
            }
        }
    }
    all
}

/// Whether two texts are manifests with the same keys and values, wherever those are from.
#[must_use]
pub fn says_the_same(one: &str, other: &str) -> bool {
    one == other || matches!((one.parse::<Table>(), other.parse::<Table>()), (Ok(one), Ok(other)) if one == other)
}

/// A text that is no TOML reads as empty.
fn read(part: &Part) -> BTreeMap<String, Node> {
    let Ok(places) = DeTable::parse(&part.text) else { return BTreeMap::new() };
    let values = part.text.parse::<Table>().unwrap_or_default();
    nodes("", places.get_ref(), values, &|value| {
        // A value is told by its last line: behind it there is room for a comment.
        let line = Source::new(&part.text).position(value.span().end.saturating_sub(1)).line;
        format!("{}:{line}", part.source)
    })
}

fn nodes(
    at: &str,
    places: &DeTable<'_>,
    values: Table,
    origin: &impl Fn(&Spanned<DeValue<'_>>) -> String,
) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    for (name, value) in values {
        let Some(place) = places.get(name.as_str()) else { continue };
        let path = join(at, &name);
        let node = match (value, place.get_ref()) {
            (Value::Table(values), DeValue::Table(places)) if merges(&path) => {
                Node::Table(self::nodes(&path, places, values, origin))
            }
            (value, _) => Node::Value(value, origin(place)),
        };
        nodes.insert(name, node);
    }
    nodes
}

/// Whether a key's value is a table of keys.
fn merges(path: &str) -> bool {
    explain::find(path).is_some_and(|key| matches!(key.kind, Kind::Section | Kind::Map(_)))
}

fn overlay(below: &mut BTreeMap<String, Node>, above: BTreeMap<String, Node>) {
    for (name, node) in above {
        match (below.get_mut(&name), node) {
            (Some(Node::Table(below)), Node::Table(above)) => overlay(below, above),
            (_, node) => drop(below.insert(name, node)),
        }
    }
}

/// Every value as a line of its own, by its whole path.
fn write(at: &str, nodes: &BTreeMap<String, Node>, text: &mut String) {
    for (name, node) in nodes {
        let path = if at.is_empty() { key(name) } else { format!("{at}.{}", key(name)) };
        match node {
            // That a table is there may say something, too.
            Node::Table(inner) if inner.is_empty() => text.push_str(&format!("{path} = {{}}\n")),
            Node::Table(inner) => write(&path, inner, text),
            Node::Value(value, from) => text.push_str(&format!("{path} = {value} # {from}\n")),
        }
    }
}

/// A key as TOML wants it.
fn key(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if is_bare { name.to_owned() } else { Value::String(name.to_owned()).to_string() }
}

fn list(at: &str, nodes: BTreeMap<String, Node>, all: &mut Vec<Origin>) {
    for (name, node) in nodes {
        let key = join(at, &name);
        match node {
            Node::Table(inner) => list(&key, inner, all),
            Node::Value(value, from) => all.push(Origin { value: change::shown(&key, value), key, from }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(source: &str, text: &str) -> Part {
        Part { source: source.to_owned(), text: text.to_owned() }
    }

    const IMAGE: &str = "version = 1\n[machine]\nrole = \"single\"\nlabels = { rack = \"a\", site = \"x\" }\n[cluster]\n\
                         endpoint = \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n\
                         [[network.interfaces]]\nname = \"eth0\"\ndhcp = \"ipv4\"\n[[network.interfaces]]\nname = \"eth1\"\n";
    const DISK: &str = "[machine]\nhostname = \"w1\"\nlabels.rack = \"b\"\n\n[[network.interfaces]]\nname = \"eth0\"\n\
                        addresses = [\n  \"10.0.0.7/24\",\n]\n";

    #[test]
    fn tables_merge_and_everything_else_is_replaced() {
        let text = merge(&[part("image", IMAGE), part("disk vdc", DISK)]).unwrap();
        let expected = "# Merged, the later ones winning: image, disk vdc\n\
                        cluster.endpoint = \"https://10.0.0.1:6443\" # image:6\n\
                        cluster.token = \"abcdef.0123456789abcdef\" # image:7\n\
                        machine.hostname = \"w1\" # disk vdc:2\n\
                        machine.labels.rack = \"b\" # disk vdc:3\n\
                        machine.labels.site = \"x\" # image:4\n\
                        machine.role = \"single\" # image:3\n\
                        network.interfaces = [{ addresses = [\"10.0.0.7/24\"], name = \"eth0\" }] # disk vdc:5\n\
                        version = 1 # image:1\n";
        assert_eq!(text, expected);
        let (manifest, findings) = crate::check("merged", &text);
        let labels = &manifest.unwrap_or_else(|| panic!("{findings}")).machine.labels;
        assert_eq!(labels.len(), 2);
    }

    #[test]
    fn each_key_is_known_by_who_set_it() {
        let lines = |text: &str| {
            let all = origins("disk vdc", text).into_iter();
            all.map(|it| format!("{} {} {}", it.key, it.value, it.from)).collect::<Vec<_>>()
        };
        let text = merge(&[part("image", IMAGE), part("disk vdc", DISK)]).unwrap();
        let of_merged = lines(&text);
        assert!(of_merged.contains(&"cluster.token *** image:7".to_owned()), "{of_merged:?}");
        assert!(of_merged.contains(&"machine.hostname \"w1\" disk vdc:2".to_owned()), "{of_merged:?}");
        assert_eq!(lines(DISK)[0], "machine.hostname \"w1\" disk vdc:2");
        assert_eq!(merge(&[part("disk vdc", DISK)]).unwrap(), DISK);
    }

    #[test]
    fn what_is_wrong_with_a_part_is_told_with_its_own_lines() {
        let bad = part("disk vdc", "[machine]\nhostnam = \"w1\"\n[[etcd.members]]\nname = \"m1\"\n");
        let found = merge(&[part("image", IMAGE), bad]).unwrap_err();
        let told = found[0].to_string();
        assert_eq!(found.len(), 1);
        assert!(told.contains("disk vdc:2") && told.contains("did you mean `hostname`"), "{told}");
        // What an element of an array lacks no other part can add; what a table lacks another part may have.
        assert!(told.contains("`address` is missing") && !told.contains("`role` is missing"), "{told}");
    }

    #[test]
    fn what_is_the_same_in_other_words_is_the_same() {
        let one = merge(&[part("image", IMAGE), part("disk vdc", DISK)]).unwrap();
        let other = merge(&[part("image", IMAGE), part("disk vdd", DISK)]).unwrap();
        assert!(one != other && says_the_same(&one, &other));
        assert!(!says_the_same(IMAGE, DISK) && !says_the_same("x", "y") && says_the_same("x", "x"));
    }

    proptest! {
        #[test]
        fn a_merged_text_reads_as_what_was_merged(value in "\\PC{0,40}|[a\n\"'\\\\#]{0,20}", name in "[a-z.\" ]{1,12}") {
            let quoted = |text: &str| Value::String(text.to_owned()).to_string();
            let base = format!("version = 1\n[registries.mirrors.{}]\nendpoints = []\n", quoted(&name));
            let more = format!("[[control-plane.files]]\nname = \"f\"\ncontent = {}\n", quoted(&value));
            if let Ok(text) = merge(&[part("a", &base), part("b", &more)]) {
                let read: Table = text.parse().unwrap();
                prop_assert_eq!(read["control-plane"]["files"][0]["content"].as_str(), Some(value.as_str()));
                prop_assert!(read["registries"]["mirrors"].get(&name).is_some());
            }
        }

        #[test]
        fn no_text_makes_it_panic(one in "\\PC{0,200}", other in "[a-z.=\\[\\]\"\n# {}]{0,200}") {
            drop(merge(&[part("a", &one), part("b", &other)]));
            drop(origins("a", &format!("{MARK}a\n{other}")));
        }
    }
}
