//! What names in definitions may be, and why they may not; pure.

const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                        alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', \
                        regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn is_word(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| is_word(*b))
        && bytes.last().is_some_and(|b| is_word(*b))
        && bytes.iter().all(|b| is_word(*b) || *b == b'-')
}

/// Everything that keeps a text from being a DNS-1035 label.
#[must_use]
pub(super) fn dns_1035_all(text: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    if text.len() > 63 {
        found.push("must be no more than 63 bytes");
    }
    if !is_label(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        found.push(DNS_1035);
    }
    found
}

/// The same as one text.
#[must_use]
pub(super) fn dns_1035(text: &str) -> Option<String> {
    Some(dns_1035_all(text).join(",")).filter(|t| !t.is_empty())
}

/// Everything that keeps a text from being a DNS subdomain.
#[must_use]
pub(super) fn subdomain_all(text: &str) -> Vec<&'static str> {
    let mut found = Vec::new();
    if text.len() > 253 {
        found.push("must be no more than 253 bytes");
    }
    if !text.split('.').all(is_label) {
        found.push(SUBDOMAIN);
    }
    found
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
        assert_eq!(dns_1035_all(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert!(subdomain_all("a.b-c.d1").is_empty() && !subdomain_all("a..b").is_empty());
    }
}
