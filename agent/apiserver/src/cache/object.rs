//! An object at rest: its stored bytes and the little that requests select by.

use std::sync::Arc;

use api::schema::{FieldType, Message};
use bytes::Bytes;
use serde_json::Value as Json;

use crate::wire::{self, Layout, Splice, Value};

/// An object at rest.
pub struct Object {
    /// Key below the kind's prefix: `namespace/name`, or `name`.
    pub key: Arc<str>,
    /// The revision that wrote it; for a deleted object the revision that deleted it.
    pub revision: i64,
    /// The stored form.
    pub data: Bytes,
    /// Whether it was only tried: its revision then tells nothing of its content.
    pub dry: bool,
    /// Whether a webhook made it of another version: defaults were filled in before.
    pub converted: bool,
    labels: Box<[(Box<str>, Box<str>)]>,
    fields: Box<[Box<str>]>,
    message: Option<Place>,
}

/// Where an encoded object lies in its stored form. It is known without a look there: a list asks for the lengths of
/// ten thousand objects before it sends the first, and each look would fetch what is in no processor's cache.
#[derive(Clone, Copy)]
struct Place {
    at: u32,
    end: u32,
    layout: Option<Layout>,
}

impl Place {
    fn find(data: &[u8], raw: &[u8]) -> Option<Self> {
        let at = raw.as_ptr().addr().checked_sub(data.as_ptr().addr())?;
        let place = |at: usize| u32::try_from(at).ok();
        Some(Self { at: place(at)?, end: place(at + raw.len())?, layout: Layout::find(raw) })
    }
}

/// How one field selector finds its value in the stored form.
pub struct FieldPath {
    /// The selector's name.
    pub name: &'static str,
    /// JSON names of the path in the stored version.
    path: Box<[&'static str]>,
    /// Protobuf numbers of the same path.
    numbers: Vec<u32>,
    kind: Leaf,
    /// Where the value is looked for if there is none here.
    otherwise: Option<Box<FieldPath>>,
}

#[derive(Clone, Copy)]
enum Leaf {
    Text,
    Integer,
    Bool,
}

impl FieldPath {
    /// Resolves a JSON path against a message. Paths after a bar are for objects without a value at those before it.
    pub fn resolve(name: &'static str, path: &'static str, root: &'static Message) -> Option<Self> {
        if let Some((first, rest)) = path.split_once('|') {
            let otherwise = Self::resolve(name, rest, root).map(Box::new);
            return Some(Self { otherwise, ..Self::resolve(name, first, root)? });
        }
        let mut numbers = Vec::new();
        let mut message = Some(root);
        let mut kind = Leaf::Text;
        let path: Vec<&'static str> = path.split('.').collect();
        for part in &path {
            let field = message?.field(part)?;
            numbers.push(field.number);
            message = field.ty.message();
            kind = match field.ty {
                FieldType::Int32 | FieldType::Int64 | FieldType::Uint64 => Leaf::Integer,
                FieldType::Bool => Leaf::Bool,
                _ => Leaf::Text,
            };
        }
        Some(Self { name, path: path.into(), numbers, kind, otherwise: None })
    }

    /// A path in objects that are stored as JSON and have no message.
    #[must_use]
    pub fn of_json(name: &'static str) -> Self {
        Self { name, path: name.split('.').collect(), numbers: Vec::new(), kind: Leaf::Text, otherwise: None }
    }

    fn empty(&self) -> &'static str {
        match self.kind {
            Leaf::Text => "",
            Leaf::Integer => "0",
            Leaf::Bool => "false",
        }
    }

    fn in_wire(&self, raw: &[u8]) -> Box<str> {
        let found = self.here_in_wire(raw);
        match &self.otherwise {
            Some(other) if found.is_empty() => other.in_wire(raw),
            _ => found,
        }
    }

    fn here_in_wire(&self, raw: &[u8]) -> Box<str> {
        let Some((last, path)) = self.numbers.split_last() else { return "".into() };
        let mut data = raw;
        for number in path {
            let Some(inner) = wire::bytes_field(data, *number) else { return self.empty().into() };
            data = inner;
        }
        let found = wire::fields(data).find(|(n, _)| n == last);
        match (found, self.kind) {
            (Some((_, Value::Varint(v))), Leaf::Bool) => if v == 0 { "false" } else { "true" }.into(),
            (Some((_, Value::Varint(v))), _) => v.cast_signed().to_string().into(),
            (Some((_, Value::Bytes(text))), _) => String::from_utf8_lossy(text).into(),
            (None, _) => self.empty().into(),
        }
    }

    fn in_json(&self, object: &Json) -> Box<str> {
        let found = self.path.iter().try_fold(object, |value, part| value.get(part));
        match found {
            Some(Json::String(text)) => text.as_str().into(),
            Some(Json::Null) | None => self.empty().into(),
            Some(other) => other.to_string().into(),
        }
    }
}

impl Object {
    /// Reads the header out of a stored object.
    #[must_use]
    pub fn new(key: Arc<str>, revision: i64, data: Bytes, paths: &[FieldPath]) -> Self {
        let (labels, fields, message) = match api::envelope::view(&data) {
            Ok(view) => {
                let fields = paths.iter().map(|p| p.in_wire(view.raw)).collect();
                (labels_of(view.raw), fields, Place::find(&data, view.raw))
            }
            Err(_) => {
                let json: Json = serde_json::from_slice(&data).unwrap_or_default();
                (json_labels(&json), paths.iter().map(|p| p.in_json(&json)).collect(), None)
            }
        };
        Self { key, revision, data, dry: false, converted: false, labels, fields, message }
    }

    /// The same object, as one that was only tried.
    #[must_use]
    pub fn tried(self, dry: bool) -> Self {
        Self { dry, ..self }
    }

    /// The same object, as one that a webhook made of another version.
    #[must_use]
    pub fn by_webhook(self) -> Self {
        Self { converted: true, ..self }
    }

    /// The same object at another revision, as the event of its deletion carries it.
    #[must_use]
    pub fn at_revision(&self, revision: i64) -> Self {
        Self {
            key: self.key.clone(),
            revision,
            data: self.data.clone(),
            dry: self.dry,
            converted: self.converted,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            message: self.message,
        }
    }

    /// The encoded object, in the version that it is stored in; `None` if it is stored as JSON.
    #[must_use]
    pub fn message(&self) -> Option<&[u8]> {
        let message = self.message?;
        self.data.get(message.at as usize..message.end as usize)
    }

    /// The encoded object, to be given its resource version.
    pub(crate) fn splice(&self) -> Option<Splice<'_>> {
        Some(Splice::new(self.message()?, self.message?.layout?))
    }

    /// Namespace, or empty.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.key.rsplit_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }

    /// The value of the selector field at this index.
    #[must_use]
    pub fn field(&self, index: usize) -> &str {
        self.fields.get(index).map_or("", |f| f)
    }

    /// Bytes this object accounts for.
    #[must_use]
    pub fn size(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(k, v)| k.len() + v.len() + 32).sum();
        size_of::<Self>() + self.data.len() + self.key.len() + labels + self.fields.len() * 24
    }
}

/// `ObjectMeta.labels`.
const LABELS: u32 = 11;

fn labels_of(raw: &[u8]) -> Box<[(Box<str>, Box<str>)]> {
    let Some(meta) = wire::bytes_field(raw, 1) else { return Box::default() };
    let mut labels = Vec::new();
    for (number, value) in wire::fields(meta) {
        if let (LABELS, Value::Bytes(entry)) = (number, value) {
            let text = |n| wire::bytes_field(entry, n).map(String::from_utf8_lossy).unwrap_or_default().into();
            labels.push((text(1), text(2)));
        }
    }
    labels.sort();
    labels.into()
}

fn json_labels(object: &Json) -> Box<[(Box<str>, Box<str>)]> {
    let Some(map) = object["metadata"]["labels"].as_object() else { return Box::default() };
    let mut labels: Vec<(Box<str>, Box<str>)> =
        map.iter().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into())).collect();
    labels.sort();
    labels.into()
}
