//! What was dialled by proxies, under upstream's names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use stdx::Histogram;

use crate::packet::PacketType;

/// Seconds up to which dials are counted.
const LATENCIES: &[f64] = &[0.005, 0.025, 0.1, 0.5, 2.5, 12.5];

/// Which part of a dial failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The connection with the proxy.
    Connect,
    /// What the proxy was asked for.
    Proxy,
}

/// By which protocol over which transport a proxy is spoken with.
pub(crate) type Spoken = (&'static str, &'static str);

/// Numbers of one name, told apart by labels.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it tells.
    pub help: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    values: Values,
}

/// Which packets there are: those that are not known are the last.
const PACKET_TYPES: [Option<PacketType>; 8] = [
    Some(PacketType::DialReq),
    Some(PacketType::DialRsp),
    Some(PacketType::CloseReq),
    Some(PacketType::CloseRsp),
    Some(PacketType::Data),
    Some(PacketType::DialCls),
    Some(PacketType::Drain),
    None,
];
/// Which ways they go.
const SEGMENTS: [&str; 2] = ["from_client", "to_client"];

enum Values {
    /// What seldom happens, by labels.
    Rare(Mutex<BTreeMap<Vec<&'static str>, i64>>),
    /// What happens with every piece of a stream: by type and way.
    Packets([[AtomicU64; SEGMENTS.len()]; PACKET_TYPES.len()]),
}

impl Family {
    fn new(name: &'static str, kind: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, kind, help, labels, values: Values::Rare(Mutex::default()) }
    }

    fn add(&self, labels: &[&'static str], by: i64) {
        if let Values::Rare(known) = &self.values {
            *known.lock().entry(labels.to_vec()).or_default() += by;
        }
    }

    fn count_packet(&self, packet: Option<PacketType>, segment: usize) {
        if let Values::Packets(counts) = &self.values {
            let at = packet.map_or(PACKET_TYPES.len() - 1, |packet| packet as usize);
            counts[at][segment].fetch_add(1, Relaxed);
        }
    }

    /// Values of its labels, with the number for them.
    #[must_use]
    pub fn values(&self) -> Vec<(Vec<&'static str>, i64)> {
        match &self.values {
            Values::Rare(known) => known.lock().iter().map(|(labels, value)| (labels.clone(), *value)).collect(),
            Values::Packets(counts) => {
                let rows = PACKET_TYPES.into_iter().zip(counts).flat_map(|(packet, ways)| {
                    let name = packet.map_or("Unknown", PacketType::name);
                    SEGMENTS.into_iter().zip(ways).map(move |(way, count)| (vec![name, way], count.load(Relaxed)))
                });
                let seen = rows.filter(|(_, count)| *count > 0);
                seen.map(|(labels, count)| (labels, i64::try_from(count).unwrap_or(i64::MAX))).collect()
            }
        }
    }
}

/// Numbers of all proxies of one server.
pub struct Counts {
    starts: Family,
    failures: Family,
    dial_failures: Family,
    connections: Family,
    packets: Family,
    stream_errors: Family,
    latencies: Mutex<BTreeMap<Spoken, Arc<Histogram>>>,
}

impl Default for Counts {
    fn default() -> Self {
        let dialled = &["protocol", "transport"];
        Self {
            starts: Family::new(
                "apiserver_egress_dialer_dial_start_total",
                "counter",
                "Dials that were begun by way of a proxy.",
                dialled,
            ),
            failures: Family::new(
                "apiserver_egress_dialer_dial_failure_count",
                "counter",
                "Dials by way of a proxy that failed, by stage.",
                &["protocol", "stage", "transport"],
            ),
            dial_failures: Family::new(
                "konnectivity_network_proxy_client_dial_failure_total",
                "counter",
                "Dials by packets that failed.",
                &["reason"],
            ),
            connections: Family::new(
                "konnectivity_network_proxy_client_client_connections",
                "gauge",
                "Connections by packets.",
                &["status"],
            ),
            packets: Family {
                name: "konnectivity_network_proxy_client_stream_packets_total",
                kind: "counter",
                help: "Packets from and to this server.",
                labels: &["packet_type", "segment"],
                values: Values::Packets(Default::default()),
            },
            stream_errors: Family::new(
                "konnectivity_network_proxy_client_stream_errors_total",
                "counter",
                "Streams of packets that broke.",
                &["code", "packet_type", "segment"],
            ),
            latencies: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counts").finish_non_exhaustive()
    }
}

impl Counts {
    /// The name of how long dials took.
    pub const LATENCY: &'static str = "apiserver_egress_dialer_dial_duration_seconds";

    pub(crate) fn started(&self, (protocol, transport): Spoken) {
        self.starts.add(&[protocol, transport], 1);
    }

    pub(crate) fn failed(&self, (protocol, transport): Spoken, stage: Stage) {
        let stage = match stage {
            Stage::Connect => "connect",
            Stage::Proxy => "proxy",
        };
        self.failures.add(&[protocol, stage, transport], 1);
    }

    pub(crate) fn succeeded(&self, spoken: Spoken, took: Duration) {
        let known = self.latencies.lock().entry(spoken).or_insert_with(|| Arc::new(Histogram::new(LATENCIES))).clone();
        known.observe(took.as_secs_f64());
    }

    pub(crate) fn dial_failed(&self, reason: &'static str) {
        self.dial_failures.add(&[reason], 1);
    }

    pub(crate) fn sent(&self, packet: Option<PacketType>) {
        self.packets.count_packet(packet, 0);
    }

    pub(crate) fn received(&self, packet: Option<PacketType>) {
        self.packets.count_packet(packet, 1);
    }

    pub(crate) fn broke(&self, code: tonic::Code) {
        self.stream_errors.add(&[code_name(code), "Unknown", "to_client"], 1);
    }

    /// Numbers without how long dials took.
    #[must_use]
    pub fn families(&self) -> [&Family; 6] {
        [&self.starts, &self.failures, &self.dial_failures, &self.connections, &self.packets, &self.stream_errors]
    }

    /// How long dials took, by protocol and transport.
    #[must_use]
    pub fn latencies(&self) -> Vec<((&'static str, &'static str), Arc<Histogram>)> {
        self.latencies.lock().iter().map(|(spoken, known)| (*spoken, known.clone())).collect()
    }
}

/// The code as Go writes it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// Keeps one connection counted under its present status until it is dropped.
pub(crate) struct Counted {
    counts: Arc<Counts>,
    status: &'static str,
}

impl Counted {
    pub(crate) fn new(counts: Arc<Counts>, status: &'static str) -> Self {
        counts.connections.add(&[status], 1);
        Self { counts, status }
    }

    pub(crate) fn become_status(&mut self, status: &'static str) {
        self.counts.connections.add(&[self.status], -1);
        self.counts.connections.add(&[status], 1);
        self.status = status;
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counts.connections.add(&[self.status], -1);
    }
}
