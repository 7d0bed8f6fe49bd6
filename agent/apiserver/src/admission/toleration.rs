//! Tolerations as plain data: which covers which, and how two lists of them become one.

use serde::Deserialize;
use serde_json::Value;

/// What a toleration says. Absent and empty are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
    toleration_seconds: Option<i64>,
}

impl Toleration {
    /// Every taint of this key that keeps pods away.
    pub(super) fn of_key(key: &str) -> Self {
        let (operator, effect) = ("Exists".to_owned(), "NoSchedule".to_owned());
        Self { key: key.to_owned(), operator, effect, ..Self::default() }
    }

    fn texts(&self) -> [&str; 4] {
        [&self.key, &self.operator, &self.value, &self.effect]
    }

    /// Whether both are about the same taints, however long.
    pub(super) fn is_for_same(&self, other: &Self) -> bool {
        self.texts() == other.texts()
    }

    /// Whether whatever another one tolerates is tolerated by this one.
    fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let is_key = self.key == other.key || (self.key.is_empty() && self.operator == "Exists");
        let is_effect = self.effect == other.effect || self.effect.is_empty();
        let limit = self.toleration_seconds.filter(|_| self.effect == "NoExecute");
        let is_as_long = limit.is_none_or(|limit| other.toleration_seconds.is_some_and(|seconds| seconds <= limit));
        let is_value = match self.operator.as_str() {
            "Exists" => true,
            "Equal" | "" => other.operator == "Equal" && other.value == self.value,
            _ => false,
        };
        is_key && is_effect && is_as_long && is_value
    }

    /// As validation sees it.
    pub(super) fn to_api(&self) -> api::core::v1::Toleration {
        let Self { key, operator, value, effect, toleration_seconds } = self.clone();
        api::core::v1::Toleration { key, operator, value, effect, toleration_seconds }
    }

    /// As a pod has it.
    pub(super) fn to_value(&self) -> Value {
        let keys = ["key", "operator", "value", "effect"].into_iter().zip(self.texts());
        let filled = keys.filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), text.into()));
        let seconds = self.toleration_seconds.map(|seconds| ("tolerationSeconds".to_owned(), seconds.into()));
        Value::Object(filled.chain(seconds).collect())
    }

    /// Those in a list whose fields have their types, or are null.
    pub(super) fn list(values: &[Value]) -> Vec<Self> {
        let one = |item: &Value| {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
            let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(text);
            Self { key, operator, value, effect, toleration_seconds: item["tolerationSeconds"].as_i64() }
        };
        values.iter().map(one).collect()
    }
}

/// Both lists as one, without those that others cover; of equal ones the first stays.
pub(super) fn merged(first: Vec<Toleration>, second: Vec<Toleration>) -> Vec<Toleration> {
    let all = [first, second].concat();
    let mut merged: Vec<Toleration> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        let is_covered = merged.iter().any(|kept| kept.covers(one))
            || all[at + 1..].iter().any(|later| one != later && later.covers(one));
        if !is_covered {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether each is covered by one of those that are allowed.
pub(super) fn are_allowed(tolerations: &[Toleration], allowed: &[Toleration]) -> bool {
    allowed.is_empty() || tolerations.iter().all(|one| allowed.iter().any(|allowed| allowed.covers(one)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(value: Value) -> Vec<Toleration> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn one_covers_another() {
        let covers = |one: Value, other: Value| list(json!([one]))[0].covers(&list(json!([other]))[0]);
        assert!(covers(json!({"operator": "Exists"}), json!({"key": "a", "operator": "Equal", "effect": "NoExecute"})));
        assert!(covers(json!({"key": "a", "operator": "Exists"}), json!({"key": "a", "effect": "NoSchedule"})));
        assert!(covers(
            json!({"key": "a", "value": "x"}),
            json!({"key": "a", "operator": "Equal", "value": "x", "effect": "NoSchedule"})
        ));
        assert!(!covers(json!({"key": "a"}), json!({"key": "b"})));
        assert!(!covers(
            json!({"operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": "a", "operator": "Exists"})
        ));
        let seconds = |count: i64| json!({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": count});
        assert!(covers(seconds(2), seconds(1)) && !covers(seconds(1), seconds(2)));
        assert!(!covers(seconds(2), json!({"operator": "Exists", "effect": "NoExecute"})));
        assert!(!covers(
            json!({"key": "a", "operator": "Gt", "value": "1"}),
            json!({"key": "a", "operator": "Gt", "value": "2"})
        ));
    }

    #[test]
    fn lists_become_one() {
        let (one, any) =
            (json!({"key": "a", "operator": "Exists", "effect": "NoSchedule"}), json!({"operator": "Exists"}));
        assert_eq!(merged(list(json!([one])), list(json!([one]))).len(), 1);
        let all = merged(list(json!([one])), list(json!([any])));
        assert_eq!(all.iter().map(Toleration::to_value).collect::<Vec<_>>(), std::slice::from_ref(&any));
        let both = json!([one, {"key": "b", "operator": "Exists"}]);
        assert_eq!(merged(list(both.clone()), Vec::new()), list(both));
    }

    #[test]
    fn all_have_to_be_allowed() {
        let both = list(json!([{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]));
        assert!(are_allowed(&both, &[]) && are_allowed(&both, &both) && are_allowed(&[], &both));
        assert!(!are_allowed(&both, &both[..1]));
    }
}
