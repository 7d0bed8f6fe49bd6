//! Who owns what after which write.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Applying, Manager, Target, apply, keep_times, track};
use crate::codec;
use crate::status::Failure;
use crate::strategy::Part;

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

fn deployments() -> &'static api::Kind {
    api::kind_by_resource("apps", "v1", "deployments").unwrap()
}

fn target() -> Target<'static> {
    Target { kind: deployments(), part: Part::Main, schema: None }
}

fn manager(name: &str, applies: bool) -> Manager {
    Manager { name: name.into(), applies, api_version: "apps/v1".into(), subresource: String::new() }
}

fn object(spec: Value) -> Value {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec});
    codec::canonical(deployments(), &object).unwrap()
}

fn config(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn applied(live: Option<&Value>, spec: Value, (name, force, now): (&str, bool, &str)) -> Result<Value, Failure> {
    let config = config(spec);
    let applying = Applying { config: &config, manager: manager(name, true), force, now };
    let object = apply(target(), live, &applying)?.object;
    Ok(codec::canonical(deployments(), &object).unwrap())
}

fn updated(live: &Value, spec: Value, name: &str) -> Value {
    let mut new = object(spec);
    track(target(), Some(live), &mut new, (manager(name, false), LATE));
    new
}

/// The fields of a manager.
fn fields(object: &Value, name: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().unwrap();
    list.iter().find(|entry| entry["manager"] == name).map_or(Value::Null, |entry| entry["fieldsV1"]["f:spec"].clone())
}

fn time(object: &Value, name: &str) -> Value {
    let list = object["metadata"]["managedFields"].as_array().unwrap();
    list.iter().find(|entry| entry["manager"] == name).unwrap()["time"].clone()
}

#[test]
fn an_apply_owns_what_it_names() {
    let made = applied(None, json!({"replicas": 1, "paused": true}), ("a", false, EARLY)).unwrap();
    assert_eq!(fields(&made, "a"), json!({"f:paused": {}, "f:replicas": {}}));
    assert_eq!(time(&made, "a"), EARLY);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["operation"], &entry["apiVersion"]), (&json!("Apply"), &json!("apps/v1")));
}

#[test]
fn an_apply_that_changes_nothing_keeps_the_time() {
    let made = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
    let again = applied(Some(&made), json!({"replicas": 1}), ("a", false, LATE)).unwrap();
    assert_eq!(again, made);
    // Who shares what is there already has no time at all.
    let shared = applied(Some(&made), json!({"replicas": 1}), ("b", false, LATE)).unwrap();
    assert_eq!(fields(&shared, "b"), json!({"f:replicas": {}}));
    assert_eq!(time(&shared, "b"), Value::Null);
}

#[test]
fn what_is_no_longer_applied_goes() {
    let made = applied(None, json!({"replicas": 1, "paused": true}), ("a", false, EARLY)).unwrap();
    let less = applied(Some(&made), json!({"replicas": 1}), ("a", false, LATE)).unwrap();
    assert_eq!(less["spec"].get("paused"), None);
    assert_eq!(fields(&less, "a"), json!({"f:replicas": {}}));
    assert_eq!(time(&less, "a"), LATE);
}

#[test]
fn what_somebody_else_owns_stays() {
    let made = applied(None, json!({"replicas": 1, "paused": true}), ("a", false, EARLY)).unwrap();
    let shared = applied(Some(&made), json!({"paused": true}), ("b", false, EARLY)).unwrap();
    let less = applied(Some(&shared), json!({"replicas": 1}), ("a", false, LATE)).unwrap();
    assert_eq!(less["spec"]["paused"], true);
    assert_eq!(fields(&less, "b"), json!({"f:paused": {}}));
}

#[test]
fn changing_what_others_own_is_a_conflict() {
    let made = applied(None, json!({"replicas": 1, "paused": true}), ("a", false, EARLY)).unwrap();
    let failure = applied(Some(&made), json!({"replicas": 2}), ("b", false, LATE)).unwrap_err();
    assert_eq!(failure.message(), "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas");
    let failure = applied(Some(&made), json!({"replicas": 2, "paused": false}), ("b", false, LATE)).unwrap_err();
    let expected = "Apply failed with 2 conflicts: conflicts with \"a\":\n- .spec.paused\n- .spec.replicas";
    assert_eq!(failure.message(), expected);
    let forced = applied(Some(&made), json!({"replicas": 2}), ("b", true, LATE)).unwrap();
    assert_eq!(fields(&forced, "a"), json!({"f:paused": {}}));
    assert_eq!(fields(&forced, "b"), json!({"f:replicas": {}}));
}

#[test]
fn conflicts_with_updates_name_the_version() {
    let made = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
    let changed = updated(&made, json!({"replicas": 3}), "u");
    assert_eq!(fields(&changed, "a"), Value::Null);
    let failure = applied(Some(&changed), json!({"replicas": 2}), ("a", false, LATE)).unwrap_err();
    let expected = "Apply failed with 1 conflict: conflict with \"u\" using apps/v1: .spec.replicas";
    assert_eq!(failure.message(), expected);
}

#[test]
fn list_members_have_their_own_owners() {
    let containers = |list: Value| json!({"template": {"spec": {"containers": list}}});
    let first = containers(json!([{"name": "x", "image": "1", "args": ["a", "b"]}, {"name": "y", "image": "1"}]));
    let made = applied(None, first, ("a", false, EARLY)).unwrap();
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    let more = applied(Some(&made), containers(json!([{"name": "z", "image": "1"}])), ("b", false, EARLY)).unwrap();
    assert_eq!(names(&more), ["x", "y", "z"]);
    let less = applied(Some(&more), containers(json!([{"name": "y", "image": "2"}])), ("a", false, LATE)).unwrap();
    assert_eq!(names(&less), ["y", "z"]);
    let own = &fields(&more, "a")["f:template"]["f:spec"]["f:containers"]["k:{\"name\":\"x\"}"];
    // A list that is one value has one owner.
    assert_eq!(own, &json!({".": {}, "f:args": {}, "f:image": {}, "f:name": {}}));
}

#[test]
fn maps_and_sets_have_owners_by_member() {
    let with = |labels: Value, finalizers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
               "metadata": {"name": "d", "labels": labels, "finalizers": finalizers}})
    };
    let apply_as = |live: Option<&Value>, config: &Value, name: &str| {
        let applying = Applying { config, manager: manager(name, true), force: false, now: EARLY };
        apply(target(), live, &applying).unwrap().object
    };
    let made = apply_as(None, &with(json!({"a": "1"}), json!(["x/1"])), "a");
    let both = apply_as(Some(&made), &with(json!({"b": "2"}), json!(["y/2"])), "b");
    assert_eq!(both["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    assert_eq!(both["metadata"]["finalizers"], json!(["x/1", "y/2"]));
    let less = apply_as(Some(&both), &with(json!({}), json!([])), "a");
    assert_eq!(less["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(less["metadata"]["finalizers"], json!(["y/2"]));
}

#[test]
fn fields_from_before_tracking_belong_to_nobody_in_particular() {
    let live = object(json!({"replicas": 1}));
    let done = applied(Some(&live), json!({"paused": true}), ("a", false, LATE)).unwrap();
    assert_eq!(fields(&done, "before-first-apply")["f:replicas"], json!({}));
    let failure = applied(Some(&done), json!({"replicas": 2}), ("a", false, LATE)).unwrap_err();
    assert!(failure.message().contains("before-first-apply"));
}

#[test]
fn an_update_owns_what_it_changed() {
    let made = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
    let changed = updated(&made, json!({"replicas": 1, "minReadySeconds": 5}), "u");
    assert_eq!(fields(&changed, "a"), json!({"f:replicas": {}}));
    assert_eq!(fields(&changed, "u"), json!({"f:minReadySeconds": {}}));
    let same = updated(&changed, json!({"replicas": 1, "minReadySeconds": 5}), "v");
    assert_eq!(fields(&same, "v"), Value::Null);
}

#[test]
fn dropped_tracking_stays_dropped_until_an_apply() {
    let made = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
    let mut bare = object(json!({"replicas": 1}));
    bare["metadata"]["managedFields"] = json!([]);
    track(target(), Some(&made), &mut bare, (manager("u", false), LATE));
    assert_eq!(bare["metadata"].get("managedFields"), None);
    let later = updated(&bare, json!({"replicas": 2}), "u");
    assert_eq!(later["metadata"].get("managedFields"), None);
}

#[test]
fn a_write_without_effect_keeps_times() {
    let old = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
    let mut new = old.clone();
    new["metadata"]["managedFields"][0]["time"] = LATE.into();
    keep_times(deployments(), &old, &mut new);
    assert_eq!(new, old);
}

#[test]
fn kubectl_takes_over_what_it_applied_by_itself() {
    let annotation = "kubectl.kubernetes.io/last-applied-configuration";
    let before = config(json!({"replicas": 1}));
    let mut live = object(json!({"replicas": 1}));
    live["metadata"]["annotations"] = json!({annotation: before.to_string()});
    track(target(), None, &mut live, (manager("kubectl-client-side-apply", false), EARLY));
    let done = applied(Some(&live), json!({"replicas": 2}), ("kubectl", false, LATE)).unwrap();
    assert_eq!(done["spec"]["replicas"], 2);
    assert!(done["metadata"]["annotations"][annotation].as_str().unwrap().contains("\"replicas\":2"));
    let failure = applied(Some(&live), json!({"replicas": 2}), ("other", false, LATE)).unwrap_err();
    assert_eq!(failure.code().as_u16(), 409);
}

#[test]
fn the_oldest_of_many_updaters_become_one() {
    let mut live = object(json!({"replicas": 0}));
    track(target(), None, &mut live, (manager("u0", false), EARLY));
    for at in 1..12 {
        let mut new = live.clone();
        new["metadata"]["labels"][format!("l{at}")] = "x".into();
        let name = format!("u{at}");
        let now = format!("2026-01-01T00:00:{at:02}Z");
        track(target(), Some(&live), &mut new, (manager(&name, false), &now));
        live = new;
    }
    let list = live["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(list.len(), 10);
    assert!(list.iter().any(|entry| entry["manager"] == "ancient-changes"));
}

/// The spec of a Deployment that somebody might apply, or a part of one.
fn spec() -> impl Strategy<Value = Value> {
    let variables = prop::collection::btree_map("[A-C]", "[a-b]", 0..3)
        .prop_map(|all| all.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>());
    let labels = prop::collection::btree_map("[a-c]", "[a-b]", 0..3);
    (prop::option::of(0..3_i32), variables, labels, any::<bool>()).prop_map(|(replicas, env, labels, is_short)| {
        let container = json!({"name": "c", "image": "i", "env": env});
        let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
        let mut spec = if is_short { json!({}) } else { json!({"template": template}) };
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        spec
    })
}

proptest! {
    #[test]
    fn the_same_apply_twice_is_one(first in spec(), second in spec(), others in spec(), name in "[ab]") {
        let made = applied(None, first, ("a", false, EARLY)).unwrap();
        let touched = updated(&made, others, "u");
        let once = applied(Some(&touched), second.clone(), (&name, true, LATE)).unwrap();
        let twice = applied(Some(&once), second, (&name, false, "2026-01-03T00:00:00Z")).unwrap();
        // Handlers keep the times where nothing else is other: an empty map that is applied is not stored.
        prop_assert_eq!(timeless(twice), timeless(once));
    }

    #[test]
    fn whatever_says_who_owns_what_an_apply_ends(entries in prop::collection::vec(entry(), 0..3), second in spec()) {
        let mut live = applied(None, json!({"replicas": 1}), ("a", false, EARLY)).unwrap();
        live["metadata"]["managedFields"] = entries.into();
        if let Ok(live) = codec::canonical(deployments(), &live) {
            let _applied = applied(Some(&live), second, ("a", true, LATE));
        }
    }
}

fn timeless(mut object: Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array_mut().into_iter().flatten();
    entries.for_each(|entry| entry["time"] = Value::Null);
    object
}

/// What could lie in `managedFields`.
fn entry() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 13] = [
        "f:spec",
        "f:replicas",
        "f:template",
        "f:a",
        ".",
        "k:{\"name\":\"c\"}",
        "k:{",
        "v:1",
        "v:",
        "i:0",
        "i:x",
        "x",
        "",
    ];
    let leaf = prop_oneof![Just(json!({})), Just(Value::Null), Just(json!(1)), Just(json!([]))];
    let fields = leaf.prop_recursive(5, 24, 4, |inner| {
        prop::collection::btree_map(prop::sample::select(&NAMES[..]).prop_map(str::to_owned), inner, 0..4)
            .prop_map(|all| Value::Object(all.into_iter().collect()))
    });
    let operations = prop::sample::select(&["Apply", "Update", ""][..]);
    let versions = prop::sample::select(&["apps/v1", "v1", "apps/v9", ""][..]);
    (fields, operations, versions, "[ab]").prop_map(|(fields, operation, version, name)| {
        json!({"manager": name, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1", "fieldsV1": fields})
    })
}
