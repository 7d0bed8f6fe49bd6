//! What an object that exists already lacks; pure.

use serde_json::{Map, Value};

use super::{
    AUTOUPDATE_ANNOTATION, AUTOUPDATE_SPEC_ANNOTATION, FLOW_CONTROL, Object, RBAC, empty_list, parse_rule, parse_rules,
};
use crate::auth::authz::rbac::missing_rights;

/// What to do with an object that exists.
#[derive(Clone, Debug, PartialEq)]
pub enum Reconciled {
    /// Nothing.
    Keep,
    /// Write this in its place.
    Update(Value),
    /// Delete it and make it anew: a binding cannot change its role.
    Recreate,
}

/// Compares an object with how it was made.
#[must_use]
pub fn reconcile(existing: &Value, wanted: &Object) -> Reconciled {
    let annotation = |name: &str| existing.get("metadata")?.get("annotations")?.get(name)?.as_str();
    match wanted.kind.group {
        RBAC if annotation(AUTOUPDATE_ANNOTATION) == Some("false") => Reconciled::Keep,
        RBAC => reconcile_rbac(existing, &wanted.value),
        FLOW_CONTROL if annotation(AUTOUPDATE_SPEC_ANNOTATION) == Some("true") => {
            update_if(existing, |object| object["spec"] = wanted.value["spec"].clone())
        }
        "apiregistration.k8s.io" => update_if(existing, |object| object["spec"] = wanted.value["spec"].clone()),
        _ => Reconciled::Keep,
    }
}

fn update_if(existing: &Value, change: impl FnOnce(&mut Value)) -> Reconciled {
    let mut changed = existing.clone();
    change(&mut changed);
    if changed == *existing { Reconciled::Keep } else { Reconciled::Update(changed) }
}

fn reconcile_rbac(existing: &Value, wanted: &Value) -> Reconciled {
    let role = |binding: &Value| {
        let part = |name: &str| binding.pointer(&format!("/roleRef/{name}")).and_then(Value::as_str).map(str::to_owned);
        (part("kind"), part("name"))
    };
    if role(existing) != role(wanted) {
        return Reconciled::Recreate;
    }
    update_if(existing, |object| {
        for map in ["labels", "annotations"] {
            add_entries(&mut object["metadata"], map, &wanted["metadata"][map]);
        }
        add_rules(object, wanted);
        add_subjects(object, wanted);
        if let Some(rule) = wanted.get("aggregationRule") {
            add_selectors(object, rule);
        }
    })
}

/// Adds the entries of a map that are not there; what is there keeps its value.
fn add_entries(metadata: &mut Value, field: &str, wanted: &Value) {
    let Some(wanted) = wanted.as_object() else { return };
    if !metadata[field].is_object() {
        metadata[field] = Value::Object(Map::new());
    }
    for (key, value) in wanted {
        if metadata[field].get(key).is_none() {
            metadata[field][key] = value.clone();
        }
    }
}

fn add_rules(object: &mut Value, wanted: &Value) {
    let held = parse_rules(object);
    let rules = wanted.get("rules").and_then(Value::as_array).into_iter().flatten();
    let is_missing =
        |rule: &&Value| rule.as_object().is_some_and(|rule| !missing_rights(&held, &[parse_rule(rule)]).is_empty());
    let missing: Vec<Value> = rules.filter(is_missing).cloned().collect();
    extend(object, "rules", missing);
}

fn add_subjects(object: &mut Value, wanted: &Value) {
    let identity = |subject: &Value| {
        let part = |name: &str| subject.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        (part("kind"), part("namespace"), part("name"))
    };
    let list = |of: &Value| of.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let held: Vec<_> = list(object).iter().map(identity).collect();
    let missing = list(wanted).into_iter().filter(|subject| !held.contains(&identity(subject))).collect();
    extend(object, "subjects", missing);
}

fn add_selectors(object: &mut Value, wanted: &Value) {
    const SELECTORS: &str = "clusterRoleSelectors";
    if !object["aggregationRule"].is_object() {
        object["aggregationRule"] = Value::Object(Map::new());
    }
    let held = object["aggregationRule"][SELECTORS].as_array().cloned().unwrap_or_default();
    let missing = wanted[SELECTORS].as_array().into_iter().flatten().filter(|selector| !held.contains(selector));
    extend(&mut object["aggregationRule"], SELECTORS, missing.cloned().collect());
}

fn extend(object: &mut Value, field: &str, missing: Vec<Value>) {
    if missing.is_empty() {
        return;
    }
    if !object[field].is_array() {
        object[field] = empty_list();
    }
    if let Some(list) = object[field].as_array_mut() {
        list.extend(missing);
    }
}

#[cfg(test)]
mod tests {
    use api::features::Features;
    use serde_json::{Value, json};

    use super::{Reconciled, reconcile};
    use crate::auth::bootstrap::{Object, objects};

    fn made(plural: &str, name: &str) -> Object {
        objects(&Features::default(), 0)
            .into_iter()
            .find(|object| object.kind.plural == plural && object.name == name)
            .unwrap()
    }

    fn changed(object: &Object, change: impl FnOnce(&mut Value)) -> Value {
        let mut value = object.value.clone();
        change(&mut value);
        value
    }

    #[test]
    fn untouched_objects_are_kept() {
        for object in objects(&Features::default(), 0) {
            assert_eq!(reconcile(&object.value, &object), Reconciled::Keep, "{}", object.name);
        }
    }

    #[test]
    fn lost_rules_and_subjects_come_back_and_added_ones_stay() {
        let role = made("clusterroles", "system:node-proxier");
        let own = json!({ "verbs": ["get"], "apiGroups": [""], "resources": ["secrets"] });
        let edited = changed(&role, |value| value["rules"] = json!([own]));
        let Reconciled::Update(result) = reconcile(&edited, &role) else { panic!("rules are missing") };
        let count = role.value["rules"].as_array().unwrap().len();
        assert_eq!((&result["rules"][0], result["rules"].as_array().unwrap().len()), (&own, count + 1));

        let binding = made("clusterrolebindings", "keelson:node-proxier");
        let edited = changed(&binding, |value| value["subjects"] = Value::Null);
        assert_eq!(reconcile(&edited, &binding), Reconciled::Update(binding.value.clone()));
        let wider = changed(&role, |value| {
            value["rules"] = json!([{ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }]);
        });
        assert_eq!(reconcile(&wider, &role), Reconciled::Keep, "covered rules are not missing");
    }

    #[test]
    fn objects_taken_over_by_their_owner_are_left_alone() {
        let role = made("clusterroles", "system:node-proxier");
        let owned = changed(&role, |value| {
            value["rules"] = json!([]);
            value["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
        });
        assert_eq!(reconcile(&owned, &role), Reconciled::Keep);
        let namespace = made("namespaces", "default");
        let labelled = changed(&namespace, |value| value["metadata"]["labels"] = json!({ "a": "b" }));
        assert_eq!(reconcile(&labelled, &namespace), Reconciled::Keep);
    }

    #[test]
    fn binding_to_another_role_is_made_anew() {
        let binding = made("clusterrolebindings", "cluster-admin");
        let other = changed(&binding, |value| value["roleRef"]["name"] = "view".into());
        assert_eq!(reconcile(&other, &binding), Reconciled::Recreate);
    }

    #[test]
    fn flow_control_is_put_back_only_where_asked_for() {
        let level = made("prioritylevelconfigurations", "system");
        let edited = changed(&level, |value| value["spec"]["type"] = "Exempt".into());
        assert_eq!(reconcile(&edited, &level), Reconciled::Update(level.value.clone()));
        let owned = changed(&level, |value| {
            value["spec"]["type"] = "Exempt".into();
            value["metadata"]["annotations"] = json!({});
        });
        assert_eq!(reconcile(&owned, &level), Reconciled::Keep);
    }
}
