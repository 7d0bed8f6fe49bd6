//! The group of devices that pods ask for.

pub(super) mod claim;
pub(super) mod class;
pub mod device;
pub(super) mod pool;
pub(super) mod slice;
pub(super) mod status;

use std::hash::Hash;
use std::sync::LazyLock;

use api::dra::v1::{DeviceConfiguration, DeviceSelector};
use cel::{Environment, Type};

use super::core::volume_source::csi_driver_name as driver_name;
use super::{Errors, Path, checks, names, shown};
use crate::status::{FieldError, Shown};

const MAX_EXPRESSION_BYTES: usize = 10 << 10;
const MAX_SELECTORS: usize = 32;
const MAX_CONFIGURATIONS: usize = 32;
const MAX_REQUESTS: usize = 32;
const MAX_PARAMETER_BYTES: usize = 10 << 10;
const MAX_POOL_LEN: usize = 253;

/// Items of a list with at most so many; `false` if there are more.
fn items<T>(
    path: &Path<'_>,
    list: &[T],
    max: usize,
    mut each: impl FnMut(&Path<'_>, &T, &mut Errors),
    errors: &mut Errors,
) -> bool {
    if list.len() > max {
        errors.push(FieldError::too_many(path, list.len(), max as u64));
        return false;
    }
    for (i, item) in list.iter().enumerate() {
        each(&path.index(i), item, errors);
    }
    true
}

/// Items of a list that have keys of their own.
fn distinct<'a, T, K: Eq + Hash>(
    path: &Path<'_>,
    (list, max): (&'a [T], usize),
    each: impl FnMut(&Path<'_>, &T, &mut Errors),
    (key, shown): (impl Fn(&'a T) -> K, impl Fn(&'a T) -> Shown),
    errors: &mut Errors,
) {
    if !items(path, list, max, each, errors) {
        return;
    }
    let mut seen = std::collections::HashSet::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        if !seen.insert(key(item)) {
            errors.push(FieldError::duplicate(path.index(i), shown(item)));
        }
    }
}

/// Names in a list, each once.
fn distinct_names(
    path: &Path<'_>,
    list: &[String],
    max: usize,
    each: impl Fn(&Path<'_>, &str, &mut Errors),
    errors: &mut Errors,
) {
    let key = (|name: &String| name.clone(), |name: &String| Shown::from(name));
    distinct(path, (list, max), |path, name, errors| each(path, name, errors), key, errors);
}

fn label(path: &Path<'_>, name: &str, errors: &mut Errors) {
    checks::text(path, name, names::dns1123_label(name), errors);
}

/// Parts of a pool's name, between slashes.
fn pool_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if name.len() > MAX_POOL_LEN {
        errors.push(FieldError::too_long(path, MAX_POOL_LEN));
    }
    for part in name.split('/') {
        checks::text(path, part, names::dns1123_subdomain(part), errors);
    }
}

/// What expressions about a device may refer to.
static DEVICE: LazyLock<Environment> = LazyLock::new(|| {
    let by_domain = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    let fields = [
        ("driver", Type::String),
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::handle("kubernetes.Quantity"))),
    ];
    Environment::new().with_bindings().with("device", Type::object("kubernetes.DRADevice", fields))
});

/// An expression that chooses devices: true or false, or what will turn out to be.
fn device_expression(expression: &str) -> Result<(), String> {
    let checked = DEVICE.check(expression).map_err(|error| error.detail())?;
    match checked.output_type() {
        Type::Bool | Type::Dyn => Ok(()),
        other => Err(format!("must evaluate to bool or the unknown type, not {}", other.declared())),
    }
}

fn selectors(path: &Path<'_>, list: &[DeviceSelector], errors: &mut Errors) {
    let each = |path: &Path<'_>, selector: &DeviceSelector, errors: &mut Errors| {
        let path = path.child("cel");
        match &selector.cel {
            None => errors.push(FieldError::required(path, "")),
            Some(cel) if cel.expression.len() > MAX_EXPRESSION_BYTES => {
                errors.push(FieldError::too_long(path.child("expression"), MAX_EXPRESSION_BYTES));
            }
            Some(cel) => {
                if let Err(why) = device_expression(&cel.expression) {
                    errors.push(FieldError::invalid(path.child("expression"), cel.expression.as_str(), why));
                }
            }
        }
    };
    items(path, list, MAX_SELECTORS, each, errors);
}

fn configuration(path: &Path<'_>, configuration: &DeviceConfiguration, stored: bool, errors: &mut Errors) {
    let path = path.child("opaque");
    let Some(opaque) = &configuration.opaque else { return errors.push(FieldError::required(path, "")) };
    driver_name(&path.child("driver"), &opaque.driver, errors);
    let raw = opaque.parameters.raw.as_deref().unwrap_or_default();
    let max = if stored { usize::MAX } else { MAX_PARAMETER_BYTES };
    raw_object(&path.child("parameters"), raw, max, errors);
}

/// JSON that has to be an object.
fn raw_object(path: &Path<'_>, raw: &[u8], max: usize, errors: &mut Errors) {
    const OMITTED: &str = "<value omitted>";
    if raw.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    if raw.len() > max {
        return errors.push(FieldError::too_long(path, max));
    }
    match serde_json::from_slice::<serde_json::Value>(raw) {
        Ok(serde_json::Value::Null) => errors.push(FieldError::required(path, "")),
        Ok(serde_json::Value::Object(_)) => {}
        Ok(_) => errors.push(FieldError::invalid(path, OMITTED, "must be a valid JSON object")),
        Err(error) => {
            errors.push(FieldError::invalid(path, OMITTED, format!("error parsing data as JSON: {error}")));
        }
    }
}

/// A name that may have a domain before it.
fn qualified_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [name] => identifier(path, name, errors),
        [domain, name] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver_name(path, domain, errors);
            }
            if name.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(path, name, errors);
            }
        }
        _ => {}
    }
}

fn fully_qualified_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    qualified_name(path, name, errors);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, shown::word(name), why));
    }
}

fn identifier(path: &Path<'_>, name: &str, errors: &mut Errors) {
    const MAX_LEN: usize = 32;
    if name.len() > MAX_LEN {
        errors.push(FieldError::too_long(path, MAX_LEN));
    }
    checks::text(path, name, names::c_identifier(name), errors);
}

/// A UUID as its standard spells it.
fn uid(path: &Path<'_>, text: &str, errors: &mut Errors) {
    let hex = |c: u8| c.is_ascii_hexdigit();
    let plain = |text: &str| {
        text.len() == 36
            && text.bytes().enumerate().all(|(i, c)| if matches!(i, 8 | 13 | 18 | 23) { c == b'-' } else { hex(c) })
    };
    let why = match text.len() {
        36 if plain(text) => None,
        36 => Some("invalid UUID format".to_owned()),
        45 if !text.to_ascii_lowercase().starts_with("urn:uuid:") => {
            Some(format!("invalid urn prefix: {}", stdx::quoted(text.get(..9).unwrap_or_default())))
        }
        45 => (!plain(&text[9..])).then(|| "invalid UUID format".to_owned()),
        38 if !text.starts_with('{') || !text.ends_with('}') => Some("invalid bracketed UUID format".to_owned()),
        38 => (!plain(&text[1..37])).then(|| "invalid UUID format".to_owned()),
        32 => (!text.bytes().all(hex)).then(|| "invalid UUID format".to_owned()),
        length => Some(format!("invalid UUID length: {length}")),
    };
    if let Some(why) = why {
        errors.push(FieldError::invalid(path, text, format!("error validating uid: {why}")));
    } else if text.len() != 36 || text.bytes().any(|c| c.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.push(FieldError::invalid(path, text, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_about_devices_are_read() {
        for right in [
            "device.driver == 'a.test' && device.attributes['a.test'].size > 3",
            "device.attributes['a.test'].good",
            "cel.bind(own, device.attributes['a.test'], own.a && own.b)",
            "device.capacity['a.test'].memory.compareTo(quantity('1Gi')) >= 0",
        ] {
            assert_eq!(device_expression(right), Ok(()), "{right}");
        }
        assert_eq!(device_expression("1"), Err("must evaluate to bool or the unknown type, not int".to_owned()));
        assert!(device_expression("").unwrap_err().starts_with("compilation failed: ERROR: <input>:1:0: Syntax error"));
        assert!(device_expression("device.none").unwrap_err().contains("undefined field 'none'"));
    }
}
