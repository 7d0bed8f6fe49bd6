//! Merging an applied configuration into an object, and taking fields out of one.

use serde_json::{Map, Value};

use super::schema::{Form, Target, Type};
use super::set::{Set, Step};

/// The object with everything the configuration says.
pub fn merge(ty: Type<'_>, live: Option<&Value>, config: Option<&Value>) -> Value {
    let form = ty.form(config.or(live));
    let leaf = || config.or(live).cloned().unwrap_or_default();
    match form {
        Form::Leaf => leaf(),
        Form::Map => {
            let empty = Map::new();
            let old = live.and_then(Value::as_object).unwrap_or(&empty);
            let new = config.and_then(Value::as_object).unwrap_or(&empty);
            if old.is_empty() && new.is_empty() {
                return leaf();
            }
            let keys = old.keys().chain(new.keys().filter(|k| !old.contains_key(*k)));
            let merged = keys.map(|key| {
                let below = ty.below(&Step::Field(key.into()));
                (key.clone(), merge(below, old.get(key), new.get(key)))
            });
            Value::Object(merged.collect())
        }
        Form::List => {
            fn of(side: Option<&Value>) -> &[Value] {
                side.and_then(Value::as_array).map_or(&[], Vec::as_slice)
            }
            match (of(live), of(config)) {
                ([], []) => leaf(),
                (live, config) => Value::Array(merge_lists(ty, live, config)),
            }
        }
    }
}

/// The type of what is merged.
#[derive(Clone, Copy)]
pub enum Shape<'s> {
    /// A message that is no object of its own.
    Message(&'static api::schema::Message),
    /// An object.
    Target(Target<'s>),
}

/// The object with a configuration merged into it, whoever owns the fields.
///
/// # Errors
/// When the configuration does not fit the type, or names members of what is one value.
pub fn merge_config(shape: Shape<'_>, object: &Value, config: &Value) -> Result<Value, String> {
    let (ty, misfits) = match shape {
        Shape::Message(message) => (Type::of_message(message), super::misfits_of(message, config)),
        Shape::Target(target) => (target.ty(), super::misfits(target, config)),
    };
    if let Some(why) = misfits {
        return Err(format!("error applying patch: failed to convert patch object to typed object: {why}"));
    }
    let mut whole = Vec::new();
    whole_values(ty, config, "", &mut whole);
    if !whole.is_empty() {
        let list = whole.join(", ");
        return Err(format!(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {list}"
        ));
    }
    Ok(merge(ty, Some(object), Some(config)))
}

fn whole_values(ty: Type<'_>, value: &Value, path: &str, found: &mut Vec<String>) {
    match (ty, value) {
        (Type::Leaf, Value::Object(_) | Value::Array(_)) | (Type::Deduced | Type::Struct(_), Value::Array(_)) => {
            found.push(path.to_owned());
        }
        (_, Value::Object(map)) => {
            for (key, inner) in map {
                let step = Step::Field(key.into());
                whole_values(ty.below(&step), inner, &format!("{path}.{key}"), found);
            }
        }
        (Type::Keyed(..) | Type::Members(..), Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                if let Some(step) = ty.item_step(item) {
                    whole_values(ty.below(&step), item, &format!("{path}[{i}]"), found);
                }
            }
        }
        _ => {}
    }
}

fn find<'v>(side: &[(Step, &'v Value)], step: &Step) -> Option<&'v Value> {
    side.iter().find(|(s, _)| s == step).map(|(_, v)| *v)
}

/// Members of the configuration in its order; what only the object has stays where it was among the shared ones.
fn merge_lists(ty: Type<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    fn steps<'v>(ty: Type<'_>, list: &'v [Value]) -> Vec<(Step, &'v Value)> {
        list.iter().filter_map(|item| Some((ty.item_step(item)?, item))).collect()
    }
    let (left, right) = (steps(ty, live), steps(ty, config));
    let both = |step: &Step| {
        let below = if matches!(ty, Type::Set) { Type::Leaf } else { ty.below(step) };
        // Nothing tells which of several members with one key is meant: the configuration's takes their place.
        let is_single = left.iter().filter(|(s, _)| s == step).count() == 1;
        merge(below, find(&left, step).filter(|_| is_single), find(&right, step))
    };
    let mut shared = right.iter().map(|(s, _)| s).filter(|s| find(&left, s).is_some());
    let mut next = shared.next();
    let mut done: Vec<&Step> = Vec::new();
    let (mut l, mut r) = (0, 0);
    let mut out = Vec::new();
    while l < left.len() || r < right.len() {
        if let (Some((own, _)), Some((theirs, _))) = (left.get(l), right.get(r)) {
            if own == theirs {
                done.push(own);
                out.push(both(own));
                (l, r, next) = (l + 1, r + 1, shared.next());
                continue;
            }
            if find(&right, own).is_some() && next.is_some_and(|n| n != own) {
                l += 1;
                continue;
            }
        }
        if let Some((own, item)) = left.get(l) {
            if find(&right, own).is_none() {
                out.push((*item).clone());
                l += 1;
                continue;
            }
            if done.contains(&own) {
                l += 1;
            }
        }
        if let Some((theirs, _)) = right.get(r) {
            done.push(theirs);
            out.push(both(theirs));
            r += 1;
            if next == Some(theirs) {
                next = shared.next();
            }
        }
    }
    out
}

/// The object without the members of a set.
pub fn remove(ty: Type<'_>, value: &Value, gone: &Set) -> Value {
    match (ty, value) {
        (Type::Struct(_) | Type::Map(_) | Type::Object(..) | Type::Values(_) | Type::Deduced, Value::Object(map))
            if !map.is_empty() =>
        {
            let mut out = Map::new();
            for (key, inner) in map {
                let step = Step::Field(key.into());
                if gone.has(&step) {
                    continue;
                }
                let kept = match gone.below(&step) {
                    Some(below) => remove(ty.below(&step), inner, below),
                    None => inner.clone(),
                };
                out.insert(key.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Type::Keyed(..) | Type::Members(..) | Type::Set, Value::Array(items)) if !items.is_empty() => {
            let mut out = Vec::new();
            for item in items {
                let Some(step) = ty.item_step(item) else { continue };
                if gone.has(&step) {
                    continue;
                }
                out.push(match gone.below(&step) {
                    Some(below) => remove(ty.below(&step), item, below),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => value.clone(),
    }
}

/// The set with every declared field on the way to a member made a member too.
pub fn with_named_fields(ty: Type<'_>, mut set: Set) -> Set {
    name_fields(ty, &mut set);
    set
}

fn name_fields(ty: Type<'_>, set: &mut Set) {
    for (step, is_member, below) in set.iter_mut() {
        *is_member |= !below.is_empty() && matches!(step, Step::Field(name) if ty.declares(name));
        name_fields(ty.below(step), below);
    }
}
