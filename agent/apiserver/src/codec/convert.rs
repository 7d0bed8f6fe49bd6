//! Versions that differ from what is stored: events of two groups, autoscaling/v1, resource.k8s.io/v1beta1.
//!
//! Versions meet in the one that is stored: what is known is the way there and back.

use api::Kind;
use serde_json::{Map, Value};

use super::{autoscaling, devices};
use crate::cache::Storage;

/// Field names of events.k8s.io/v1 and of the stored core/v1 event.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Whether the served version has other fields than the stored one.
pub(super) fn is_needed(storage: &Storage, kind: &Kind) -> bool {
    kind.message != storage.kind.message
}

pub(super) fn from_stored(storage: &Storage, kind: &Kind, value: Value) -> Value {
    if is_needed(storage, kind) { shown(kind, value) } else { value }
}

pub(super) fn to_stored(storage: &Storage, kind: &Kind, value: Value) -> Value {
    if is_needed(storage, kind) { stored(kind, value) } else { value }
}

/// An object of one version of a kind in another.
pub fn between(from: &Kind, to: &Kind, value: Value) -> Value {
    if from.message == to.message { value } else { shown(to, stored(from, value)) }
}

/// An object as it is once it went through the version that is stored: what that has no place for is told elsewhere.
pub fn settled(kind: &Kind, value: Value) -> Value {
    match (kind.group, kind.version) {
        ("autoscaling", "v1") => shown(kind, stored(kind, value)),
        _ => value,
    }
}

fn shown(kind: &Kind, value: Value) -> Value {
    match (kind.group, kind.version) {
        ("events.k8s.io", _) => {
            renamed(value, |stored| EVENT_FIELDS.iter().find(|(_, s)| *s == stored).map(|(served, _)| *served))
        }
        ("autoscaling", "v1") => autoscaling::to_v1(value),
        ("resource.k8s.io", "v1beta1") => devices::to_v1beta1(kind, value),
        _ => value,
    }
}

fn stored(kind: &Kind, value: Value) -> Value {
    match (kind.group, kind.version) {
        ("events.k8s.io", _) => {
            renamed(value, |served| EVENT_FIELDS.iter().find(|(name, _)| *name == served).map(|(_, stored)| *stored))
        }
        ("autoscaling", "v1") => autoscaling::from_v1(value),
        ("resource.k8s.io", "v1beta1") => devices::from_v1beta1(kind, value),
        _ => value,
    }
}

fn renamed(value: Value, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Value::Object(map) = value else { return value };
    let rename = |(key, value): (String, Value)| (name(&key).map_or(key, str::to_owned), value);
    Value::Object(map.into_iter().map(rename).collect::<Map<_, _>>())
}
