//! What is counted, by the names that CoreDNS has for it where it means the same, so that its dashboards show it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use stdx::Histogram;
use stdx::exposition::Text;

use crate::forward::Forwarder;
use crate::respond::{Transport, Way};

/// Seconds: as CoreDNS has them.
const BOUNDS: &[f64] = &[
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192,
];
/// One server block answers for all names.
const ZONE: (&str, &str) = ("zone", ".");

/// How often each of a closed set of things was there.
struct Tally<K>(Mutex<BTreeMap<K, u64>>);

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord + Copy> Tally<K> {
    fn count(&self, what: K) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn all(&self) -> Vec<(K, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(what, count)| (*what, *count)).collect()
    }
}

/// What a server was asked and has answered.
pub(crate) struct ServerCounters {
    requests: Tally<(&'static str, &'static str, &'static str)>,
    responses: Tally<&'static str>,
    durations: Histogram,
}

impl Default for ServerCounters {
    fn default() -> Self {
        Self { requests: Tally::default(), responses: Tally::default(), durations: Histogram::new(BOUNDS) }
    }
}

impl ServerCounters {
    pub(crate) fn count_request(&self, way: Way, kind: RecordType) {
        let proto = match way.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        self.requests.count((proto, if way.is_ipv6 { "2" } else { "1" }, kind_word(kind)));
    }

    pub(crate) fn count_response(&self, code: ResponseCode, took: Duration) {
        self.responses.count(code_word(code));
        self.durations.observe(took.as_secs_f64());
    }
}

/// What the cache had.
#[derive(Default)]
pub(crate) struct CacheCounters {
    requests: AtomicU64,
    hits: [AtomicU64; 2],
    rejects: AtomicU64,
}

impl CacheCounters {
    pub(crate) fn count(&self, known: Option<&Message>) {
        self.requests.fetch_add(1, Relaxed);
        if let Some(answer) = known {
            self.hits[usize::from(answer.answers.is_empty())].fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn count_reject(&self) {
        self.rejects.fetch_add(1, Relaxed);
    }
}

/// What another resolver was asked and has answered.
#[derive(Default)]
pub(crate) struct UpstreamCounters {
    durations: Mutex<BTreeMap<&'static str, Histogram>>,
    failures: Tally<&'static str>,
    connections: AtomicU64,
}

impl UpstreamCounters {
    pub(crate) fn count_answer(&self, code: ResponseCode, took: Duration) {
        let mut durations = self.durations.lock().unwrap_or_else(PoisonError::into_inner);
        durations.entry(code_word(code)).or_insert_with(|| Histogram::new(BOUNDS)).observe(took.as_secs_f64());
    }

    pub(crate) fn count_failure(&self, why: &'static str) {
        self.failures.count(why);
    }

    pub(crate) fn count_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }
}

/// Writes all of it, of the server by this name.
pub(crate) fn write(server: &str, counters: &ServerCounters, forwarder: &Forwarder, out: &mut Text) {
    let server = ("server", server);
    let name = "coredns_dns_requests_total";
    out.family(name, "counter", "Questions, by the way they came and the type of record that is asked for.");
    for ((proto, family, kind), count) in counters.requests.all() {
        out.sample(name, &[server, ZONE, ("proto", proto), ("family", family), ("type", kind)], count);
    }
    let name = "coredns_dns_responses_total";
    out.family(name, "counter", "Answers, by their code.");
    for (code, count) in counters.responses.all() {
        out.sample(name, &[server, ZONE, ("rcode", code)], count);
    }
    let name = "coredns_dns_request_duration_seconds";
    out.family(name, "histogram", "Time from a question to its answer.");
    out.histogram(name, &[server, ZONE], &counters.durations);
    write_cache(server, forwarder, out);
    write_upstreams(server, forwarder, out);
}

fn write_cache(server: (&str, &str), forwarder: &Forwarder, out: &mut Text) {
    let zones = ("zones", ".");
    let kinds = ["success", "denial"];
    let name = "coredns_cache_entries";
    out.family(
        name,
        "gauge",
        "Answers of other resolvers that are kept: that there is something, and that there is nothing.",
    );
    for (kind, count) in kinds.iter().zip(forwarder.answers().count()) {
        out.sample(name, &[server, ("type", kind), zones], count);
    }
    let name = "coredns_cache_requests_total";
    out.family(name, "counter", "Questions for other resolvers.");
    out.sample(name, &[server, zones], forwarder.counters.requests.load(Relaxed));
    let name = "coredns_cache_hits_total";
    out.family(name, "counter", "Those that were answered from what is kept.");
    for (kind, count) in kinds.iter().zip(&forwarder.counters.hits) {
        out.sample(name, &[server, ("type", kind), zones], count.load(Relaxed));
    }
    let name = "coredns_forward_max_concurrent_rejects_total";
    out.family(name, "counter", "Those that were refused since too many were on their way.");
    out.sample(name, &[server], forwarder.counters.rejects.load(Relaxed));
}

fn write_upstreams(server: (&str, &str), forwarder: &Forwarder, out: &mut Text) {
    let mut upstreams = forwarder.look(|resolvers| resolvers.upstreams());
    // Those at one address share their counters.
    upstreams.dedup_by_key(|upstream| upstream.server().address);
    let all: Vec<_> = upstreams.iter().map(|it| (it.server().address.to_string(), it.counters())).collect();
    let by = ("proxy_name", "forward");
    let name = "coredns_proxy_request_duration_seconds";
    out.family(name, "histogram", "Time that another resolver took to answer, by the answer's code.");
    for (to, counters) in &all {
        for (code, histogram) in counters.durations.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            out.histogram(name, &[server, by, ("to", to), ("rcode", code)], histogram);
        }
    }
    let name = "keelson_dns_upstream_failures_total";
    out.family(name, "counter", "How often another resolver did not answer, and why.");
    for (to, counters) in &all {
        for (why, count) in counters.failures.all() {
            out.sample(name, &[server, ("to", to), ("reason", why)], count);
        }
    }
    let name = "coredns_proxy_conn_cache_misses_total";
    out.family(name, "counter", "Connections that were opened to resolvers that are asked by TLS.");
    for ((to, counters), upstream) in all.iter().zip(&upstreams) {
        if upstream.server().tls.is_some() {
            let count = counters.connections.load(Relaxed);
            out.sample(name, &[server, by, ("to", to), ("proto", "tcp-tls")], count);
        }
    }
}

/// The types that CoreDNS tells apart, as far as they are asked for today.
fn kind_word(kind: RecordType) -> &'static str {
    const WORDS: [(RecordType, &str); 16] = [
        (RecordType::A, "A"),
        (RecordType::AAAA, "AAAA"),
        (RecordType::ANY, "ANY"),
        (RecordType::CNAME, "CNAME"),
        (RecordType::DNSKEY, "DNSKEY"),
        (RecordType::DS, "DS"),
        (RecordType::HTTPS, "HTTPS"),
        (RecordType::MX, "MX"),
        (RecordType::NAPTR, "NAPTR"),
        (RecordType::NS, "NS"),
        (RecordType::PTR, "PTR"),
        (RecordType::RRSIG, "RRSIG"),
        (RecordType::SOA, "SOA"),
        (RecordType::SRV, "SRV"),
        (RecordType::SVCB, "SVCB"),
        (RecordType::TXT, "TXT"),
    ];
    WORDS.iter().find(|(known, _)| *known == kind).map_or("other", |(_, word)| word)
}

fn code_word(code: ResponseCode) -> &'static str {
    const WORDS: [(ResponseCode, &str); 7] = [
        (ResponseCode::NoError, "NOERROR"),
        (ResponseCode::FormErr, "FORMERR"),
        (ResponseCode::ServFail, "SERVFAIL"),
        (ResponseCode::NXDomain, "NXDOMAIN"),
        (ResponseCode::NotImp, "NOTIMP"),
        (ResponseCode::Refused, "REFUSED"),
        (ResponseCode::BADVERS, "BADVERS"),
    ];
    WORDS.iter().find(|(known, _)| *known == code).map_or("OTHER", |(_, word)| word)
}
