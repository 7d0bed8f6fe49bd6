//! From conditions to a program of the kernel's classic packet filters.
//!
//! Such a program loads numbers out of the frame and jumps, only ahead and at most 255 instructions far. Conditions are
//! laid out one after the other; each knows where to go on if it holds and if not. A jump that is too far is an error: the
//! filter is too long.

use std::net::IpAddr;

use ipnet::IpNet;
use sys::FilterInstruction;

use super::LinkKind;
use super::filter::{Condition, End, Transport};

// Instructions, as in linux/bpf_common.h: load a word, a half or a byte at a place, or that behind the header of IPv4.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_BEHIND: u16 = 0x48;
const HEADER_LENGTH: u16 = 0xb1;
const MASK: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// All of the frame.
const ACCEPT: u32 = u32::MAX;
/// What the kernel knows about a frame stands at places from here on; then comes which way it goes.
const ANCILLARY: u32 = 0xffff_f000;
const WAY: u32 = ANCILLARY + 4;
const OUTGOING: u32 = 4;

const ETHERNET_TYPE: u32 = 12;
const ETHERNET_HEADER: u32 = 14;
const IP4: u32 = 0x0800;
const IP6: u32 = 0x86dd;
const ARP: u32 = 0x0806;

const ICMP_NUMBER: u32 = 1;
const ICMP6_NUMBER: u32 = 58;
const TCP_NUMBER: u32 = 6;
const UDP_NUMBER: u32 = 17;
/// Where the network protocols have what.
const IP4_FRAGMENT: u32 = 6;
const IP4_PROTOCOL: u32 = 9;
const IP4_ADDRESSES: (u32, u32) = (12, 16);
const ARP_ADDRESSES: (u32, u32) = (14, 24);
const IP6_PROTOCOL: u32 = 6;
const IP6_ADDRESSES: (u32, u32) = (8, 24);
const IP6_HEADER: u32 = 40;
/// A fragment that is not the first.
const LATER_FRAGMENT: u32 = 0x1fff;

/// A place in the program that is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Label(usize);

/// Where a condition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ways {
    holds: Label,
    fails: Label,
}

impl Ways {
    /// One way in any case.
    const fn only(to: Label) -> Self {
        Self { holds: to, fails: to }
    }

    const fn holding(self, holds: Label) -> Self {
        Self { holds, ..self }
    }

    const fn failing(self, fails: Label) -> Self {
        Self { fails, ..self }
    }
}

/// An instruction whose jumps lead to labels.
struct Step {
    code: u16,
    value: u32,
    jump: Option<Ways>,
}

/// A program as it is laid out.
#[derive(Default)]
struct Layout {
    code: Vec<Step>,
    /// Where labels are.
    places: Vec<Option<usize>>,
}

/// Makes a program that accepts what is `wanted`, and not what is `unwanted`.
///
/// # Errors
/// When it gets too long.
pub(super) fn compile(
    wanted: &Condition,
    unwanted: Option<&Condition>,
    kind: LinkKind,
) -> Result<Vec<FilterInstruction>, String> {
    let mut layout = Layout::default();
    let link = Link { base: if kind == LinkKind::Raw { 0 } else { ETHERNET_HEADER }, kind };
    if kind == LinkKind::Loopback {
        // What goes out comes in again.
        layout.answer(0, |out, to| out.test((LOAD_WORD, WAY), OUTGOING, to));
    }
    if let Some(unwanted) = unwanted {
        layout.answer(0, |out, to| link.condition(out, unwanted, to));
    }
    layout.answer(ACCEPT, |out, to| link.condition(out, wanted, to));
    layout.load(RETURN, 0);
    layout.finish()
}

impl Layout {
    fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label is here.
    fn put(&mut self, label: Label) {
        self.places[label.0] = Some(self.code.len());
    }

    fn load(&mut self, code: u16, value: u32) {
        self.code.push(Step { code, value, jump: None });
    }

    fn jump(&mut self, code: u16, value: u32, to: Ways) {
        self.code.push(Step { code, value, jump: Some(to) });
    }

    /// Goes on elsewhere in any case.
    fn go(&mut self, to: Label) {
        self.jump(IF_EQUAL, 0, Ways::only(to));
    }

    /// Whether what is loaded from a place is this value.
    fn test(&mut self, (load, place): (u16, u32), value: u32, to: Ways) {
        self.load(load, place);
        self.jump(IF_EQUAL, value, to);
    }

    /// Ends with an answer if a condition holds, and goes on if not.
    fn answer(&mut self, answer: u32, condition: impl FnOnce(&mut Self, Ways)) {
        let to = Ways { holds: self.label(), fails: self.label() };
        condition(self, to);
        self.put(to.holds);
        self.load(RETURN, answer);
        self.put(to.fails);
    }

    fn finish(self) -> Result<Vec<FilterInstruction>, String> {
        let distance = |from: usize, to: Label| {
            let place = self.places[to.0]?;
            u8::try_from(place.checked_sub(from + 1)?).ok()
        };
        let instruction = |(index, step): (usize, &Step)| {
            let (if_true, if_false) = match step.jump {
                None => (0, 0),
                Some(to) => (distance(index, to.holds)?, distance(index, to.fails)?),
            };
            Some(FilterInstruction { code: step.code, if_true, if_false, value: step.value })
        };
        let all: Option<Vec<_>> = self.code.iter().enumerate().map(instruction).collect();
        all.ok_or_else(|| "it is too long".to_owned())
    }
}

/// How frames of the link are read.
struct Link {
    /// Where the network's header begins.
    base: u32,
    kind: LinkKind,
}

impl Link {
    /// Lays a condition out.
    fn condition(&self, out: &mut Layout, condition: &Condition, to: Ways) {
        match condition {
            Condition::Any => out.go(to.holds),
            Condition::Ip4 => self.network(out, IP4, to),
            Condition::Ip6 => self.network(out, IP6, to),
            Condition::Arp => self.network(out, ARP, to),
            Condition::Icmp => self.protocol(out, (IP4, ICMP_NUMBER), to),
            Condition::Icmp6 => self.protocol(out, (IP6, ICMP6_NUMBER), to),
            Condition::Transport(transport) => {
                let other = out.label();
                self.protocol(out, (IP4, number(*transport)), to.failing(other));
                out.put(other);
                self.protocol(out, (IP6, number(*transport)), to);
            }
            Condition::Net(end, net) => self.net(out, *end, *net, to),
            Condition::Port(transport, end, port) => self.port(out, *transport, (*end, *port), to),
            Condition::Not(inner) => self.condition(out, inner, Ways { holds: to.fails, fails: to.holds }),
            Condition::Both(first, second) => {
                let next = out.label();
                self.condition(out, first, to.holding(next));
                out.put(next);
                self.condition(out, second, to);
            }
            Condition::Either(first, second) => {
                let next = out.label();
                self.condition(out, first, to.failing(next));
                out.put(next);
                self.condition(out, second, to);
            }
        }
    }

    /// The protocol of the network. Without a header that names it, IP says which one it is.
    fn network(&self, out: &mut Layout, protocol: u32, to: Ways) {
        if self.kind == LinkKind::Raw {
            let version = match protocol {
                IP4 => 0x40,
                IP6 => 0x60,
                _ => 0,
            };
            out.load(LOAD_BYTE, 0);
            out.load(MASK, 0xf0);
            out.jump(IF_EQUAL, version, to);
        } else {
            out.test((LOAD_HALF, ETHERNET_TYPE), protocol, to);
        }
    }

    fn protocol(&self, out: &mut Layout, (network, number): (u32, u32), to: Ways) {
        let is_network = out.label();
        self.network(out, network, to.holding(is_network));
        out.put(is_network);
        let place = if network == IP4 { IP4_PROTOCOL } else { IP6_PROTOCOL };
        out.test((LOAD_BYTE, self.base + place), number, to);
    }

    fn net(&self, out: &mut Layout, end: End, net: IpNet, to: Ways) {
        let words: Vec<(u32, u32)> = words(net.network()).into_iter().zip(words(net.netmask())).collect();
        let families: &[(u32, (u32, u32))] = match net {
            IpNet::V4(_) => &[(IP4, IP4_ADDRESSES), (ARP, ARP_ADDRESSES)],
            IpNet::V6(_) => &[(IP6, IP6_ADDRESSES)],
        };
        for (family, places) in families {
            let (is_family, other) = (out.label(), out.label());
            self.network(out, *family, Ways { holds: is_family, fails: other });
            out.put(is_family);
            either(out, end, *places, to, |out, place, to| self.address(out, place, &words, to));
            out.put(other);
        }
        out.go(to.fails);
    }

    fn address(&self, out: &mut Layout, place: u32, words: &[(u32, u32)], to: Ways) {
        for (place, (value, mask)) in (self.base + place..).step_by(4).zip(words).filter(|(_, (_, mask))| *mask != 0) {
            let next = out.label();
            out.load(LOAD_WORD, place);
            out.load(MASK, *mask);
            out.jump(IF_EQUAL, *value, to.holding(next));
            out.put(next);
        }
        out.go(to.holds);
    }

    fn port(&self, out: &mut Layout, transport: Option<Transport>, (end, port): (End, u16), to: Ways) {
        let transports = transport.map_or(vec![Transport::Tcp, Transport::Udp], |one| vec![one]);
        for network in [IP4, IP6] {
            let (has_ports, other) = (out.label(), out.label());
            for transport in &transports {
                let next = out.label();
                self.protocol(out, (network, number(*transport)), Ways { holds: has_ports, fails: next });
                out.put(next);
            }
            out.go(other);
            out.put(has_ports);
            let (load, place) = if network == IP4 {
                let is_first = out.label();
                out.load(LOAD_HALF, self.base + IP4_FRAGMENT);
                out.jump(IF_ANY_BIT, LATER_FRAGMENT, Ways { holds: to.fails, fails: is_first });
                out.put(is_first);
                out.load(HEADER_LENGTH, self.base);
                (LOAD_HALF_BEHIND, self.base)
            } else {
                (LOAD_HALF, self.base + IP6_HEADER)
            };
            let test = |out: &mut Layout, place, to| out.test((load, place), u32::from(port), to);
            either(out, end, (place, place + 2), to, test);
            out.put(other);
        }
        out.go(to.fails);
    }
}

/// Lays out what has to hold of one end, or of the other.
fn either<F>(out: &mut Layout, end: End, (source, destination): (u32, u32), to: Ways, test: F)
where
    F: Fn(&mut Layout, u32, Ways),
{
    match end {
        End::Source => test(out, source, to),
        End::Destination => test(out, destination, to),
        End::Either => {
            let second = out.label();
            test(out, source, to.failing(second));
            out.put(second);
            test(out, destination, to);
        }
    }
}

fn words(address: IpAddr) -> Vec<u32> {
    match address {
        IpAddr::V4(address) => vec![address.to_bits()],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| u32::try_from(bits >> shift & u128::from(u32::MAX)).unwrap_or_default()).into()
        }
    }
}

fn number(transport: Transport) -> u32 {
    match transport {
        Transport::Tcp => TCP_NUMBER,
        Transport::Udp => UDP_NUMBER,
    }
}
