//! What the schema knows, for a reader on its way through a text; pure.

use api::schema::{Field, FieldType, Message, Shape};

/// What is known of the value that comes next.
#[derive(Clone, Copy)]
pub(super) enum Guide {
    /// Nothing: whatever is in it may be there.
    Anything,
    /// That nobody knows the field, and nothing is told of what is in it.
    Unknown,
    /// The message that it is.
    Message(&'static Message),
    /// The type of the values of a map.
    Map(FieldType),
    /// The type of the members of a list.
    List(FieldType),
}

/// Fields that an object has before those of its message.
const TYPE_META: [&str; 2] = ["kind", "apiVersion"];

impl Guide {
    /// What the field of this name is; none if it is not known.
    pub(super) fn field(self, key: &str) -> Option<Self> {
        match self {
            Self::Message(message) if message.shape == Shape::Struct => {
                let is_type = message.type_meta && TYPE_META.contains(&key);
                if is_type { Some(Self::Anything) } else { message.field(key).map(Self::of_field) }
            }
            // A list or something else may stand there, too; what has fields is the schema.
            Self::Message(message) => match message.shape {
                Shape::SchemaOrArray | Shape::SchemaOrStrings => Self::numbered(message, 1).field(key),
                Shape::SchemaOrBool => Self::numbered(message, 2).field(key),
                _ => Some(Self::Anything),
            },
            Self::Map(ty) => Some(Self::of(ty)),
            Self::Unknown => Some(Self::Unknown),
            Self::Anything | Self::List(_) => Some(Self::Anything),
        }
    }

    /// What the members of a list are.
    pub(super) fn item(self) -> Self {
        match self {
            Self::List(ty) => Self::of(ty),
            Self::Message(message) => match message.shape {
                Shape::List => Self::of_field(&message.fields[0]).item(),
                Shape::SchemaOrArray | Shape::SchemaOrStrings => Self::numbered(message, 2),
                _ => Self::Anything,
            },
            Self::Unknown => Self::Unknown,
            Self::Anything | Self::Map(_) => Self::Anything,
        }
    }

    /// One member of the field with this number.
    fn numbered(message: &'static Message, number: u32) -> Self {
        message.field_by_number(number).map_or(Self::Anything, |(_, field)| Self::of(field.ty))
    }

    fn of_field(field: &'static Field) -> Self {
        if field.repeated { Self::List(field.ty) } else { Self::of(field.ty) }
    }

    fn of(ty: FieldType) -> Self {
        match ty {
            FieldType::Map(values) => Self::Map(*values),
            ty => ty.message().map_or(Self::Anything, Self::Message),
        }
    }
}
