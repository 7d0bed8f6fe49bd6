//! Whether an applied configuration fits the schema, told in the words that clients know.
//!
//! The check is looser than decoding: numbers are numbers whatever their size, and times, quantities and the like are
//! any scalar. What passes here and still is no object fails when it is converted.

use api::schema::{Field, FieldType, ListType, MESSAGES, Message, Shape};
use serde_json::{Map, Value};

use super::schema::Type;
use super::set::{Step, path_text, shown};
use crate::codec::{go_map, go_syntax, go_type};

/// What a value may be.
#[derive(Clone, Copy)]
enum Form {
    Text,
    Number,
    Boolean,
    /// Any scalar: times, quantities.
    Scalar,
    Struct(&'static Message),
    /// A map whose values are all of one type.
    Map(&'static FieldType),
    /// An object of anything.
    Object,
    List(&'static Field),
    /// Anything.
    Any,
}

impl Form {
    fn of_field(field: &'static Field) -> Self {
        if field.repeated { Self::List(field) } else { Self::of_item(field) }
    }

    fn of_item(field: &'static Field) -> Self {
        match Self::of_type(field.ty) {
            Self::Text if !matches!(field.format, "" | "byte") => Self::Scalar,
            other => other,
        }
    }

    fn of_type(ty: FieldType) -> Self {
        match ty {
            FieldType::String | FieldType::Bytes => Self::Text,
            FieldType::Bool => Self::Boolean,
            FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 | FieldType::Double => Self::Number,
            FieldType::Map(value) => Self::Map(value),
            FieldType::Message(index) => Self::of_message(&MESSAGES[index]),
        }
    }

    fn of_message(message: &'static Message) -> Self {
        match message.shape {
            Shape::Struct if message.fields.is_empty() => Self::Object,
            Shape::Struct => Self::Struct(message),
            Shape::List => Self::List(&message.fields[0]),
            Shape::Time | Shape::MicroTime | Shape::Quantity => Self::Scalar,
            Shape::Duration => Self::Text,
            Shape::RawJson if message.name.ends_with("FieldsV1") => Self::Object,
            Shape::IntOrString
            | Shape::RawJson
            | Shape::SchemaOrArray
            | Shape::SchemaOrBool
            | Shape::SchemaOrStrings => Self::Any,
        }
    }
}

/// What in the configuration does not fit the message, as one text; `None` if all does.
#[must_use]
pub fn misfits(message: &'static Message, config: &Value) -> Option<String> {
    let mut walker = Walker::default();
    walker.walk(Form::of_message(message), config);
    match walker.found.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

#[derive(Default)]
struct Walker {
    path: Vec<Step>,
    found: Vec<String>,
}

impl Walker {
    fn tell(&mut self, text: &str) {
        let path = path_text(&self.path);
        self.found.push(if path.is_empty() { text.to_owned() } else { format!("{path}: {text}") });
    }

    fn walk(&mut self, form: Form, value: &Value) {
        match (form, value) {
            (Form::Any, _) | (_, Value::Null) => {}
            (Form::Text, Value::String(_))
            | (Form::Number, Value::Number(_))
            | (Form::Boolean, Value::Bool(_))
            | (Form::Scalar, Value::String(_) | Value::Number(_) | Value::Bool(_))
            | (Form::Object, Value::Object(_)) => {}
            (Form::Text, other) => {
                self.tell(&format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(other)));
            }
            (Form::Number, other) => {
                self.tell(&format!("expected numeric (int or float), got {}", go_type(other)));
            }
            (Form::Boolean, other) => self.tell(&format!("expected boolean, got &{{{}}}", go_map(other))),
            (Form::Scalar, other) => self.tell(&format!("expected any scalar, got &{{{}}}", go_map(other))),
            (Form::Struct(message), Value::Object(map)) => self.fields(message, map),
            (Form::Map(ty), Value::Object(map)) => {
                for (key, value) in map {
                    self.below(Step::Field(key.into()), Form::of_type(*ty), value);
                }
            }
            (Form::Struct(_) | Form::Map(_) | Form::Object, other) => {
                self.tell(&format!("expected map, got &{{{}}}", go_map(other)));
            }
            (Form::List(field), Value::Array(items)) => self.items(field, items),
            (Form::List(_), other) => self.tell(&format!("expected list, got &{{{}}}", go_map(other))),
        }
    }

    fn below(&mut self, step: Step, form: Form, value: &Value) {
        self.path.push(step);
        self.walk(form, value);
        self.path.pop();
    }

    fn fields(&mut self, message: &'static Message, map: &Map<String, Value>) {
        for (key, value) in map {
            let form = match message.field(key) {
                Some(field) => Form::of_field(field),
                None if message.type_meta && matches!(key.as_str(), "kind" | "apiVersion") => Form::Text,
                None => {
                    self.path.push(Step::Field(key.into()));
                    self.tell("field not declared in schema");
                    self.path.pop();
                    return;
                }
            };
            self.below(Step::Field(key.into()), form, value);
        }
    }

    fn items(&mut self, field: &'static Field, items: &[Value]) {
        let ty = Type::of_field(field);
        let form = Form::of_item(field);
        let mut seen: Vec<Step> = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let step = match field.list {
                ListType::Map(keys) => keyed(ty, keys, item),
                ListType::Set => member(item),
                ListType::Unset | ListType::Atomic => Ok(Step::Index(i64::try_from(index).unwrap_or(i64::MAX))),
            };
            match step {
                Ok(step) => {
                    if seen.contains(&step) {
                        let key = path_text(std::slice::from_ref(&step));
                        self.tell(&format!("duplicate entries for key {key}"));
                    }
                    seen.push(step.clone());
                    self.below(step, form, item);
                }
                // Without its place nothing below the item can be told, nor what follows it.
                Err(why) => return self.tell(&format!("element {index}: {why}")),
            }
        }
    }
}

/// The step to an item of a list with keys.
fn keyed(ty: Type, keys: &[&str], item: &Value) -> Result<Step, String> {
    match item {
        Value::Null => Err("associative list with keys may not have a null element".to_owned()),
        Value::Object(_) => ty.item_step(item).ok_or_else(|| {
            let keys: Vec<String> = keys.iter().map(|key| shown(&Value::from(*key))).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                keys.join(" ")
            )
        }),
        _ => Err("associative list with keys may not have non-map elements".to_owned()),
    }
}

/// The step to an item of a set.
fn member(item: &Value) -> Result<Step, String> {
    let why = match item {
        Value::Object(_) => "associative list without keys has an element that's a map type",
        Value::Array(_) => "not supported: associative list with lists as elements",
        Value::Null => "associative list without keys has an element that's an explicit null",
        scalar => return Ok(Step::Value(scalar.clone())),
    };
    Err(why.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(config: Value) -> String {
        misfits(crate::codec::schema("k8s.io.api.apps.v1.Deployment"), &config).unwrap_or_default()
    }

    fn in_pod(spec: Value) -> String {
        told(json!({"spec": {"template": {"spec": spec}}})).replace(".spec.template.spec", "")
    }

    #[test]
    fn scalars_are_of_their_group() {
        assert_eq!(
            told(json!({"spec": {"replicas": "x"}})),
            ".spec.replicas: expected numeric (int or float), got string"
        );
        assert_eq!(told(json!({"spec": {"replicas": 1.5}})), "");
        assert_eq!(told(json!({"spec": {"replicas": null}})), "");
        assert_eq!(told(json!({"spec": {"paused": 3}})), ".spec.paused: expected boolean, got &{3}");
        let labels = json!({"metadata": {"labels": {"a": {"x": ["y", 1, null]}}}});
        assert_eq!(
            told(labels),
            ".metadata.labels.a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{\
             \"x\":[]interface {}{\"y\", 1, interface {}(nil)}}}"
        );
        let time = json!({"metadata": {"creationTimestamp": {"a": 1}}});
        assert_eq!(told(time), ".metadata.creationTimestamp: expected any scalar, got &{map[a:1]}");
    }

    #[test]
    fn structures_are_of_their_kind() {
        assert_eq!(told(json!({"spec": [1, "a"]})), ".spec: expected map, got &{[1 a]}");
        assert_eq!(told(json!({"metadata": 7})), ".metadata: expected map, got &{7}");
        assert_eq!(told(json!({"foo": 3})), ".foo: field not declared in schema");
        assert_eq!(in_pod(json!({"containers": 3})), ".containers: expected list, got &{3}");
    }

    #[test]
    fn lists_with_keys_have_each_item_once() {
        let text = ".containers: element 0: associative list with keys may not have a null element";
        assert_eq!(in_pod(json!({"containers": [null]})), text);
        let text = ".containers: element 1: associative list with keys may not have non-map elements";
        assert_eq!(in_pod(json!({"containers": [{"name": "a"}, "x"]})), text);
        let ports = json!([{"containerPort": 1}, {"containerPort": 1}]);
        assert_eq!(
            in_pod(json!({"containers": [{"name": "a", "ports": ports}]})),
            ".containers[name=\"a\"].ports: duplicate entries for key [containerPort=1,protocol=\"TCP\"]"
        );
        let errors = in_pod(json!({"containers": [{"name": 7, "image": 8}]}));
        assert_eq!(errors.lines().count(), 3);
        assert!(errors.starts_with("errors:\n  .containers[name=7]."));
    }

    #[test]
    fn sets_have_scalars_once() {
        let finalizers = |list: Value| told(json!({"metadata": {"finalizers": list}}));
        assert_eq!(finalizers(json!(["a", "a"])), ".metadata.finalizers: duplicate entries for key [=\"a\"]");
        let start = ".metadata.finalizers: element 0: ";
        assert_eq!(
            finalizers(json!([null])),
            format!("{start}associative list without keys has an element that's an explicit null")
        );
        assert_eq!(
            finalizers(json!([{}])),
            format!("{start}associative list without keys has an element that's a map type")
        );
        assert_eq!(finalizers(json!([[]])), format!("{start}not supported: associative list with lists as elements"));
    }
}
