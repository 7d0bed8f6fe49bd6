//! Taints and tolerations.

use api::core::v1::{Taint, Toleration};

/// Whether the toleration covers the taint.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key.is_empty() || toleration.key == taint.key;
    let value = match toleration.operator.as_str() {
        "Exists" => true,
        _ => toleration.value == taint.value && !toleration.key.is_empty(),
    };
    effect && key && value
}

/// A toleration of a key, whatever its value.
pub(crate) fn exists(key: &str, effect: &str) -> Toleration {
    Toleration {
        key: key.to_owned(),
        operator: "Exists".to_owned(),
        effect: effect.to_owned(),
        ..Toleration::default()
    }
}
