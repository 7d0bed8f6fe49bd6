//! An operation of a JSON patch. Clients know them in the way of the library that upstream uses, which allows more than
//! RFC 6902: places in lists may be counted from the end, a value that is not given is null, a key that an object does
//! not have may be replaced and copied.

use serde_json::{Map, Value};

use super::bounds;

/// What operations do.
const VERBS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];

/// An operation as it was written; whether it can be done shows when it is.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    pub(super) verb: String,
    pub(super) path: Option<String>,
    pub(super) from: Option<String>,
    pub(super) value: Option<Value>,
}

impl Operation {
    /// The operation that a patch names, or which of its fields is of another type: its name and what it has. A patch
    /// that is no object has no operation; it cannot be done.
    pub(crate) fn read(mut fields: Map<String, Value>) -> Result<Self, (&'static str, Value)> {
        let mut text = |key: &'static str| match fields.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err((key, other)),
        };
        let (verb, path, from) = (text("op")?.unwrap_or_default(), text("path")?, text("from")?);
        Ok(Self { verb, path, from, value: fields.remove("value") })
    }

    /// What it puts where it goes to.
    pub(super) fn given(&self) -> Value {
        self.value.clone().unwrap_or_default()
    }

    /// Does it; nothing if it cannot be done. `copied` counts over all operations of a patch.
    pub(super) fn apply(&self, target: &mut Value, copied: &mut usize) -> Option<()> {
        let path = self.path.as_deref()?;
        match self.verb.as_str() {
            "add" => add(target, path, self.given()),
            "remove" => remove(target, path).map(drop),
            "replace" => replace(target, path, self.given()),
            "move" => {
                let value = remove(target, self.from.as_deref()?)?;
                add(target, path, value)
            }
            "copy" => {
                let value = get(target, self.from.as_deref()?)?.clone();
                bounds::count(&value, copied)?;
                add(target, path, value)
            }
            "test" if path.is_empty() => (Some(&*target) == self.value.as_ref()).then_some(()),
            "test" => (*get(target, path)? == self.given()).then_some(()),
            _ => None,
        }
    }

    /// Whether it changes nothing, and only asks.
    pub(crate) fn is_test(&self) -> bool {
        self.verb == "test"
    }

    /// Does it, or says why it cannot be done, in the words of the library that upstream uses.
    pub(crate) fn apply_or_tell(&self, target: &mut Value, copied: &mut usize) -> Result<(), String> {
        self.apply(target, copied).ok_or_else(|| self.complaint(target))
    }

    fn complaint(&self, target: &Value) -> String {
        let (verb, path) = (self.verb.as_str(), self.path.as_deref().unwrap_or_default());
        if !VERBS.contains(&verb) {
            return format!("Unexpected kind: {}", if verb.is_empty() { "unknown" } else { verb });
        }
        if self.is_test() {
            return format!("testing value {path} failed: test failed");
        }
        let (parent, key) = path.rsplit_once('/').unwrap_or_default();
        match target.pointer(parent) {
            Some(Value::Object(_)) if verb == "remove" => {
                let key = key.replace("~1", "/").replace("~0", "~");
                format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
            }
            Some(Value::Array(_)) => {
                let why = format!("Unable to access invalid index: {key}: invalid index referenced");
                format!("error in {verb} for path: '{path}': {why}")
            }
            _ => format!("{verb} operation does not apply: doc is missing path: \"{path}\": missing value"),
        }
    }
}

/// The steps of a path.
pub(super) fn steps(path: &str) -> impl Iterator<Item = String> {
    path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"))
}

/// The place in a list that a step names, of so many that there are.
pub(super) fn place(step: &str, len: usize) -> Option<usize> {
    let wanted: i64 = step.parse().ok()?;
    let len_signed = i64::try_from(len).ok()?;
    let at = if wanted < 0 { wanted + len_signed } else { wanted };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// What holds the end of a path, and the end. The root is in nothing.
fn parent<'v>(target: &'v mut Value, path: &str) -> Option<(&'v mut Value, String)> {
    let mut steps: Vec<String> = steps(path).collect();
    let last = steps.pop()?;
    let mut at = target;
    for step in steps {
        at = match at {
            Value::Object(map) => map.get_mut(&step)?,
            Value::Array(list) => {
                let place = place(&step, list.len())?;
                &mut list[place]
            }
            _ => return None,
        };
    }
    (at.is_object() || at.is_array()).then_some((at, last))
}

/// What lies at a path: null where an object has no such key.
fn get<'v>(target: &'v mut Value, path: &str) -> Option<&'v Value> {
    match parent(target, path)? {
        (Value::Object(map), key) => Some(map.get(&key).unwrap_or(&Value::Null)),
        (Value::Array(list), step) => {
            let place = place(&step, list.len())?;
            Some(&list[place])
        }
        _ => None,
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    bounds::check(path, &value)?;
    match parent(target, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), step) if step == "-" => list.push(value),
        (Value::Array(list), step) => {
            let place = place(&step, list.len() + 1)?;
            list.insert(place, value);
        }
        _ => return None,
    }
    Some(())
}

fn remove(target: &mut Value, path: &str) -> Option<Value> {
    match parent(target, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), step) => {
            let place = place(&step, list.len())?;
            Some(list.remove(place))
        }
        _ => None,
    }
}

fn replace(target: &mut Value, path: &str, value: Value) -> Option<()> {
    bounds::check(path, &value)?;
    if path.is_empty() {
        let is_document = value.is_object() || value.is_array();
        *target = value;
        return is_document.then_some(());
    }
    match parent(target, path)? {
        (Value::Object(map), key) => drop(map.insert(key, value)),
        (Value::Array(list), step) => {
            let place = place(&step, list.len())?;
            list[place] = value;
        }
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn after(operation: Value) -> Option<Value> {
        let mut target = json!({"m": {"a/b": 1, "n": null}, "l": [1, 2]});
        let Value::Object(fields) = operation else { return None };
        Operation::read(fields).unwrap().apply(&mut target, &mut 0).map(|()| target)
    }

    fn list_after(operation: Value) -> Option<Value> {
        after(operation).map(|mut target| target["l"].take())
    }

    #[test]
    fn places_are_counted_from_either_end() {
        let add = |step: &str| list_after(json!({"op": "add", "path": format!("/l/{step}"), "value": 0}));
        let expected = [("0", json!([0, 1, 2])), ("+1", json!([1, 0, 2])), ("-1", json!([1, 2, 0]))];
        for (step, list) in expected.into_iter().chain([("-3", json!([0, 1, 2])), ("-", json!([1, 2, 0]))]) {
            assert_eq!(add(step), Some(list), "{step}");
        }
        assert_eq!([add("3"), add("-4"), add("x"), add(" 1"), add("99999999999999999999")], [const { None }; 5]);
        let remove = |step: &str| list_after(json!({"op": "remove", "path": format!("/l/{step}")}));
        assert_eq!([remove("-2"), remove("1"), remove("2")], [Some(json!([2])), Some(json!([1])), None]);
        let replace = |step: &str| list_after(json!({"op": "replace", "path": format!("/l/{step}"), "value": 0}));
        assert_eq!([replace("-1"), replace("2"), replace("-")], [Some(json!([1, 0])), None, None]);
    }

    #[test]
    fn what_is_not_there_is_null() {
        let map_after = |operation| after(operation).map(|mut target| target["m"].take());
        let with = |key: &str| Some(json!({"a/b": 1, "n": null, key: null}));
        assert_eq!(map_after(json!({"op": "add", "path": "/m/x"})), with("x"));
        assert_eq!(map_after(json!({"op": "replace", "path": "/m/x"})), with("x"));
        assert_eq!(map_after(json!({"op": "copy", "from": "/m/none", "path": "/m/x"})), with("x"));
        assert_eq!(map_after(json!({"op": "add", "path": "/m/~2", "value": null})), with("~2"));
        assert!(after(json!({"op": "test", "path": "/m/none", "value": null})).is_some());
        assert!(after(json!({"op": "test", "path": "/m/none"})).is_some());
        assert!(after(json!({"op": "test", "path": "/m/a~1b"})).is_none());
        assert!(after(json!({"op": "test", "path": "/m/a~1b", "value": 1.0})).is_none());
        assert!(after(json!({"op": "remove", "path": "/m/none"})).is_none());
        assert!(after(json!({"op": "move", "from": "/m/none", "path": "/m/x"})).is_none());
        assert!(after(json!({"op": "test", "path": "/none/none", "value": null})).is_none());
    }

    #[test]
    fn the_root_is_only_replaced_and_tested() {
        assert_eq!(after(json!({"op": "replace", "path": "", "value": {"a": 1}})), Some(json!({"a": 1})));
        assert!(after(json!({"op": "replace", "path": "", "value": null})).is_none());
        for verb in ["add", "remove", "move", "copy"] {
            assert!(after(json!({"op": verb, "path": "", "from": "/m", "value": {}})).is_none(), "{verb}");
            assert!(after(json!({"op": verb, "path": "m", "from": "/m", "value": {}})).is_none(), "{verb}");
        }
        assert!(after(json!({"op": "test", "path": "", "value": {}})).is_none());
    }

    #[test]
    fn fields_of_other_types_are_named() {
        let read = |value: Value| Operation::read(value.as_object().unwrap().clone());
        assert_eq!(read(json!({"op": 1})).unwrap_err(), ("op", json!(1)));
        assert_eq!(read(json!({"op": "copy", "from": []})).unwrap_err(), ("from", json!([])));
        assert!(read(json!({"op": null, "path": null})).unwrap().apply(&mut json!({}), &mut 0).is_none());
    }
}
