//! The one table of keys, and look-ups in it.
//!
//! A row says everything about a key. The structure check, the typed reader (types and defaults), the JSON Schema,
//! `explain` and the did-you-mean of unknown keys all read these rows; nothing about a key is written elsewhere.

mod impact;
mod table;

pub use impact::Impact;
pub(crate) use impact::may_cut_off;

use crate::words::{WordError, WordFormat};

/// One key of the manifest.
#[derive(Debug)]
pub(crate) struct Key {
    /// The path: `.*` stands for a name that the user chooses, `[]` for the elements of an array of tables.
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    pub(crate) doc: &'static str,
    /// A TOML value, or a TOML fragment for sections.
    pub(crate) example: &'static str,
    /// What checks the text, if it must never be shown.
    pub(crate) secret: Option<Check>,
}

/// What checks a text.
pub(crate) type Check = fn(&str) -> Result<(), WordError>;

/// Whether a key must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    Optional,
    /// Optional, with this TOML value if absent.
    Default(&'static str),
}

/// The shape of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A table with the keys of the table.
    Section,
    /// An array of tables.
    Sections,
    /// A table whose keys the user names; the row `PATH.*` says what is in it.
    Map(&'static WordFormat),
    One(Scalar),
    List(Scalar),
}

/// The shape of a single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalar {
    Bool,
    Integer {
        min: i64,
        max: i64,
    },
    Word(&'static WordFormat),
    /// Any text; integers and booleans are taken as their text.
    Text,
}

impl Scalar {
    /// The name of the type, with its article.
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Bool => "a boolean",
            Self::Integer { .. } => "an integer",
            Self::Word(_) => "a string",
            Self::Text => "a string, an integer or a boolean",
        }
    }

    /// What a value must look like.
    pub(crate) fn expected(self) -> String {
        match self {
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Integer { min, max } if min == max => format!("`{min}`"),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Word(format) => format.expected.to_owned(),
            Self::Text => "a string, an integer or a boolean".to_owned(),
        }
    }
}

impl Kind {
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Section | Self::Map(_) => "a table",
            Self::Sections => "an array of tables",
            Self::One(scalar) => scalar.type_name(),
            Self::List(_) => "an array",
        }
    }
}

impl Key {
    /// Whether the value must never be shown.
    pub(crate) fn is_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// The last part of the path.
    pub(crate) fn name(&self) -> &'static str {
        let path = self.path.trim_end_matches("[]");
        path.rsplit('.').next().unwrap_or(path)
    }

    /// The path of the table that the key stands in, with `[]` if that is an element of an array of tables.
    pub(crate) fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}

/// Every key.
pub(crate) fn all() -> &'static [Key] {
    table::KEYS
}

/// The row with this path.
pub(crate) fn find(path: &str) -> Option<&'static Key> {
    all().iter().find(|key| key.path == path)
}

/// The rows directly inside the table with this path.
pub(crate) fn children(parent: &str) -> impl Iterator<Item = &'static Key> {
    all().iter().filter(move |key| key.parent() == parent && !key.path.is_empty())
}

/// The names of keys whose values must never be shown.
pub(crate) fn secret_names() -> impl Iterator<Item = &'static str> {
    all().iter().filter(|key| key.is_secret()).map(Key::name)
}
