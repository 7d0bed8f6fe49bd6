//! Checks that many fields share.

use std::collections::BTreeMap;

use api::Quantity;
use api::quantity::Amount;

use super::names::{self, Complaints};
use super::{Errors, Path, shown};
use crate::status::{FieldError, Shown};

pub const NEGATIVE: &str = "must be greater than or equal to 0";
pub const NOT_POSITIVE: &str = "must be greater than zero";
pub const IMMUTABLE: &str = "field is immutable";

/// One error per complaint about a text.
pub fn text(path: &Path<'_>, value: &str, complaints: Complaints, errors: &mut Errors) {
    errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, value, why)));
}

/// Most bytes in all annotations of an object.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// Keys of annotations, and their size.
pub fn annotations(path: &Path<'_>, annotations: &BTreeMap<String, String>, errors: &mut Errors) {
    for key in annotations.keys() {
        // Case does not matter.
        let complaints = names::qualified(&key.to_lowercase());
        errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, key, why)));
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long(path, MAX_ANNOTATION_BYTES));
    }
}

/// A text that has to be there.
pub fn required(path: &Path<'_>, value: &str, errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

/// A text that has to be one of some, or be required if there is none.
pub fn one_of(path: &Path<'_>, value: &str, allowed: &[&str], errors: &mut Errors) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else {
        supported(path, value, allowed, errors);
    }
}

/// A text that has to be one of some.
pub fn supported(path: &Path<'_>, value: &str, allowed: &[&str], errors: &mut Errors) {
    if !allowed.contains(&value) {
        errors.push(FieldError::not_supported(path, shown::word(value), allowed));
    }
}

/// Nothing below 0.
pub fn non_negative(path: &Path<'_>, value: impl Into<i64>, errors: &mut Errors) {
    let value = value.into();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, NEGATIVE));
    }
}

/// Nothing below 0, where something is set.
pub fn non_negative_if_set(path: &Path<'_>, value: Option<impl Into<i64>>, errors: &mut Errors) {
    if let Some(value) = value {
        non_negative(path, value, errors);
    }
}

/// Nothing below 1.
pub fn positive(path: &Path<'_>, value: impl Into<i64>, errors: &mut Errors) {
    let value = value.into();
    if value <= 0 {
        errors.push(FieldError::invalid(path, value, NOT_POSITIVE));
    }
}

/// A number within bounds that are themselves allowed.
pub fn in_range(path: &Path<'_>, value: i64, (low, high): (i64, i64), errors: &mut Errors) {
    if !(low..=high).contains(&value) {
        errors.push(FieldError::invalid(path, value, format!("must be between {low} and {high}, inclusive")));
    }
}

/// The number of a port.
pub fn port_number(path: &Path<'_>, value: impl Into<i64>, errors: &mut Errors) {
    in_range(path, value.into(), (1, 65_535), errors);
}

/// The number of a user or group.
pub fn user_id(path: &Path<'_>, value: i64, errors: &mut Errors) {
    in_range(path, value, (0, i64::from(i32::MAX)), errors);
}

/// A field that stays as it was; `shown` spells the new value.
pub fn immutable<T: PartialEq + ?Sized, S: Into<Shown>>(
    path: &Path<'_>,
    (new, old): (&T, &T),
    shown: impl FnOnce(&T) -> S,
    errors: &mut Errors,
) {
    if new != old {
        errors.push(FieldError::invalid(path, shown(new), IMMUTABLE));
    }
}

/// The amount of a quantity that was read before, so that it has the form of one.
pub fn amount(quantity: &Quantity) -> Amount {
    quantity.amount()
}

/// A quantity that is not below nothing.
pub fn non_negative_quantity(path: &Path<'_>, quantity: &Quantity, errors: &mut Errors) {
    if amount(quantity).is_negative() {
        errors.push(FieldError::invalid(path, &quantity.string, NEGATIVE));
    }
}

/// A quantity above nothing.
pub fn positive_quantity(path: &Path<'_>, quantity: &Quantity, errors: &mut Errors) {
    let amount = amount(quantity);
    if amount.is_negative() || amount.is_zero() {
        errors.push(FieldError::invalid(path, &quantity.string, NOT_POSITIVE));
    }
}
