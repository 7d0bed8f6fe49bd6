//! Words of stores that files are kept in.

use std::fmt;

use super::choice::choice;
use super::{Word, WordError, WordFormat, closest, from_str_by_word, text_word};

const BUCKET_CHARS: std::ops::RangeInclusive<usize> = 3..=63;
const SECRET_CHARS: usize = 4096;

/// Where files are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A bucket of an S3 store.
    S3 {
        /// The bucket.
        bucket: String,
        /// What all keys begin with; may be empty.
        prefix: String,
    },
    /// A folder of a web server that takes PUT.
    Web(String),
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Web(url) => f.write_str(url),
        }
    }
}

impl Word for StoreUrl {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "store",
        expected: "`s3://BUCKET/PREFIX`, or the https URL of a folder that takes PUT",
        pattern: Some("^(s3|https?)://[^\\s?#@]+$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(WordError::new("the store's address has no scheme"));
        };
        let (first, path) = rest.split_once('/').unwrap_or((rest, ""));
        if first.contains('@') {
            return Err(WordError::new("an address with a user name or password is not taken here"));
        }
        if path.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '%' | '\\')) {
            return Err(WordError::new(format!("the path `/{}` has other characters", path.escape_debug())));
        }
        match scheme {
            "s3" => {
                let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
                if !BUCKET_CHARS.contains(&first.len()) || !first.chars().all(is_part) {
                    return Err(WordError::new(format!("`{}` is no name of a bucket", first.escape_debug())));
                }
                let prefix = path.trim_matches('/').to_owned();
                if prefix.split('/').any(|part| part == "." || part == ".." || part.is_empty()) && !prefix.is_empty() {
                    return Err(WordError::new("the prefix has an empty part, `.` or `..`"));
                }
                Ok(Self::S3 { bucket: first.to_owned(), prefix })
            }
            "http" | "https" => {
                super::net::check_authority(first)?;
                Ok(Self::Web(text.trim_end_matches('/').to_owned()))
            }
            other => Err(WordError::new(format!("the scheme `{}` is unknown", other.escape_debug()))),
        }
    }
}
from_str_by_word!(StoreUrl);

choice! {
    /// Where the bucket is in the addresses of an S3 store.
    BucketPlace, "place of a bucket", "`path` or `host`", {
        /// In the path: `https://ENDPOINT/BUCKET/KEY`.
        Path = "path",
        /// In the host: `https://BUCKET.ENDPOINT/KEY`.
        Host = "host",
    }
}

fn check_name(text: &str) -> Result<(), WordError> {
    match text.is_empty() || text.len() > 128 || text.chars().any(|c| !c.is_ascii_graphic() || matches!(c, '/' | ',')) {
        true => Err(WordError::new("it is empty, too long, or has spaces or other characters that no such name has")),
        false => Ok(()),
    }
}

text_word! {
    /// Where an S3 store is, in its own words.
    StoreRegion,
    WordFormat { name: "region", expected: "the store's region, such as `eu-central-1`", pattern: None, choices: &[] },
    check_name
}

text_word! {
    /// The public name of a store's key, or a user.
    StoreUser,
    WordFormat {
        name: "user name",
        expected: "the public name of a key or a user, such as `AKIAIOSFODNN7EXAMPLE`",
        pattern: None,
        choices: &[],
    },
    |text| match text.contains(':') {
        true => Err(WordError::new("a user name has no `:`")),
        false => check_name(text),
    }
}

/// A password, a token or a key's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSecret(String);

impl StoreSecret {
    /// The secret.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreSecret(***)")
    }
}

impl Word for StoreSecret {
    const FORMAT: &'static WordFormat =
        &WordFormat { name: "secret", expected: "a secret, in one line without spaces", pattern: None, choices: &[] };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        match text.is_empty() || text.len() > SECRET_CHARS || text.chars().any(|c| !c.is_ascii_graphic()) {
            true => Err(WordError::new("the secret is empty, too long, or has spaces or other than ASCII characters")),
            false => Ok(Self(text.to_owned())),
        }
    }
}
from_str_by_word!(StoreSecret);
