//! What differs between two objects, and which fields one object names.

use serde_json::{Map, Value};

use super::schema::{Form, Type};
use super::set::{Node, Set, Step};

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
        let Touched { added, modified, removed } = Touched::of(ty, (Some(old), Some(new)));
        Self { added: added.below, modified: modified.below, removed: removed.below }
    }
}

/// The same of one value, which may itself be of the set, and what is below it.
#[derive(Default)]
struct Touched {
    added: Node,
    modified: Node,
    removed: Node,
}

impl Touched {
    fn of(ty: Type<'_>, pair: (Option<&Value>, Option<&Value>)) -> Self {
        let mut out = Self::default();
        let (old, new) = pair;
        let (was, is) = (ty.form(old), ty.form(new));
        if old.is_some() && new.is_some() && was != is {
            // A value of another form: what was below the old one goes.
            out.by_form(was, ty, pair);
        }
        let form = if new.is_some() { is } else { was };
        if out.by_form(form, ty, pair) {
            return out;
        }
        match pair {
            (None, Some(_)) => out.added.is_member = true,
            (Some(_), None) => out.removed.is_member = true,
            _ => {}
        }
        out
    }

    /// Compares as values of a form; whether they were compared as one value.
    fn by_form(&mut self, form: Form, ty: Type<'_>, pair: (Option<&Value>, Option<&Value>)) -> bool {
        let is_empty = |side: Option<&Value>| match (form, side) {
            (Form::Map, Some(Value::Object(map))) => map.is_empty(),
            (Form::List, Some(Value::Array(list))) => list.is_empty(),
            _ => true,
        };
        let is_leaf = form == Form::Leaf || is_empty(pair.0) && is_empty(pair.1);
        match (is_leaf, form) {
            (true, _) => match pair {
                (None, Some(_)) => self.added.is_member = true,
                (Some(_), None) => self.removed.is_member = true,
                (Some(old), Some(new)) if !equal(old, new) => self.modified.is_member = true,
                _ => {}
            },
            (_, Form::List) => self.lists(ty, pair),
            _ => self.maps(ty, pair),
        }
        is_leaf
    }

    fn put(&mut self, step: &Step, below: Self) {
        let sets =
            [(&mut self.added, below.added), (&mut self.modified, below.modified), (&mut self.removed, below.removed)];
        for (own, below) in sets {
            if !below.is_empty() {
                own.below.put(step.clone(), below);
            }
        }
    }

    fn maps(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>)) {
        let empty = Map::new();
        let old = old.and_then(Value::as_object).unwrap_or(&empty);
        let new = new.and_then(Value::as_object).unwrap_or(&empty);
        for key in old.keys().chain(new.keys().filter(|k| !old.contains_key(*k))) {
            let step = Step::Field(key.into());
            let below = Self::of(ty.below(&step), (old.get(key), new.get(key)));
            self.put(&step, below);
        }
    }

    fn lists(&mut self, ty: Type<'_>, (old, new): (Option<&Value>, Option<&Value>)) {
        let (old, new) = (grouped(ty, old), grouped(ty, new));
        let steps = old.iter().chain(new.iter().filter(|(s, _)| !old.iter().any(|(o, _)| o == s)));
        for (step, _) in steps {
            let (before, after) = (members(&old, step), members(&new, step));
            let item = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(step) };
            let below = match (before, after) {
                ([] | [_], [] | [_]) => Self::of(item, (before.first().copied(), after.first().copied())),
                ([_, _, ..], [_, _, ..]) if before == after => continue,
                ([_, _, ..], [_, _, ..]) => {
                    Self { modified: Node { is_member: true, ..Node::default() }, ..Self::default() }
                }
                // Several became one or none.
                ([_, _, ..], _) => {
                    let mut below = after.first().map(|one| Self::of(item, (None, Some(one)))).unwrap_or_default();
                    below.removed.is_member = true;
                    below
                }
                // One or none became several.
                (_, _) => {
                    let mut below = before.first().map(|one| Self::of(item, (Some(one), None))).unwrap_or_default();
                    below.added.is_member = true;
                    below
                }
            };
            self.put(step, below);
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
    named(ty, value).below
}

fn named(ty: Type<'_>, value: &Value) -> Node {
    let mut below = Set::default();
    match (ty, value) {
        (Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_) | Type::Deduced, Value::Object(map)) => {
            for (key, inner) in map {
                let step = Step::Field(key.into());
                let mut node = named(ty.below(&step), inner);
                let empty = inner.is_null() || inner.as_object().is_some_and(Map::is_empty);
                node.is_member |= empty || !ty.declares(key);
                below.put(step, node);
            }
        }
        (Type::Keyed(..) | Type::Members(..) | Type::Set, Value::Array(_)) => {
            for (step, members) in grouped(ty, Some(value)) {
                let item = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(&step) };
                // Several members with one key are one value.
                let node = if let [one] = members.as_slice() { named(item, one) } else { Node::default() };
                below.put(step, Node { is_member: true, ..node });
            }
        }
        _ => return Node { is_member: true, below },
    }
    Node { is_member: false, below }
}
