//! JSON text changed in place, without losing the order of its fields.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

/// An object in the order it was written.
struct Ordered(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl Serialize for Ordered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// JSON text without the white space between its parts; nothing if it is no JSON.
#[must_use]
pub fn compact(text: &[u8]) -> Option<Box<RawValue>> {
    let raw: &RawValue = serde_json::from_slice(text).ok()?;
    let text = raw.get();
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for char in text.chars() {
        if quoted {
            out.push(char);
            quoted = escaped || char != '"';
            escaped = !escaped && char == '\\';
        } else if !char.is_ascii_whitespace() {
            out.push(char);
            quoted = char == '"';
        }
    }
    RawValue::from_string(out).ok()
}

/// The same object, list or table without `managedFields` of the objects in it.
#[must_use]
pub fn without_managed_fields(object: &RawValue) -> Option<Box<RawValue>> {
    let mut entries: Ordered = serde_json::from_str(object.get()).ok()?;
    let kind = entries.0.iter().find(|(key, _)| key == "kind").map(|(_, value)| value.get().to_owned());
    let is_table = kind.as_deref() == Some("\"Table\"");
    for (key, value) in &mut entries.0 {
        let changed = match key.as_str() {
            "metadata" => without(value, "managedFields"),
            "items" => each(value, without_managed_fields),
            "rows" if is_table => each(value, row),
            _ => None,
        };
        if let Some(changed) = changed {
            *value = changed;
        }
    }
    serde_json::value::to_raw_value(&entries).ok()
}

fn row(row: &RawValue) -> Option<Box<RawValue>> {
    let mut entries: Ordered = serde_json::from_str(row.get()).ok()?;
    for (key, value) in &mut entries.0 {
        if key == "object"
            && let Some(changed) = without_managed_fields(value)
        {
            *value = changed;
        }
    }
    serde_json::value::to_raw_value(&entries).ok()
}

fn each(list: &RawValue, change: fn(&RawValue) -> Option<Box<RawValue>>) -> Option<Box<RawValue>> {
    let mut items: Vec<Box<RawValue>> = serde_json::from_str(list.get()).ok()?;
    for item in &mut items {
        if let Some(changed) = change(item) {
            *item = changed;
        }
    }
    serde_json::value::to_raw_value(&items).ok()
}

fn without(object: &RawValue, field: &str) -> Option<Box<RawValue>> {
    let mut entries: Ordered = serde_json::from_str(object.get()).ok()?;
    entries.0.retain(|(key, _)| key != field);
    serde_json::value::to_raw_value(&entries).ok()
}

/// JSON text in which characters that mean something in markup are written by number, as Go writes them. Outside of
/// texts they do not occur.
pub(crate) fn escape_markup(text: Vec<u8>) -> Vec<u8> {
    let is_plain = |window: &[u8]| !matches!(window[0], b'<' | b'>' | b'&' | 0xe2);
    if text.chunks(1).all(is_plain) {
        return text;
    }
    let mut out = Vec::with_capacity(text.len() + 64);
    let mut rest = &text[..];
    while let Some(&byte) = rest.first() {
        let (written, len): (&[u8], usize) = match rest {
            [b'<', ..] => (br"\u003c", 1),
            [b'>', ..] => (br"\u003e", 1),
            [b'&', ..] => (br"\u0026", 1),
            [0xe2, 0x80, 0xa8, ..] => (br"\u2028", 3),
            [0xe2, 0x80, 0xa9, ..] => (br"\u2029", 3),
            _ => (&[byte], 1),
        };
        out.extend_from_slice(written);
        rest = &rest[len..];
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn omitted(text: &str) -> String {
        without_managed_fields(&RawValue::from_string(text.to_owned()).unwrap()).unwrap().get().to_owned()
    }

    #[test]
    fn white_space_goes_where_it_means_nothing() {
        let text = b"{ \"b\" : [1, 2.50 ,\n \"x \\\" y\\\\\"], \"a\":{} }";
        assert_eq!(compact(text).unwrap().get(), r#"{"b":[1,2.50,"x \" y\\"],"a":{}}"#);
        assert!(compact(b"{").is_none());
    }

    #[test]
    fn managed_fields_go_wherever_objects_are() {
        let object = r#"{"kind":"Pod","metadata":{"name":"a","managedFields":[{}],"uid":"u"},"managedFields":1}"#;
        let rest = r#"{"kind":"Pod","metadata":{"name":"a","uid":"u"},"managedFields":1}"#;
        assert_eq!(omitted(object), rest);
        assert_eq!(
            omitted(&format!(r#"{{"kind":"PodList","items":[{object}]}}"#)),
            format!(r#"{{"kind":"PodList","items":[{rest}]}}"#)
        );
        assert_eq!(
            omitted(&format!(r#"{{"kind":"Table","rows":[{{"cells":[1],"object":{object}}}]}}"#)),
            format!(r#"{{"kind":"Table","rows":[{{"cells":[1],"object":{rest}}}]}}"#)
        );
    }

    proptest! {
        #[test]
        fn what_is_compacted_means_the_same(text in "[ -~ä\u{2028}]{0,40}", key in "[ -~]{0,8}") {
            let value = serde_json::json!({key.clone(): [text.clone(), 1, null, {"k": text.clone()}], "z": text});
            let pretty = serde_json::to_vec_pretty(&value).unwrap();
            let compacted = compact(&pretty).unwrap();
            let back: serde_json::Value = serde_json::from_str(compacted.get()).unwrap();
            prop_assert_eq!(&back, &value);
            let escaped = escape_markup(compacted.get().as_bytes().to_vec());
            let back: serde_json::Value = serde_json::from_slice(&escaped).unwrap();
            prop_assert_eq!(back, value);
        }
    }
}
