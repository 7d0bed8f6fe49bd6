//! Words that let a machine into a cluster. Errors here never quote a value, `Debug` never shows a secret.

use std::fmt;

use super::{Word, WordError, WordFormat, from_str_by_word};

const TOKEN_ID_CHARS: usize = 6;
const TOKEN_SECRET_CHARS: usize = 16;
const SHA256_BYTES: usize = 32;

fn parse_hex(text: &str) -> Option<[u8; SHA256_BYTES]> {
    let mut bytes = [0; SHA256_BYTES];
    if text.len() != 2 * SHA256_BYTES || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.chars().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

/// A bootstrap token, `id.secret`.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    id: String,
    secret: String,
}

impl JoinToken {
    /// The public part, which names the Secret `bootstrap-token-ID`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret part.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The whole token as a bearer token.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}.***)", self.id)
    }
}

impl Word for JoinToken {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "join token",
        expected: "6 and 16 lower-case letters or digits with a `.` between them, `[a-z0-9]{6}.[a-z0-9]{16}`",
        pattern: Some("^[a-z0-9]{6}\\.[a-z0-9]{16}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some((id, secret)) = text.split_once('.') else {
            return Err(WordError::new("the token has no `.`"));
        };
        for (name, part, chars) in [("before", id, TOKEN_ID_CHARS), ("after", secret, TOKEN_SECRET_CHARS)] {
            let found = part.chars().count();
            if found != chars {
                return Err(WordError::new(format!("the token has {found} characters {name} its `.`, not {chars}")));
            }
            if !part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) {
                return Err(WordError::new(format!("the token's part {name} its `.` has other characters")));
            }
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// Its first part names it.
    fn hidden(text: &str) -> Vec<String> {
        text.split_once('.').map(|(_, secret)| secret.to_owned()).into_iter().collect()
    }
}
from_str_by_word!(JoinToken);

/// The pin of the cluster's CA: SHA-256 of its SubjectPublicKeyInfo, as kubeadm has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaHash([u8; SHA256_BYTES]);

impl CaHash {
    /// The hash of a SubjectPublicKeyInfo.
    #[must_use]
    pub const fn new(sha256: [u8; SHA256_BYTES]) -> Self {
        Self(sha256)
    }

    /// The hash.
    #[must_use]
    pub const fn sha256(&self) -> &[u8; SHA256_BYTES] {
        &self.0
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Word for CaHash {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "CA hash",
        expected: "`sha256:` and 64 hexadecimal digits, as `keelson token` prints it",
        pattern: Some("^sha256:[0-9a-fA-F]{64}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some(hex) = text.strip_prefix("sha256:") else {
            return Err(match parse_hex(text) {
                Some(_) => WordError::meant("the hash does not begin with `sha256:`", format!("sha256:{text}")),
                None => WordError::new("the hash does not begin with `sha256:`"),
            });
        };
        parse_hex(hex).map(Self).ok_or_else(|| {
            WordError::new(format!(
                "after `sha256:` stand {} characters, not 64 hexadecimal digits",
                hex.chars().count()
            ))
        })
    }
}
from_str_by_word!(CaHash);

/// The secret that the masters of one cluster share; their CA keys are derived from it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret([u8; SHA256_BYTES]);

impl ClusterSecret {
    /// The secret's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; SHA256_BYTES] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(***)")
    }
}

impl Word for ClusterSecret {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "cluster secret",
        expected: "64 hexadecimal digits from a good source of randomness",
        pattern: Some("^[0-9a-fA-F]{64}$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let secret = parse_hex(text).ok_or_else(|| {
            WordError::new(format!("the secret is {} characters, not 64 hexadecimal digits", text.chars().count()))
        })?;
        let first = secret[0];
        if secret.iter().all(|byte| *byte == first) {
            return Err(WordError::new("the secret repeats one byte, so anybody can guess it"));
        }
        Ok(Self(secret))
    }
}
from_str_by_word!(ClusterSecret);

/// One or more certificates in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemCertificates(String);

impl PemCertificates {
    /// The PEM text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text of each certificate, without its frame and line ends.
    pub fn bodies(&self) -> impl Iterator<Item = String> {
        self.0.split("-----BEGIN CERTIFICATE-----").skip(1).map(|rest| {
            let body = rest.split("-----").next().unwrap_or_default();
            body.split_whitespace().collect()
        })
    }
}

impl Word for PemCertificates {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "PEM certificates",
        expected: "the text of one or more certificates, from `-----BEGIN CERTIFICATE-----` on, between `\"\"\"`",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if text.contains("PRIVATE KEY-----") {
            return Err(WordError::new("a private key stands here; the cluster's machines need certificates only"));
        }
        let mut inside = false;
        let mut certificates = 0_u32;
        let mut body_chars = 0_usize;
        for line in text.lines().map(str::trim) {
            match (line, inside) {
                ("-----BEGIN CERTIFICATE-----", false) => (inside, body_chars) = (true, 0),
                ("-----END CERTIFICATE-----", true) if body_chars == 0 => {
                    return Err(WordError::new("a certificate is empty"));
                }
                ("-----END CERTIFICATE-----", true) => {
                    inside = false;
                    certificates += 1;
                }
                (_, true) if line.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')) => {
                    body_chars += line.len();
                }
                (_, true) => return Err(WordError::new("a line inside a certificate is not base64")),
                (_, false) => {}
            }
        }
        match (inside, certificates) {
            (true, _) => Err(WordError::new("a certificate has no `-----END CERTIFICATE-----`")),
            (false, 0) => Err(WordError::new("there is no `-----BEGIN CERTIFICATE-----`")),
            (false, _) => Ok(Self(text.to_owned())),
        }
    }
}
from_str_by_word!(PemCertificates);
