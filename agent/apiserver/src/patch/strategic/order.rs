//! Where the items of merged lists go.

use serde_json::{Map, Value};

use super::{Below, LIST, MAP, ORDER, PATCH, are_maps, bad_format, bad_type, failed, merge_list, no_merge_key};
use super::{strategy, without_directives};
use crate::codec::go_map;
use crate::status::Result;

/// Merges the lists whose order the patch gives, and takes them out of the patch.
pub(super) fn merge_ordered(below: Below, old: &mut Map<String, Value>, patch: &mut Map<String, Value>) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let order = list(order)?;
        let name = directive.strip_prefix(ORDER).and_then(|rest| rest.strip_prefix('/'));
        let name = name.ok_or_else(|| bad_format("setElementOrder list"))?;
        let had = old.get(name).cloned().map(list).transpose()?;
        let change = patch.get(name).cloned().map(list).transpose()?;
        let field = below.field(name)?;
        let key = field.merge_key;
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let before = had.clone().unwrap_or_default();
        let of_maps = || are_maps(&before, change.as_deref().unwrap_or_default());
        let merged = match (had, change.clone()) {
            (None, None) => continue,
            (Some(had), None) => had,
            (None, Some(change)) => change.into_iter().filter_map(without_directives).collect(),
            (Some(had), Some(change)) if strategy(field) == "merge" => merge_list(field, had, change, false)?,
            (Some(_), Some(change)) => change,
        };
        let of_maps = of_maps()?;
        let parts = split(merged, &order, key)?;
        let arranged = arranged(parts, (&order, &before), key, of_maps)?;
        old.insert(name.to_owned(), Value::Array(arranged));
        patch.remove(name);
    }
    Ok(())
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(bad_type(LIST, &other)),
    }
}

/// What tells an item of a list from the others.
fn id<'v>(item: &'v Value, key: &str) -> &'v Value {
    if key.is_empty() { item } else { item.get(key).unwrap_or(&Value::Null) }
}

/// The items of a patch have to be among those that are ordered, in that order.
fn check_order(patch: &[Value], order: &[Value], key: &str) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let is_deletion = |item: &Value| item.get(PATCH).is_some_and(|d| d == "delete");
    let mut left = patch.iter().filter(|item| key.is_empty() || !is_deletion(item)).peekable();
    let mut places = order.iter();
    while let Some(item) = left.peek() {
        if !key.is_empty() && item.get(PATCH).is_some() {
            left.next();
            continue;
        }
        let Some(place) = places.next() else {
            let shown = |list: &[Value]| go_map(&Value::from(list));
            return Err(failed(format!(
                "The order in patch list:\n{}\n doesn't match {ORDER} list:\n{}\n",
                shown(patch),
                shown(order)
            )));
        };
        check_key(item, key)?;
        check_key(place, key)?;
        if id(item, key) == id(place, key) {
            left.next();
        }
    }
    Ok(())
}

fn check_key(item: &Value, key: &str) -> Result<()> {
    match item {
        _ if key.is_empty() => Ok(()),
        Value::Object(map) if map.contains_key(key) => Ok(()),
        Value::Object(_) => Err(no_merge_key(item, key)),
        other => Err(bad_type(MAP, other)),
    }
}

/// Items that `by` names, and those that only the server has.
pub(super) fn split(merged: Vec<Value>, by: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    merged.iter().try_for_each(|item| check_key(item, key))?;
    Ok(merged.into_iter().partition(|item| by.iter().any(|named| id(named, key) == id(item, key))))
}

/// Puts each part into its order and weaves them together.
pub(super) fn arranged(
    (of_patch, of_server): (Vec<Value>, Vec<Value>),
    (patch_order, server_order): (&[Value], &[Value]),
    key: &str,
    of_maps: bool,
) -> Result<Vec<Value>> {
    let of_patch = sorted(of_patch, patch_order, key, of_maps)?;
    let of_server = sorted(of_server, server_order, key, of_maps)?;
    let place = |item: &Value| server_order.iter().position(|other| id(other, key) == id(item, key));
    let (mut left, mut right) = (of_server.into_iter().peekable(), of_patch.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let next = match (left.peek(), right.peek()) {
            (Some(l), Some(r)) => match (place(l), place(r)) {
                (Some(l), Some(r)) if l < r => left.next(),
                _ => right.next(),
            },
            (Some(_), None) => left.next(),
            (None, _) => right.next(),
        };
        match next {
            Some(item) => out.push(item),
            None => return Ok(out),
        }
    }
}

/// Sorts by an order. What the order does not know goes before what it follows, one item at a time, as insertion sort
/// does with a comparison that says "less" whenever it does not know: clients see that order.
fn sorted(mut items: Vec<Value>, order: &[Value], key: &str, of_maps: bool) -> Result<Vec<Value>> {
    if of_maps {
        items.iter().chain(order).try_for_each(|item| check_key(item, key))?;
    }
    let (deleted, mut items): (Vec<Value>, Vec<Value>) =
        items.drain(..).partition(|item| of_maps && item.get(PATCH).is_some_and(|d| d == "delete"));
    let place = |item: &Value| order.iter().position(|other| id(other, key) == id(item, key));
    for end in 1..items.len() {
        for at in (1..=end).rev() {
            let less = match (place(&items[at]), place(&items[at - 1])) {
                (Some(own), Some(before)) => own < before,
                _ => true,
            };
            if !less {
                break;
            }
            items.swap(at, at - 1);
        }
    }
    items.extend(deleted);
    Ok(items)
}
