//! API servers as processes of their own, on loopback, ours and upstream's with the same flags.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use client::{Client, Config, Identity};
use http::Request;

use super::etcd::{free_port, own_host};

/// What an administrator shows.
pub(crate) const TOKEN: &str = "of-the-administrator";
/// How long a server may take to be ready: upstream's needs half a minute on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(180);
/// Time between two looks at one that is not ready yet.
const LOOK: Duration = Duration::from_millis(1);
/// As much of a log as is told of a server that ended.
const TOLD_BYTES: usize = 2000;

/// A program that is an API server.
#[derive(Clone)]
pub(crate) struct Program {
    path: PathBuf,
    /// What comes before the flags.
    words: &'static [&'static str],
}

impl Program {
    /// The binary of this project.
    pub(crate) fn ours(path: PathBuf) -> Self {
        Self { path, words: &["apiserver"] }
    }

    /// Upstream's, in a folder.
    pub(crate) fn upstream(folder: &Path) -> Self {
        Self { path: folder.join("kube-apiserver"), words: &[] }
    }
}

/// A server that runs. Its process ends with it.
pub(crate) struct Launched {
    child: Child,
    folder: tempfile::TempDir,
    address: SocketAddr,
    /// When its program was started.
    pub(crate) started: Instant,
}

impl Launched {
    /// Starts one on an etcd, or on its own store where it has one. It advertises `advertised`.
    pub(crate) fn start(program: &Program, etcd: Option<&str>, advertised: Ipv4Addr) -> Self {
        let (folder, host) = (tempfile::tempdir().unwrap(), own_host());
        let address = SocketAddr::from((host, free_port(host)));
        write_secrets(folder.path(), host);
        let mut command = Command::new(&program.path);
        command.args(program.words).args(flags(folder.path(), address));
        command.arg(format!("--advertise-address={advertised}"));
        command.args(etcd.map(|url| format!("--etcd-servers={url}")));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let started = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.path.display()));
        Self { child, folder, address, started }
    }

    /// A client that may do everything, with connections of its own.
    pub(crate) fn client(&self) -> Client {
        let server = format!("https://{}", self.address).parse().unwrap();
        let identity = Identity::Token(TOKEN.to_owned());
        Client::new(Config { insecure_skip_tls_verify: true, identity, ..Config::new(server) }).unwrap()
    }

    /// Waits until it says that it is ready. Returns how long that took from its start.
    pub(crate) async fn ready(&mut self) -> Duration {
        let client = self.client();
        loop {
            let request = Request::get("/readyz").body(Bytes::new()).unwrap();
            if client.raw(request).await.is_ok_and(|answer| answer.status().is_success()) {
                return self.started.elapsed();
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && self.started.elapsed() < PATIENCE, "not ready ({ended:?}): {}", self.told());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The key that it signs tokens of service accounts with.
    pub(crate) fn signing_key(&self) -> PathBuf {
        self.folder.path().join("sa.key")
    }

    /// The file with the administrator's token.
    pub(crate) fn tokens(&self) -> PathBuf {
        self.folder.path().join("tokens.csv")
    }

    /// The end of what it logged.
    fn told(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(TOLD_BYTES)..]).into_owned()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

/// A certificate to serve with, keys for tokens of service accounts, and the administrator's token.
fn write_secrets(folder: &Path, host: Ipv4Addr) {
    let issued = rcgen::generate_simple_self_signed(vec![host.to_string()]).unwrap();
    let signing = rcgen::KeyPair::generate().unwrap();
    let files = [
        ("server.crt", issued.cert.pem()),
        ("server.key", issued.signing_key.serialize_pem()),
        ("sa.key", signing.serialize_pem()),
        ("sa.pub", signing.public_key_pem()),
        ("tokens.csv", format!("{TOKEN},admin,admin,\"system:masters\"\n")),
    ];
    files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
}

fn flags(folder: &Path, address: SocketAddr) -> Vec<String> {
    let file = |name: &str| folder.join(name).display().to_string();
    vec![
        format!("--bind-address={}", address.ip()),
        format!("--secure-port={}", address.port()),
        format!("--tls-cert-file={}", file("server.crt")),
        format!("--tls-private-key-file={}", file("server.key")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
    ]
}
