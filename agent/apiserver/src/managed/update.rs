//! A write by any verb but apply: what it changed is the writer's from now on.

use std::borrow::Cow;

use api::Kind;
use api::schema::Message;
use serde_json::{Value, json};

use super::compare::{Comparison, field_set};
use super::entries::{self, Entry, Manager};
use super::reset;
use super::schema::{Target, Type};
use super::set::Step;
use crate::{codec, tree};

/// Books what the step from `live` (none: the object is new) to `new` changed for `manager`.
pub fn track(target: Target<'_>, live: Option<&Value>, new: &mut Value, writer: (Manager, &str)) {
    let (manager, now) = writer;
    // The list of managers itself, which the new object lacks here, is nobody's.
    let empty = if live.is_none() { codec::empty(target.kind).unwrap_or_default() } else { Default::default() };
    let before = live.unwrap_or(&empty);
    let mut entries = current(live, new, !manager.subresource.is_empty());
    tree::remove(&mut new["metadata"], "managedFields");
    // Whoever leaves out what members of lists are told apart by cannot be tracked.
    let is_typeable = match target.schema {
        None => is_typeable(target.ty(), new) && has_readable_managers(new),
        Some(_) => live.into_iter().chain([&*new]).all(|object| super::custom::is_typeable(target, object)),
    };
    if !is_typeable {
        return;
    }
    // An object whose tracking was dropped stays without until it is applied.
    if entries.is_empty() && live.is_some() {
        return;
    }
    let seen = match target.schema {
        None => codec::as_written(target.kind.schema(), new),
        Some(_) => Cow::Borrowed(&*new),
    };
    book(target, (before, &seen), &mut entries, (&manager, now));
    entries::write(new, entries);
}

/// Whether all members of lists that merge by keys have those keys.
fn is_typeable(ty: Type<'_>, value: &Value) -> bool {
    let below = |(key, inner): (&String, &Value)| is_typeable(ty.below(&Step::Field(key.into())), inner);
    match (ty, value) {
        (Type::Struct(_) | Type::Map(_), Value::Object(map)) => map.iter().all(below),
        (Type::Keyed(keys, item), Value::Array(items)) => items.iter().all(|member| {
            let message = item.message();
            let is_there = |key: &&str| {
                let may_lack = message.and_then(|m| m.field(key)).is_some_and(|f| f.omit_empty && f.default.is_empty());
                !may_lack || !member[*key].is_null() && member[*key] != ""
            };
            keys.iter().all(is_there) && message.is_none_or(|m| is_typeable(Type::of_message(m), member))
        }),
        _ => true,
    }
}

/// Whether the managers in the metadata of templates, of which nobody makes use, say of something what they manage.
fn has_readable_managers(value: &Value) -> bool {
    const TEMPLATES: [&str; 4] =
        ["/spec/template", "/spec/jobTemplate", "/spec/jobTemplate/spec/template", "/template"];
    TEMPLATES.iter().filter_map(|path| tree::at(value, path)).all(|template| {
        let managers = tree::list(template, "/metadata/managedFields").iter();
        managers.map(|manager| &manager["fieldsV1"]).all(|fields| fields.is_null() || fields.is_object())
    })
}

/// The entries of an object that is made and never stored: all it says is the writer's.
pub fn of_new(message: &'static Message, object: &Value, (manager, now): (Manager, &str)) -> Value {
    let fields = field_set(Type::of_message(message), object).difference(reset::stripped());
    let mut holder = json!({"metadata": {}});
    entries::write(&mut holder, vec![Entry { manager, time: Some(now.to_owned()), fields }]);
    holder["metadata"]["managedFields"].take()
}

/// The entries to go on from: those the client sends, if it sends any it may send.
fn current(live: Option<&Value>, new: &Value, subresource: bool) -> Vec<Entry> {
    let of_live = || live.map(entries::read).unwrap_or_default();
    if subresource {
        return of_live();
    }
    if entries::is_reset(new) {
        return Vec::new();
    }
    let sent = entries::read(new);
    if sent.is_empty() { of_live() } else { sent }
}

/// Moves what changed from its managers to the writer.
pub(super) fn book(
    target: Target<'_>,
    (old, new): (&Value, &Value),
    entries: &mut Vec<Entry>,
    (manager, now): (&Manager, &str),
) {
    entries::drop_unknown(target.kind, entries);
    let compared = Comparison::of(target.ty(), old, new);
    let compared = reset::filter(target.kind, target.part).of(compared);
    for entry in entries.iter_mut() {
        let in_other = other_version(target.kind, &entry.manager.api_version).map(|other| {
            let shown = |object: &Value| codec::between(target.kind, other, object.clone());
            Comparison::of(Type::of_message(other.schema()), &shown(old), &shown(new))
        });
        let compared = in_other.as_ref().unwrap_or(&compared);
        for taken in [&compared.modified, &compared.added, &compared.removed] {
            entry.fields.subtract(taken);
        }
    }
    let own = compared.added.union(&compared.modified).difference(reset::stripped());
    if !own.is_empty() {
        let at = entries.iter().position(|e| e.manager.is_same(manager));
        let kept = at.map(|at| entries.remove(at));
        let (fields, before) = match kept {
            Some(kept) => (kept.fields.union(&own), kept.time),
            None => (own, None),
        };
        // Who scales is told without a time of its own.
        let time = if manager.subresource == "scale" { before } else { Some(now.to_owned()) };
        entries.push(Entry { manager: manager.clone(), time, fields });
    }
    entries.retain(|e| !e.fields.is_empty());
}

/// The version of a kind that has other fields than the one written.
fn other_version(kind: &'static Kind, version: &str) -> Option<&'static Kind> {
    if crate::custom::is_custom(kind) || version == kind.api_version() {
        return None;
    }
    api::known_name(version, kind.kind).filter(|other| other.message != kind.message)
}

/// Takes the times of the old entries over where nothing but those differs, so that a write without effect has none.
pub fn keep_times(kind: &Kind, old: &Value, new: &mut Value) {
    let entries = |object: &'_ Value| tree::list(object, "/metadata/managedFields").len();
    let pairs = || tree::list(old, "/metadata/managedFields").iter().zip(tree::list(new, "/metadata/managedFields"));
    let counted = ["managedFields", "resourceVersion", "generation"];
    let is_same = || {
        let new = codec::as_stored(kind.schema(), new);
        tree::equal_but(&old["metadata"], &new["metadata"], &counted) && tree::equal_but(old, &new, &["metadata"])
    };
    if entries(old) == entries(new) && pairs().all(|(old, new)| tree::equal_but(old, new, &["time"])) && is_same() {
        let list = old["metadata"]["managedFields"].clone();
        if list.is_array() {
            new["metadata"]["managedFields"] = list;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_their_keys_cannot_be_tracked() {
        let message = codec::schema("k8s.io.api.core.v1.ServiceAccount");
        let typeable = |secrets: Value| is_typeable(Type::of_message(message), &json!({"secrets": secrets}));
        assert!(typeable(json!([{"name": "a"}])) && typeable(json!([])));
        assert!(!typeable(json!([{"kind": "Secret"}])) && !typeable(json!([{"name": "a"}, {}])));
    }
}
