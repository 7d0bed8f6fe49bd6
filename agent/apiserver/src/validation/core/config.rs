//! ConfigMaps and Secrets.

use std::collections::BTreeMap;

use api::core::v1::{ConfigMap, Secret};

use crate::status::FieldError;
use crate::validation::{Change, Errors, Path};

/// Most bytes of all values together.
const MAX_DATA_BYTES: usize = 1 << 20;
const MAX_KEY_LEN: usize = 253;
const BAD_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const FROZEN: &str = "field is immutable when `immutable` is set";

pub fn config_map(change: &Change<'_, ConfigMap>, errors: &mut Errors) {
    let new = change.new;
    if let Some(old) = change.old.filter(|old| old.immutable == Some(true)) {
        let frozen = [
            ("immutable", new.immutable == Some(true)),
            ("data", new.data == old.data),
            ("binaryData", new.binary_data == old.binary_data),
        ];
        forbid(&frozen, errors);
    }
    keys(&Path::root("data"), new.data.keys(), errors);
    keys(&Path::root("binaryData"), new.binary_data.keys(), errors);
    for key in new.data.keys().filter(|key| new.binary_data.contains_key(*key)) {
        let text = "duplicate of key present in data";
        errors.push(FieldError::invalid(Path::root("data").key(key), key.as_str(), text));
    }
    let size = new.data.values().map(String::len).sum::<usize>() + bytes(&new.binary_data);
    if size > MAX_DATA_BYTES {
        errors.push(FieldError::too_long("", MAX_DATA_BYTES));
    }
}

pub fn secret(change: &Change<'_, Secret>, errors: &mut Errors) {
    let new = change.new;
    if let Some(old) = change.old {
        if old.r#type != new.r#type {
            errors.push(FieldError::invalid("type", new.r#type.as_str(), "field is immutable"));
        }
        if old.immutable == Some(true) {
            forbid(&[("immutable", new.immutable == Some(true)), ("data", new.data == old.data)], errors);
        }
    }
    keys(&Path::root("data"), new.data.keys(), errors);
    if bytes(&new.data) > MAX_DATA_BYTES {
        errors.push(FieldError::too_long("data", MAX_DATA_BYTES));
    }
}

/// Each field with whether it stayed as it was.
fn forbid(fields: &[(&str, bool)], errors: &mut Errors) {
    let changed = fields.iter().filter(|(_, same)| !same);
    errors.extend(changed.map(|(field, _)| FieldError::forbidden(*field, FROZEN)));
}

fn bytes(data: &BTreeMap<String, Vec<u8>>) -> usize {
    data.values().map(Vec::len).sum()
}

fn keys<'a>(path: &Path<'_>, keys: impl Iterator<Item = &'a String>, errors: &mut Errors) {
    for key in keys {
        let word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if key.is_empty() || key.len() > MAX_KEY_LEN || key.starts_with("..") || key == "." || !key.bytes().all(word) {
            errors.push(FieldError::invalid(path.key(key), key.as_str(), BAD_KEY));
        }
    }
}
