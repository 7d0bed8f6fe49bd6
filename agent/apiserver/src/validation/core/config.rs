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
        errors.push(FieldError::too_long("[]", MAX_DATA_BYTES));
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
    contents(new, errors);
}

const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// What a Secret holds by its type.
fn contents(secret: &Secret, errors: &mut Errors) {
    let data = Path::root("data");
    let mut require = |keys: &[&str], there: fn(Option<&Vec<u8>>) -> bool| {
        let missing = keys.iter().filter(|key| !there(secret.data.get(**key)));
        errors.extend(missing.map(|key| FieldError::required(data.key(key), "")));
    };
    let (given, filled) = (|v: Option<&Vec<u8>>| v.is_some(), |v: Option<&Vec<u8>>| v.is_some_and(|v| !v.is_empty()));
    match secret.r#type.as_str() {
        "kubernetes.io/service-account-token"
            if secret.metadata.annotations.get(ACCOUNT).is_none_or(String::is_empty) =>
        {
            errors.push(FieldError::required(Path::root("metadata").child("annotations").key(ACCOUNT), ""));
        }
        "kubernetes.io/dockercfg" => json_map(secret, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => json_map(secret, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" => {
            let keys = ["username", "password"];
            if !keys.iter().any(|key| secret.data.contains_key(*key)) {
                require(&keys, given);
            }
        }
        "kubernetes.io/ssh-auth" => require(&["ssh-privatekey"], filled),
        "kubernetes.io/tls" => require(&["tls.crt", "tls.key"], given),
        _ => {}
    }
}

/// A file of registries' credentials is a JSON object. What it holds is not shown.
fn json_map(secret: &Secret, key: &str, errors: &mut Errors) {
    let data = Path::root("data");
    let Some(text) = secret.data.get(key) else {
        errors.push(FieldError::required(data.key(key), ""));
        return;
    };
    let found = match serde_json::from_slice(text) {
        Ok(serde_json::Value::Object(_) | serde_json::Value::Null) => return,
        Ok(serde_json::Value::Bool(_)) => "bool",
        Ok(serde_json::Value::Number(_)) => "number",
        Ok(serde_json::Value::String(_)) => "string",
        Ok(serde_json::Value::Array(_)) => "array",
        Err(_) => "",
    };
    let why = if found.is_empty() {
        crate::codec::syntax_complaint(text)
    } else {
        format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}")
    };
    errors.push(FieldError::invalid(data.key(key), "<secret contents redacted>", why));
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

#[cfg(test)]
mod tests {
    use api::features::Features;

    use super::*;
    use crate::strategy::Part;
    use crate::validation::Context;

    #[test]
    fn secrets_hold_what_their_type_says() {
        let cases = [
            ("Opaque", ("a b", ""), "data[a b]: Invalid value: \"a b\": a valid config key"),
            ("kubernetes.io/tls", ("tls.crt", "x"), "data[tls.key]: Required value"),
            ("kubernetes.io/basic-auth", ("password", "x"), ""),
            ("kubernetes.io/ssh-auth", ("ssh-privatekey", ""), "data[ssh-privatekey]: Required value"),
            ("kubernetes.io/dockercfg", (".dockercfg", "[]"), "cannot unmarshal array into Go value"),
            ("kubernetes.io/dockerconfigjson", (".dockerconfigjson", "{}"), ""),
        ];
        for (kind, (key, value), expected) in cases {
            let data = BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]);
            let new = Secret { r#type: kind.to_owned(), data, ..Secret::default() };
            let mut errors = Errors::new();
            let context = Context { features: &Features::default(), now: 0 };
            let given = &serde_json::Value::Null;
            secret(&Change { part: Part::Main, new: &new, old: None, given, context }, &mut errors);
            let told = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            assert_eq!(expected.is_empty(), told.is_empty(), "{kind}: {told}");
            assert!(told.contains(expected), "{kind}: {told}");
        }
    }
}
