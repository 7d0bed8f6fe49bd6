//! What differs between two objects, and which fields one object names.

use serde_json::{Map, Value};

use super::schema::{Form, Type};
use super::set::{Set, Step};

/// The paths that a change touched.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Only in the new object.
    pub added: Set,
    /// In both, with different values.
    pub modified: Set,
    /// Only in the old object.
    pub removed: Set,
}

impl Comparison {
    /// Compares two objects of one type.
    pub fn of(ty: Type<'_>, old: &Value, new: &Value) -> Self {
        let mut out = Self::default();
        out.walk(ty, (Some(old), Some(new)), &mut Vec::new());
        out
    }

    fn walk(&mut self, ty: Type<'_>, pair: (Option<&Value>, Option<&Value>), path: &mut Vec<Step>) {
        let (old, new) = pair;
        let (was, is) = (ty.form(old), ty.form(new));
        if old.is_some() && new.is_some() && was != is {
            // A value of another form: what was below the old one goes.
            self.by_form(was, ty, pair, path);
        }
        let form = if new.is_some() { is } else { was };
        if self.by_form(form, ty, pair, path) {
            return;
        }
        match pair {
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            _ => {}
        }
    }

    /// Compares as values of a form; whether they were compared as one value.
    fn by_form(
        &mut self,
        form: Form,
        ty: Type<'_>,
        pair: (Option<&Value>, Option<&Value>),
        path: &mut Vec<Step>,
    ) -> bool {
        let is_empty = |side: Option<&Value>| match (form, side) {
            (Form::Map, Some(Value::Object(map))) => map.is_empty(),
            (Form::List, Some(Value::Array(list))) => list.is_empty(),
            _ => true,
        };
        let is_leaf = form == Form::Leaf || is_empty(pair.0) && is_empty(pair.1);
        match (is_leaf, form) {
            (true, _) => match pair {
                (None, Some(_)) => self.added.insert(path),
                (Some(_), None) => self.removed.insert(path),
                (Some(old), Some(new)) if !equal(old, new) => self.modified.insert(path),
                _ => {}
            },
            (_, Form::List) => self.lists(ty, pair, path),
            _ => self.maps(ty, pair, path),
        }
        is_leaf
    }

    fn maps(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>), path: &mut Vec<Step>) {
        let empty = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
            let step = Step::Field(key.clone());
            let below = ty.below(&step);
            path.push(step);
            self.walk(below, (old.get(key), new.get(key)), path);
            path.pop();
        }
    }

    fn lists(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>), path: &mut Vec<Step>) {
        let (old, new) = (grouped(ty, old), grouped(ty, new));
        let steps = old.iter().chain(new.iter().filter(|(s, _)| !old.iter().any(|(o, _)| o == s)));
        for (step, _) in steps {
            let (before, after) = (members(&old, step), members(&new, step));
            path.push(step.clone());
            let item = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(step) };
            match (before, after) {
                ([] | [_], [] | [_]) => self.walk(item, (before.first().copied(), after.first().copied()), path),
                ([_, _, ..], [_, _, ..]) if before == after => {}
                ([_, _, ..], [_, _, ..]) => self.modified.insert(path),
                // Several became one or none.
                ([_, _, ..], _) => {
                    if let Some(one) = after.first().copied() {
                        self.walk(item, (None, Some(one)), path);
                    }
                    self.removed.insert(path);
                }
                // One or none became several.
                (_, _) => {
                    if let Some(one) = before.first().copied() {
                        self.walk(item, (Some(one), None), path);
                    }
                    self.added.insert(path);
                }
            }
            path.pop();
        }
    }
}

/// The members that a step leads to.
fn members<'l, 'v>(list: &'l [(Step, Vec<&'v Value>)], step: &Step) -> &'l [&'v Value] {
    list.iter().find(|(own, _)| own == step).map_or(&[], |(_, members)| members)
}

/// Members of a list by the step that leads to them.
fn grouped<'v>(ty: Type<'_>, list: Option<&'v Value>) -> Vec<(Step, Vec<&'v Value>)> {
    let mut out: Vec<(Step, Vec<&Value>)> = Vec::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        let Some(step) = ty.item_step(item) else { continue };
        match out.iter_mut().find(|(s, _)| *s == step) {
            Some((_, items)) => items.push(item),
            None => out.push((step, vec![item])),
        }
    }
    out
}

/// Whether two values are the same, numbers by their value.
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(a, b)| equal(a, b)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(key, a)| y.get(key).is_some_and(|b| equal(a, b)))
        }
        _ => a == b,
    }
}

/// The fields that an object names.
pub fn field_set(ty: Type<'_>, value: &Value) -> Set {
    let mut set = Set::default();
    named(ty, value, &mut Vec::new(), &mut set);
    set
}

fn named(ty: Type<'_>, value: &Value, path: &mut Vec<Step>, set: &mut Set) {
    match (ty, value) {
        (Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_) | Type::Deduced, Value::Object(map)) => {
            for (key, inner) in map {
                let step = Step::Field(key.clone());
                let below = ty.below(&step);
                path.push(step);
                named(below, inner, path, set);
                let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                if empty || !ty.declares(key) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Type::Keyed(..) | Type::Members(..) | Type::Set, Value::Array(_)) => {
            for (step, members) in grouped(ty, Some(value)) {
                let below = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(&step) };
                path.push(step);
                // Several members with one key are one value.
                if let [one] = members.as_slice() {
                    named(below, one, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}
