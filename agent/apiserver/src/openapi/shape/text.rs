//! Documents as JSON text.

use serde_json::{Map, Value};

use super::{Pick, Shape, Ty, document};
use crate::openapi::Style;

/// The text of a document.
pub(in crate::openapi) fn write(value: &Value, style: Style) -> String {
    let mut writer = Writer { out: String::new(), style };
    writer.object(document(style), value);
    writer.out
}

struct Writer {
    out: String,
    style: Style,
}

impl Writer {
    fn leaf(&mut self, value: &Value) {
        let text = value.to_string();
        // Upstream's newer version is made fit for pages, like all its other JSON.
        if self.style == Style::V2 || !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            return self.out.push_str(&text);
        }
        for letter in text.chars() {
            match letter {
                '<' => self.out.push_str("\\u003c"),
                '>' => self.out.push_str("\\u003e"),
                '&' => self.out.push_str("\\u0026"),
                '\u{2028}' => self.out.push_str("\\u2028"),
                '\u{2029}' => self.out.push_str("\\u2029"),
                other => self.out.push(other),
            }
        }
    }

    fn list<T>(&mut self, items: impl IntoIterator<Item = T>, ends: (char, char), mut each: impl FnMut(&mut Self, T)) {
        self.out.push(ends.0);
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            each(self, item);
        }
        self.out.push(ends.1);
    }

    fn key(&mut self, key: &str) {
        self.leaf(&Value::from(key));
        self.out.push(':');
    }

    fn object(&mut self, shape: &Shape, value: &Value) {
        let Value::Object(map) = value else { return self.leaf(value) };
        let known = shape.keys.iter().filter_map(|(key, _, ty)| Some((*key, *ty, map.get(*key)?)));
        let others = map.iter().filter(|(name, _)| shape.keys.iter().all(|(key, ..)| key != name));
        let all = known.chain(others.map(|(key, value)| (key.as_str(), Ty::Any, value)));
        // Extensions stand behind all keys, also those that have a row.
        let (keys, mut extensions): (Vec<_>, Vec<_>) = all.partition(|(key, ..)| !key.starts_with("x-"));
        extensions.sort_by_key(|(key, ..)| *key);
        self.list(keys.into_iter().chain(extensions), ('{', '}'), |writer, (key, ty, value)| {
            writer.key(key);
            writer.value(ty, value);
        });
    }

    fn picked(&mut self, pick: Pick, value: &Value) {
        match value {
            Value::Object(map) => self.object(pick(map).1, value),
            other => self.leaf(other),
        }
    }

    fn value(&mut self, ty: Ty, value: &Value) {
        match (ty, value) {
            (Ty::One(pick) | Ty::Items(pick) | Ty::Additional(pick), value) => self.picked(pick, value),
            (Ty::Many(pick), Value::Array(list)) => {
                self.list(list, ('[', ']'), |writer, item| writer.picked(pick, item));
            }
            (Ty::Named(_, pick), Value::Object(map)) => self.named(pick, map),
            (Ty::Ordered(keys, keeps_order), value) if keeps_order(value) => self.ordered(keys, value),
            (_, value) => self.leaf(value),
        }
    }

    fn ordered(&mut self, keys: &[&str], value: &Value) {
        match value {
            Value::Object(map) => {
                let known = keys.iter().filter_map(|key| Some((key, map.get(*key)?)));
                self.list(known, ('{', '}'), |writer, (key, value)| {
                    writer.key(key);
                    writer.leaf(value);
                });
            }
            Value::Array(list) => self.list(list, ('[', ']'), |writer, item| writer.ordered(keys, item)),
            other => self.leaf(other),
        }
    }

    fn named(&mut self, pick: Pick, map: &Map<String, Value>) {
        self.list(map, ('{', '}'), |writer, (name, value)| {
            writer.key(name);
            writer.picked(pick, value);
        });
    }
}
