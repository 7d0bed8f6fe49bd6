//! Whatever the text, reading it ends, and within bounds.

#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use cel::{Activation, Budget, Environment, Schema, Type, Value};
use proptest::prelude::*;
use proptest::sample::Index;

fn environment() -> Environment {
    Environment::new().with("object", Type::Dyn).with_patch_types()
}

fn read(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn try_it(text: &str) {
    let object = serde_json::json!({"a": [1, 2.5, "x", null, {"b": true}]});
    if let Ok(checked) = environment().check(text) {
        let _cost = checked.cost(&[]);
        let program = checked.program();
        let activation = Activation::new().with("object", Value::json(&object));
        let _result = program.evaluate(&activation, &Budget::new(100_000));
    }
}

/// What a changed expression may mean: it sees what those of upstream's see.
struct World {
    schema: Schema,
    environment: Environment,
    object: serde_json::Value,
    /// The expressions of upstream's, in pieces.
    expressions: Vec<Vec<String>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let schema = Schema::new(&read(include_str!("schema.json")), "selfType", true).unwrap();
    let environment = environment().with("self", schema.ty().clone());
    let lines = include_str!("expressions.jsonl").lines();
    let expressions = lines.map(|line| pieces(read(line)["expr"].as_str().unwrap())).collect();
    World { schema, environment, object: read(include_str!("object.json")), expressions }
});

/// Words, numbers and signs, roughly as a lexer would tell them apart.
fn pieces(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut pieces: Vec<String> = Vec::new();
    for c in text.chars() {
        match pieces.last_mut() {
            Some(last) if is_word(c) && last.ends_with(is_word) => last.push(c),
            _ => pieces.push(c.to_string()),
        }
    }
    pieces
}

/// A change of a row of pieces.
#[derive(Clone, Debug)]
enum Change {
    Remove(Index, usize),
    Repeat(Index, usize),
    /// One of the pieces of this file.
    Replace(Index, &'static str),
    Insert(Index, &'static str),
    /// Pieces of another expression.
    Graft(Index, Index, Index, usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let piece = || prop::sample::select(&PIECES[..]);
    let length = || 1..6usize;
    let graft = (any::<Index>(), any::<Index>(), any::<Index>(), 1..12usize);
    let change = prop_oneof![
        (any::<Index>(), length()).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), length()).prop_map(|(at, length)| Change::Repeat(at, length)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Change::Replace(at, piece)),
        (any::<Index>(), piece()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        graft.prop_map(|(at, other, from, length)| Change::Graft(at, other, from, length)),
    ];
    prop::collection::vec(change, 1..4)
}

fn part(pieces: &[String], at: &Index, length: usize) -> std::ops::Range<usize> {
    let at = at.index(pieces.len() + 1);
    at..pieces.len().min(at + length)
}

fn changed(mut pieces: Vec<String>, changes: &[Change]) -> String {
    for change in changes {
        match change {
            Change::Remove(at, length) => drop(pieces.drain(part(&pieces, at, *length))),
            Change::Repeat(at, length) => {
                let (end, new) = (part(&pieces, at, *length).end, pieces[part(&pieces, at, *length)].to_vec());
                pieces.splice(end..end, new);
            }
            Change::Replace(at, piece) => drop(pieces.splice(part(&pieces, at, 1), [(*piece).to_owned()])),
            Change::Insert(at, piece) => drop(pieces.splice(part(&pieces, at, 0), [(*piece).to_owned()])),
            Change::Graft(at, other, from, length) => {
                let other = other.get(&WORLD.expressions);
                drop(pieces.splice(part(&pieces, at, 0), other[part(other, from, *length)].to_vec()));
            }
        }
    }
    pieces.concat()
}

const PIECES: [&str; 48] = [
    "object", ".", "a", "b", "(", ")", "[", "]", "{", "}", "?", ":", ",", "+", "-", "*", "/", "%", "!", "&&", "||",
    "==", "!=", "<", ">=", "in", "1", "0x1f", "2u", "1.5e3", "'x'", "\"y\"", "b'z'", "r'\\d'", "'''", "true", "null",
    "has", "all", "map", "x", "optMap", "size", "Object", "format", " ", "\n", "é",
];

proptest! {
    #[test]
    fn changed_expressions_are_read_or_refused_and_mean_one_thing(at in any::<Index>(), changes in changes()) {
        let World { schema, environment, object, expressions } = &*WORLD;
        let text = changed(at.get(expressions).clone(), &changes);
        let Ok(checked) = environment.check(&text) else { return Ok(()) };
        let cost = checked.cost(&[("self", schema)]);
        prop_assert!(cost.min <= cost.max, "{text}: {cost:?}");
        let program = checked.program();
        let result = || {
            let activation = Activation::new().with("object", Value::json(object)).with("self", Value::json(object));
            let result = program.evaluate(&activation, &Budget::new(100_000));
            result.map_or_else(|error| error.to_string(), |value| format!("{:?}", cel::to_json(&value).ok()))
        };
        prop_assert_eq!(result(), result(), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,60}") {
        try_it(&text);
    }

    #[test]
    fn any_row_of_tokens_is_read_or_refused(row in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..30)) {
        try_it(&row.concat());
    }
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("(", ")"), ("[", "]"), ("-(", ")"), ("{1:", "}"), ("a(", ")"), ("object[", "]")] {
        let text = format!("{}1{}", open.repeat(5_000), close.repeat(5_000));
        assert!(environment().check(&text).is_err());
    }
    for chain in ["+1", ".a", "[0]", "*2", "==1"] {
        assert!(environment().check(&format!("object{}", chain.repeat(5_000))).is_err());
    }
    // Long chains of conditions are made shallow.
    assert!(environment().check(&format!("true{}", " && true".repeat(5_000))).is_ok());
    let deep = format!("{}1{}", "(".repeat(90), ")".repeat(90));
    assert!(environment().check(&deep).is_ok());
}

#[test]
fn cost_is_bounded() {
    let text = "object.a.map(x, object.a.map(x, object.a.map(x, object.a.map(x, object.a.map(x, object.a.map(x, \
                object.a.map(x, object.a.map(x, object.a.map(x, x)))))))))";
    let program = environment().check(text).unwrap().program();
    let object = serde_json::json!({"a": [1, 2, 3, 4, 5, 6, 7]});
    let activation = Activation::new().with("object", Value::json(&object));
    let result = program.evaluate(&activation, &Budget::new(cel::OBJECT_BUDGET));
    assert_eq!(result.err().unwrap().to_string(), "operation cancelled: actual cost limit exceeded");
}
