//! Words of WireGuard tunnels. Errors never quote a key, as it may be the secret one.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Word, WordError, WordFormat, from_str_by_word};

const KEY_BYTES: usize = 32;

fn parse_key(text: &str) -> Result<[u8; KEY_BYTES], WordError> {
    let refused = || WordError::new(format!("the key is not {KEY_BYTES} bytes in base64"));
    let key: [u8; KEY_BYTES] =
        STANDARD.decode(text).map_err(|_no| refused())?.try_into().map_err(|_other| refused())?;
    if key == [0; KEY_BYTES] { Err(WordError::new("the key is all zeros")) } else { Ok(key) }
}

/// A key that only its owners know: a private one, or one that two peers share.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; KEY_BYTES]);

impl SecretKey {
    /// The key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// As in a manifest.
    #[must_use]
    pub fn text(&self) -> String {
        STANDARD.encode(self.0)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(***)")
    }
}

impl Word for SecretKey {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "secret key",
        expected: "32 bytes in base64, as `wg genkey` or `wg genpsk` prints them",
        pattern: Some("^[A-Za-z0-9+/]{43}=$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        parse_key(text).map(Self)
    }
}
from_str_by_word!(SecretKey);

/// A key that others know a peer by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// The key.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl Word for PublicKey {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "public key",
        expected: "32 bytes in base64, as `wg pubkey` prints them",
        pattern: Some("^[A-Za-z0-9+/]{43}=$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        parse_key(text).map(Self)
    }
}
from_str_by_word!(PublicKey);

/// Where a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerEndpoint(SocketAddr);

impl PeerEndpoint {
    /// Its address and UDP port.
    #[must_use]
    pub const fn address(self) -> SocketAddr {
        self.0
    }
}

impl Word for PeerEndpoint {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "peer's endpoint",
        expected: "an address and a UDP port, such as `192.0.2.1:51820` or `[2001:db8::1]:51820`",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let address: Option<SocketAddr> = text.parse().ok();
        address
            .filter(|address| address.port() != 0)
            .map(Self)
            .ok_or_else(|| WordError::new(format!("`{}` is not an address with a port", text.escape_debug())))
    }
}
from_str_by_word!(PeerEndpoint);
