//! etcd as it is: members on loopback, and a way to them that can be cut.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use lifecycle::Shutdown;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::RwLock;

const BINARY: &str = "KEELSON_TEST_ETCD";
/// Time between two looks at a member.
const LOOK: Duration = Duration::from_millis(50);

/// The binary to test with. Tests that need it run only where somebody asks for them.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os(BINARY).unwrap_or_else(|| panic!("{BINARY} names no etcd binary (3.5 or later)")).into()
}

/// Members of one cluster. Their processes end with it.
pub(crate) struct Etcd {
    binary: PathBuf,
    folder: tempfile::TempDir,
    host: Ipv4Addr,
    /// Ports for clients and for one another.
    ports: Vec<(u16, u16)>,
    children: Vec<Option<Child>>,
    options: Vec<String>,
}

/// A loopback address that nobody else has: whoever connects from 127.0.0.1 may get any port there, also one that a
/// member is about to take.
pub(crate) fn own_host() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 1 + high % 254, low, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A port that nobody listens on there.
pub(crate) fn free_port(host: Ipv4Addr) -> u16 {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// Starts them.
    pub(crate) fn start(binary: PathBuf, members: usize, options: &[&str]) -> Self {
        let host = own_host();
        let ports = (0..members).map(|_| (free_port(host), free_port(host))).collect();
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut etcd = Self { binary, folder, host, ports, children: (0..members).map(|_| None).collect(), options };
        (0..members).for_each(|member| etcd.run(member));
        etcd
    }

    /// Starts a member that does not run.
    pub(crate) fn run(&mut self, member: usize) {
        let url = |port: u16| format!("http://{}:{port}", self.host);
        let (client, peer) = (self.url(member), url(self.ports[member].1));
        let all: Vec<String> = self.ports.iter().enumerate().map(|(n, p)| format!("m{n}={}", url(p.1))).collect();
        let data = self.folder.path().join(format!("m{member}"));
        let mut command = Command::new(&self.binary);
        command.args(["--name", &format!("m{member}"), "--log-level", "error", "--data-dir"]).arg(data);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args([
            "--initial-cluster",
            &all.join(","),
            "--heartbeat-interval",
            "100",
            "--election-timeout",
            "1000",
        ]);
        command.args(["--unsafe-no-fsync"]).args(&self.options);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        self.children[member] = Some(child);
    }

    /// Ends a member without a warning.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.children[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Where clients reach a member.
    pub(crate) fn url(&self, member: usize) -> String {
        format!("http://{}:{}", self.host, self.ports[member].0)
    }

    /// A store over all members, or over the way to one.
    pub(crate) async fn store(&self, way: Option<SocketAddr>) -> Arc<store::Etcd> {
        let endpoints = match way {
            Some(way) => vec![format!("http://{way}")],
            None => (0..self.ports.len()).map(|member| self.url(member)).collect(),
        };
        let config = store::etcd::Config {
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            ..store::etcd::Config::new(endpoints, None)
        };
        Arc::new(store::Etcd::new(config).await.unwrap())
    }

    /// The member that leads, once there is one.
    pub(crate) async fn leader(&self) -> usize {
        loop {
            for member in (0..self.ports.len()).filter(|member| self.children[*member].is_some()) {
                let metrics = ask(&format!("{}/metrics", self.url(member)), None).await.unwrap_or_default();
                if metrics.contains("\netcd_server_is_leader 1\n") {
                    return member;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a member serves.
    pub(crate) async fn healthy(&self, member: usize) {
        let url = format!("{}/health", self.url(member));
        while !ask(&url, None).await.is_some_and(|answer| answer.contains("\"true\"")) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Calls a member's API.
    pub(crate) async fn call(&self, path: &str, body: &str) -> String {
        ask(&format!("{}/v3/{path}", self.url(0)), Some(body.to_owned())).await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let running: Vec<usize> = (0..self.children.len()).filter(|member| self.children[*member].is_some()).collect();
        running.into_iter().for_each(|member| self.kill(member));
    }
}

async fn ask(url: &str, body: Option<String>) -> Option<String> {
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new()).build_http();
    let method = if body.is_some() { http::Method::POST } else { http::Method::GET };
    let body = Full::new(Bytes::from(body.unwrap_or_default()));
    let answer = client.request(Request::builder().method(method).uri(url).body(body).unwrap()).await.ok()?;
    let body = answer.into_body().collect().await.ok()?.to_bytes();
    Some(String::from_utf8(body.to_vec()).unwrap())
}

/// A way to a server that can be cut.
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    /// Ends the connections of now, and all that come until it is replaced.
    cut: Arc<Mutex<Shutdown>>,
    /// Shared by the connections that are open.
    open: Arc<RwLock<()>>,
    end: Shutdown,
}

impl Way {
    /// An open way.
    pub(crate) async fn to(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Self { address, cut: Arc::default(), open: Arc::default(), end: Shutdown::new() };
        let (cut, open, end) = (way.cut.clone(), way.open.clone(), way.end.clone());
        tokio::spawn(async move {
            loop {
                let mut near = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = end.wait() => return,
                };
                let open = open.clone().read_owned().await;
                let cut = cut.lock().clone();
                tokio::spawn(async move {
                    let _open = open;
                    let carry = async {
                        if let Ok(mut far) = TcpStream::connect(server).await {
                            let _either_end = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                        }
                    };
                    tokio::select! {
                        // A turn of the other may carry a question and its answer where this thread stands still meanwhile.
                        biased;
                        () = cut.wait() => {}
                        () = carry => {}
                    }
                });
            }
        });
        way
    }

    /// Cuts it. Afterwards nothing is on its way any more.
    pub(crate) async fn cut(&self) {
        self.cut.lock().trigger();
        drop(self.open.write().await);
    }

    /// Opens it again.
    pub(crate) fn mend(&self) {
        *self.cut.lock() = Shutdown::new();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.end.trigger();
        self.cut.lock().trigger();
    }
}
