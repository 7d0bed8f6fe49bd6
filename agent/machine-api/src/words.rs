//! Enums as words in JSON, where messages have their numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Severity, Stage, UpdateState};

macro_rules! words {
    ($($(#[$doc:meta])* $module:ident of $kind:ty,)*) => {$(
        $(#[$doc])*
        pub(crate) mod $module {
            use super::*;

            pub(crate) fn serialize<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
                <$kind>::try_from(*number).unwrap_or_default().serialize(serializer)
            }

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
                <$kind>::deserialize(deserializer).map(i32::from)
            }
        }
    )*};
}

words! {
    /// Of a [`Stage`].
    stage of Stage,
    /// Of a [`Severity`].
    severity of Severity,
}

/// Of an [`UpdateState`], where there is one.
pub(crate) mod update_state {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(number: &Option<i32>, serializer: S) -> Result<S::Ok, S::Error> {
        number.and_then(|number| UpdateState::try_from(number).ok()).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
        Ok(Option::<UpdateState>::deserialize(deserializer)?.map(i32::from))
    }
}
