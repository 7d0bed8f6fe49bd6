//! Which values are one and which merge.

use api::Kind;
use api::schema::{Field, FieldType, ListType, MESSAGES, Message, Shape};
use serde_json::Value;

use super::set::Step;
use crate::codec;
use crate::custom::{self, Schema};
use crate::strategy::Part;

const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What a write is about.
#[derive(Clone, Copy)]
pub struct Target<'s> {
    /// The kind of the object.
    pub kind: &'static Kind,
    /// The part that is written.
    pub part: Part,
    /// The schema of a custom resource.
    pub schema: Option<&'s Schema>,
}

impl<'s> Target<'s> {
    /// The type of the object.
    pub fn ty(self) -> Type<'s> {
        self.schema.map_or_else(|| Type::of_message(self.kind.schema()), |schema| Type::Object(schema, true))
    }
}

/// What the schema says about a value.
#[derive(Clone, Copy, Debug)]
pub enum Type<'s> {
    /// One value, whatever it holds.
    Leaf,
    /// The fields of a message.
    Struct(&'static Message),
    /// A map whose values are of the same type.
    Map(&'static FieldType),
    /// A list that merges by keys.
    Keyed(&'static [&'static str], FieldType),
    /// The fields that a custom resource's schema names, and whether it is one of an object with metadata.
    Object(&'s Schema, bool),
    /// A map in a custom resource, with the schema of its values.
    Values(&'s Schema),
    /// A list in a custom resource that merges by keys, with the schema of its members.
    Members(&'s [String], &'s Schema),
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

impl<'s> Type<'s> {
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
        // The one reference whose fields have owners of their own.
        if let ("claimRef", Some(message)) = (field.json, field.ty.message()) {
            return Self::Struct(message);
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

    /// The type that a custom resource's schema gives a value.
    pub fn of_schema(schema: &'s Schema) -> Self {
        match (schema.ty, &schema.items) {
            _ if schema.int_or_string => Self::Leaf,
            (custom::Type::Array, Some(items)) => match &schema.list {
                custom::List::Map(keys) => Self::Members(keys, items),
                custom::List::Set => Self::Set,
                custom::List::Unset | custom::List::Atomic => Self::Leaf,
            },
            (custom::Type::Object | custom::Type::Unset, _) if schema.atomic => Self::Leaf,
            (custom::Type::Object | custom::Type::Unset, _) => Self::of_parts(schema),
            _ => Self::Leaf,
        }
    }

    /// The same for an object, even one that is one value to those who merge.
    pub fn of_parts(schema: &'s Schema) -> Self {
        match schema.ty {
            custom::Type::Object | custom::Type::Unset => {}
            _ => return Self::of_schema(schema),
        }
        if schema.embedded || !schema.properties.is_empty() {
            Self::Object(schema, schema.embedded)
        } else {
            schema.values().map_or(Self::Deduced, Self::Values)
        }
    }

    /// The type below a step.
    pub fn below(self, step: &Step) -> Self {
        match (self, step) {
            (Self::Struct(message), Step::Field(name)) => message.field(name).map_or(Self::Deduced, Self::of_field),
            (Self::Map(value), _) => Self::of_value(*value),
            (Self::Keyed(_, item), _) => Self::of_value(item),
            (Self::Object(_, true), Step::Field(name)) if name == "metadata" => Self::of_message(codec::schema(META)),
            (Self::Object(_, true), Step::Field(name)) if name == "apiVersion" || name == "kind" => Self::Leaf,
            (Self::Object(schema, _), Step::Field(name)) => {
                schema.below(name).ok().flatten().map_or(Self::Deduced, Self::of_schema)
            }
            (Self::Values(inner) | Self::Members(_, inner), _) => Self::of_schema(inner),
            (Self::Deduced, _) => Self::Deduced,
            _ => Self::Leaf,
        }
    }

    /// The form that a value of this type takes: with nothing known, that of the value.
    pub fn form(self, value: Option<&Value>) -> Form {
        match self {
            Self::Leaf => Form::Leaf,
            Self::Struct(_) | Self::Map(_) | Self::Object(..) | Self::Values(_) => Form::Map,
            Self::Keyed(..) | Self::Members(..) | Self::Set => Form::List,
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
            Self::Object(schema, of_object) => {
                schema.property(name).is_some() || of_object && matches!(name, "kind" | "apiVersion" | "metadata")
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
                keyed(keys.iter().copied(), item, |key| {
                    let field = message.and_then(|m| m.field(key))?;
                    serde_json::from_str(field.default).ok()
                })
            }
            Self::Members(keys, schema) => keyed(keys.iter().map(String::as_str), item, |key| {
                schema.property(key).and_then(|property| property.default.clone())
            }),
            _ => None,
        }
    }
}

fn keyed<'k>(
    keys: impl Iterator<Item = &'k str>,
    item: &Value,
    default: impl Fn(&str) -> Option<Value>,
) -> Option<Step> {
    let mut sorted: Vec<&str> = keys.collect();
    sorted.sort_unstable();
    let mut pairs = Vec::new();
    for key in sorted {
        let found = item.get(key).cloned();
        if let Some(value) = found.or_else(|| default(key)) {
            pairs.push((key.into(), value));
        }
    }
    (!pairs.is_empty()).then_some(Step::Key(pairs))
}
