//! The JSON text that a merge patch or a JSON patch leads to.
//!
//! Objects that a patch goes into come out with sorted keys; everything else keeps the order in which it was written.
//! That text is only shown in errors.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::operation::{Operation, place, steps};

/// A value that is read no deeper than a patch goes.
enum Node {
    Raw(Box<RawValue>),
    Map(BTreeMap<String, Node>),
    List(Vec<Node>),
}

impl Node {
    fn of(text: &str) -> Option<Self> {
        RawValue::from_string(text.to_owned()).ok().map(Self::Raw)
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Raw(raw) if raw.get() == "null")
    }

    fn open(&mut self) {
        let Self::Raw(raw) = self else { return };
        let text = raw.get();
        if text.starts_with('{')
            && let Ok(map) = serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(text)
        {
            *self = Self::Map(map.into_iter().map(|(key, raw)| (key, Self::Raw(raw))).collect());
        } else if text.starts_with('[')
            && let Ok(list) = serde_json::from_str::<Vec<Box<RawValue>>>(text)
        {
            *self = Self::List(list.into_iter().map(Self::Raw).collect());
        }
    }

    fn map(&mut self) -> Option<&mut BTreeMap<String, Self>> {
        self.open();
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    fn merge(&mut self, mut patch: Self) {
        if self.map().is_none() {
            patch.prune();
            *self = patch;
            return;
        }
        let (Some(map), Self::Map(changes)) = (self.map(), opened(&mut patch)) else {
            *self = patch;
            return;
        };
        for (key, mut change) in std::mem::take(changes) {
            if change.is_null() {
                map.remove(&key);
                continue;
            }
            match map.get_mut(&key).filter(|have| !have.is_null()) {
                Some(have) => have.merge(change),
                None => {
                    change.prune();
                    map.insert(key, change);
                }
            }
        }
    }

    /// Takes out what says null.
    fn prune(&mut self) {
        self.open();
        match self {
            Self::Map(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(Self::prune);
            }
            Self::List(list) => list.iter_mut().for_each(Self::prune),
            Self::Raw(_) => {}
        }
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Raw(raw) => out.push_str(&html_safe(raw.get())),
            Self::Map(map) => {
                out.push('{');
                for (at, (key, value)) in map.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    out.push_str(&html_safe(&serde_json::Value::from(key.as_str()).to_string()));
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
            Self::List(list) => {
                out.push('[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(',');
                    }
                    value.write(out);
                }
                out.push(']');
            }
        }
    }

    fn at(&mut self, path: &[String]) -> Option<&mut Self> {
        let Some((first, rest)) = path.split_first() else { return Some(self) };
        self.open();
        match self {
            Self::Map(map) => map.get_mut(first)?.at(rest),
            Self::List(list) => {
                let place = place(first, list.len())?;
                list.get_mut(place)?.at(rest)
            }
            Self::Raw(_) => None,
        }
    }

    fn insert(&mut self, path: &[String], value: Self, replaces: bool) -> Option<()> {
        let Some((last, parents)) = path.split_last() else {
            *self = value;
            return Some(());
        };
        let parent = self.at(parents)?;
        parent.open();
        match parent {
            Self::Map(map) => {
                map.insert(last.clone(), value);
            }
            Self::List(list) if last == "-" => list.push(value),
            Self::List(list) => {
                let at = place(last, list.len() + usize::from(!replaces))?;
                if replaces { *list.get_mut(at)? = value } else { list.insert(at, value) }
            }
            Self::Raw(_) => return None,
        }
        Some(())
    }

    fn remove(&mut self, path: &[String]) -> Option<Self> {
        let (last, parents) = path.split_last()?;
        let parent = self.at(parents)?;
        parent.open();
        match parent {
            Self::Map(map) => map.remove(last),
            Self::List(list) => {
                let at = place(last, list.len())?;
                Some(list.remove(at))
            }
            Self::Raw(_) => None,
        }
    }
}

fn opened(node: &mut Node) -> &mut Node {
    node.open();
    node
}

fn html_safe(text: &str) -> String {
    text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn text_of(node: &Node) -> String {
    let mut out = String::new();
    node.write(&mut out);
    out
}

/// The text after a merge patch.
pub(super) fn merged(text: &str, patch: &str) -> Option<String> {
    let mut node = Node::of(text)?;
    node.merge(Node::of(patch)?);
    Some(text_of(&node))
}

/// The text after a JSON patch.
pub(super) fn patched(text: &str, operations: &[Operation]) -> Option<String> {
    let mut node = Node::of(text)?;
    node.open();
    for operation in operations {
        let path: Vec<String> = steps(operation.path.as_deref()?).collect();
        let from: Vec<String> = operation.from.as_deref().map(|from| steps(from).collect()).unwrap_or_default();
        match operation.verb.as_str() {
            verb @ ("add" | "replace") => {
                node.insert(&path, Node::of(&operation.given().to_string())?, verb == "replace")?;
            }
            "remove" => drop(node.remove(&path)),
            "move" => {
                let value = node.remove(&from)?;
                node.insert(&path, value, false)?;
            }
            "copy" => {
                let copied = node.at(&from).map_or_else(|| "null".to_owned(), |found| text_of(found));
                node.insert(&path, Node::of(&copied)?, false)?;
            }
            _ => {}
        }
    }
    Some(text_of(&node))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"kind":"K","b":{"y":1,"x":{"q":"<","p":2}},"a":[{"z":1,"w":2}]}"#;

    #[test]
    fn what_a_merge_goes_into_is_sorted() {
        let text = merged(TEXT, r#"{"b":{"n":{"d":null,"c":1},"y":null}}"#).unwrap();
        assert_eq!(text, r#"{"a":[{"z":1,"w":2}],"b":{"n":{"c":1},"x":{"q":"\u003c","p":2}},"kind":"K"}"#);
        assert_eq!(merged(r#"{"a":1}"#, r#"{"a":{"y":1,"x":2}}"#).unwrap(), r#"{"a":{"x":2,"y":1}}"#);
    }

    #[test]
    fn what_a_json_patch_goes_into_is_sorted() {
        let patch = serde_json::json!([
            {"op": "replace", "path": "/a/0/w", "value": 3}, {"op": "add", "path": "/a/-", "value": {"n": 1, "m": 2}},
            {"op": "remove", "path": "/b/y"},
        ]);
        let operations = patch.as_array().unwrap().iter().map(|o| Operation::read(o.as_object().unwrap().clone()));
        let text = patched(TEXT, &operations.collect::<Result<Vec<_>, _>>().unwrap()).unwrap();
        assert!(text.starts_with(r#"{"a":[{"w":3,"z":1},{""#), "{text}");
        assert!(text.ends_with(r#"],"b":{"x":{"q":"\u003c","p":2}},"kind":"K"}"#), "{text}");
    }
}
