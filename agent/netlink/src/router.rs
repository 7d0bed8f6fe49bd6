//! What routers advertise beside addresses and routes: name servers and search domains (RFC 8106), which the kernel
//! passes on as they came.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

use crate::attributes::{double, read, word};
use crate::{Error, Netlink, Result};

const HEADER: usize = 16;
const RTM_NEWNDUSEROPT: u16 = 68;
/// The part before the options: family, their length, the link, the kind of message.
const FIXED: usize = 16;
const AF_INET6: u8 = 10;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NDUSEROPT_SRCADDR: u16 = 1;
// Kinds of options.
const SERVERS: u8 = 25;
const DOMAINS: u8 = 31;
/// Kind, length, nothing, lifetime.
const OPTION_HEADER: usize = 8;
const DOMAIN_CHARS: usize = 253;

/// What one router says on one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// The link.
    pub link: u32,
    /// The router.
    pub router: IpAddr,
    /// For how many seconds it holds from now on; 0 takes it back.
    pub lifetime: u32,
    /// What it names.
    pub names: AdvertisedNames,
}

/// What a router names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdvertisedNames {
    /// Name servers.
    Servers(Vec<Ipv6Addr>),
    /// Domains in which short names are looked up.
    Domains(Vec<String>),
}

/// What routers advertise, in order.
pub struct Advertisements {
    socket: TokioSocket,
}

impl Netlink {
    /// Starts listening in the network namespace of the calling thread. Needs a tokio runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn advertisements() -> Result<Advertisements> {
        let failed = |source| Error::Io { step: "listen to what routers advertise", source };
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        socket.socket_mut().add_membership(MulticastGroup::NdUseropt as u32).map_err(failed)?;
        Ok(Advertisements { socket })
    }
}

impl Advertisements {
    /// The next one. Cancel safe: what was not received stays.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn next(&mut self) -> Result<Advertised> {
        loop {
            match self.socket.recv_from_full().await {
                Ok((bytes, sender)) if sender.port_number() == 0 => {
                    if let Some(advertised) = parse(&bytes) {
                        return Ok(advertised);
                    }
                }
                // Somebody else's; or too many came at once, and routers say it again.
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ENOBUFS as i32) => {}
                Err(source) => return Err(gone(source)),
            }
        }
    }
}

fn gone(source: io::Error) -> Error {
    Error::Io { step: "hear what routers advertise", source }
}

fn parse(bytes: &[u8]) -> Option<Advertised> {
    let length = usize::try_from(double(bytes, 0)?).ok()?;
    let message = bytes.get(HEADER..length)?;
    let is_ours = word(bytes, 4)? == RTM_NEWNDUSEROPT
        && *message.first()? == AF_INET6
        && *message.get(8)? == ROUTER_ADVERTISEMENT;
    let options = usize::from(word(message, 2)?);
    let option = message.get(FIXED..FIXED + options)?;
    let attributes = message.get(FIXED + options.next_multiple_of(4)..).unwrap_or_default();
    let router = read(attributes).find(|(number, _)| *number == NDUSEROPT_SRCADDR)?.1;
    let router: [u8; 16] = router.try_into().ok()?;
    // The kernel passes every option on by itself, with its own length in units of 8 bytes.
    let length = usize::from(*option.get(1)?) * 8;
    let lifetime = u32::from_be_bytes(option.get(4..8)?.try_into().ok()?);
    let content = option.get(OPTION_HEADER..length)?;
    let names = match *option.first()? {
        SERVERS => AdvertisedNames::Servers(servers(content)),
        DOMAINS => AdvertisedNames::Domains(domains(content)),
        _ => return None,
    };
    let link = double(message, 4)?;
    is_ours.then_some(Advertised { link, router: IpAddr::from(router), lifetime, names })
}

fn servers(content: &[u8]) -> Vec<Ipv6Addr> {
    let (addresses, _) = content.as_chunks::<16>();
    let usable = |address: &Ipv6Addr| !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    addresses.iter().map(|octets| Ipv6Addr::from(*octets)).filter(usable).collect()
}

/// Labels with their lengths before them; a length of 0 ends a name, and zeros fill up.
fn domains(content: &[u8]) -> Vec<String> {
    let mut domains = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    let mut rest = content;
    while let Some((length, tail)) = rest.split_first() {
        let length = usize::from(*length);
        if length == 0 {
            let domain = std::mem::take(&mut labels).join(".");
            if !domain.is_empty() && domain.len() <= DOMAIN_CHARS {
                domains.push(domain);
            }
            rest = tail;
            continue;
        }
        // What is no label spoils what is behind it, too.
        let label = tail.get(..length).and_then(|label| std::str::from_utf8(label).ok());
        let Some(label) = label.filter(|label| is_label(label)) else { break };
        labels.push(label);
        rest = &tail[length..];
    }
    domains
}

fn is_label(label: &str) -> bool {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    label.len() <= 63 && label.chars().all(is_inside) && !label.starts_with('-') && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message of the kernel's with one option.
    fn message(kind: u8, lifetime: u32, content: &[u8]) -> Vec<u8> {
        let units = u8::try_from((OPTION_HEADER + content.len()) / 8).unwrap();
        let option = [&[kind, units, 0, 0][..], &lifetime.to_be_bytes(), content].concat();
        let length = u16::try_from(option.len()).unwrap();
        let fixed = [&[AF_INET6, 0][..], &length.to_ne_bytes(), &7_u32.to_ne_bytes(), &[134, 0, 0, 0], &[0; 4]];
        let router: Ipv6Addr = "fe80::1".parse().unwrap();
        let source = [&20_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), &router.octets()].concat();
        let body = [fixed.concat(), option, source].concat();
        let total = u32::try_from(HEADER + body.len()).unwrap();
        [&total.to_ne_bytes()[..], &68_u16.to_ne_bytes(), &[0; 10], &body].concat()
    }

    #[test]
    fn servers_and_domains_are_read_with_their_router() {
        let server: Ipv6Addr = "fd00::53".parse().unwrap();
        let found = parse(&message(25, 600, &[server.octets(), [0; 16]].concat())).unwrap();
        let router = "fe80::1".parse().unwrap();
        let names = AdvertisedNames::Servers(vec![server]);
        assert_eq!(found, Advertised { link: 7, router, lifetime: 600, names });
        let text = b"\x03lab\x07example\x00\x04home\x00\x00\x00\x00\x00\x00\x00";
        let found = parse(&message(31, 0, &text[..24])).unwrap();
        assert_eq!(found.names, AdvertisedNames::Domains(vec!["lab.example".to_owned(), "home".to_owned()]));
        assert!(parse(&message(5, 1, &[])).is_none());
        assert_eq!(domains(b"\x05a\nb.c\x00\x02ok\x00"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_passed_over(bytes in any::<Vec<u8>>(), kind in 24_u8..33, content in any::<Vec<u8>>()) {
            drop(parse(&bytes));
            let content = &content[..content.len().min(1024) / 8 * 8];
            if let Some(Advertised { names: AdvertisedNames::Domains(domains), .. }) = parse(&message(kind, 1, content)) {
                prop_assert!(domains.iter().all(|domain| !domain.contains(['\n', ' ', '\0'])));
            }
        }
    }
}
