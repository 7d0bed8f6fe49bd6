//! Trees from what a reader of JSON or YAML tells, with what is wrong with them.

use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::guide::Guide;
use super::syntax;
use super::told::{Complaint, Told};

/// What is noted while a text is read.
#[derive(Default)]
pub(super) struct Notes {
    /// What is wrong with fields: those that occur twice and, where a guide knows them, those that are not known.
    pub told: Told,
    /// What upstream says of something that our reader takes.
    pub problem: Option<String>,
    /// Whether the text is YAML.
    is_yaml: bool,
    /// Where the reader is.
    path: String,
}

impl Notes {
    /// Of YAML, in which keys need not be texts.
    pub(super) fn of_yaml() -> Self {
        Self { is_yaml: true, ..Self::default() }
    }

    /// Steps to a field. Returns what the path is cut to on the way back.
    fn enter(&mut self, key: &str) -> usize {
        let mark = self.path.len();
        if mark > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        mark
    }

    /// Steps to a member of a list.
    fn enter_item(&mut self, at: usize) -> usize {
        let mark = self.path.len();
        // Writing to a string cannot fail.
        let _infallible = write!(self.path, "[{at}]");
        mark
    }

    /// Notes what is wrong with the field where the reader is.
    fn tell(&mut self, what: fn(String) -> Complaint) {
        if !self.told.is_full() {
            self.told.tell(what(self.path.clone()));
        }
    }

    /// Notes that a field of a map occurs twice, which of YAML is told each time, and only once its value is read.
    fn tell_again(&mut self, key: &str) {
        if !self.told.is_full() {
            let mark = self.enter(key);
            self.told.tell_again(Complaint::Twice(self.path.clone()));
            self.path.truncate(mark);
        }
    }

    /// Ends the reading in the words of upstream.
    fn refuse<E: Error>(&mut self, why: String) -> E {
        self.problem = Some(why);
        E::custom("refused")
    }
}

/// Reads the value where the reader is.
pub(super) struct Tree<'a> {
    pub guide: Guide,
    pub notes: &'a mut Notes,
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// What is more than Go's widest integer is a fraction.
#[allow(clippy::cast_precision_loss, reason = "a number this wide is a float to everybody else")]
fn wide<E: Error>(number: f64) -> Result<Value, E> {
    Ok(number.into())
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    #[allow(clippy::cast_precision_loss, reason = "see `wide`")]
    fn visit_i128<E: Error>(self, v: i128) -> Result<Value, E> {
        wide(v as f64)
    }

    #[allow(clippy::cast_precision_loss, reason = "see `wide`")]
    fn visit_u128<E: Error>(self, v: u128) -> Result<Value, E> {
        wide(v as f64)
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        let shown = if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        let number = Number::from_f64(v).map(Value::Number);
        number.ok_or_else(|| self.notes.refuse(format!("json: unsupported value: {shown}")))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let (guide, mut items) = (self.guide.item(), Vec::new());
        loop {
            let mark = self.notes.enter_item(items.len());
            let item = seq.next_element_seed(Tree { guide, notes: &mut *self.notes })?;
            self.notes.path.truncate(mark);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let Self { guide, notes } = self;
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key { notes: &mut *notes })? {
            let mark = notes.enter(&key.text);
            let field = guide.field(&key.text);
            match field {
                None => notes.tell(Complaint::Unknown),
                Some(Guide::Unknown) => {}
                Some(_) if !notes.is_yaml && map.contains_key(&key.text) => notes.tell(Complaint::Twice),
                Some(_) => {}
            }
            let guide = field.unwrap_or(Guide::Unknown);
            let value = access.next_value_seed(Tree { guide, notes: &mut *notes })?;
            notes.path.truncate(mark);
            if let Some(problem) = key.problem {
                return Err(notes.refuse(format!("{problem}{}", syntax::go_syntax(&value))));
            }
            match value {
                value if notes.is_yaml && key.text == MERGE => {
                    let why = "yaml: map merge requires map or sequence of maps as the value";
                    merged(value, |key, value| put(&mut map, (key, value), notes))
                        .ok_or(())
                        .map_err(|()| notes.refuse(why.to_owned()))?;
                }
                value => put(&mut map, (key.text, value), notes),
            }
        }
        Ok(Value::Object(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        // Tags that are known to nobody say nothing.
        let (_tag, content): (String, _) = access.variant()?;
        content.newtype_variant_seed(self)
    }
}

/// The key by which a map takes what others hold.
const MERGE: &str = "<<";

fn put(map: &mut Map<String, Value>, (key, value): (String, Value), notes: &mut Notes) {
    if notes.is_yaml && map.contains_key(&key) {
        notes.tell_again(&key);
    }
    map.insert(key, value);
}

/// Tells the fields of a map, or of maps in a list of which the first says most. Nothing if it is neither.
fn merged(value: Value, mut tell: impl FnMut(String, Value)) -> Option<()> {
    let maps = match value {
        Value::Array(items) => items,
        one => vec![one],
    };
    for map in maps.into_iter().rev() {
        let Value::Object(map) = map else { return None };
        map.into_iter().for_each(|(key, value)| tell(key, value));
    }
    Some(())
}

/// A key as a text, and what upstream says of it if it cannot be one.
struct Named {
    text: String,
    problem: Option<String>,
}

/// Reads a key.
struct Key<'a> {
    notes: &'a mut Notes,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Named;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Named, D::Error> {
        if self.notes.is_yaml { deserializer.deserialize_any(self) } else { deserializer.deserialize_str(self) }
    }
}

impl Key<'_> {
    fn refuse<E: Error>(self, key: &Value) -> E {
        let shown = syntax::go_syntax(key).replace("map[string]interface", "map[interface {}]interface");
        self.notes.refuse(format!("yaml: invalid map key: {shown}"))
    }
}

fn named<E>(text: impl Into<String>) -> Result<Named, E> {
    Ok(Named { text: text.into(), problem: None })
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Named, E> {
        named(v.to_string())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Named, E> {
        named(v.to_string())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Named, E> {
        let is_wide = self.notes.is_yaml && i64::try_from(v).is_err();
        let problem = is_wide.then(|| format!("unsupported map key of type: uint64, key: {v:#x}, value: "));
        Ok(Named { text: v.to_string(), problem })
    }

    #[allow(clippy::cast_precision_loss, reason = "see `wide`")]
    fn visit_i128<E>(self, v: i128) -> Result<Named, E> {
        named(syntax::go_short(v as f64))
    }

    #[allow(clippy::cast_precision_loss, reason = "see `wide`")]
    fn visit_u128<E>(self, v: u128) -> Result<Named, E> {
        named(syntax::go_short(v as f64))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Named, E> {
        named(syntax::go_short(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Named, E> {
        named(v)
    }

    fn visit_string<E>(self, v: String) -> Result<Named, E> {
        named(v)
    }

    fn visit_unit<E>(self) -> Result<Named, E> {
        let problem = "unsupported map key of type: %!s(<nil>), key: <nil>, value: ";
        Ok(Named { text: "null".to_owned(), problem: Some(problem.to_owned()) })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Named, A::Error> {
        let key = Tree { guide: Guide::Anything, notes: &mut *self.notes }.visit_seq(seq)?;
        Err(self.refuse(&key))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
        let key = Tree { guide: Guide::Anything, notes: &mut *self.notes }.visit_map(map)?;
        Err(self.refuse(&key))
    }
}
