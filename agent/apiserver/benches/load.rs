//! Writes, reads and watches of many pods, against one or several API servers in turn.
//!
//! ```text
//! cargo bench -p apiserver --bench load -- KUBECONFIG=PID... [WORK...]
//! ```
//!
//! Where words are given, only work with one of them in its name is done.
//!
//! Each server is named by an administrator's kubeconfig and its process, whose processor time and memory are read
//! from `/proc`. Where upstream's server is the first, the last column is the ratio to it. Servers keep the pods that
//! were made, so give each a fresh store.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::ResourceList as _;
use api::core::v1::{Container, EnvVar, Namespace, Pod, ServiceAccount};
use bytes::Bytes;
use client::{Client, Config, Patch, WatchEvent, WatchParams};
use futures::StreamExt as _;
use futures::stream;
use http::{Request, header};
use http_body_util::BodyExt as _;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NAMESPACE: &str = "load";
const PODS: usize = 10_000;
const LISTS: usize = 20;
const GETS: usize = 20_000;
/// How many pods are changed by each kind of patch.
const PATCHES: usize = 5_000;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 100;
/// Watches on one connection.
const STREAMS: usize = 50;
/// Requests under way at a time.
const WIDTH: usize = 32;
/// Clock ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;

struct Server {
    kubeconfig: PathBuf,
    client: Client,
    pid: u32,
    words: Vec<String>,
}

/// What one measurement found.
struct Figure {
    name: &'static str,
    wall: Duration,
    cpu: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut first: Vec<Figure> = Vec::new();
    let arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (targets, words): (Vec<String>, Vec<String>) = arguments.partition(|argument| argument.contains('='));
    for argument in targets {
        let server = Server::parse(&argument, &words)?;
        println!("{argument}");
        let figures = server.measure().await?;
        for (index, figure) in figures.iter().enumerate() {
            let ratio = first.get(index).map(|base| base.cpu / figure.cpu.max(1.0 / TICKS));
            let ratio = ratio.map(|ratio| format!("{ratio:6.1} x")).unwrap_or_default();
            println!("  {:34} {:8.2} s  {:8.2} CPU s  {ratio}", figure.name, figure.wall.as_secs_f64(), figure.cpu);
        }
        println!("  memory: {} kB (PSS)", server.memory()?);
        if first.is_empty() {
            first = figures;
        }
    }
    Ok(())
}

impl Server {
    fn parse(argument: &str, words: &[String]) -> Result<Self, Failure> {
        let (path, pid) = argument.rsplit_once('=').ok_or("not KUBECONFIG=PID")?;
        let kubeconfig = PathBuf::from(path);
        let client = Client::new(Config::from_kubeconfig(&kubeconfig)?)?;
        Ok(Self { kubeconfig, client, pid: pid.parse()?, words: words.to_vec() })
    }

    /// A connection of its own.
    fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::new(Config::from_kubeconfig(&self.kubeconfig)?)?)
    }

    async fn measure(&self) -> Result<Vec<Figure>, Failure> {
        let mut namespace = Namespace::default();
        NAMESPACE.clone_into(&mut namespace.metadata.name);
        self.client.create(&namespace).await.or_else(|e| if e.is_already_exists() { Ok(namespace) } else { Err(e) })?;
        // Where no controller runs, nobody else makes it.
        let mut account = ServiceAccount::default();
        "default".clone_into(&mut account.metadata.name);
        NAMESPACE.clone_into(&mut account.metadata.namespace);
        self.client.create(&account).await.or_else(|e| if e.is_already_exists() { Ok(account) } else { Err(e) })?;
        let mut figures = Vec::new();
        let mut done = |figure: Option<Figure>| figures.extend(figure);
        done(self.figure("create 10,000 pods", self.create_pods()).await?);
        done(self.figure("20,000 gets", self.get_pods()).await?);
        done(self.figure("5,000 merge patches", self.patch_pods(merging)).await?);
        done(self.figure("5,000 applies", self.patch_pods(applying)).await?);
        done(self.figure("20 lists of them as JSON", self.list("application/json")).await?);
        done(self.figure("20 lists of them as protobuf", self.list("application/vnd.kubernetes.protobuf")).await?);
        done(self.figure("20 lists of them as Table", self.list(TABLE)).await?);
        done(self.watch("100 changes to 1,000 watches").await?);
        Ok(figures)
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }

    /// What the work cost the server, if it is wanted.
    async fn figure(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Option<Figure>, Failure> {
        if !self.is_wanted(name) {
            return Ok(None);
        }
        let (start, cpu) = (Instant::now(), self.cpu()?);
        work.await?;
        Ok(Some(Figure { name, wall: start.elapsed(), cpu: self.cpu()? - cpu }))
    }

    async fn create_pods(&self) -> Result<(), Failure> {
        many(PODS, |n| async move {
            match self.client.create(&pod(n)).await {
                Err(error) if !error.is_already_exists() => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn get_pods(&self) -> Result<(), Failure> {
        many(GETS, |n| async move { self.client.get::<Pod>(Some(NAMESPACE), &name_of(n % PODS)).await.map(drop) }).await
    }

    async fn patch_pods(&self, patch: fn(usize, &str) -> Patch) -> Result<(), Failure> {
        let round = &round()?;
        many(PATCHES, |n| async move {
            self.client.patch::<Pod>(Some(NAMESPACE), &name_of(n), None, &patch(n, round)).await.map(drop)
        })
        .await
    }

    async fn list(&self, accept: &str) -> Result<(), Failure> {
        for _ in 0..LISTS {
            let request = Request::get(format!("/api/v1/namespaces/{NAMESPACE}/pods"))
                .header(header::ACCEPT, accept)
                .body(Bytes::new())?;
            let response = self.client.raw(request).await?;
            if !response.status().is_success() {
                return Err(format!("list: {}", response.status()).into());
            }
            let mut body = response.into_body();
            while let Some(frame) = body.frame().await {
                frame.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Opens watches and changes pods; ends when every watch has seen every change.
    async fn watch(&self, name: &'static str) -> Result<Option<Figure>, Failure> {
        if !self.is_wanted(name) {
            return Ok(None);
        }
        let one = client::ListParams { limit: 1, ..Default::default() };
        let newest = self.client.list::<Pod>(Some(NAMESPACE), &one).await?;
        let resource_version = newest.metadata().resource_version.clone();
        let params = WatchParams { resource_version, ..WatchParams::default() };
        let mut clients: Vec<Client> = Vec::new();
        let mut watches = Vec::with_capacity(WATCHERS);
        for n in 0..WATCHERS {
            // A connection carries only so many streams at a time.
            if n % STREAMS == 0 {
                clients.push(self.connect()?);
            }
            let client = &clients[n / STREAMS];
            watches.push(Box::pin(client.watch::<Pod>(Some(NAMESPACE), &params).await?));
        }
        let round = &round()?;
        self.figure(name, async {
            let changes = async {
                for n in 0..CHANGES {
                    self.client.patch::<Pod>(Some(NAMESPACE), &name_of(n), None, &merging(n, round)).await?;
                }
                Ok::<_, Failure>(())
            };
            // All at once: a watch that nobody reads would keep the others of its connection waiting.
            let seen = futures::future::try_join_all(watches.iter_mut().map(|watch| async move {
                let mut left = CHANGES;
                while left > 0 {
                    match watch.next().await.ok_or("a watch ended")?? {
                        WatchEvent::Modified(_) => left -= 1,
                        WatchEvent::Added(_) | WatchEvent::Deleted(_) | WatchEvent::Bookmark { .. } => {}
                    }
                }
                Ok::<_, Failure>(())
            }));
            futures::try_join!(changes, seen).map(|_| ())
        })
        .await
    }

    /// Seconds of processor time that the process has used.
    fn cpu(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let after = stat.rsplit_once(')').ok_or("no process")?.1;
        let ticks: Vec<f64> = after.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }

    fn memory(&self) -> Result<String, Failure> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
        Ok(line.trim().trim_end_matches(" kB").to_owned())
    }
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// Does something for each number, several at a time.
async fn many<F>(count: usize, work: impl Fn(usize) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), client::Error>>,
{
    let mut done = stream::iter(0..count).map(work).buffer_unordered(WIDTH);
    while let Some(result) = done.next().await {
        result?;
    }
    Ok(())
}

/// A text that no round before had: a label that is there already would be no change.
fn round() -> Result<String, Failure> {
    Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos().to_string())
}

fn merging(_: usize, round: &str) -> Patch {
    Patch::Merge(serde_json::json!({"metadata": {"labels": {"round": round}}}))
}

/// A change of one field by somebody who applies the pod's labels and its image.
fn applying(n: usize, round: &str) -> Patch {
    let value = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name_of(n), "namespace": NAMESPACE, "labels": {"app": "value-of-app", "applied": round}},
        "spec": {"containers": [{"name": "web", "image": "example.com/web:1.2.3"}]},
    });
    Patch::Apply { field_manager: "load".to_owned(), force: true, value }
}

fn name_of(n: usize) -> String {
    format!("load-{n:05}")
}

/// A pod as a Deployment would make it.
fn pod(n: usize) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = name_of(n);
    NAMESPACE.clone_into(&mut pod.metadata.namespace);
    for key in ["app", "tier", "pod-template-hash"] {
        pod.metadata.labels.insert(key.to_owned(), format!("value-of-{key}"));
    }
    let mut container =
        Container { name: "web".to_owned(), image: "example.com/web:1.2.3".to_owned(), ..Default::default() };
    container.env = (0..8)
        .map(|i| EnvVar {
            name: format!("SETTING_{i}"),
            value: "a value of usual length".to_owned(),
            ..EnvVar::default()
        })
        .collect();
    pod.spec.containers.push(container);
    pod
}
