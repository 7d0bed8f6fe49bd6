//! Clients in a network namespace: what is only reachable there, and how reliably.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// What takes longer is as bad as no answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// As many failures are told in full.
const TOLD: usize = 5;

/// A place to look from.
pub struct Visitor(File);

impl Visitor {
    /// In the network namespace that the file `path` stands for.
    ///
    /// # Errors
    /// There is none.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(File::open(path).with_context(|| format!("open {}", path.display()))?))
    }

    /// Runs `work` in the namespace, on a thread of its own that ends with it.
    ///
    /// # Errors
    /// What `work` answers.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let namespace = self.0.try_clone().context("share the namespace")?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            let entered = setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace");
            // Whoever asked may have given up.
            sender.send(entered.and_then(|()| work())).ok();
        });
        receiver.await.context("the thread in the namespace failed")?
    }

    /// What a web server answers at `/`.
    ///
    /// # Errors
    /// It does not answer, or not with success.
    pub async fn ask(&self, to: SocketAddr) -> Result<String> {
        self.run(move || ask(to)).await
    }

    /// Asks again and again until [`Load::end`].
    ///
    /// # Errors
    /// Out of files.
    pub fn load(&self, to: SocketAddr) -> Result<Load> {
        let namespace = self.0.try_clone().context("share the namespace")?;
        let tally = Arc::new(Tally::default());
        let own = tally.clone();
        let thread = thread::spawn(move || {
            if let Err(error) = setns(namespace, CloneFlags::CLONE_NEWNET) {
                own.fail(Instant::now(), &format!("enter the network namespace: {error}"));
                return;
            }
            while !own.is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                match ask(to) {
                    Ok(_) => drop(own.answers.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => own.fail(start, &format!("{error:#}")),
                }
            }
        });
        Ok(Load { to, start: Instant::now(), tally, thread })
    }
}

#[derive(Default)]
struct Tally {
    is_over: AtomicBool,
    answers: AtomicU64,
    failures: AtomicU64,
    told: Mutex<Vec<(Instant, String)>>,
}

impl Tally {
    fn fail(&self, when: Instant, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < TOLD {
            told.push((when, why.to_owned()));
        }
    }
}

/// A client that asks one request after the other.
pub struct Load {
    to: SocketAddr,
    start: Instant,
    tally: Arc<Tally>,
    thread: JoinHandle<()>,
}

impl Load {
    /// How many answers came so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.tally.answers.load(Ordering::Relaxed)
    }

    /// Stops, and tells how many answers there were.
    ///
    /// # Errors
    /// A request failed.
    pub fn end(self) -> Result<u64> {
        self.tally.is_over.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            bail!("the client of {} failed", self.to);
        }
        let (answers, failures) =
            (self.tally.answers.load(Ordering::Relaxed), self.tally.failures.load(Ordering::Relaxed));
        if failures > 0 {
            let told = self.tally.told.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told.iter().map(|(when, why)| {
                format!("at {:.2} s: {why}", when.saturating_duration_since(self.start).as_secs_f64())
            });
            let told = told.collect::<Vec<_>>().join("; ");
            bail!("{}: {failures} of {} requests failed: {told}", self.to, answers + failures);
        }
        if answers == 0 {
            bail!("{}: nothing was asked", self.to);
        }
        Ok(answers)
    }
}

fn ask(to: SocketAddr) -> Result<String> {
    match request(to, "GET / HTTP/1.1\r\n", "")? {
        (200, body) => Ok(body.trim().to_owned()),
        (status, _) => bail!("{to} answers {status}"),
    }
}

/// Sends one HTTP request. `head` is the request line and further lines, each with its end.
///
/// # Errors
/// No whole answer comes in time.
fn request(to: SocketAddr, head: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).with_context(|| format!("connect to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(stream, "{head}Host: {to}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).with_context(|| format!("read the answer of {to}"))?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| format!("{to} ended without an answer"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("{to} does not speak HTTP"))?, body.to_owned()))
}
