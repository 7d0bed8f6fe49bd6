//! Server-side apply of the scale subresource: one field, which goes by another name there.

use api::Kind;
use serde_json::Value;

use super::apply::conflict;
use super::entries::{self, Entry, Manager};
use super::set::{Set, Step};
use crate::status::Result;
use crate::tree;

/// What a Scale's applier calls the field.
const SHOWN: &str = ".spec.replicas";
/// The version that managers of the field have in the eyes of a Scale's applier.
const VERSION: &str = "autoscaling/v1";

/// An applied Scale that names its replicas.
pub struct Scaling<'a> {
    /// Where the object has them, as a JSON pointer.
    pub path: &'a str,
    /// Whether they become others.
    pub changes: bool,
    /// Who applies.
    pub manager: Manager,
    /// Whether the field is taken from others.
    pub force: bool,
}

/// Books an applied Scale in the object it was applied to.
///
/// # Errors
/// With a conflict, when others own what changes.
pub fn apply_scale(kind: &Kind, object: &mut Value, scaling: Scaling<'_>) -> Result<()> {
    let steps: Vec<Step> = scaling.path.split('/').skip(1).map(|name| Step::Field(name.into())).collect();
    let mut path = Set::default();
    path.insert(&steps);
    let mut entries = entries::read(object);
    entries::drop_unknown(kind, &mut entries);
    let at = entries.iter().position(|e| e.manager.is_same(&scaling.manager));
    let last = at.map(|at| entries.remove(at));
    if scaling.changes {
        let owners = entries.iter_mut().filter(|e| !e.fields.clone().intersection(&path).is_empty());
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
    tree::remove(&mut object["metadata"], "managedFields");
    entries::write(object, entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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

    fn apply(object: &mut Value, changes: bool, force: bool) -> Result<()> {
        let kind = api::kind_by_resource("apps", "v1", "deployments").unwrap();
        apply_scale(kind, object, Scaling { path: "/spec/replicas", changes, manager: manager("me", true), force })
    }

    #[test]
    fn replicas_of_others_are_a_conflict_unless_forced() {
        let mut object = deployment();
        let failure = apply(&mut object, true, false).unwrap_err();
        assert_eq!(
            failure.message(),
            "Apply failed with 1 conflict: conflict with \"other\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
        );
        let mut object = deployment();
        apply(&mut object, true, true).unwrap();
        let owners: Vec<String> = entries::read(&object).into_iter().map(|e| e.manager.name).collect();
        assert_eq!(owners, ["me"]);
    }

    #[test]
    fn equal_replicas_are_shared() {
        let mut object = deployment();
        apply(&mut object, false, false).unwrap();
        let owners: Vec<String> = entries::read(&object).into_iter().map(|e| e.manager.name).collect();
        assert_eq!(owners, ["me", "other"]);
    }
}
