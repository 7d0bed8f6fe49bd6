//! Writes through the scale subresource: one field, which goes by another name there.

use api::Kind;
use serde_json::{Value, json};

use super::apply::conflict;
use super::entries::{self, Entry, Manager};
use super::set::{Set, Step};
use crate::status::Result;
use crate::tree;

/// What a Scale's applier calls the field.
const SHOWN: &str = ".spec.replicas";
/// The version that managers of the field have in the eyes of a Scale's applier.
const VERSION: &str = "autoscaling/v1";

/// A Scale that names its replicas.
pub struct Scaling<'a> {
    /// Where the object has them, as a JSON pointer.
    pub path: &'a str,
    /// How many there were.
    pub was: i64,
    /// Who scales.
    pub manager: Manager,
    /// Whether the field is taken from others.
    pub force: bool,
}

/// Books an applied Scale in the object it was applied to.
///
/// # Errors
/// With a conflict, when others own what changes.
pub fn apply_scale(kind: &Kind, object: &mut Value, scaling: Scaling<'_>) -> Result<()> {
    let path = field(scaling.path);
    let mut entries = entries::read(object);
    entries::drop_unknown(kind, &mut entries);
    // What nobody has somebody has set before anybody was asked.
    if scaling.was != 0 && !entries.iter().any(|e| owns(e, &path)) {
        let (name, api_version) = ("before-first-apply".to_owned(), kind.api_version());
        let manager = Manager { name, applies: false, api_version, subresource: scaling.manager.subresource.clone() };
        entries.push(Entry { time: None, manager, fields: path.clone() });
    }
    let at = entries.iter().position(|e| e.manager.is_same(&scaling.manager));
    let last = at.map(|at| entries.remove(at));
    if scaling.was != replicas(object, scaling.path) {
        let owners = entries.iter_mut().filter(|e| owns(e, &path));
        let mut conflicts = Vec::new();
        for entry in owners {
            entry.fields.subtract(&path);
            let shown = Manager { api_version: VERSION.to_owned(), ..entry.manager.clone() };
            conflicts.push((shown, SHOWN.to_owned()));
        }
        if !scaling.force && !conflicts.is_empty() {
            conflicts.sort();
            return Err(conflict(&conflicts));
        }
    }
    // Who scales is told without a time of its own.
    entries.push(Entry { time: last.and_then(|last| last.time), manager: scaling.manager, fields: path });
    entries::write(object, entries);
    Ok(())
}

/// Books a Scale that was written by any other verb. Without replicas nobody has them, and what nobody has nobody takes:
/// a Scale says them of somebody, or it says nothing.
pub fn track_scale(kind: &Kind, object: &mut Value, scaling: Scaling<'_>) {
    let path = field(scaling.path);
    let mut entries = entries::read(object);
    entries::drop_unknown(kind, &mut entries);
    let replicas = replicas(object, scaling.path);
    if scaling.was != replicas && entries.iter().any(|e| owns(e, &path)) {
        entries.iter_mut().for_each(|entry| entry.fields.subtract(&path));
        if replicas != 0 {
            let at = entries.iter().position(|e| e.manager.is_same(&scaling.manager));
            let last = at.map(|at| entries.remove(at));
            // Who scales is told without a time of its own.
            let (time, fields) = last.map_or((None, path.clone()), |last| (last.time, last.fields.union(&path)));
            entries.push(Entry { manager: scaling.manager, time, fields });
        }
    }
    entries::write(object, entries);
}

/// The managers of an object's replicas, as its Scale names them.
#[must_use]
pub fn scale_managers(object: &Value, path: &str) -> Value {
    let (own, shown) = (field(path), field("/spec/replicas"));
    let mut holder = json!({"metadata": {}});
    let owners = entries::read(object).into_iter().filter(|e| owns(e, &own)).map(|e| Entry {
        manager: Manager { api_version: VERSION.to_owned(), ..e.manager },
        fields: shown.clone(),
        time: e.time,
    });
    entries::write(&mut holder, owners.collect());
    holder["metadata"]["managedFields"].take()
}

fn replicas(object: &Value, path: &str) -> i64 {
    tree::integer(object, path).unwrap_or(0)
}

fn owns(entry: &Entry, path: &Set) -> bool {
    !entry.fields.clone().intersection(path).is_empty()
}

/// The one field at a JSON pointer.
fn field(path: &str) -> Set {
    let steps: Vec<Step> = path.split('/').skip(1).map(|name| Step::Field(name.into())).collect();
    let mut set = Set::default();
    set.insert(&steps);
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(name: &str, applies: bool) -> Manager {
        Manager { name: name.to_owned(), applies, api_version: "apps/v1".to_owned(), subresource: "scale".to_owned() }
    }

    fn deployment() -> Value {
        let mut object = json!({"metadata": {}, "spec": {"replicas": 3}});
        let mut fields = Set::default();
        fields.insert(&["spec", "replicas"].map(|s| Step::Field(s.into())));
        entries::write(&mut object, vec![Entry { manager: manager("other", false), time: None, fields }]);
        object
    }

    fn apply(object: &mut Value, was: i64, force: bool) -> Result<()> {
        let kind = api::kind_by_resource("apps", "v1", "deployments").unwrap();
        apply_scale(kind, object, Scaling { path: "/spec/replicas", was, manager: manager("me", true), force })
    }

    #[test]
    fn replicas_of_others_are_a_conflict_unless_forced() {
        let mut object = deployment();
        let failure = apply(&mut object, 2, false).unwrap_err();
        assert_eq!(
            failure.message(),
            "Apply failed with 1 conflict: conflict with \"other\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
        );
        let mut object = deployment();
        apply(&mut object, 2, true).unwrap();
        let owners: Vec<String> = entries::read(&object).into_iter().map(|e| e.manager.name).collect();
        assert_eq!(owners, ["me"]);
    }

    #[test]
    fn who_scales_takes_the_replicas_and_without_any_nobody_has_them() {
        let scale = |object: &mut Value, replicas: i64| {
            let was = object["spec"]["replicas"].as_i64().unwrap();
            object["spec"]["replicas"] = replicas.into();
            let kind = api::kind_by_resource("apps", "v1", "deployments").unwrap();
            let scaling = Scaling { path: "/spec/replicas", was, manager: manager("me", false), force: false };
            track_scale(kind, object, scaling);
            entries::read(object).into_iter().map(|e| e.manager.name).collect::<Vec<_>>()
        };
        let mut object = deployment();
        assert_eq!(scale(&mut object, 3), ["other"]);
        let shown = scale_managers(&object, "/spec/replicas");
        assert_eq!((&shown[0]["manager"], &shown[0]["apiVersion"]), (&"other".into(), &VERSION.into()));
        assert_eq!(scale(&mut object, 4), ["me"]);
        assert_eq!(scale(&mut object, 0), [""; 0]);
        assert_eq!(scale(&mut object, 5), [""; 0]);
        let failure = apply(&mut object, 4, false).unwrap_err();
        assert!(failure.message().contains("conflict with \"before-first-apply\""), "{}", failure.message());
    }

    #[test]
    fn equal_replicas_are_shared() {
        let mut object = deployment();
        apply(&mut object, 3, false).unwrap();
        let owners: Vec<String> = entries::read(&object).into_iter().map(|e| e.manager.name).collect();
        assert_eq!(owners, ["me", "other"]);
    }
}
