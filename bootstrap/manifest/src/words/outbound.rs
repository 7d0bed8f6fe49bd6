//! Words of servers elsewhere and the way to them.

use std::fmt;

use super::net::check_authority;
use super::{Cidr, DnsName, IpWord, MirrorUrl, Word, WordError, WordFormat, from_str_by_word, text_word};

text_word! {
    /// A server by its host and, unless that is its protocol's own, its port.
    ServerHost,
    WordFormat {
        name: "server",
        expected: "a server's host and perhaps port, such as `registry.example.com` or `192.168.1.2:5000`",
        pattern: Some("^[^/\\s]+$"),
        choices: &[],
    },
    |text| {
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split('/').next().unwrap_or_default();
            return Err(WordError::meant("this is a URL, not a server's name", host));
        }
        check_authority(text)
    }
}

text_word! {
    /// The address of a proxy.
    ProxyUrl,
    WordFormat {
        name: "proxy",
        expected: "the proxy's http or https URL without a path, such as `http://proxy.example.com:3128`",
        pattern: Some("^https?://[^/\\s]+$"),
        choices: &[],
    },
    |text| match MirrorUrl::parse_word(text)? {
        url if url.path.is_empty() && !text.ends_with('/') => Ok(()),
        url => {
            let scheme = text.split("://").next().unwrap_or_default();
            Err(WordError::meant("a proxy has no path", format!("{scheme}://{}", url.authority)))
        }
    }
}

/// Servers for which a proxy is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyException {
    /// Those with an address in a range.
    Range(Cidr),
    /// A domain, with all that is in it.
    Domain(DnsName),
    /// What is in a domain.
    Below(DnsName),
}

impl fmt::Display for ProxyException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Domain(name) => name.fmt(f),
            Self::Below(name) => write!(f, ".{name}"),
        }
    }
}

impl Word for ProxyException {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "server without proxy",
        expected: "an address, a range such as `10.0.0.0/8`, a domain such as `example.com`, or `.example.com`",
        pattern: Some("^[^\\s,]+$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if let Ok(IpWord(address)) = IpWord::parse_word(text) {
            return Ok(Self::Range(Cidr::of(address)));
        }
        match text.strip_prefix('.') {
            Some(name) => DnsName::parse_word(name).map(Self::Below),
            None if text.contains('/') => Cidr::parse_word(text).map(Self::Range),
            None => DnsName::parse_word(text).map(Self::Domain),
        }
    }
}
from_str_by_word!(ProxyException);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_read_back_and_what_is_none_is_refused() {
        for good in ["10.0.0.0/8", "fd00::/8", "example.com", ".example.com", "10.1.2.3/32"] {
            assert_eq!(ProxyException::parse_word(good).unwrap().to_string(), good);
        }
        assert_eq!(ProxyException::parse_word("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        for bad in ["", "*", "10.0.0.1/8", "a,b", "exa mple.com", "..a", "http://a"] {
            assert!(ProxyException::parse_word(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_proxy_is_a_server_and_a_server_no_url() {
        for good in ["http://proxy.example.com:3128", "https://[fd00::1]"] {
            assert_eq!(ProxyUrl::parse_word(good).unwrap().as_str(), good);
        }
        for bad in ["proxy.example.com:3128", "http://u:p@proxy", "socks5://a", "http://a/b", "http://a/"] {
            assert!(ProxyUrl::parse_word(bad).is_err(), "{bad}");
        }
        for bad in ["https://a.example.com/v2", "a/b", "", "a b", "a:0x"] {
            assert!(ServerHost::parse_word(bad).is_err(), "{bad}");
        }
    }
}
