//! The words of a filter. A part of what tcpdump(1) understands, with the same meaning:
//!
//! ```text
//! filter    = term { "or" term }             term = factor { "and" factor }
//! factor    = "not" factor | "(" filter ")" | primitive
//! primitive = "ip" | "ip6" | "arp" | "icmp" | "icmp6"
//!           | ( "tcp" | "udp" ) [ ports ] | ports
//!           | [ "src" | "dst" ] ( "host" ADDRESS | "net" NETWORK )
//! ports     = [ "src" | "dst" ] "port" NUMBER
//! ```
//!
//! Not understood: names of hosts and of ports, ranges of ports, `ether`, `vlan`, `proto`, comparisons of bytes, and
//! words that are left out (`host a or b`). Headers that IPv6 puts before TCP or UDP are not followed, and of a packet in
//! fragments only the first one has ports.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Deeper filters are nobody's.
const DEPTH: usize = 32;
/// Nor are longer ones.
const LENGTH: usize = 1024;

/// Which end of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
    /// One of them.
    Either,
}

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// What is true of a frame, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Of every frame.
    Any,
    Ip4,
    Ip6,
    Arp,
    Icmp,
    Icmp6,
    Transport(Transport),
    /// An address.
    Net(End, IpNet),
    /// A port; of this protocol, if one is named.
    Port(Option<Transport>, End, u16),
    Not(Box<Condition>),
    Both(Box<Condition>, Box<Condition>),
    Either(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// A frame of this TCP connection, either way.
    pub(super) fn connection(here: SocketAddr, there: SocketAddr) -> Self {
        let end = |address: SocketAddr| {
            let host = Self::Net(End::Either, address.ip().to_canonical().into());
            host.and(Self::Port(Some(Transport::Tcp), End::Either, address.port()))
        };
        end(here).and(end(there))
    }

    fn and(self, other: Self) -> Self {
        Self::Both(Box::new(self), Box::new(other))
    }
}

/// Reads a filter; an empty one takes everything.
///
/// # Errors
/// In words, with the word where it is wrong.
pub(super) fn parse(text: &str) -> Result<Condition, String> {
    if text.len() > LENGTH {
        return Err(format!("it has more than {LENGTH} characters"));
    }
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.is_empty() {
        return Ok(Condition::Any);
    }
    let mut parser = Parser { words: &words, depth: 0 };
    let condition = parser.filter()?;
    match parser.words.first() {
        None => Ok(condition),
        Some(word) => Err(format!("{word:?} is one too many: `and` or `or` comes between conditions")),
    }
}

struct Parser<'a> {
    words: &'a [&'a str],
    depth: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, wanted: &[&str]) -> bool {
        match self.words.split_first() {
            Some((word, rest)) if wanted.contains(word) => {
                self.words = rest;
                true
            }
            _ => false,
        }
    }

    fn next(&mut self, wanted: &str) -> Result<&'a str, String> {
        let (word, rest) = self.words.split_first().ok_or_else(|| format!("{wanted} is missing at its end"))?;
        self.words = rest;
        Ok(word)
    }

    fn filter(&mut self) -> Result<Condition, String> {
        let mut all = self.term()?;
        while self.take(&["or", "||"]) {
            all = Condition::Either(Box::new(all), Box::new(self.term()?));
        }
        Ok(all)
    }

    fn term(&mut self) -> Result<Condition, String> {
        let mut all = self.factor()?;
        while self.take(&["and", "&&"]) {
            all = all.and(self.factor()?);
        }
        Ok(all)
    }

    fn factor(&mut self) -> Result<Condition, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("it is too deep".to_owned());
        }
        let condition = if self.take(&["not", "!"]) {
            Condition::Not(Box::new(self.factor()?))
        } else if self.take(&["("]) {
            let inner = self.filter()?;
            if !self.take(&[")"]) {
                return Err("`)` is missing".to_owned());
            }
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(condition)
    }

    fn primitive(&mut self) -> Result<Condition, String> {
        let word = self.next("a condition")?;
        Ok(match word {
            "ip" => Condition::Ip4,
            "ip6" => Condition::Ip6,
            "arp" => Condition::Arp,
            "icmp" => Condition::Icmp,
            "icmp6" => Condition::Icmp6,
            "tcp" => self.transport(Transport::Tcp)?,
            "udp" => self.transport(Transport::Udp)?,
            "src" => self.end(End::Source)?,
            "dst" => self.end(End::Destination)?,
            "host" | "net" => self.address(word, End::Either)?,
            "port" => self.port(None, End::Either)?,
            other => {
                let known = "ip, ip6, arp, icmp, icmp6, tcp, udp, host, net, port, src, dst, not, and, or";
                return Err(format!("{other:?} is not understood; there are {known}"));
            }
        })
    }

    fn transport(&mut self, transport: Transport) -> Result<Condition, String> {
        let end = match self.words.first() {
            Some(&"src") => End::Source,
            Some(&"dst") => End::Destination,
            Some(&"port") => End::Either,
            _ => return Ok(Condition::Transport(transport)),
        };
        self.take(&["src", "dst"]);
        if !self.take(&["port"]) {
            return Err("`port` is missing; `and` comes between a protocol and an address".to_owned());
        }
        self.port(Some(transport), end)
    }

    fn end(&mut self, end: End) -> Result<Condition, String> {
        match self.next("`host`, `net` or `port`")? {
            kind @ ("host" | "net") => self.address(kind, end),
            "port" => self.port(None, end),
            other => Err(format!("{other:?}: after `src` and `dst` comes `host`, `net` or `port`")),
        }
    }

    fn address(&mut self, kind: &str, end: End) -> Result<Condition, String> {
        let word = self.next("an address")?;
        let net = if kind == "host" { word.parse::<IpAddr>().map(IpNet::from).ok() } else { word.parse().ok() };
        let net = net.ok_or_else(|| match kind {
            "host" => format!("{word:?} is no address; names are not looked up"),
            _ => format!("{word:?} is no network such as 10.0.0.0/8"),
        })?;
        Ok(Condition::Net(end, net.trunc()))
    }

    fn port(&mut self, transport: Option<Transport>, end: End) -> Result<Condition, String> {
        let word = self.next("a port")?;
        let port = word.parse().map_err(|_not| format!("{word:?} is no number of a port"))?;
        Ok(Condition::Port(transport, end, port))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_are_read_as_tcpdump_reads_them() {
        use Condition::{Arp, Either, Not, Port};
        let port = |port| Port(Some(Transport::Tcp), End::Destination, port);
        let net = |text: &str| Condition::Net(End::Either, text.parse().unwrap());
        let both = |a: Condition, b: Condition| a.and(b);
        let table = [
            ("", Condition::Any),
            ("tcp dst port 6443", port(6443)),
            ("host 10.0.0.1", net("10.0.0.1/32")),
            ("net 10.1.2.3/8 and not arp", both(net("10.0.0.0/8"), Not(Box::new(Arp)))),
            ("arp or ip and ip6", Either(Box::new(Arp), Box::new(both(Condition::Ip4, Condition::Ip6)))),
            ("(arp||ip)&&!ip6", {
                let first = Either(Box::new(Arp), Box::new(Condition::Ip4));
                both(first, Not(Box::new(Condition::Ip6)))
            }),
        ];
        for (text, expected) in table {
            let spaced = text.replace("||", " || ").replace("&&", " && ");
            assert_eq!(parse(&spaced), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let table = [
            ("tcp port http", "\"http\" is no number"),
            ("host localhost", "names are not looked up"),
            ("net 10.0.0.0", "is no network"),
            ("vlan 5", "\"vlan\" is not understood"),
            ("arp ip", "\"ip\" is one too many"),
            ("( arp", "`)` is missing"),
            ("tcp host 1.2.3.4", "\"host\" is one too many"),
            ("tcp src host 1.2.3.4", "`port` is missing"),
            ("not", "a condition is missing"),
        ];
        for (text, expected) in table {
            assert!(parse(text).unwrap_err().contains(expected), "{text}: {:?}", parse(text));
        }
        assert!(parse(&"not ".repeat(200)).unwrap_err().contains("too deep"));
        assert!(parse(&"x".repeat(LENGTH + 1)).unwrap_err().contains("more than"));
    }

    proptest! {
        #[test]
        fn no_text_confuses_the_parser(words in prop::collection::vec(
            prop::sample::select(vec!["not", "(", ")", "and", "or", "tcp", "src", "port", "80", "host", "::1", "net", "x"]),
            0..40,
        )) {
            drop(parse(&words.join(" ")));
        }

        #[test]
        fn nor_do_any_characters(text in "\\PC*") {
            drop(parse(&text));
        }
    }
}
