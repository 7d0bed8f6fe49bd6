use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use super::*;

/// A frame in short: who to whom, by what.
struct Packet {
    source: &'static str,
    destination: &'static str,
    /// The protocol's number; none is ARP.
    protocol: Option<u8>,
    ports: (u16, u16),
    fragment: u16,
}

const fn packet(source: &'static str, destination: &'static str, protocol: u8, ports: (u16, u16)) -> Packet {
    Packet { source, destination, protocol: Some(protocol), ports, fragment: 0 }
}

impl Packet {
    fn bytes(&self, kind: LinkKind) -> Vec<u8> {
        let (source, destination): (IpAddr, IpAddr) = (self.source.parse().unwrap(), self.destination.parse().unwrap());
        let ports = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        let (ether, network) = match (source, destination, self.protocol) {
            (IpAddr::V4(source), IpAddr::V4(destination), None) => {
                let mut arp = vec![0; 28];
                arp[14..18].copy_from_slice(&source.octets());
                arp[24..28].copy_from_slice(&destination.octets());
                (0x0806_u16, arp)
            }
            (IpAddr::V4(source), IpAddr::V4(destination), Some(protocol)) => {
                // With four bytes of options, so that the ports are not where they mostly are.
                let mut header = vec![0; 24];
                header[0] = 0x46;
                header[6..8].copy_from_slice(&self.fragment.to_be_bytes());
                header[9] = protocol;
                header[12..16].copy_from_slice(&source.octets());
                header[16..20].copy_from_slice(&destination.octets());
                (0x0800, [header, ports].concat())
            }
            (IpAddr::V6(source), IpAddr::V6(destination), Some(protocol)) => {
                let mut header = vec![0; 40];
                header[0] = 0x60;
                header[6] = protocol;
                header[8..24].copy_from_slice(&source.octets());
                header[24..40].copy_from_slice(&destination.octets());
                (0x86dd, [header, ports].concat())
            }
            other => panic!("{other:?}"),
        };
        if kind == LinkKind::Raw {
            return network;
        }
        [vec![0; 12], ether.to_be_bytes().to_vec(), network].concat()
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

const PACKETS: [Packet; 9] = [
    packet("10.0.0.1", "10.0.0.2", TCP, (40_000, 6443)),
    packet("10.0.0.2", "10.0.0.1", TCP, (6443, 40_000)),
    packet("10.0.0.1", "10.1.0.1", UDP, (40_000, 53)),
    packet("fd00::1", "fd00::2", TCP, (40_001, 6443)),
    packet("fd00::2", "fd01::1", UDP, (53, 40_001)),
    packet("fd00::1", "ff02::1", 58, (0, 0)),
    packet("10.0.0.1", "10.0.0.2", 1, (0, 0)),
    Packet { source: "10.0.0.1", destination: "10.0.0.9", protocol: None, ports: (0, 0), fragment: 0 },
    Packet { source: "10.0.0.1", destination: "10.0.0.2", protocol: Some(TCP), ports: (0, 6443), fragment: 100 },
];
/// The one that this machine's IP has no header for.
const OF_ARP: usize = 7;

/// Which packets the kernel lets through: its filters work on any socket.
fn accepted(filter: &str, unwanted: Option<&Condition>, kind: LinkKind) -> Vec<usize> {
    let program = program::compile(&filter::parse(filter).unwrap(), unwanted, kind).unwrap();
    let (here, there) = UnixDatagram::pair().unwrap();
    sys::attach_filter(there.as_fd(), &program).unwrap();
    there.set_nonblocking(true).unwrap();
    let packets = PACKETS.iter().enumerate().filter(|(index, _)| kind != LinkKind::Raw || *index != OF_ARP);
    let mut buffer = [0; 200];
    packets
        .filter_map(|(index, packet)| {
            // What the filter refuses is not there to be received.
            here.send(&packet.bytes(kind)).unwrap();
            there.recv(&mut buffer).ok().map(|_| index)
        })
        .collect()
}

#[test]
fn the_kernel_takes_what_the_words_say() {
    let table: [(&str, &[usize]); 19] = [
        ("", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
        ("ip", &[0, 1, 2, 6, 8]),
        ("ip6", &[3, 4, 5]),
        ("arp", &[7]),
        ("icmp or icmp6", &[5, 6]),
        ("tcp", &[0, 1, 3, 8]),
        ("udp", &[2, 4]),
        ("host 10.0.0.2", &[0, 1, 6, 8]),
        ("src host 10.0.0.2", &[1]),
        ("dst host 10.0.0.9", &[7]),
        ("net 10.1.0.0/16", &[2]),
        ("net fd00::/16 and not udp", &[3, 5]),
        ("dst net fd01::/64", &[4]),
        ("host fd00::2", &[3, 4]),
        ("port 6443", &[0, 1, 3]),
        ("tcp dst port 6443", &[0, 3]),
        ("udp port 53", &[2, 4]),
        ("not (port 6443 or udp)", &[5, 6, 7, 8]),
        ("src port 53 or src port 40001 and ip6", &[3, 4]),
    ];
    for (filter, expected) in table {
        assert_eq!(accepted(filter, None, LinkKind::Ethernet), expected, "{filter}");
        let raw: Vec<usize> = expected.iter().copied().filter(|index| *index != OF_ARP).collect();
        assert_eq!(accepted(filter, None, LinkKind::Raw), raw, "{filter}, without a link's header");
    }
}

#[test]
fn the_caller_s_own_connection_is_left_out() {
    for (here, there, own) in [
        ("10.0.0.2:6443", "10.0.0.1:40000", [0, 1].as_slice()),
        ("[fd00::2]:6443", "[fd00::1]:40001", &[3]),
        ("[::ffff:10.0.0.2]:6443", "[::ffff:10.0.0.1]:40000", &[0, 1]),
    ] {
        let own_connection = Condition::connection(here.parse().unwrap(), there.parse().unwrap());
        let others: Vec<usize> = (0..PACKETS.len()).filter(|index| !own.contains(index)).collect();
        assert_eq!(accepted("", Some(&own_connection), LinkKind::Ethernet), others, "{here}");
    }
}

#[test]
fn a_filter_that_needs_too_long_a_jump_is_refused() {
    let long = vec!["port 1"; 20].join(" or ");
    let refused = program::compile(&filter::parse(&long).unwrap(), None, LinkKind::Ethernet);
    assert_eq!(refused, Err("it is too long".to_owned()));
}

/// A block of a file: its kind and what is in it.
type Block = (u32, Vec<u8>);

fn blocks(mut file: &[u8]) -> Vec<Block> {
    let number = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let length = number(&file[4..]) as usize;
        assert!(length.is_multiple_of(4) && number(&file[length - 4..]) as usize == length, "{length}");
        blocks.push((number(file), file[8..length - 4].to_vec()));
        file = &file[length..];
    }
    blocks
}

#[test]
fn a_file_is_made_of_whole_blocks() {
    let asked = CaptureRequest { interface: "eth0".to_owned(), filter: "arp".to_owned(), ..CaptureRequest::default() };
    let mut file = Vec::new();
    pcapng::begin(&mut file, 1, &asked);
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(0x1_0000_0002);
    let begun = file.len();
    pcapng::frame(&mut file, sys::Frame { captured: 5, length: 60, time }, b"hello");
    assert_eq!(file.len() - begun, pcapng::frame_bytes(5));
    pcapng::end(&mut file, (7, 2), "over");
    let blocks = blocks(&file);
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0x0A0D_0D0A, 1, 6, 5]);
    let words: Vec<u32> = blocks[2].1.chunks(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words[..5], [0, 1, 2, 5, 60]);
    assert_eq!(blocks[2].1[20..], *b"hello\0\0\0");
}

fn on_loopback(filter: String, bytes: u64) -> Option<Capture> {
    let asked =
        CaptureRequest { interface: "lo".to_owned(), filter, bytes, frame_bytes: 60, ..CaptureRequest::default() };
    match Capture::open(asked, None) {
        Ok(capture) => Some(capture),
        Err(Refused::Failed(reason)) => {
            println!("SKIPPED: {reason}");
            None
        }
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn frames_are_captured_once_and_cut_until_there_is_no_more_room() {
    let (here, there) =
        (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = there.local_addr().unwrap().port();
    let Some(capture) = on_loopback(format!("udp dst port {port}"), 800) else { return };
    let mut parts = capture.start((), Shutdown::new());
    // More than there is room for.
    for number in 0..10_u8 {
        here.send_to(&[number; 100], ("127.0.0.1", port)).unwrap();
    }
    let mut file = Vec::new();
    while let Some(part) = tokio::time::timeout(Duration::from_secs(20), parts.recv()).await.unwrap() {
        file.extend(part);
    }
    let blocks = blocks(&file);
    let frames: Vec<&Vec<u8>> = blocks.iter().filter(|(kind, _)| *kind == 6).map(|(_, body)| body).collect();
    assert!((2..10).contains(&frames.len()), "{}", frames.len());
    for (number, frame) in frames.iter().enumerate() {
        let lengths: Vec<u32> = frame[12..20].chunks(4).map(|it| u32::from_ne_bytes(it.try_into().unwrap())).collect();
        // Ethernet, IP and UDP come before what was sent.
        assert_eq!(lengths, [60, 142]);
        assert_eq!(usize::from(frame[20 + 42]), number, "each once, in order");
    }
    let (kind, last) = blocks.last().unwrap();
    assert!(*kind == 5 && String::from_utf8_lossy(last).contains("it has 800 bytes"));
}

#[tokio::test]
async fn a_caller_who_goes_away_ends_it() {
    let Some(capture) = on_loopback("udp port 1".to_owned(), 1000) else { return };
    let turns = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
    let mut parts = capture.start(turns.clone().try_acquire_owned().unwrap(), Shutdown::new());
    let within = Duration::from_secs(20);
    tokio::time::timeout(within, parts.recv()).await.unwrap().expect("the head of the file waits for nothing");
    assert_eq!(turns.available_permits(), 0);
    drop(parts);
    drop(tokio::time::timeout(within, turns.acquire()).await.expect("it has ended").unwrap());
}

#[tokio::test]
async fn what_cannot_be_captured_is_told() {
    let asked = |interface: &str, filter: &str| CaptureRequest {
        interface: interface.to_owned(),
        filter: filter.to_owned(),
        ..CaptureRequest::default()
    };
    let refused = |asked: CaptureRequest| Capture::open(asked, None).unwrap_err();
    assert!(matches!(refused(asked("eth/../lo", "")), Refused::Absent(reason) if reason.contains("there are")));
    assert!(matches!(refused(asked("lo", "vlan 5")), Refused::Bad(reason) if reason.contains("vlan")));
    let long = CaptureRequest { seconds: 4000, ..asked("lo", "") };
    assert!(matches!(refused(long), Refused::Bad(reason) if reason.contains("seconds: 4000")));
    let large = CaptureRequest { frame_bytes: CaptureRequest::MOST_FRAME_BYTES + 1, ..asked("lo", "") };
    assert!(matches!(refused(large), Refused::Bad(_)));
}
