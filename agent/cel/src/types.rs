//! The types that the checker knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A type of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything; checked when the value is there.
    Dyn,
    /// The same, but for loops, which have to be told that it is what they go over.
    Any,
    /// What has no type because of an error that was reported.
    Error,
    /// `null`.
    Null,
    /// A truth value.
    Bool,
    /// A signed 64-bit number.
    Int,
    /// An unsigned 64-bit number.
    Uint,
    /// A floating-point number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// A list.
    List(Arc<Type>),
    /// A map, by key and value.
    Map(Arc<Type>, Arc<Type>),
    /// Something that may be absent.
    Optional(Arc<Type>),
    /// A type as a value.
    Type(Option<Arc<Type>>),
    /// An object with named fields.
    Object(Arc<ObjectType>),
    /// Something only functions can look into.
    Opaque(&'static str),
    /// Stands for another type in a declaration.
    Param(Arc<str>),
}

/// An object's fields.
#[derive(Debug, Default)]
pub struct ObjectType {
    /// The name that messages show.
    pub name: String,
    /// The fields, under the names that expressions use.
    pub fields: BTreeMap<String, Type>,
    /// Fields that are not named are of any type, as in the values that patches are made of.
    pub is_open: bool,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ObjectType {}

impl Type {
    /// A list of `element`.
    #[must_use]
    pub fn list(element: Type) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map from `key` to `value`.
    #[must_use]
    pub fn map(key: Type, value: Type) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// An optional `inner`.
    #[must_use]
    pub fn optional(inner: Type) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// An object with the given fields.
    #[must_use]
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Self {
        let fields = fields.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
        Self::Object(Arc::new(ObjectType { name: name.to_owned(), fields, is_open: false }))
    }

    /// An object of this name that only functions look into.
    #[must_use]
    pub fn handle(name: &str) -> Self {
        Self::object(name, [])
    }

    pub(crate) fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }

    /// What `null` may stand for.
    pub(crate) fn is_nullable(&self) -> bool {
        matches!(
            self,
            Self::Null | Self::Optional(_) | Self::Opaque(_) | Self::Object(_) | Self::Duration | Self::Timestamp
        )
    }

    /// The types that this one is made of.
    pub(crate) fn params(&self) -> Vec<&Type> {
        match self {
            Self::List(a) | Self::Optional(a) | Self::Type(Some(a)) => vec![a],
            Self::Map(a, b) => vec![a, b],
            _ => Vec::new(),
        }
    }

    /// The type as declarations spell it: `list(int)`, `google.protobuf.Timestamp`.
    #[must_use]
    pub fn declared(&self) -> String {
        Declared(self).to_string()
    }

    /// The name at run time, as `type(x)` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Any => "any",
            Self::Error => "!error!",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Duration => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Object(object) => &object.name,
            Self::Opaque(name) => name,
            Self::Param(name) => name,
        }
    }
}

/// A type as declarations spell it, which is what messages about results show.
struct Declared<'t>(&'t Type);

impl fmt::Display for Declared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        spell(self.0, f, &|inner, f| write!(f, "{}", Declared(inner)))
    }
}

fn spell(
    ty: &Type,
    f: &mut fmt::Formatter<'_>,
    inner: &dyn Fn(&Type, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> fmt::Result {
    f.write_str(ty.name())?;
    let params = ty.params();
    if params.is_empty() {
        return Ok(());
    }
    f.write_str("(")?;
    for (i, param) in params.into_iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        inner(param, f)?;
    }
    f.write_str(")")
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            other => spell(other, f, &|inner, f| write!(f, "{inner}")),
        }
    }
}
