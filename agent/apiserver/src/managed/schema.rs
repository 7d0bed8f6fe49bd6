//! Which values are one and which merge.

use api::schema::{Field, FieldType, ListType, MESSAGES, Message, Shape};
use serde_json::Value;

use super::set::Step;

/// What the schema says about a value.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// One value, whatever it holds.
    Leaf,
    /// The fields of a message.
    Struct(&'static Message),
    /// A map whose values are of the same type.
    Map(&'static FieldType),
    /// A list that merges by keys.
    Keyed(&'static [&'static str], FieldType),
    /// A list that is a set of scalars.
    Set,
    /// Nothing is known: maps merge, lists are one value.
    Deduced,
}

/// What a value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing that has an owner of its own.
    Leaf,
    /// Values by name.
    Map,
    /// Members.
    List,
}

impl Type {
    /// The type of an object.
    pub fn of_message(message: &'static Message) -> Self {
        match message.shape {
            Shape::RawJson => Self::Leaf,
            Shape::Struct if message.atomic => Self::Leaf,
            Shape::Struct => Self::Struct(message),
            _ => Self::Leaf,
        }
    }

    fn of_value(ty: FieldType) -> Self {
        match ty {
            FieldType::Message(index) => Self::of_message(&MESSAGES[index]),
            FieldType::Map(value) => Self::Map(value),
            _ => Self::Leaf,
        }
    }

    /// The type of a field.
    pub fn of_field(field: &'static Field) -> Self {
        if field.atomic {
            return Self::Leaf;
        }
        if !field.repeated {
            return Self::of_value(field.ty);
        }
        match field.list {
            ListType::Map(keys) => Self::Keyed(keys, field.ty),
            ListType::Set => Self::Set,
            ListType::Unset | ListType::Atomic => Self::Leaf,
        }
    }

    /// The type below a step.
    pub fn below(self, step: &Step) -> Self {
        match (self, step) {
            (Self::Struct(message), Step::Field(name)) => message.field(name).map_or(Self::Deduced, Self::of_field),
            (Self::Map(value), _) => Self::of_value(*value),
            (Self::Keyed(_, item), _) => Self::of_value(item),
            (Self::Deduced, _) => Self::Deduced,
            _ => Self::Leaf,
        }
    }

    /// The form that a value of this type takes: with nothing known, that of the value.
    pub fn form(self, value: Option<&Value>) -> Form {
        match self {
            Self::Leaf => Form::Leaf,
            Self::Struct(_) | Self::Map(_) => Form::Map,
            Self::Keyed(..) | Self::Set => Form::List,
            Self::Deduced if value.is_some_and(|v| v.is_object() || v.is_null()) => Form::Map,
            Self::Deduced => Form::Leaf,
        }
    }

    /// Whether the name is a declared field of this type.
    pub fn declares(self, name: &str) -> bool {
        match self {
            Self::Struct(message) => {
                message.field(name).is_some() || message.type_meta && matches!(name, "kind" | "apiVersion")
            }
            _ => false,
        }
    }

    /// The step that leads to a member of a list.
    pub fn item_step(self, item: &Value) -> Option<Step> {
        match self {
            Self::Set => Some(Step::Value(item.clone())),
            Self::Keyed(keys, ty) => {
                let message = ty.message();
                let mut sorted = keys.to_vec();
                sorted.sort_unstable();
                let mut pairs = Vec::new();
                for key in sorted {
                    let default = || {
                        let field = message.and_then(|m| m.field(key))?;
                        serde_json::from_str(field.default).ok()
                    };
                    let found = item.get(key).cloned();
                    if let Some(value) = found.or_else(default) {
                        pairs.push((key.to_owned(), value));
                    }
                }
                (!pairs.is_empty()).then_some(Step::Key(pairs))
            }
            _ => None,
        }
    }
}
