//! What etcd is told.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use machine_api::EtcdMember;
use manifest::Manifest;
use serde_json::Value;

/// Port for clients.
pub const CLIENT_PORT: u16 = 2379;
/// Port for the other members.
pub const PEER_PORT: u16 = 2380;
/// Port for health and metrics, on the loopback interface, without TLS.
pub const METRICS_PORT: u16 = 2381;

/// The API server waits for progress notifications before it serves a consistent read from its cache.
const PROGRESS_NOTIFY: Duration = Duration::from_secs(5);

/// A member, by name and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Host name.
    pub name: String,
    /// Address for the other members.
    pub address: IpAddr,
}

impl Member {
    /// The URL at which the other members reach this one.
    #[must_use]
    pub fn peer_url(&self) -> String {
        url("https", self.address, PEER_PORT)
    }

    /// The URL at which clients reach this member.
    #[must_use]
    pub fn client_url(&self) -> String {
        url("https", self.address, CLIENT_PORT)
    }
}

/// What a start of etcd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// One of many, or the first one of a new cluster.
    Usual,
    /// The first one in a cluster of these members, this one among them.
    Joining(Vec<EtcdMember>),
    /// One of the first ones from a snapshot, as a cluster of its own that nobody can join.
    Restored,
    /// It goes on with its data as a cluster of its own.
    Recovery,
}

/// One member's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// This member.
    pub member: Member,
    /// Where programs of this machine reach the member.
    pub local: IpAddr,
    /// The first membership, this member among them.
    pub members: Vec<Member>,
    /// Name of the cluster; members of clusters with other names refuse each other.
    pub cluster: String,
    /// What the next start is.
    pub start: Start,
    /// Folder of the data.
    pub data_dir: PathBuf,
    /// Folder of etcd's certificates: `ca`, `server` and `peer`.
    pub pki_dir: PathBuf,
    /// Size of the database at which writes stop.
    pub quota_bytes: u64,
    /// Interval of heartbeats.
    pub heartbeat_interval: Duration,
    /// Silence before an election.
    pub election_timeout: Duration,
    /// Writes between snapshots.
    pub snapshot_count: u32,
}

impl Config {
    /// The configuration of this machine's member. `address` is the machine's own, used where the manifest does not
    /// name the members; `state` is the folder of STATE.
    #[must_use]
    pub fn new(manifest: &Manifest, address: IpAddr, state: &Path) -> Self {
        let name = manifest.machine.hostname.to_string();
        let named = manifest.etcd.members.iter();
        let mut members: Vec<Member> =
            named.map(|member| Member { name: member.name.to_string(), address: member.address }).collect();
        let own = members.iter().find(|member| member.name == name).cloned();
        let member = own.unwrap_or(Member { name, address });
        if members.is_empty() {
            members.push(member.clone());
        }
        Self {
            member,
            local: Ipv4Addr::LOCALHOST.into(),
            members,
            cluster: manifest.cluster.name.to_string(),
            start: Start::Usual,
            data_dir: state.join("etcd"),
            pki_dir: state.join("pki/etcd"),
            quota_bytes: manifest.etcd.quota.bytes(),
            heartbeat_interval: manifest.etcd.heartbeat_interval.duration(),
            election_timeout: manifest.etcd.election_timeout.duration(),
            snapshot_count: manifest.etcd.snapshot_count,
        }
    }

    /// The arguments with which etcd reads a configuration file.
    #[must_use]
    pub fn argv(file: &Path) -> Vec<String> {
        vec!["--config-file".to_owned(), file.display().to_string()]
    }

    /// The URL at which programs of this machine reach the member.
    #[must_use]
    pub fn local_url(&self) -> String {
        url("https", self.local, CLIENT_PORT)
    }

    /// The URLs for API servers, this machine's own member first.
    #[must_use]
    pub fn client_urls(&self) -> Vec<String> {
        let others = self.members.iter().filter(|member| **member != self.member);
        std::iter::once(self.local_url()).chain(others.map(Member::client_url)).collect()
    }

    /// The configuration file.
    #[must_use]
    pub fn render(&self) -> String {
        let (local, own) = (self.local_url(), self.member.client_url());
        let is_secluded = self.start == Start::Restored;
        let listen = if own == local || is_secluded { local } else { format!("{local},{own}") };
        let listen_peers = if is_secluded { url("https", self.local, PEER_PORT) } else { self.member.peer_url() };
        let mut yaml = Yaml::default();
        yaml.text("name", &self.member.name);
        yaml.text("data-dir", &self.data_dir.to_string_lossy());
        yaml.text("listen-client-urls", &listen);
        yaml.text("advertise-client-urls", &own);
        yaml.text("listen-peer-urls", &listen_peers);
        yaml.text("initial-advertise-peer-urls", &self.member.peer_url());
        yaml.text("initial-cluster", &self.initial_cluster());
        yaml.text("initial-cluster-token", &self.token());
        let is_joining = matches!(self.start, Start::Joining(_));
        yaml.text("initial-cluster-state", if is_joining { "existing" } else { "new" });
        if self.start == Start::Recovery {
            yaml.raw("force-new-cluster", true);
        }
        yaml.text("listen-metrics-urls", &url("http", self.local, METRICS_PORT));
        self.security(&mut yaml, "client-transport-security", "server");
        self.security(&mut yaml, "peer-transport-security", "peer");
        yaml.raw("quota-backend-bytes", self.quota_bytes);
        yaml.raw("snapshot-count", if is_secluded { 1 } else { self.snapshot_count });
        yaml.raw("heartbeat-interval", self.heartbeat_interval.as_millis());
        yaml.raw("election-timeout", self.election_timeout.as_millis());
        // The API server compacts, by upstream's protocol.
        yaml.text("auto-compaction-retention", "0");
        yaml.raw("strict-reconfig-check", true);
        // The names of etcd 3.5. 3.6 takes them, too, but not beside those that replace them.
        // A duration in etcd's file is a number of nanoseconds.
        yaml.raw("experimental-watch-progress-notify-interval", PROGRESS_NOTIFY.as_nanos());
        yaml.raw("experimental-initial-corrupt-check", true);
        yaml.text("logger", "zap");
        yaml.text("log-level", "warn");
        yaml.0
    }

    fn initial_cluster(&self) -> String {
        let one = |name: &str, url: &str| format!("{name}={url}");
        let own = || one(&self.member.name, &self.member.peer_url());
        let members: Vec<String> = match &self.start {
            Start::Usual => self.members.iter().map(|member| one(&member.name, &member.peer_url())).collect(),
            Start::Restored | Start::Recovery => vec![own()],
            Start::Joining(members) => {
                let others = members.iter().filter(|member| !member.name.is_empty() && member.name != self.member.name);
                let urls = others.flat_map(|member| member.peer_urls.iter().map(|url| one(&member.name, url)));
                urls.chain(std::iter::once(own())).collect()
            }
        };
        members.join(",")
    }

    /// From it etcd makes the numbers of the cluster and its members. One that is restored twice must not take its
    /// former members for its own.
    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        match self.start {
            Start::Restored => format!("{}-{}", self.cluster, now.as_nanos()),
            Start::Usual | Start::Joining(_) | Start::Recovery => self.cluster.clone(),
        }
    }

    fn security(&self, yaml: &mut Yaml, section: &str, name: &str) {
        let file = |name: &str| self.pki_dir.join(name).to_string_lossy().into_owned();
        yaml.open(section);
        yaml.text("  cert-file", &file(&format!("{name}.crt")));
        yaml.text("  key-file", &file(&format!("{name}.key")));
        yaml.text("  trusted-ca-file", &file("ca.crt"));
        yaml.raw("  client-cert-auth", true);
    }
}

/// A flat YAML document. Texts are written as JSON strings, which YAML reads whatever is in them.
#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn text(&mut self, key: &str, value: &str) {
        self.raw(key, Value::from(value));
    }

    fn raw(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _infallible = writeln!(self.0, "{key}: {value}");
    }

    fn open(&mut self, key: &str) {
        let _infallible = writeln!(self.0, "{key}:");
    }
}

fn url(scheme: &str, address: IpAddr, port: u16) -> String {
    format!("{scheme}://{}", std::net::SocketAddr::new(address, port))
}

/// Where a member tells whether it takes part: a leader is known and reads and writes work.
#[must_use]
pub fn readiness_url() -> String {
    format!("{}/health", url("http", Ipv4Addr::LOCALHOST.into(), METRICS_PORT))
}

/// Whether the answer of [`readiness_url`] says ready.
#[must_use]
pub fn is_ready(status: u16, body: &[u8]) -> bool {
    let answer: Option<Value> = serde_json::from_slice(body).ok();
    status == 200 && answer.is_some_and(|answer| answer["health"] == "true")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(etcd: &str) -> Config {
        let text = format!(
            "version = 1\n[machine]\nhostname = \"master-1\"\nrole = \"master\"\n[cluster]\nname = \"home\"\n\
             endpoint = \"https://api.example.com:6443\"\ntoken = \"abcdef.0123456789abcdef\"\n[control-plane]\n\
             secret = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"\n{etcd}"
        );
        let manifest = manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        Config::new(&manifest, "192.168.77.10".parse().unwrap(), Path::new("/state"))
    }

    const THREE: &str = r#"
[etcd]
members = [
    { name = "master-1", address = "192.168.77.11" },
    { name = "master-2", address = "fd00::12" },
    { name = "master-3", address = "192.168.77.13" },
]
"#;

    #[test]
    fn a_single_master_is_a_cluster_of_its_own() {
        let text = config("").render();
        for line in [
            "name: \"master-1\"",
            "data-dir: \"/state/etcd\"",
            "listen-client-urls: \"https://127.0.0.1:2379,https://192.168.77.10:2379\"",
            "initial-cluster: \"master-1=https://192.168.77.10:2380\"",
            "initial-cluster-token: \"home\"",
            "  cert-file: \"/state/pki/etcd/server.crt\"",
            "  cert-file: \"/state/pki/etcd/peer.crt\"",
            "  client-cert-auth: true",
            "quota-backend-bytes: 1073741824",
            "heartbeat-interval: 100",
            "election-timeout: 1000",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn three_masters_know_each_other() {
        let config = config(THREE);
        assert_eq!(config.member.address, "192.168.77.11".parse::<IpAddr>().unwrap());
        let cluster = "initial-cluster: \"master-1=https://192.168.77.11:2380,\
                       master-2=https://[fd00::12]:2380,master-3=https://192.168.77.13:2380\"\n";
        assert!(config.render().contains(cluster), "{}", config.render());
        assert_eq!(
            config.client_urls(),
            ["https://127.0.0.1:2379", "https://[fd00::12]:2379", "https://192.168.77.13:2379"]
        );
    }

    #[test]
    fn a_start_has_the_members_that_it_is_for() {
        let mut config = config(THREE);
        let seen = |name: &str, url: &str| EtcdMember {
            name: name.to_owned(),
            peer_urls: vec![url.to_owned()],
            ..EtcdMember::default()
        };
        config.start =
            Start::Joining(vec![seen("master-2", "https://m2:2380"), seen("", "https://192.168.77.11:2380")]);
        let text = config.render();
        assert!(text.contains("\"master-2=https://m2:2380,master-1=https://192.168.77.11:2380\""), "{text}");
        assert!(text.contains("initial-cluster-state: \"existing\""), "{text}");
        config.start = Start::Recovery;
        assert!(config.render().contains("force-new-cluster: true"));
        config.start = Start::Restored;
        let text = config.render();
        assert!(text.contains("initial-cluster: \"master-1=https://192.168.77.11:2380\"\n"), "{text}");
        assert!(text.contains("initial-cluster-token: \"home-1"), "{text}");
        assert!(text.contains("listen-client-urls: \"https://127.0.0.1:2379\"\n"), "{text}");
        assert!(text.contains("listen-peer-urls: \"https://127.0.0.1:2380\"\n"), "{text}");
    }

    #[test]
    fn readiness_needs_the_word_and_the_code() {
        assert!(is_ready(200, br#"{"health":"true","reason":""}"#));
        assert!(!is_ready(200, br#"{"health":"false","reason":"RAFT NO LEADER"}"#));
        assert!(!is_ready(503, br#"{"health":"true"}"#));
        assert!(!is_ready(200, b"ok"));
    }
}
