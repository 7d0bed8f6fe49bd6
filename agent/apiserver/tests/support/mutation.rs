//! Changes of what is sound, each of which leaves most of it as it was: a reader gets further into it than into bytes made
//! at random.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

/// Numbers at which something ends.
const NUMBERS: [i64; 8] = [0, -1, 1, 65_535, 65_536, 1 << 31, i64::MIN, i64::MAX];
/// Brackets around a nested node: fewer, and more, than readers take.
const DEPTHS: [usize; 4] = [1, 30, 126, 300];

/// A change of bytes.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    Move(Index, Index, usize),
    Cut(Index),
}

/// Several of them.
pub(crate) fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let byte = || prop_oneof![any::<u8>(), select(&b"\0\x01\x7f\x80\xff\"\\'{}[]:,-?&*!|>#%@` \n\t0e.+"[..])];
    let length = || prop_oneof![3 => 1..8usize, 1 => 1..200usize];
    let edit = prop_oneof![
        4 => (any::<Index>(), byte()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        2 => (any::<Index>(), prop::collection::vec(byte(), 1..6)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
        2 => (any::<Index>(), length()).prop_map(|(at, length)| Edit::Remove(at, length)),
        1 => (any::<Index>(), length()).prop_map(|(at, length)| Edit::Repeat(at, length)),
        1 => (any::<Index>(), any::<Index>(), length()).prop_map(|(from, to, length)| Edit::Move(from, to, length)),
        1 => any::<Index>().prop_map(Edit::Cut),
    ];
    prop::collection::vec(edit, 1..6)
}

/// The bytes with these changes.
pub(crate) fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        let place = |at: &Index| at.index(bytes.len() + 1);
        let part = |at: &Index, length: usize| place(at)..bytes.len().min(place(at) + length);
        match edit {
            Edit::Set(at, byte) => {
                let at = place(at);
                if let Some(found) = bytes.get_mut(at) {
                    *found = *byte;
                }
            }
            Edit::Insert(at, new) => drop(bytes.splice(place(at)..place(at), new.iter().copied())),
            Edit::Remove(at, length) => drop(bytes.drain(part(at, *length))),
            Edit::Repeat(at, length) => {
                let (end, new) = (part(at, *length).end, bytes[part(at, *length)].to_vec());
                bytes.splice(end..end, new);
            }
            Edit::Move(from, to, length) => {
                let moved: Vec<u8> = bytes.drain(part(from, *length)).collect();
                let to = to.index(bytes.len() + 1);
                bytes.splice(to..to, moved);
            }
            Edit::Cut(at) => bytes.truncate(place(at)),
        }
    }
    bytes
}

/// A change of a tree at one of its nodes.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Replace(Index, Value),
    Remove(Index),
    /// By another node of it.
    Graft(Index, Index),
    Rename(Index, String),
    Repeat(Index, usize),
    Nest(Index, usize),
}

/// What a node may become.
fn leaf() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i64>(), select(&NUMBERS[..])];
    let text = select(
        &[
            "",
            "-",
            "..",
            "/",
            "a/b",
            "*",
            "0",
            "1e400",
            "2026-01-01T00:00:00Z",
            "9999999999Gi",
            "1n",
            "10%",
            "\0",
            "é",
            "A",
        ][..],
    );
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop_oneof![Just(64_usize), Just(300), Just(5000)].prop_map(|length| "x".repeat(length).into()),
        Just(Value::Array(Vec::new())),
        Just(Value::Object(serde_json::Map::new())),
    ]
}

/// Several changes.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let name = select(&["", "name", "$patch", "$setElementOrder/x", "metadata", "spec", "a.b/c", "x"][..]);
    let change = prop_oneof![
        4 => (any::<Index>(), leaf()).prop_map(|(at, value)| Change::Replace(at, value)),
        3 => any::<Index>().prop_map(Change::Remove),
        3 => (any::<Index>(), any::<Index>()).prop_map(|(at, from)| Change::Graft(at, from)),
        1 => (any::<Index>(), name).prop_map(|(at, name)| Change::Rename(at, name.to_owned())),
        1 => (any::<Index>(), 1..40usize).prop_map(|(at, times)| Change::Repeat(at, times)),
        1 => (any::<Index>(), select(&DEPTHS[..])).prop_map(|(at, depth)| Change::Nest(at, depth)),
    ];
    prop::collection::vec(change, 1..5)
}

/// Paths of all nodes of a tree, itself included.
pub(crate) fn paths(value: &Value) -> Vec<String> {
    let mut paths = vec![String::new()];
    let mut below =
        |name: String, value: &Value| paths.extend(self::paths(value).iter().map(|p| format!("/{name}{p}")));
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| below(k.replace('~', "~0").replace('/', "~1"), v)),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, v)| below(n.to_string(), v)),
        _ => {}
    }
    paths
}

/// The tree with these changes.
pub(crate) fn changed(value: &Value, changes: &[Change]) -> Value {
    let mut value = value.clone();
    for change in changes {
        let paths = paths(&value);
        let (Change::Replace(at, _)
        | Change::Remove(at)
        | Change::Graft(at, _)
        | Change::Rename(at, _)
        | Change::Repeat(at, _)
        | Change::Nest(at, _)) = change;
        let path = at.get(&paths);
        let whole = value.clone();
        let Some(node) = value.pointer_mut(path) else { continue };
        match change {
            Change::Replace(_, new) => node.clone_from(new),
            Change::Graft(_, from) => {
                whole.pointer(from.get::<String>(&paths)).unwrap_or(&Value::Null).clone_into(node)
            }
            Change::Repeat(_, times) => *node = Value::Array(vec![node.clone(); *times]),
            Change::Nest(_, depth) => *node = (0..*depth).fold(node.take(), |inner, _| Value::Array(vec![inner])),
            Change::Remove(_) => move_away(&mut value, path, None),
            Change::Rename(_, name) => move_away(&mut value, path, Some(name)),
        }
    }
    value
}

/// Takes a node out; it comes back under another name if there is one.
fn move_away(value: &mut Value, path: &str, name: Option<&str>) {
    let Some((parent, last)) = path.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    match value.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            let node = map.remove(&last);
            if let (Some(node), Some(name)) = (node, name) {
                map.insert(name.to_owned(), node);
            }
        }
        Some(Value::Array(list)) => drop(last.parse().ok().filter(|n| *n < list.len()).map(|n: usize| list.remove(n))),
        _ => {}
    }
}
