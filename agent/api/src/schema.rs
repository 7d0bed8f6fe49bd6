//! Messages and fields as static tables, in the order of the Go structs, which is the order of their JSON.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Full protobuf name, such as `k8s.io.api.core.v1.Pod`.
    pub name: &'static str,
    /// Name in OpenAPI definitions.
    pub openapi: &'static str,
    /// How its JSON form comes about.
    pub shape: Shape,
    /// Whether JSON has `kind` and `apiVersion` here.
    pub type_meta: bool,
    /// Whether server-side apply treats the whole message as one value.
    pub atomic: bool,
    /// Fields in JSON order.
    pub fields: &'static [Field],
    /// Indexes of the fields that JSON shows even when they are absent.
    pub always: &'static [usize],
    /// By protobuf number: one more than the index of the field, 0 where there is none.
    places: &'static [u8],
}

/// How a message is written in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An object of its fields.
    Struct,
    /// The bare list of its one field.
    List,
    /// RFC 3339 with seconds; null when unset.
    Time,
    /// RFC 3339 with six fraction digits; null when unset.
    MicroTime,
    /// A Go duration string.
    Duration,
    /// A quantity string.
    Quantity,
    /// A number or a string.
    IntOrString,
    /// JSON text as it is.
    RawJson,
    /// A schema or a list of them.
    SchemaOrArray,
    /// A schema or a boolean.
    SchemaOrBool,
    /// A schema or a list of strings.
    SchemaOrStrings,
}

/// A field.
#[derive(Debug)]
pub struct Field {
    /// Name in JSON.
    pub json: &'static str,
    /// The name as JSON text, with its colon.
    pub key: &'static str,
    /// Protobuf number.
    pub number: u32,
    /// Type of the value, of one list member, or of the map.
    pub ty: FieldType,
    /// Whether it is a list.
    pub repeated: bool,
    /// Whether absent and zero are told apart.
    pub pointer: bool,
    /// Whether JSON leaves it out when empty (Go's rule: structs are never empty).
    pub omit_empty: bool,
    /// Whether JSON leaves it out when zero, structs included.
    pub omit_zero: bool,
    /// Whether its own fields appear in the parent's JSON.
    pub inline: bool,
    /// Whether OpenAPI requires it.
    pub required: bool,
    /// Whether it is a byte slice, which may be absent.
    pub bytes: bool,
    /// How lists merge.
    pub list: ListType,
    /// Whether apply treats the map or struct as one value.
    pub atomic: bool,
    /// Strategic merge strategies (`merge`, `replace`, `retainKeys`).
    pub patch: &'static [&'static str],
    /// Key of strategic merge; empty without.
    pub merge_key: &'static str,
    /// Default in OpenAPI, as JSON text.
    pub default: &'static str,
    /// Allowed values where it is an enum.
    pub values: &'static [&'static str],
    /// OpenAPI format.
    pub format: &'static str,
    /// The type in Go where it is a named string, list or map (`v1.SecretType`); empty for others.
    pub go: &'static str,
}

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    /// UTF-8 text.
    String,
    /// Bytes; base64 in JSON.
    Bytes,
    /// 32 bit integer.
    Int32,
    /// 64 bit integer.
    Int64,
    /// Unsigned integer.
    Uint64,
    /// Boolean.
    Bool,
    /// Floating point.
    Double,
    /// The message at this index.
    Message(usize),
    /// A map from strings.
    Map(&'static FieldType),
}

/// How lists merge in server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said: atomic.
    Unset,
    /// One value.
    Atomic,
    /// A set of scalars.
    Set,
    /// Structs told apart by these fields.
    Map(&'static [&'static str]),
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

static BY_NAME: LazyLock<HashMap<&str, &Message>> =
    LazyLock::new(|| MESSAGES.iter().map(|message| (message.name, message)).collect());

/// The message of this protobuf name.
#[must_use]
pub fn message(name: &str) -> Option<&'static Message> {
    BY_NAME.get(name).copied()
}

impl Message {
    /// The field with this protobuf number, with its index.
    #[must_use]
    pub fn field_by_number(&self, number: u32) -> Option<(usize, &'static Field)> {
        let place = *self.places.get(usize::try_from(number).ok()?)?;
        let index = usize::from(place).checked_sub(1)?;
        Some((index, &self.fields[index]))
    }

    /// The fields in the order of their protobuf numbers.
    pub fn by_number(&self) -> impl Iterator<Item = &'static Field> {
        let fields = self.fields;
        self.places.iter().filter(|place| **place > 0).map(move |place| &fields[usize::from(*place) - 1])
    }

    /// The field of this JSON name, looking through inlined structs.
    #[must_use]
    pub fn field(&self, json: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| !f.inline && f.json == json).or_else(|| {
            self.fields.iter().filter(|f| f.inline).find_map(|f| f.ty.message().and_then(|m| m.field(json)))
        })
    }
}

impl FieldType {
    /// The message behind this type, where it is one.
    #[must_use]
    pub fn message(self) -> Option<&'static Message> {
        match self {
            Self::Message(index) => Some(&MESSAGES[index]),
            _ => None,
        }
    }
}
