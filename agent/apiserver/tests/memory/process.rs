//! The server in a process of its own, and what is known of that process from outside.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::core::v1::{Container, EnvVar, Pod};
use apiserver::{Authorization, Config, Tls};
use lifecycle::Shutdown;
use store::Store as _;
use tokio::time::Instant;

use super::wire;

/// Where the server finds its certificate.
const FOLDER: &str = "KEELSON_TEST_FOLDER";
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(300);
/// Time between two looks at the process, and how many in a row have to see it at rest.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: usize = 25;
/// Writes of seeded pods under way at a time.
const WIDTH: usize = 64;

/// A server that a test measures.
pub(crate) struct Server {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
    orders: ChildStdin,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one and waits until it is ready.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join("server.crt"), issued.cert.pem()).unwrap();
        std::fs::write(folder.path().join("server.key"), issued.signing_key.serialize_pem()).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "server", "--ignored", "--nocapture"]).env(FOLDER, folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = said.find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned));
        let orders = child.stdin.take().unwrap();
        let server = Self { child, said, orders, address: address.unwrap().parse().unwrap(), _folder: folder };
        server.until("readiness", async || wire::get(server.address, "/readyz").await.0 == 200).await;
        server
    }

    /// One that has allocated what all connections share.
    pub(crate) async fn warm() -> Self {
        let server = Self::start().await;
        for _ in 0..20 {
            wire::get(server.address, "/livez").await;
        }
        server.settled().await;
        server
    }

    /// Watches of config maps that go on.
    pub(crate) async fn watches(&self) -> u64 {
        self.metric("apiserver_longrunning_requests", "resource=\"configmaps\"").await
    }

    /// Stores two pods or more, past the API. Returns the bytes of their stored forms.
    pub(crate) async fn seed(&mut self, pods: usize) -> u64 {
        writeln!(self.orders, "{pods}").unwrap();
        let told = self.said.find_map(|line| line.unwrap().strip_prefix("stored ").map(str::to_owned));
        let path = "/api/v1/pods?limit=1";
        let rest = format!("\"remainingItemCount\":{}", pods - 1);
        self.until("the pods", async || wire::get(self.address, path).await.1.contains(&rest)).await;
        told.unwrap().parse().unwrap()
    }

    /// Waits until the server says something of itself.
    pub(crate) async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "{what} never came");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The sum of the metrics whose lines begin with one text and hold another.
    pub(crate) async fn metric(&self, name: &str, holding: &str) -> u64 {
        let (_, text) = wire::get(self.address, "/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(holding));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Waits until it has nothing left to do: none of its threads runs.
    pub(crate) async fn settled(&self) {
        let end = Instant::now() + PATIENCE;
        let mut looks = 0;
        while looks < LOOKS {
            assert!(Instant::now() < end, "the server never comes to rest");
            tokio::time::sleep(LOOK).await;
            looks = if self.rests() { looks + 1 } else { 0 };
        }
    }

    fn rests(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let state = |task: &Path| {
            let text = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            text.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        tasks.flatten().all(|task| state(&task.path()).is_none_or(|state| state == 'S'))
    }

    /// Bytes that are its own: not of the program's file, which many may share.
    pub(crate) fn memory(&self) -> u64 {
        self.kilobytes("smaps_rollup", "Pss_Anon:") << 10
    }

    /// The most that it had in memory since [`Server::forget_peak`], the program's file included.
    pub(crate) fn peak(&self) -> u64 {
        self.kilobytes("status", "VmHWM:") << 10
    }

    /// The peak counts from now. Returns what is in memory now, the program's file included.
    pub(crate) fn forget_peak(&self) -> u64 {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        self.kilobytes("status", "VmRSS:") << 10
    }

    fn kilobytes(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// What the process of a [`Server`] does: serves until nobody gives orders any more.
pub(crate) async fn serve() {
    let folder = std::env::var_os(FOLDER).map(std::path::PathBuf::from);
    let folder = folder.expect("the other tests start this one");
    let store = Arc::new(store::Embedded::in_memory().await.unwrap());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls { certificate: folder.join("server.crt"), key: folder.join("server.key"), ..Tls::default() };
    let config = Config {
        authorization: Authorization::AlwaysAllow,
        listener: Some(Arc::new(listener)),
        tls: Some(tls),
        // All that a test asks for runs at once.
        priority_and_fairness: false,
        max_in_flight: (0, 0),
        ..Config::default()
    };
    let stop = Shutdown::new();
    let running = tokio::spawn(apiserver::run(config, store.clone(), stop.clone()));
    println!("listening {address}");
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        let orders = std::io::stdin().lines().map_while(Result::ok);
        orders.map(|order| order.parse::<usize>().unwrap()).try_for_each(|order| tell.blocking_send(order))
    });
    while let Some(pods) = told.recv().await {
        println!("stored {}", seed(&store, pods).await);
    }
    stop.trigger();
    running.await.unwrap().unwrap();
}

async fn seed(store: &store::Embedded, pods: usize) -> usize {
    use futures::StreamExt as _;
    let write = |n: usize| async move {
        let pod = pod(n);
        let key = format!("/registry/pods/default/{}", pod.metadata.name);
        let value = api::envelope::encode(<Pod as api::Resource>::KIND, &pod);
        let length = key.len() + value.len();
        store.create(key.into(), value.into(), None).await.unwrap().committed().unwrap();
        length
    };
    futures::stream::iter(0..pods).map(write).buffer_unordered(WIDTH).fold(0, async |sum, more| sum + more).await
}

/// A pod of usual size.
fn pod(n: usize) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = format!("pod-{n}");
    pod.metadata.namespace = "default".to_owned();
    pod.metadata.uid = format!("00000000-0000-4000-8000-{n:012}");
    for key in ["app", "tier", "pod-template-hash"] {
        pod.metadata.labels.insert(key.to_owned(), format!("value-of-{key}"));
    }
    let variable =
        |i| EnvVar { name: format!("SETTING_{i}"), value: "a value of usual length".repeat(3), ..EnvVar::default() };
    let env = (0..24).map(variable).collect();
    let container =
        Container { name: "web".to_owned(), image: "example.com/web:1.2.3".to_owned(), env, ..Default::default() };
    pod.spec.containers.push(container);
    pod.spec.node_name = format!("node-{}", n % 100);
    pod
}
