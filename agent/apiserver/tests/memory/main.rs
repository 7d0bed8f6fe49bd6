//! What connections, lists and watches cost whose clients do not read, and what is stored. Everything is measured in
//! bytes of the server's process, never in time; the server runs in a process of its own, which is this program again.
//!
//! In full, with 10,000 pods, a thousand lists and thousands of connections and watches, and its figures told:
//!
//! ```text
//! cargo test --release -p apiserver --test memory -- --nocapture
//! ```
#![allow(clippy::unwrap_used)]

mod process;
mod wire;

use process::Server;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;
use wire::STREAMS;

/// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A test has thousands of connections, and a process not so many.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Programs that are not optimized are too slow for the whole of it.
const IS_FULL: bool = !cfg!(debug_assertions);
const PODS: usize = if IS_FULL { 10_000 } else { 500 };
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const PROTOBUF_METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the server of the other tests"]
async fn server() {
    process::serve().await;
}

/// As many connections as wanted, or as this machine lets a process have.
fn connections(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let soft: usize = files.split_whitespace().next().unwrap().parse().unwrap_or(usize::MAX);
    wanted.min(soft.saturating_sub(200))
}

/// What each of many costs, as a test tells it.
fn each(what: &str, bytes: u64, count: usize) -> u64 {
    let each = bytes / count as u64;
    println!("{what}: {bytes} bytes for {count}, {each} each");
    each
}

/// Reads that run.
const READS: &str = "apiserver_current_inflight_requests{request_kind=\"readOnly\"}";

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(debug_assertions, ignore = "takes minutes where nothing is optimized")]
async fn a_thousand_lists_that_nobody_reads_are_held_in_pieces() {
    const LISTS: usize = if IS_FULL { 1000 } else { 42 };
    const EACH_BYTES: u64 = 512 << 10;
    let _alone = ALONE.lock().await;
    let mut server = Server::start().await;
    server.seed(PODS).await;
    let forms = [
        ("/api/v1/pods", JSON),
        ("/api/v1/pods", PROTOBUF),
        ("/api/v1/pods", TABLE),
        ("/api/v1/pods", METADATA),
        ("/api/v1/pods", PROTOBUF_METADATA),
        ("/api/v1/pods", YAML),
        ("/api/v1/pods?pretty=true", JSON),
    ];
    for version in [1, 2] {
        server.settled().await;
        let (before, before_peak) = (server.memory(), server.forget_peak());
        let mut lists = Vec::new();
        for n in 0..LISTS {
            let (path, accept) = forms[n % forms.len()];
            if version == 1 {
                lists.push(wire::http1(server.address).await);
            } else if n % STREAMS == 0 {
                lists.push(wire::http2(server.address).await);
            }
            let request = match version {
                1 => wire::request(path, &format!("accept: {accept}\r\n")),
                _ => wire::open(n % STREAMS, path, accept),
            };
            lists.last_mut().unwrap().write_all(&request).await.unwrap();
        }
        // The one that asks is one of them.
        server.until("the lists", async || server.metric(READS, "").await > LISTS as u64).await;
        server.settled().await;
        let grown = each(&format!("list over HTTP/{version}"), server.memory().saturating_sub(before), LISTS);
        let peak = each("  at most", server.peak().saturating_sub(before_peak), LISTS);
        assert!(grown < EACH_BYTES && peak < EACH_BYTES, "{grown} bytes each, at most {peak}");
        drop(lists);
        server.until("their end", async || server.metric(READS, "").await == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(debug_assertions, ignore = "takes minutes where nothing is optimized")]
async fn thousands_of_watches_that_nobody_reads_hold_no_events() {
    const WATCHES: usize = if IS_FULL { 5000 } else { 250 };
    const EVENTS: usize = 60;
    const EVENT_BYTES: usize = 50_000;
    // As much as buffers on the way may hold.
    const EACH_BYTES: u64 = 256 << 10;
    let _alone = ALONE.lock().await;
    let mut server = Server::start().await;
    server.seed(2).await;
    // Tables are written for each watch anew.
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=1&includeObject=Object";
    let mut watches = Vec::new();
    for _ in 0..WATCHES / STREAMS {
        let mut stream = wire::http2(server.address).await;
        for n in 0..STREAMS {
            stream.write_all(&wire::open(n, path, TABLE)).await.unwrap();
        }
        watches.push(stream);
    }
    server.until("the watches", async || server.watches().await == WATCHES as u64).await;
    server.settled().await;
    let before = server.memory();
    for n in 0..EVENTS {
        let map = format!(r#"{{"metadata":{{"name":"m{n}"}},"data":{{"a":"{}"}}}}"#, "x".repeat(EVENT_BYTES));
        let code = wire::post(server.address, "/api/v1/namespaces/default/configmaps", &map).await;
        assert_eq!(code, 201);
    }
    server.settled().await;
    let grown = each("unread watch", server.memory().saturating_sub(before), WATCHES);
    assert!(grown < EACH_BYTES, "{grown} bytes each, after {} bytes of events", EVENTS * EVENT_BYTES);
    // Others are served meanwhile.
    assert_eq!(wire::get(server.address, "/readyz").await.0, 200);
    drop(watches);
    server.until("their end", async || server.watches().await == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_cost_little() {
    const EACH_BYTES: u64 = 48 << 10;
    let _alone = ALONE.lock().await;
    let count = connections(if IS_FULL { 10_000 } else { 500 });
    for version in [1, 2] {
        let server = Server::warm().await;
        let before = server.memory();
        let mut idle = Vec::new();
        for _ in 0..count {
            let mut stream = match version {
                1 => wire::http1(server.address).await,
                _ => wire::http2(server.address).await,
            };
            let asks = if version == 1 { wire::request("/livez", "") } else { wire::open(0, "/livez", JSON) };
            stream.write_all(&asks).await.unwrap();
            wire::first_bytes(&mut stream).await;
            idle.push(stream);
        }
        server.settled().await;
        let grown = each(&format!("idle HTTP/{version} connection"), server.memory() - before, count);
        assert_eq!(wire::get(server.address, "/readyz").await.0, 200);
        assert!(grown < EACH_BYTES, "{grown} bytes each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_watches_cost_little() {
    const WATCHES: usize = if IS_FULL { 5000 } else { 500 };
    const ALONE_BYTES: u64 = 56 << 10;
    const SHARED_BYTES: u64 = 20 << 10;
    let _alone = ALONE.lock().await;
    let path = "/api/v1/namespaces/default/configmaps?watch=1&resourceVersion=0";
    for (streams, limit) in [(1, ALONE_BYTES), (50, SHARED_BYTES)] {
        let server = Server::warm().await;
        let before = server.memory();
        let mut watches = Vec::new();
        for _ in 0..WATCHES / streams {
            let mut stream = wire::http2(server.address).await;
            for n in 0..streams {
                stream.write_all(&wire::open(n, path, PROTOBUF)).await.unwrap();
            }
            watches.push(stream);
        }
        server.until("the watches", async || server.watches().await == WATCHES as u64).await;
        server.settled().await;
        let grown = each(&format!("idle watch, {streams} on a connection"), server.memory() - before, WATCHES);
        assert!(grown < limit, "{grown} bytes each");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(debug_assertions, ignore = "what so few pods take is lost in what the allocator keeps")]
async fn stored_pods_and_definitions_cost_little_beyond_their_bytes() {
    const POD_BYTES: u64 = 4 << 10;
    const DEFINITION_BYTES: u64 = 300 << 10;
    const DEFINITIONS: usize = if IS_FULL { 500 } else { 50 };
    const DEFINED: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let _alone = ALONE.lock().await;
    let mut server = Server::start().await;
    server.settled().await;
    let before = server.memory();
    let stored = server.seed(PODS).await;
    server.settled().await;
    // The store in memory keeps them as well.
    let grown = server.memory() - before;
    let pod = each("pod beyond its bytes", grown.saturating_sub(stored), PODS);
    let before = server.memory();
    for n in 0..DEFINITIONS {
        let code = wire::post(server.address, DEFINED, &definition(n)).await;
        assert_eq!(code, 201);
    }
    let served = format!("/apis/group{}.example.com/v1/things", DEFINITIONS - 1);
    server.until("the definitions", async || wire::get(server.address, &served).await.0 == 200).await;
    server.settled().await;
    let definition = each("definition", server.memory().saturating_sub(before), DEFINITIONS);
    assert!(pod < POD_BYTES, "{pod} bytes for a pod of {} bytes", stored / PODS as u64);
    assert!(definition < DEFINITION_BYTES, "{definition} bytes for a definition");
}

/// A definition with as many fields as usual.
fn definition(n: usize) -> String {
    let fields = |prefix: &str| {
        let field =
            |i| format!(r#""{prefix}{i}":{{"type":"string","description":"What field {i} of {prefix} is for."}}"#);
        let all: Vec<String> = (0..40).map(field).collect();
        format!(r#"{{"type":"object","properties":{{{}}}}}"#, all.join(","))
    };
    let (spec, status) = (fields("spec"), fields("status"));
    format!(
        r#"{{"metadata":{{"name":"things.group{n}.example.com"}},"spec":{{"group":"group{n}.example.com",
        "names":{{"plural":"things","kind":"Thing"}},"scope":"Namespaced","versions":[{{"name":"v1","served":true,
        "storage":true,"subresources":{{"status":{{}}}},"schema":{{"openAPIV3Schema":{{"type":"object",
        "properties":{{"spec":{spec},"status":{status}}}}}}}}}]}}}}"#
    )
}
