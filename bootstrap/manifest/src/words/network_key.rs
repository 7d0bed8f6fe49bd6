//! Words of servers that give disks their keys back.

use super::net::check_authority;
use super::{WordError, WordFormat, text_word};

/// SHA-256 as base64url.
const THUMBPRINT_CHARS: usize = 43;
const URL_CHARS: usize = 512;

text_word! {
    /// Where a Tang server is, without a slash at the end.
    KeyServerUrl,
    WordFormat {
        name: "key server",
        expected: "the http URL of a Tang server, such as `http://192.168.1.5:7500`",
        pattern: Some("^http://[^\\s?#@]+[^\\s?#@/]$"),
        choices: &[],
    },
    check_url
}

text_word! {
    /// The thumbprint of a key that a Tang server signs with.
    Thumbprint,
    WordFormat {
        name: "thumbprint",
        expected: "43 characters of base64url, as `tang-show-keys` tells them",
        pattern: Some("^[A-Za-z0-9_-]{43}$"),
        choices: &[],
    },
    check_thumbprint
}

fn check_url(text: &str) -> Result<(), WordError> {
    let Some(rest) = text.strip_prefix("http://") else {
        // Neither side proves anything by TLS here: what is pinned is the server's key.
        return Err(WordError::new("a key server is reached by `http://`; its answers are of use to nobody else"));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, "-"));
    check_authority(authority)?;
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~' | '/');
    if path.is_empty() || path.ends_with('/') || text.len() > URL_CHARS || !path.chars().all(is_part) {
        return Err(WordError::new(
            "its path ends in `/`, is too long, or has other characters than letters and digits",
        ));
    }
    Ok(())
}

fn check_thumbprint(text: &str) -> Result<(), WordError> {
    let is_digit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    match text.len() == THUMBPRINT_CHARS && text.chars().all(is_digit) {
        true => Ok(()),
        false => Err(WordError::new("it is no thumbprint by SHA-256; older ones, by SHA-1, are not taken")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Word;

    #[test]
    fn a_key_server_is_an_address_without_a_password_and_known_by_its_key() {
        for good in ["http://10.0.0.5", "http://tang.example:7500", "http://[fd00::5]:80/tang/a"] {
            assert!(KeyServerUrl::parse_word(good).is_ok(), "{good}");
        }
        let bad = ["https://10.0.0.5", "10.0.0.5", "http://a@b", "http://a/", "http://a/b/", "http://a/?x", "http://"];
        for bad in bad {
            assert!(KeyServerUrl::parse_word(bad).is_err(), "{bad}");
        }
        assert!(Thumbprint::parse_word("3jKDXRBbjhJdjbUIo3BQJLJPnffkrM9mfz6UtoeGb00").is_ok());
        assert!(Thumbprint::parse_word("3jKDXRBbjhJdjbUIo3BQJLJPnff").is_err());
    }
}
