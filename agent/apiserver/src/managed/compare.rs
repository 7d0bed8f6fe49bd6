//! What differs between two objects, and which fields one object names.

use serde_json::{Map, Value};

use super::schema::Type;
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
        out.walk(ty, (Some(old), Some(new)), &mut Vec::new(), false);
        out
    }

    /// Without the members of a set and everything below.
    pub fn without(&self, ignored: &Set) -> Self {
        Self {
            added: self.added.without(ignored),
            modified: self.modified.without(ignored),
            removed: self.removed.without(ignored),
        }
    }

    /// What the new object says otherwise than the old one.
    pub fn written(&self) -> Set {
        self.modified.union(&self.added)
    }

    fn walk(&mut self, ty: Type<'_>, pair: (Option<&Value>, Option<&Value>), path: &mut Vec<Step>, in_leaf: bool) {
        if in_leaf {
            return;
        }
        let (old, new) = pair;
        let is_map = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.is_object());
        let is_list = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.is_array());
        let size = |v: Option<&Value>| match v {
            Some(Value::Object(map)) => map.len(),
            Some(Value::Array(list)) => list.len(),
            _ => 0,
        };
        let both_empty = size(old) == 0 && size(new) == 0;
        let merges = match ty {
            Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_) => is_map(old) && is_map(new),
            Type::Deduced => is_map(old) && is_map(new) && (size(old) + size(new) > 0),
            Type::Keyed(..) | Type::Members(..) | Type::Set => is_list(old) && is_list(new),
            Type::Leaf => false,
        };
        let leaf = !merges || both_empty;
        if leaf {
            match (old, new) {
                (None, Some(_)) => self.added.insert(path),
                (Some(_), None) => self.removed.insert(path),
                (Some(a), Some(b)) if !equal(a, b) => self.modified.insert(path),
                _ => {}
            }
            return;
        }
        match ty {
            Type::Keyed(..) | Type::Members(..) | Type::Set => self.lists(ty, pair, path),
            _ => self.maps(ty, pair, path),
        }
        match (old, new) {
            (None, Some(_)) => self.added.insert(path),
            (Some(_), None) => self.removed.insert(path),
            _ => {}
        }
    }

    fn maps(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>), path: &mut Vec<Step>) {
        let empty = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
            let step = Step::Field(key.clone());
            let below = ty.below(&step);
            path.push(step);
            self.walk(below, (old.get(key), new.get(key)), path, false);
            path.pop();
        }
    }

    fn lists(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>), path: &mut Vec<Step>) {
        let (old, new) = (grouped(ty, old), grouped(ty, new));
        let steps = old.iter().chain(new.iter().filter(|(s, _)| !old.iter().any(|(o, _)| o == s)));
        for (step, _) in steps {
            let find = |side: &[(Step, Vec<&Value>)]| -> Vec<Value> {
                let found = side.iter().find(|(s, _)| s == step);
                found.map_or_else(Vec::new, |(_, items)| items.iter().map(|i| (*i).clone()).collect())
            };
            let (before, after) = (find(&old), find(&new));
            path.push(step.clone());
            match (before.as_slice(), after.as_slice()) {
                ([] | [_], [] | [_]) => {
                    let item = match ty {
                        Type::Set => Type::Leaf,
                        _ => ty.below(step),
                    };
                    self.walk(item, (before.first(), after.first()), path, false);
                }
                ([], _) => self.added.insert(path),
                (_, []) => self.removed.insert(path),
                (a, b) if a != b => self.modified.insert(path),
                _ => {}
            }
            path.pop();
        }
    }
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
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
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
        (Type::Keyed(..) | Type::Members(..) | Type::Set, Value::Array(items)) => {
            for item in items {
                let Some(step) = ty.item_step(item) else { continue };
                let below = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(&step) };
                path.push(step);
                named(below, item, path, set);
                set.insert(path);
                path.pop();
            }
        }
        _ => set.insert(path),
    }
}
