//! One CA takes the place of another one in a cluster that works: an API server over TLS, the controllers that sign, a
//! worker that joined long ago, administrators, and tokens, each at every step there and back.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::core::v1::{ConfigMap, Node, NodeAddress, ServiceAccount};
use apiserver::{Authorization, FrontProxy, Tls};
use bytes::Bytes;
use client::{Client, Identity};
use http_body_util::BodyExt;
use join::{Certificates, Join, NodeIdentity, Trust};
use lifecycle::Shutdown;
use manifest::{CaHash, Manifest};
use pki::{Authority, Certificate, Key, Leaf, San, Usage};

use super::objects;

const DEADLINE: Duration = Duration::from_secs(120);
const OLD: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NEW: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// What issues, and what is trusted beside it.
const STEPS: [(&str, Option<&str>); 4] = [(OLD, None), (OLD, Some(NEW)), (NEW, Some(OLD)), (NEW, None)];

fn manifest((secret, accepted): (&str, Option<&str>), port: u16) -> Manifest {
    let accepted = accepted.map(|it| format!("accepted-secret = \"{it}\"\n")).unwrap_or_default();
    let text = format!(
        "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"master\"\n[cluster]\n\
         endpoint = \"https://127.0.0.1:{port}\"\ntoken = \"abcdef.0123456789abcdef\"\n\
         [control-plane]\nsecret = \"{secret}\"\n{accepted}"
    );
    manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn authority(secret: &str) -> Authority {
    let manifest = manifest((secret, None), 6443);
    Authority::derive("kubernetes", manifest.control_plane.secret.unwrap().get().unwrap().bytes()).unwrap()
}

/// The pins of a step, first that of the one that issues.
fn pins(step: usize) -> Vec<CaHash> {
    let (secret, accepted) = STEPS[step];
    std::iter::once(secret).chain(accepted).map(|secret| authority(secret).hash()).collect()
}

/// Asks again until it is so.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_elapsed| panic!("{what}: not within {DEADLINE:?}"))
}

struct Master {
    folder: tempfile::TempDir,
    store: Arc<dyn store::Store>,
    listener: TcpListener,
    running: Option<(Shutdown, tokio::task::JoinHandle<()>)>,
}

impl Master {
    async fn new() -> Self {
        let config = store::embedded::Config { path: None, ..store::embedded::Config::default() };
        Self {
            folder: tempfile::tempdir().unwrap(),
            store: Arc::new(store::Embedded::open(config).await.unwrap()),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            running: None,
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn pki(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What applying a manifest does: certificates, and the control plane anew. Answers an administrator's kubeconfig.
    async fn apply(&mut self, step: usize) -> String {
        let manifest = manifest(STEPS[step], self.address().port());
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.trigger();
            running.await.unwrap();
        }
        std::fs::create_dir_all(self.pki("etcd")).unwrap();
        let names = pki::MasterNames::new(&manifest, &[self.address().ip()]);
        let (seen, now) = (pki::observe(self.folder.path()).unwrap(), SystemTime::now());
        let plan = pki::plan(&seen, &pki::Desired::master(&names), now).unwrap();
        pki::apply(self.folder.path(), &plan, now, &mut pki::os_random).unwrap();

        let shutdown = Shutdown::new();
        let served = apiserver::run(self.api_server(), self.store.clone(), shutdown.clone());
        let client = self.admin();
        let folder = self.folder.path().to_owned();
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let config = controllers::Config {
            root_ca_pem: text("ca.crt"),
            signer: Some(controllers::Signer { cert_pem: text("ca.crt"), key_pem: text("ca.key") }),
            service_account_key_pem: Some(text("sa.key")),
            ..controllers::Config::default()
        };
        let controllers = controllers::run(config, client.clone(), shutdown.clone());
        let running = tokio::spawn(async move {
            let (served, controlled) = tokio::join!(served, controllers);
            served.unwrap();
            controlled.unwrap();
        });
        self.running = Some((shutdown, running));
        until("the first objects", async || objects::write_all(&client, &manifest, &text("ca.crt")).await.ok()).await;
        text("admin.conf")
    }

    fn api_server(&self) -> apiserver::Config {
        apiserver::Config {
            bind: self.address(),
            listener: Some(Arc::new(self.listener.try_clone().unwrap())),
            advertise: self.address().ip(),
            tls: Some(Tls {
                certificate: self.pki("apiserver.crt"),
                key: self.pki("apiserver.key"),
                client_ca: Some(self.pki("ca.crt")),
                ..Tls::default()
            }),
            token_signing_key: Some(self.pki("sa.key")),
            token_verify_keys: vec![self.pki("sa.pub")],
            authorization: Authorization::NodeRbac,
            front_proxy: Some(FrontProxy::new(self.pki("front-proxy-ca.crt"), Vec::new())),
            ..apiserver::Config::default()
        }
    }

    fn admin(&self) -> Client {
        Client::new(client::Config::from_kubeconfig(&self.pki("admin.conf")).unwrap()).unwrap()
    }
}

/// A token of a pod's, and how that pod knows the server.
async fn token(admin: &Client) -> (String, Vec<u8>) {
    until("the account", async || admin.get::<ServiceAccount>(Some("default"), "default").await.ok()).await;
    let body = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}"#;
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = http::Request::post(path).header("content-type", "application/json").body(Bytes::from(body));
    let answer = admin.raw(request.unwrap()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    let root = admin.get::<ConfigMap>(Some("default"), "kube-root-ca.crt").await.unwrap().data["ca.crt"].clone();
    (answer["status"]["token"].as_str().unwrap().to_owned(), root.into_bytes())
}

/// Whether somebody is known to the server and knows it.
async fn is_answered(config: client::Config) -> bool {
    let request = http::Request::get("/version").body(Bytes::new()).unwrap();
    let answer = Client::new(config).unwrap().raw(request).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// A worker that joined an hour ago.
struct Worker {
    folder: tempfile::TempDir,
    server: String,
    running: Option<(Shutdown, tokio::task::JoinHandle<()>, Certificates)>,
}

impl Worker {
    fn new(address: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (authority, then) = (authority(OLD), SystemTime::now() - Duration::from_secs(3600));
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        for (name, usage, sans) in [
            ("kubelet", Usage::ClientAuth, BTreeSet::new()),
            (
                "kubelet-server",
                Usage::ServerAuth,
                [San::Dns("w1".to_owned()), San::Ip("127.0.0.1".parse().unwrap())].into(),
            ),
        ] {
            let key = Key::generate(&mut pki::os_random).unwrap();
            let leaf = Leaf {
                common_name: "system:node:w1".to_owned(),
                organization: Some("system:nodes".to_owned()),
                sans,
                usages: [Usage::DigitalSignature, usage].into(),
                life: Duration::from_secs(30 * 24 * 3600),
            };
            let certificate = authority.issue(&leaf, &key, then, &mut pki::os_random).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), key.to_pem().unwrap() + &certificate).unwrap();
        }
        Self { folder, server: format!("https://{address}"), running: None }
    }

    /// What applying a manifest does.
    async fn apply(&mut self, step: usize) {
        self.stop().await;
        let config = join::Config {
            server: self.server.clone(),
            cluster: "home".to_owned(),
            trust: Trust::Hashes(pins(step)),
            token: Some("abcdef.0123456789abcdef".parse().unwrap()),
            node: "w1".to_owned(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            wants_serving: true,
            dir: self.folder.path().to_owned(),
        };
        let (join, certificates) = Join::new(config);
        let shutdown = Shutdown::new();
        let running = tokio::spawn(join.run(shutdown.clone()));
        self.running = Some((shutdown, running, certificates));
    }

    async fn stop(&mut self) {
        if let Some((shutdown, running, _)) = self.running.take() {
            shutdown.trigger();
            running.await.unwrap();
        }
    }

    /// Waits until it trusts the CAs of a step, and has certificates of the one that issues then.
    async fn expect(&self, step: usize) {
        let certificates = &self.running.as_ref().unwrap().2;
        let wanted = pins(step);
        let is_it = |identity: &NodeIdentity| {
            let all = Certificate::all_from_pem("ca", &identity.ca_pem).unwrap();
            let is_of_issuing = |pem: &str| Certificate::from_pem("leaf", pem).unwrap().is_signed_by(&all[0]);
            let serving = identity.serving.as_ref().is_some_and(|pair| is_of_issuing(&pair.cert_pem));
            all.iter().map(Certificate::pin).collect::<Vec<_>>() == wanted
                && is_of_issuing(&identity.client.cert_pem)
                && serving
        };
        until("the worker", async || certificates.current().filter(|identity| is_it(identity))).await;
        // What others on the machine read; and the next step is allowed.
        let seen = pki::observe(self.folder.path()).unwrap();
        let on_disk = Certificate::all_from_pem("ca", &seen.0["ca.crt"]).unwrap();
        assert_eq!(on_disk.iter().map(Certificate::pin).collect::<Vec<_>>(), wanted);
        for next in [step.checked_sub(1), (step + 1 < STEPS.len()).then_some(step + 1)].into_iter().flatten() {
            pki::may_trust(&seen, &pins(next)).unwrap();
        }
    }

    /// Whether the API server knows the worker, with what it has at the moment.
    async fn is_known(&self) -> bool {
        let certificates = &self.running.as_ref().unwrap().2;
        let identity = certificates.current().unwrap();
        is_answered(config(&self.server, &identity.ca_pem, &identity.client)).await
    }
}

fn config(server: &str, ca: &str, pair: &join::Pair) -> client::Config {
    let mut config = client::Config::new(server.parse().unwrap());
    config.ca_pem = Some(ca.as_bytes().to_vec());
    let (cert_pem, key_pem) = (pair.cert_pem.clone().into_bytes(), pair.key_pem.clone().into_bytes());
    config.identity = Identity::Certificate { cert_pem, key_pem };
    config
}

fn kubeconfig(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("admin-{step}.conf"))
}

#[tokio::test]
async fn nobody_who_is_one_step_away_is_broken() {
    let mut master = Master::new().await;
    let server = format!("https://{}", master.address());
    let kept = tempfile::tempdir().unwrap();
    let mut tokens: [Option<(String, Vec<u8>)>; STEPS.len()] = Default::default();
    let mut worker = Worker::new(master.address());

    // There, back by one, and there again. The worker is a step behind at first.
    for (at, worker_at) in [(0, 0), (1, 0), (1, 1), (2, 1), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)] {
        let administrator = master.apply(at).await;
        std::fs::write(kubeconfig(kept.path(), at), administrator).unwrap();
        let admin = master.admin();
        let root = std::fs::read_to_string(master.pki("ca.crt")).unwrap();
        let is_published = async || {
            let map = admin.get::<ConfigMap>(Some("default"), "kube-root-ca.crt").await.ok()?;
            (map.data["ca.crt"] == root).then_some(())
        };
        until("the CAs that pods know", is_published).await;
        if at == 0 {
            let mut node = Node::default();
            node.metadata.name = "w1".to_owned();
            let mut node = admin.create(&node).await.unwrap();
            let address = |kind: &str, it: &str| NodeAddress { r#type: kind.to_owned(), address: it.to_owned() };
            node.status.addresses = vec![address("InternalIP", "127.0.0.1"), address("Hostname", "w1")];
            admin.update_status(&node).await.unwrap();
        }
        worker.apply(worker_at).await;
        if at == worker_at {
            worker.expect(worker_at).await;
        } else {
            until("the worker", async || worker.running.as_ref().unwrap().2.current()).await;
        }
        assert!(worker.is_known().await, "the worker of {worker_at} at {at}");

        tokens[at] = Some(token(&admin).await);
        for (of, kept_token) in tokens.iter().enumerate() {
            let Some((token, root)) = kept_token else { continue };
            let is_near = at.abs_diff(of) <= 1;
            let administrator = client::Config::from_kubeconfig(&kubeconfig(kept.path(), of)).unwrap();
            assert_eq!(is_answered(administrator).await, is_near, "at {at} the administrator of {of}");
            let mut pod = client::Config::new(server.parse().unwrap());
            (pod.ca_pem, pod.identity) = (Some(root.clone()), Identity::Token(token.clone()));
            assert_eq!(is_answered(pod).await, is_near, "at {at} the pod of {of}");
        }
    }

    // A worker that was off all the time: it knows its cluster again by the hash in its manifest, and by nothing else.
    let mut late = Worker::new(master.address());
    late.apply(0).await;
    until("the late worker", async || late.running.as_ref().unwrap().2.current()).await;
    assert!(!late.is_known().await);
    late.apply(1).await;
    let is_it = |ca: &str| Certificate::all_from_pem("ca", ca).unwrap().iter().map(Certificate::pin).eq(pins(1));
    let current = async || late.running.as_ref().unwrap().2.current().filter(|identity| is_it(&identity.ca_pem));
    until("the late worker's CAs", current).await;
    for step in [2, 3] {
        late.apply(step).await;
        late.expect(step).await;
        assert!(late.is_known().await);
    }
    late.stop().await;
    worker.stop().await;
    let (shutdown, running) = master.running.take().unwrap();
    shutdown.trigger();
    running.await.unwrap();
}
