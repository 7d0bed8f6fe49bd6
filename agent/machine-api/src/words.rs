//! Enums as words in JSON, where messages have their numbers.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Stage, UpdateState};

/// Of a [`Stage`].
pub(crate) mod stage {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        Stage::try_from(*number).unwrap_or_default().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        Stage::deserialize(deserializer).map(i32::from)
    }
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
