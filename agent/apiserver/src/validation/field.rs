//! Where in an object something is.

use std::fmt;

use serde_json::Value;

/// The path of a field, such as `spec.containers[0].env[1].name`: links on the stack, a text only if it is shown.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
    /// What the client gave; of the root of a path only.
    object: Option<&'a Value>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A field of the object itself.
    #[must_use]
    pub const fn root(name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name), object: None }
    }

    /// A field of an object, of which is known what the client gave.
    #[must_use]
    pub const fn of(object: &'a Value, name: &'a str) -> Self {
        Self { parent: None, step: Step::Name(name), object: Some(object) }
    }

    /// A field of what is at this path.
    #[must_use]
    pub const fn child(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Name(name), object: None }
    }

    /// An item of the list at this path.
    #[must_use]
    pub const fn index(&'a self, index: usize) -> Self {
        Self { parent: Some(self), step: Step::Index(index), object: None }
    }

    /// A value of the map at this path.
    #[must_use]
    pub const fn key(&'a self, key: &'a str) -> Self {
        Self { parent: Some(self), step: Step::Key(key), object: None }
    }
}

impl Path<'_> {
    /// What the client gave here, if that is known.
    #[must_use]
    pub fn given(&self) -> Option<&Value> {
        let holder = match self.parent {
            Some(parent) => parent.given(),
            None => self.object,
        };
        match self.step {
            Step::Name(key) | Step::Key(key) => holder?.get(key),
            Step::Index(index) => holder?.get(index),
        }
    }

    /// Whether the client gave a list or map here that holds nothing, which messages cannot tell from none.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        match self.given() {
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            _ => false,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl From<Path<'_>> for String {
    fn from(path: Path<'_>) -> Self {
        path.to_string()
    }
}

impl From<&Path<'_>> for String {
    fn from(path: &Path<'_>) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_nothing_is_told_from_nothing() {
        let object = serde_json::json!({"spec": {"list": [{"map": {}}]}});
        let spec = Path::of(&object, "spec");
        let list = spec.child("list");
        let item = list.index(0);
        assert!(item.child("map").is_blank() && !list.is_blank() && !item.child("other").is_blank());
        assert!(!Path::root("spec").child("list").is_blank());
    }

    #[test]
    fn a_path_reads_as_clients_know_it() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        assert_eq!(containers.index(2).child("env").key("a.b").to_string(), "spec.containers[2].env[a.b]");
    }
}
