//! Ciphers and versions of TLS that an operator leaves.

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};

/// What is taken: everything, unless somebody says less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsLimits {
    /// Ciphers of TLS 1.2; those of TLS 1.3 are always taken.
    suites: Option<Vec<CipherSuite>>,
    only_newest: bool,
    only_http1: bool,
}

/// Why ciphers and versions cannot be as somebody says. The texts of what does not exist are upstream's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A name of nothing.
    #[error("Cipher suite {0} not supported or doesn't exist")]
    UnknownSuite(String),
    /// A cipher that is not here.
    #[error(
        "--tls-cipher-suites: {0} is not supported: it is broken, or who gets the key can read what was said before"
    )]
    WeakSuite(String),
    /// A name of nothing.
    #[error("unknown tls version {0:?}")]
    UnknownVersion(String),
    /// A version that is not here.
    #[error("--tls-min-version: {0} is not supported: TLS 1.2 is the oldest version that is taken")]
    WeakVersion(String),
}

/// Names of ciphers that are here.
const SUITES: [(&str, CipherSuite); 11] = [
    ("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    ("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    ("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Names that Go knows besides.
const WEAK: [&str; 16] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

impl TlsLimits {
    /// Reads names as upstream's flags have them; none of either leave everything.
    ///
    /// # Errors
    /// When a name is not known, or of something that is not here.
    pub fn parse(suites: &[String], min_version: &str) -> Result<Self, TlsError> {
        let suite = |name: &String| match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, suite)) => Ok(*suite),
            None if WEAK.contains(&name.as_str()) => Err(TlsError::WeakSuite(name.clone())),
            None => Err(TlsError::UnknownSuite(name.clone())),
        };
        let named: Vec<CipherSuite> = suites.iter().map(suite).collect::<Result<_, _>>()?;
        let only_newest = match min_version {
            "" | "VersionTLS12" => false,
            "VersionTLS13" => true,
            "VersionTLS10" | "VersionTLS11" => return Err(TlsError::WeakVersion(min_version.to_owned())),
            _ => return Err(TlsError::UnknownVersion(min_version.to_owned())),
        };
        Ok(Self { suites: Some(named).filter(|named| !named.is_empty()), only_newest, only_http1: false })
    }

    /// Takes HTTP/2 away, too.
    #[must_use]
    pub fn with_http1_only(mut self) -> Self {
        self.only_http1 = true;
        self
    }

    /// Whether HTTP/2 is not spoken.
    pub(super) fn is_http1_only(&self) -> bool {
        self.only_http1
    }

    /// What is offered to be spoken, the best first.
    pub(super) fn protocols(&self) -> Vec<Vec<u8>> {
        let offered: &[&[u8]] = if self.only_http1 { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
        offered.iter().map(|name| name.to_vec()).collect()
    }

    /// Takes away what is not left.
    pub(super) fn restrict(&self, mut provider: CryptoProvider) -> CryptoProvider {
        if let Some(left) = &self.suites {
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || left.contains(&suite.suite()));
        }
        provider
    }

    pub(super) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        let has_old = self.suites.as_ref().is_none_or(|left| left.iter().any(|suite| !is_newest(*suite)));
        if self.only_newest || !has_old { NEWEST } else { BOTH }
    }
}

fn is_newest(suite: CipherSuite) -> bool {
    use CipherSuite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    matches!(suite, TLS13_AES_128_GCM_SHA256 | TLS13_AES_256_GCM_SHA384 | TLS13_CHACHA20_POLY1305_SHA256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(suites: &[&str], version: &str) -> Result<TlsLimits, TlsError> {
        TlsLimits::parse(&suites.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), version)
    }

    #[test]
    fn names_leave_ciphers() {
        let limits = parse(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], "").unwrap();
        let left = limits.restrict(rustls::crypto::ring::default_provider()).cipher_suites;
        assert_eq!(left.iter().filter(|suite| suite.tls13().is_none()).count(), 1);
        assert_eq!(left.iter().filter(|suite| suite.tls13().is_some()).count(), 3);
        assert_eq!(parse(&["TLS_AES_128_GCM_SHA256"], "").unwrap().versions().len(), 1);
        assert_eq!(parse(&[], "VersionTLS13").unwrap().versions().len(), 1);
        assert_eq!(parse(&[], "VersionTLS12"), Ok(TlsLimits::default()));
        assert_eq!(TlsLimits::default().protocols(), [&b"h2"[..], b"http/1.1"]);
        assert_eq!(TlsLimits::default().with_http1_only().protocols(), [b"http/1.1"]);
    }

    #[test]
    fn what_there_is_not_is_refused() {
        let told = |suites: &[&str], version: &str| parse(suites, version).unwrap_err().to_string();
        assert_eq!(told(&["X"], ""), "Cipher suite X not supported or doesn't exist");
        assert_eq!(told(&[], "VersionTLS9"), "unknown tls version \"VersionTLS9\"");
        assert!(told(&["TLS_RSA_WITH_RC4_128_SHA"], "").contains("is not supported"));
        assert!(told(&[], "VersionTLS10").contains("is not supported"));
    }
}
