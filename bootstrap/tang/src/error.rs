//! What can fail.

/// What came from outside makes no sense, or is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than anything of its kind.
    #[error("the {what} is longer than {} bytes", crate::MOST_BYTES)]
    TooLong {
        /// What.
        what: &'static str,
    },
    /// No JSON, or other fields than it needs.
    #[error("the {what} makes no sense")]
    Malformed {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A text is no base64url.
    #[error("{what} is not base64url")]
    Base64 {
        /// Which.
        what: &'static str,
    },
    /// A key is no point of P-521.
    #[error("{what} is no key of the curve P-521")]
    Key {
        /// Which.
        what: &'static str,
    },
    /// No key of its own signed it.
    #[error("the advertisement is not signed by any P-521 key (ES512) in it")]
    Unsigned,
    /// Another server, or its keys are new.
    #[error("none of the server's signing keys is pinned; it offers {}", offered.join(", "))]
    Unpinned {
        /// The thumbprints of the keys that signed.
        offered: Vec<String>,
    },
    /// It gives no keys back.
    #[error("the advertisement has no P-521 key for exchanges (ECMR)")]
    NoExchangeKey,
    /// A JWE of another program.
    #[error("the JWE is none of a Tang server: {0}")]
    Foreign(&'static str),
    /// Another key, or somebody changed it.
    #[error("what the server answers does not open it")]
    Closed,
    /// There is no source of randomness.
    #[error("the system gives no random numbers")]
    Random,
}
