//! Whatever the text, reading it ends, and within bounds.

#![allow(clippy::unwrap_used)]

use cel::{Activation, Budget, Environment, Type, Value};
use proptest::prelude::*;

fn environment() -> Environment {
    Environment::new().with("object", Type::Dyn).with_patch_types()
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

const PIECES: [&str; 48] = [
    "object", ".", "a", "b", "(", ")", "[", "]", "{", "}", "?", ":", ",", "+", "-", "*", "/", "%", "!", "&&", "||",
    "==", "!=", "<", ">=", "in", "1", "0x1f", "2u", "1.5e3", "'x'", "\"y\"", "b'z'", "r'\\d'", "'''", "true", "null",
    "has", "all", "map", "x", "optMap", "size", "Object", "format", " ", "\n", "é",
];

proptest! {
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
