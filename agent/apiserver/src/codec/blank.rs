//! Lists, maps and bytes that are there and hold nothing.
//!
//! Messages know only lists and maps that hold something; what is stored and what clients read is the same with and
//! without blank ones. Until then they count: errors show them, some kinds have a new generation by them, and whoever
//! writes them is their manager.

use std::borrow::Cow;

use api::schema::{Field, FieldType, ListType, MESSAGES, Message, Shape};
use serde_json::Value;

/// Puts the blank lists and maps of what a client gave into its canonical form.
pub fn keep(message: &'static Message, whole: &mut Value, given: &Value) {
    let (Shape::Struct, Value::Object(whole), Value::Object(given)) = (message.shape, whole, given) else { return };
    for (key, value) in given {
        let Some(field) = message.field(key) else { continue };
        match whole.get_mut(key).filter(|own| !own.is_null()) {
            Some(own) => keep_below(field, own, value),
            None if is_blank(field, value) => {
                whole.insert(key.clone(), value.clone());
            }
            None => {}
        }
    }
}

fn keep_below(field: &Field, whole: &mut Value, given: &Value) {
    let Some(message) = below(field) else { return };
    match (whole, given) {
        (Value::Array(whole), Value::Array(given)) if field.repeated && whole.len() == given.len() => {
            whole.iter_mut().zip(given).for_each(|(whole, given)| keep(message, whole, given));
        }
        (Value::Object(whole), Value::Object(given)) if is_map(field) => {
            for (key, whole) in whole {
                given.get(key).into_iter().for_each(|given| keep(message, whole, given));
            }
        }
        (whole, given) => keep(message, whole, given),
    }
}

/// The object as its JSON has it, which leaves out what is blank where the field may be left out. Lists that have one
/// owner are compared as they are.
#[must_use]
pub fn as_written<'v>(message: &'static Message, value: &'v Value) -> Cow<'v, Value> {
    let view = View { in_lists: false, nulls: false };
    view.of(message, value)
}

/// The object as it is read once it was stored.
#[must_use]
pub fn as_stored<'v>(message: &'static Message, value: &'v Value) -> Cow<'v, Value> {
    let view = View { in_lists: true, nulls: true };
    view.of(message, value)
}

/// What is left out.
#[derive(Clone, Copy)]
struct View {
    /// Also within lists that have one owner.
    in_lists: bool,
    /// Fields that JSON does not leave out are null.
    nulls: bool,
}

impl View {
    fn of<'v>(self, message: &'static Message, value: &'v Value) -> Cow<'v, Value> {
        if !has_blanks(message, value) {
            return Cow::Borrowed(value);
        }
        let mut value = value.clone();
        self.strip(message, &mut value);
        Cow::Owned(value)
    }

    fn strip(self, message: &'static Message, value: &mut Value) {
        let (Shape::Struct, Value::Object(map)) = (message.shape, value) else { return };
        map.retain(|key, value| {
            let Some(field) = message.field(key) else { return true };
            if !is_blank(field, value) {
                self.strip_below(field, value);
                return true;
            }
            if self.nulls && !field.omit_empty {
                *value = Value::Null;
            }
            !field.omit_empty
        });
    }

    fn strip_below(self, field: &Field, value: &mut Value) {
        let Some(message) = below(field) else { return };
        match value {
            Value::Array(items) if field.repeated => {
                let is_one = !matches!(field.list, ListType::Map(_) | ListType::Set);
                if self.in_lists || !is_one {
                    items.iter_mut().for_each(|item| self.strip(message, item));
                }
            }
            Value::Object(map) if is_map(field) => map.values_mut().for_each(|item| self.strip(message, item)),
            value => self.strip(message, value),
        }
    }
}

fn has_blanks(message: &'static Message, value: &Value) -> bool {
    let (Shape::Struct, Value::Object(map)) = (message.shape, value) else { return false };
    map.iter()
        .any(|(key, value)| message.field(key).is_some_and(|field| is_blank(field, value) || any_below(field, value)))
}

fn any_below(field: &Field, value: &Value) -> bool {
    let Some(message) = below(field) else { return false };
    match value {
        Value::Array(items) if field.repeated => items.iter().any(|item| has_blanks(message, item)),
        Value::Object(map) if is_map(field) => map.values().any(|item| has_blanks(message, item)),
        value => has_blanks(message, value),
    }
}

fn is_map(field: &Field) -> bool {
    matches!(field.ty, FieldType::Map(_))
}

fn is_blank(field: &Field, value: &Value) -> bool {
    match value {
        Value::Array(list) => field.repeated && list.is_empty(),
        Value::Object(map) => is_map(field) && map.is_empty(),
        Value::String(text) => field.bytes && text.is_empty(),
        _ => false,
    }
}

/// The message of the field, of its items or of its values.
fn below(field: &Field) -> Option<&'static Message> {
    match field.ty {
        FieldType::Message(index) => Some(&MESSAGES[index]),
        FieldType::Map(ty) => ty.message(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROLE: &str = "k8s.io.api.rbac.v1.Role";

    #[test]
    fn blanks_stay_until_an_object_is_stored() {
        let role = crate::codec::schema(ROLE);
        let given = json!({"metadata": {"labels": {}, "bogus": []}, "rules": [{"verbs": [], "resourceNames": []}]});
        let canonical = json!({"metadata": {}, "rules": [{"verbs": null}]});
        let mut whole = canonical.clone();
        keep(role, &mut whole, &given);
        let kept = json!({"metadata": {"labels": {}}, "rules": [{"verbs": [], "resourceNames": []}]});
        assert_eq!(whole, kept);
        assert_eq!(*as_stored(role, &kept), canonical);
        assert!(matches!(as_stored(role, &canonical), Cow::Borrowed(_)));
    }

    #[test]
    fn json_leaves_blanks_out_that_are_no_part_of_a_list_with_one_owner() {
        let role = crate::codec::schema(ROLE);
        let kept = json!({"metadata": {"labels": {}}, "rules": [{"verbs": [], "resourceNames": []}]});
        let written = json!({"metadata": {}, "rules": [{"verbs": [], "resourceNames": []}]});
        assert_eq!(*as_written(role, &kept), written);
        assert_eq!(*as_written(role, &json!({"rules": []})), json!({"rules": []}));
    }
}
