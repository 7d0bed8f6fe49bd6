//! What becomes of a message's values: JSON text, or a tree.

use prost::DecodeError;
use serde_json::{Map, Value};

use crate::json::{put_base64, put_float, put_int, put_text, put_uint};
use crate::schema::Field;
use crate::wire::malformed;

/// Takes values in the order of JSON text. In a map a name comes before each value, in a list [`Sink::item`].
pub(super) trait Sink {
    /// Begins an object.
    fn open_map(&mut self) -> Result<(), DecodeError>;
    /// Ends it.
    fn close_map(&mut self);
    /// Begins a list.
    fn open_list(&mut self) -> Result<(), DecodeError>;
    /// Ends it.
    fn close_list(&mut self);
    /// The name of a field.
    fn field(&mut self, field: &Field);
    /// Any other name.
    fn key(&mut self, key: &[u8]);
    /// A member of a list comes.
    fn item(&mut self);
    /// Nothing.
    fn null(&mut self);
    /// A boolean.
    fn bool(&mut self, value: bool);
    /// A number.
    fn int(&mut self, value: i64);
    /// A number.
    fn uint(&mut self, value: u64);
    /// A number.
    fn float(&mut self, value: f64) -> Result<(), DecodeError>;
    /// What should be UTF-8.
    fn text(&mut self, text: &[u8]);
    /// Bytes, which JSON has as base64.
    fn base64(&mut self, bytes: &[u8]);
    /// JSON text.
    fn raw(&mut self, text: &[u8]) -> Result<(), DecodeError>;
}

/// Appends JSON text.
pub(super) struct Text<'o>(pub(super) &'o mut Vec<u8>);

impl Text<'_> {
    /// A comma, but after what opens.
    fn comma(&mut self) {
        if !matches!(self.0.last(), Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }
}

impl Sink for Text<'_> {
    fn open_map(&mut self) -> Result<(), DecodeError> {
        self.0.push(b'{');
        Ok(())
    }

    fn close_map(&mut self) {
        self.0.push(b'}');
    }

    fn open_list(&mut self) -> Result<(), DecodeError> {
        self.0.push(b'[');
        Ok(())
    }

    fn close_list(&mut self) {
        self.0.push(b']');
    }

    fn field(&mut self, field: &Field) {
        self.comma();
        self.0.extend_from_slice(field.key.as_bytes());
    }

    fn key(&mut self, key: &[u8]) {
        self.comma();
        put_text(self.0, key);
        self.0.push(b':');
    }

    fn item(&mut self) {
        self.comma();
    }

    fn null(&mut self) {
        self.0.extend_from_slice(b"null");
    }

    fn bool(&mut self, value: bool) {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn int(&mut self, value: i64) {
        put_int(self.0, value);
    }

    fn uint(&mut self, value: u64) {
        put_uint(self.0, value);
    }

    fn float(&mut self, value: f64) -> Result<(), DecodeError> {
        put_float(self.0, value);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) {
        put_text(self.0, text);
    }

    fn base64(&mut self, bytes: &[u8]) {
        put_base64(self.0, bytes);
    }

    fn raw(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        self.0.extend_from_slice(text);
        Ok(())
    }
}

/// Values inside one another beyond this are refused, as where JSON text is read.
const MAX_DEPTH: usize = 127;

/// Builds a tree.
#[derive(Default)]
pub(super) struct Tree {
    /// What is open, the outermost first.
    open: Vec<Open>,
    root: Value,
}

enum Open {
    /// A map, and the name of its next value.
    Map(Map<String, Value>, String),
    List(Vec<Value>),
}

impl Tree {
    /// What was built.
    pub(super) fn into_value(self) -> Value {
        self.root
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            None => self.root = value,
            Some(Open::Map(map, key)) => {
                map.insert(std::mem::take(key), value);
            }
            Some(Open::List(items)) => items.push(value),
        }
    }

    fn name(&mut self, name: String) {
        if let Some(Open::Map(_, key)) = self.open.last_mut() {
            *key = name;
        }
    }

    fn open(&mut self, open: Open) -> Result<(), DecodeError> {
        if self.open.len() == MAX_DEPTH {
            return Err(malformed("message nested too deeply"));
        }
        self.open.push(open);
        Ok(())
    }

    fn close(&mut self) {
        let value = match self.open.pop() {
            Some(Open::Map(map, _)) => Value::Object(map),
            Some(Open::List(items)) => Value::Array(items),
            None => return,
        };
        self.put(value);
    }
}

impl Sink for Tree {
    fn open_map(&mut self) -> Result<(), DecodeError> {
        self.open(Open::Map(Map::new(), String::new()))
    }

    fn close_map(&mut self) {
        self.close();
    }

    fn open_list(&mut self) -> Result<(), DecodeError> {
        self.open(Open::List(Vec::new()))
    }

    fn close_list(&mut self) {
        self.close();
    }

    fn field(&mut self, field: &Field) {
        self.name(field.json.to_owned());
    }

    fn key(&mut self, key: &[u8]) {
        self.name(owned(key));
    }

    fn item(&mut self) {}

    fn null(&mut self) {
        self.put(Value::Null);
    }

    fn bool(&mut self, value: bool) {
        self.put(value.into());
    }

    fn int(&mut self, value: i64) {
        self.put(value.into());
    }

    fn uint(&mut self, value: u64) {
        self.put(value.into());
    }

    /// As the text is read: a whole number is an integer.
    fn float(&mut self, value: f64) -> Result<(), DecodeError> {
        let mut text = Vec::new();
        put_float(&mut text, value);
        self.raw(&text)
    }

    fn text(&mut self, text: &[u8]) {
        self.put(owned(text).into());
    }

    fn base64(&mut self, bytes: &[u8]) {
        let mut quoted = Vec::new();
        put_base64(&mut quoted, bytes);
        self.put(owned(&quoted[1..quoted.len() - 1]).into());
    }

    fn raw(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        let value = serde_json::from_slice(text).map_err(|_| malformed("raw JSON inside the object"))?;
        self.put(value);
        Ok(())
    }
}

fn owned(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
