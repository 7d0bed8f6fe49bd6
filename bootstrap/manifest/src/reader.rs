//! Typed values out of a TOML tree, by the rows of the key table.
//!
//! Reading never stops at an error: a value that is not what it should be becomes a finding and reads as absent. Types
//! that do not fit the row were already reported by [`crate::structure`] and are passed over here.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::findings::{Finding, Findings};
use crate::keys::{self, Key, Kind, Presence, Scalar};
use crate::secret::{FindSecret, Secret, SecretText, UNSOUGHT, Unknown, without_indices};
use crate::structure::{fits, join, reference};
use crate::words::{Reference, Word, WordError};

/// Who finds secrets, and what reading leaves behind beside the values.
pub(crate) struct Notes<'t> {
    finder: &'t dyn FindSecret,
    pub(crate) findings: RefCell<Findings>,
    /// Secrets that were not found. They are no errors of the text.
    pub(crate) unknown: RefCell<Vec<Finding>>,
    /// What must not be shown.
    pub(crate) hidden: RefCell<Vec<SecretText>>,
    /// The rows that were read, for the test that nothing in the table is forgotten.
    pub(crate) rows: RefCell<BTreeSet<&'static str>>,
}

impl<'t> Notes<'t> {
    pub(crate) fn new(finder: &'t dyn FindSecret) -> Self {
        Self {
            finder,
            findings: RefCell::default(),
            unknown: RefCell::default(),
            hidden: RefCell::default(),
            rows: RefCell::default(),
        }
    }
}

/// One table of the manifest, perhaps absent.
#[derive(Clone)]
pub(crate) struct Section<'t> {
    table: Option<&'t DeTable<'t>>,
    row: String,
    at: String,
    notes: &'t Notes<'t>,
}

/// A value that can be read out of one scalar.
pub(crate) trait Read: Sized {
    fn read(value: &DeValue<'_>, scalar: Scalar) -> Option<Result<Self, WordError>>;
}

impl<W: Word> Read for W {
    fn read(value: &DeValue<'_>, scalar: Scalar) -> Option<Result<Self, WordError>> {
        debug_assert_eq!(scalar, Scalar::Word(W::FORMAT), "the reader and the key table differ");
        value.as_str().map(W::parse_word)
    }
}

/// A whole number, inside the bounds of its row.
pub(crate) struct Whole(pub(crate) i64);

impl Read for Whole {
    fn read(value: &DeValue<'_>, scalar: Scalar) -> Option<Result<Self, WordError>> {
        let Scalar::Integer { min, max } = scalar else {
            return None;
        };
        let integer = value.as_integer()?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        Some(match number.filter(|number| (min..=max).contains(number)) {
            Some(number) => Ok(Self(number)),
            None if min == max => Err(WordError::new(format!("{} is not known", integer.as_str()))),
            None => Err(WordError::new(format!("{} is out of range", integer.as_str()))),
        })
    }
}

/// `true` or `false`.
pub(crate) struct Flag(pub(crate) bool);

impl Read for Flag {
    fn read(value: &DeValue<'_>, _: Scalar) -> Option<Result<Self, WordError>> {
        value.as_bool().map(|flag| Ok(Self(flag)))
    }
}

/// The text of a string, an integer or a boolean.
pub(crate) struct Text(pub(crate) String);

impl Read for Text {
    fn read(value: &DeValue<'_>, _: Scalar) -> Option<Result<Self, WordError>> {
        let text = match value {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix());
                return Some(
                    number
                        .map(|number| Self(number.to_string()))
                        .map_err(|_overflow| WordError::new(format!("{} is out of range", integer.as_str()))),
                );
            }
            DeValue::Boolean(flag) => u8::from(*flag).to_string(),
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => return None,
        };
        let one_line = !text.contains(['\n', '\0']);
        Some(if one_line { Ok(Self(text)) } else { Err(WordError::new("the value has a line end inside")) })
    }
}

impl<'t> Section<'t> {
    /// The whole manifest.
    pub(crate) fn root(table: &'t DeTable<'t>, notes: &'t Notes<'t>) -> Self {
        Self { table: Some(table), row: String::new(), at: String::new(), notes }
    }

    fn key(&self, name: &str) -> &'static Key {
        let path = if self.row.is_empty() { name.to_owned() } else { format!("{}.{name}", self.row) };
        let key = keys::find(&path);
        debug_assert!(key.is_some(), "the reader asks for `{path}`, which the key table does not have");
        let key = key.unwrap_or(&keys::all()[0]);
        self.notes.rows.borrow_mut().insert(key.path);
        key
    }

    fn raw(&self, name: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.and_then(|table| table.get(name))
    }

    /// Whether the table is written.
    pub(crate) fn is_given(&self) -> bool {
        self.table.is_some()
    }

    /// Whether a key is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A table inside this one.
    pub(crate) fn section(&self, name: &str) -> Self {
        let key = self.key(name);
        let table = self.raw(name).and_then(|value| value.get_ref().as_table());
        Self { table, row: key.path.to_owned(), at: join(&self.at, name), notes: self.notes }
    }

    /// The tables of an array of tables.
    pub(crate) fn sections(&self, name: &str) -> Vec<Self> {
        let key = self.key(name);
        let elements = self.raw(name).and_then(|value| value.get_ref().as_array());
        let elements = elements.into_iter().flat_map(|elements| elements.iter().enumerate());
        elements
            .filter_map(|(index, element)| {
                let at = format!("{}[{index}]", join(&self.at, name));
                let row = format!("{}[]", key.path);
                element.get_ref().as_table().map(|table| Self { table: Some(table), row, at, notes: self.notes })
            })
            .collect()
    }

    /// One value, or the row's default.
    pub(crate) fn one<R: Read>(&self, name: &str) -> Option<R> {
        let key = self.key(name);
        debug_assert!(!key.is_secret(), "{} is a secret", key.path);
        let Kind::One(scalar) = key.kind else {
            return None;
        };
        match self.raw(name) {
            Some(value) => self.scalar(key, scalar, value, &join(&self.at, name)),
            None => default(key, |value| R::read(value, scalar)?.ok()),
        }
    }

    /// A secret: what is written, or what is found where that says.
    pub(crate) fn secret<W: Word>(&self, name: &str) -> Option<Secret<W>> {
        let key = self.key(name);
        debug_assert!(key.is_secret(), "{} is no secret", key.path);
        let (value, at) = (self.raw(name)?, join(&self.at, name));
        let written = value.get_ref().as_str();
        let Some(reference) = written.and_then(W::reference).or_else(|| reference(value.get_ref())) else {
            self.hide::<W>(written?);
            return self.scalar(key, Scalar::Word(W::FORMAT), value, &at).map(Secret::known_as);
        };
        let found = self.notes.finder.find(&without_indices(&at), &reference);
        let parsed = found.and_then(|found| {
            self.hide::<W>(found.as_str());
            let words = |error: WordError| Some(format!("it is no {}: {}", W::FORMAT.name, error.reason));
            W::parse_found(found.as_str()).map_err(words)
        });
        Some(parsed.map_or_else(|why| self.unknown::<W>(value.span(), at, (reference, why)), Secret::known_as))
    }

    fn unknown<W: Word>(
        &self,
        span: Range<usize>,
        at: String,
        (reference, why): (Reference, Option<String>),
    ) -> Secret<W> {
        if let Some(why) = &why {
            let reason = format!("the secret in {} is not to be had: {why}", reference.place());
            let mut finding = Finding::error(span, &at, reason);
            finding.expected(W::FORMAT.expected);
            self.notes.unknown.borrow_mut().push(finding);
        }
        Secret::unknown(Unknown { key: at, reference, reason: why.unwrap_or_else(|| UNSOUGHT.to_owned()) })
    }

    fn hide<W: Word>(&self, text: &str) {
        let parts = W::hidden(text).into_iter().filter(|part| !part.is_empty());
        self.notes.hidden.borrow_mut().extend(parts.map(SecretText::new));
    }

    /// The elements of an array; those that are no good are left out.
    pub(crate) fn list<R: Read>(&self, name: &str) -> Vec<R> {
        let key = self.key(name);
        let Kind::List(scalar) = key.kind else {
            return Vec::new();
        };
        let Some(value) = self.raw(name) else {
            let read = |value: &DeValue<'_>| {
                value.as_array()?.iter().map(|element| R::read(element.get_ref(), scalar)?.ok()).collect()
            };
            return default(key, read).unwrap_or_default();
        };
        let elements = value.get_ref().as_array().into_iter().flat_map(|elements| elements.iter().enumerate());
        elements
            .filter_map(|(index, element)| {
                self.scalar(key, scalar, element, &format!("{}[{index}]", join(&self.at, name)))
            })
            .collect()
    }

    /// The values of a map with keys `K`.
    pub(crate) fn map<K: Word + Ord, R: Read>(&self, name: &str) -> BTreeMap<K, R> {
        let key = self.map_key(name);
        let inner = self.section(name);
        let inner_key = inner.key("*");
        let Kind::One(scalar) = inner_key.kind else {
            return BTreeMap::new();
        };
        let entries = inner.table.into_iter().flatten();
        entries
            .filter_map(|(name, value)| {
                let at = join(&inner.at, name.get_ref());
                let word = self.map_name::<K>(key, name, &at);
                let value = self.scalar(inner_key, scalar, value, &at);
                Some((word?, value?))
            })
            .collect()
    }

    /// The tables of a map with keys `K`.
    pub(crate) fn map_sections<K: Word + Ord>(&self, name: &str) -> Vec<(K, Self)> {
        let key = self.map_key(name);
        let inner = self.section(name);
        let row = inner.key("*").path;
        let entries = inner.table.into_iter().flatten();
        entries
            .filter_map(|(name, value)| {
                let at = join(&inner.at, name.get_ref());
                let word = self.map_name::<K>(key, name, &at)?;
                let table = value.get_ref().as_table()?;
                Some((word, Self { table: Some(table), row: row.to_owned(), at, notes: self.notes }))
            })
            .collect()
    }

    fn map_key(&self, name: &str) -> &'static Key {
        let key = self.key(name);
        debug_assert!(matches!(key.kind, Kind::Map(_)), "{} is not a map", key.path);
        key
    }

    fn map_name<K: Word>(&self, key: &Key, name: &Spanned<std::borrow::Cow<'_, str>>, at: &str) -> Option<K> {
        debug_assert_eq!(key.kind, Kind::Map(K::FORMAT), "the reader and the key table differ");
        self.note(K::parse_word(name.get_ref()), name.span(), at, K::FORMAT.expected)
    }

    fn scalar<R: Read>(&self, key: &Key, scalar: Scalar, value: &Spanned<DeValue<'_>>, at: &str) -> Option<R> {
        if !fits(value.get_ref(), scalar) {
            return None;
        }
        let result = R::read(value.get_ref(), scalar)?;
        debug_assert!(!key.is_secret() || !matches!(&result, Err(error) if error.suggestion.is_some()));
        self.note(result, value.span(), at, &scalar.expected())
    }

    fn note<T>(&self, result: Result<T, WordError>, span: Range<usize>, at: &str, expected: &str) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let mut findings = self.notes.findings.borrow_mut();
                let finding = findings.push(Finding::error(span, at, error.reason));
                finding.expected(expected).did_you_mean(error.suggestion.as_deref());
                None
            }
        }
    }
}

fn default<T>(key: &Key, read: impl FnOnce(&DeValue<'_>) -> Option<T>) -> Option<T> {
    let Presence::Default(text) = key.presence else {
        return None;
    };
    let value = DeValue::parse(text).ok();
    debug_assert!(value.is_some(), "the default of `{}` is not TOML", key.path);
    let value = read(value?.get_ref());
    debug_assert!(value.is_some(), "the default of `{}` is not what the key takes", key.path);
    value
}
