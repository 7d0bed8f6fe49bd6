//! Words of DNS.

use std::fmt;
use std::net::SocketAddr;

use super::{Host, IpWord, Word, WordError, WordFormat, from_str_by_word};

const PORT: u16 = 53;
/// Of DNS over TLS (RFC 7858).
const TLS_PORT: u16 = 853;

/// A name server: where it is, and whose certificate it must have if it is asked by TLS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameServer {
    /// Where it is asked.
    pub address: SocketAddr,
    /// The name that its certificate must be for; `None` is without TLS.
    pub tls_name: Option<Host>,
}

impl NameServer {
    /// Whether programs of the C library could ask it themselves.
    #[must_use]
    pub fn is_usual(&self) -> bool {
        self.tls_name.is_none() && self.address.port() == PORT
    }
}

impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = if self.tls_name.is_some() { TLS_PORT } else { PORT };
        if self.address.port() == usual {
            self.address.ip().fmt(f)?;
        } else {
            self.address.fmt(f)?;
        }
        self.tls_name.as_ref().map_or(Ok(()), |name| write!(f, "#{name}"))
    }
}

impl Word for NameServer {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "name server",
        expected: "an IPv4 or IPv6 address such as `10.0.0.1`, `fd00::1` or `10.0.0.1:5353`, and for TLS the name in the \
                   server's certificate behind it, as in `9.9.9.9#dns.quad9.net`",
        pattern: Some("^[0-9A-Fa-f.:\\[\\]]+(#[^\\s#]+)?$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let (place, name) = match text.split_once('#') {
            Some((place, name)) => (place, Some(tls_name(name)?)),
            None => (text, None),
        };
        let usual = if name.is_some() { TLS_PORT } else { PORT };
        Ok(Self { address: address(place, usual)?, tls_name: name })
    }
}
from_str_by_word!(NameServer);

fn tls_name(text: &str) -> Result<Host, WordError> {
    match Host::parse_word(text)? {
        Host::Name(name) if name.starts_with("*.") => {
            Err(WordError::new(format!("`{name}` is a pattern, and a certificate is looked at for one name")))
        }
        name => Ok(name),
    }
}

fn address(text: &str, usual: u16) -> Result<SocketAddr, WordError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(WordError::new(format!("`{text}` has a port that nobody can have"))),
            _ => Ok(address),
        };
    }
    IpWord::parse_word(text).map(|IpWord(address)| SocketAddr::new(address, usual))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_read_back_as_they_were_written() {
        for (text, port, is_usual) in [
            ("10.0.0.1", 53, true),
            ("fd00::1", 53, true),
            ("127.0.0.1:8600", 8600, false),
            ("9.9.9.9#dns.quad9.net", 853, false),
            ("[fd00::1]:8853#ns.example.com", 8853, false),
            ("1.1.1.1#1.1.1.1", 853, false),
        ] {
            let server = NameServer::parse_word(text).unwrap();
            assert_eq!((server.to_string().as_str(), server.address.port()), (text, port));
            assert_eq!(server.is_usual(), is_usual, "{text}");
        }
        for bad in [
            "",
            "#a",
            "ns.example.com",
            "10.0.0.1#",
            "10.0.0.1#*.example.com",
            "10.0.0.1#a#b",
            "10.0.0.1:0",
            "10.0.0.1/8",
            "10.0.0.1#A b",
            "10.0.0.1:70000",
        ] {
            assert!(NameServer::parse_word(bad).is_err(), "{bad}");
        }
    }
}
