//! What names in definitions may be, in one text per name.

use crate::validation::names;

/// Everything that keeps a text from being a DNS-1035 label, as one text.
#[must_use]
pub(super) fn dns_1035(text: &str) -> Option<String> {
    Some(names::dns1035_label(text).join(",")).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_begin_with_a_letter() {
        assert!(dns_1035("a-1").is_none());
        for bad in ["", "1a", "-a", "a-", "A", "a.b"] {
            assert!(dns_1035(bad).is_some(), "{bad}");
        }
    }
}
