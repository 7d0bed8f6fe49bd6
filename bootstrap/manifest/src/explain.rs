//! What one key means.

use std::fmt;

use serde::Serialize;

use crate::keys::{self, Impact, Key, Kind, Presence, Scalar};
use crate::words::{Reference, closest};

/// Everything that the key table says about one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The path, with `.*` for names that the user chooses and `[]` for elements of arrays of tables.
    pub key: &'static str,
    /// The type.
    pub r#type: String,
    /// What a value must look like.
    pub expected: Option<String>,
    /// Whether it must be given in its table.
    pub required: bool,
    /// The TOML value that holds if it is not given.
    pub default: Option<&'static str>,
    /// What it does.
    pub description: &'static str,
    /// What it takes for another value to count on a machine that runs.
    pub change: Option<String>,
    /// How it is written.
    pub example: String,
    /// The keys inside, with their descriptions.
    pub keys: Vec<(&'static str, &'static str)>,
}

/// Explains a key; `network.interfaces[0].mac`, `network.interfaces.mac` and `machine.labels.rack` are understood, too.
/// An empty key lists the sections.
#[must_use]
pub fn explain(key: &str) -> Option<Explanation> {
    if key.is_empty() {
        return Some(root());
    }
    find(key).map(explanation)
}

/// The key that was probably meant by one that [`explain`] does not know.
#[must_use]
pub fn suggest_key(key: &str) -> Option<&'static str> {
    let name = key.rsplit('.').next().unwrap_or(key);
    let same_name = || keys::all().iter().find(|row| row.name() == name).map(|row| row.path);
    closest(key, keys::all().iter().map(|row| row.path)).or_else(same_name)
}

pub(crate) fn find(path: &str) -> Option<&'static Key> {
    let mut row: Option<&'static Key> = None;
    let mut rest = path;
    while !rest.is_empty() {
        let parent = row.map_or(String::new(), |row| match row.kind {
            Kind::Sections => format!("{}[]", row.path),
            Kind::Section | Kind::Map(_) | Kind::One(_) | Kind::List(_) => row.path.to_owned(),
        });
        let (step, tail) = split_step(rest);
        let name = step.split('[').next().unwrap_or(step);
        let next = keys::children(&parent).find(|key| key.name() == name || key.name() == "*")?;
        // A map's values are scalars with names that may have dots, or tables whose names are quoted.
        let takes_all = next.name() == "*" && matches!(next.kind, Kind::One(_));
        rest = if takes_all { "" } else { tail };
        row = Some(next);
    }
    row
}

/// The first step of a path, which may be quoted, and what follows its dot.
fn split_step(path: &str) -> (&str, &str) {
    let quoted = path.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    match quoted {
        Some((step, rest)) => (step, rest.strip_prefix('.').unwrap_or(rest)),
        None => path.split_once('.').unwrap_or((path, "")),
    }
}

fn root() -> Explanation {
    Explanation {
        key: "",
        r#type: "a table".to_owned(),
        expected: None,
        required: true,
        default: None,
        description: "The manifest of one machine.",
        change: None,
        example: String::new(),
        keys: keys::children("").map(|key| (key.path, key.doc)).collect(),
    }
}

fn type_of(kind: Kind) -> String {
    let scalar = |scalar: Scalar| match scalar {
        Scalar::Word(format) => format.name.to_owned(),
        Scalar::Bool => "boolean".to_owned(),
        Scalar::Integer { .. } => "integer".to_owned(),
        Scalar::Text => "string, integer or boolean".to_owned(),
    };
    match kind {
        Kind::Section => "table".to_owned(),
        Kind::Sections => "array of tables".to_owned(),
        Kind::Map(format) => format!("table with names of your own, each a {}", format.name),
        Kind::One(inner) => scalar(inner),
        Kind::List(inner) => format!("array of {}", scalar(inner)),
    }
}

fn explanation(key: &'static Key) -> Explanation {
    let inner = match key.kind {
        Kind::Sections => format!("{}[]", key.path),
        Kind::Section | Kind::Map(_) | Kind::One(_) | Kind::List(_) => key.path.to_owned(),
    };
    let expected = match key.kind {
        Kind::One(scalar) if key.is_secret() => Some(format!("{}; or {}", scalar.expected(), Reference::EXPECTED)),
        Kind::One(scalar) | Kind::List(scalar) => Some(scalar.expected()),
        Kind::Map(format) => Some(format.expected.to_owned()),
        Kind::Section | Kind::Sections => None,
    };
    let header = key.path.replace(".*", ".\"NAME\"").replace("[]", "");
    let example = match (key.kind, key.name()) {
        (_, _) if key.example.is_empty() => String::new(),
        (Kind::Section | Kind::Map(_), _) => format!("[{header}]\n{}", key.example),
        (Kind::Sections, _) => format!("[[{header}]]\n{}", key.example),
        (Kind::One(_) | Kind::List(_), "*") => format!("NAME = {}", key.example),
        (Kind::One(_) | Kind::List(_), name) => format!("{name} = {}", key.example),
    };
    Explanation {
        key: key.path,
        r#type: type_of(key.kind),
        expected,
        required: key.presence == Presence::Required,
        default: match key.presence {
            Presence::Default(text) => Some(text),
            Presence::Required | Presence::Optional => None,
        },
        description: key.doc,
        change: matches!(key.kind, Kind::One(_) | Kind::List(_)).then(|| Impact::of(key.path, false).describe()),
        example,
        keys: keys::children(&inner).map(|key| (key.path, key.doc)).collect(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.key.is_empty() { "manifest" } else { self.key })?;
        writeln!(f, "  {}", self.description)?;
        writeln!(f, "  type:     {}", self.r#type)?;
        if let Some(expected) = &self.expected {
            writeln!(f, "  expected: {expected}")?;
        }
        writeln!(f, "  required: {}", if self.required { "yes" } else { "no" })?;
        if let Some(default) = self.default {
            writeln!(f, "  default:  {default}")?;
        }
        if let Some(change) = &self.change {
            writeln!(f, "  change:   {change}")?;
        }
        if !self.example.is_empty() {
            writeln!(f, "  example:")?;
            self.example.lines().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        if !self.keys.is_empty() {
            writeln!(f, "  keys:")?;
            self.keys.iter().try_for_each(|(path, doc)| writeln!(f, "    {path}: {doc}"))?;
        }
        Ok(())
    }
}
