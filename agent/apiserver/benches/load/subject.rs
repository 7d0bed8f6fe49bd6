//! A server that is measured, on an etcd of its own, and what the kernel knows of its process.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use client::Client;
use store::{RangeRequest, Store as _};

use crate::Result;
use crate::etcd::Etcd;
use crate::figures::{Cost, Whose};
use crate::launched::Launched;
use crate::options::Options;

/// A clock tick of `/proc/PID/stat` in seconds.
pub(crate) const TICK: f64 = 0.01;
const ADVERTISED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Starts whose median counts.
const STARTS: usize = 5;
/// A server is at rest when it used no more ticks than these in so many of these times in a row.
const LOOK: Duration = Duration::from_secs(1);
const REST_TICKS: f64 = 5.0;
const LOOKS: usize = 2;
/// How long it may take to come to rest; upstream's works on its OpenAPI for long.
const PATIENCE: Duration = Duration::from_secs(600);
/// Work is not repeated for longer.
const MOST: Duration = Duration::from_secs(60);
/// One round of work may take as long.
const ROUND: Duration = Duration::from_secs(900);
/// Keys read at a time.
const PAGE: usize = 500;

pub(crate) struct Subject {
    etcd: Etcd,
    launched: Launched,
    pub(crate) client: Client,
}

impl Subject {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(options: &Options, whose: Whose) -> Result<Self> {
        let etcd = Etcd::start(options.etcd(), 1, &["--quota-backend-bytes", "8589934592"]);
        tokio::time::timeout(PATIENCE, etcd.healthy(0)).await?;
        let mut launched = Launched::start(&options.program(whose), Some(&etcd.url(0)), ADVERTISED);
        launched.ready().await;
        let client = launched.client();
        Ok(Self { etcd, launched, client })
    }

    /// A client with connections of its own.
    pub(crate) fn connect(&self) -> Client {
        self.launched.client()
    }

    /// Does rounds of work, of which each says how much it did, until they have cost enough.
    pub(crate) async fn cost(&self, least: f64, mut round: impl AsyncFnMut() -> Result<usize>) -> Result<Cost> {
        let (start, before) = (Instant::now(), self.cpu()?);
        let mut done = 0;
        loop {
            done += tokio::time::timeout(ROUND, round()).await??;
            let cost = Cost { done, wall: start.elapsed(), cpu: self.cpu()? - before };
            if cost.cpu >= least || cost.wall >= MOST {
                return Ok(cost);
            }
        }
    }

    /// Waits until it has nothing to do.
    pub(crate) async fn settled(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let (mut rests, mut before) = (0, self.cpu()?);
        while rests < LOOKS {
            if Instant::now() > end {
                return Err("the server never comes to rest".into());
            }
            tokio::time::sleep(LOOK).await;
            let now = self.cpu()?;
            rests = if now - before <= REST_TICKS * TICK { rests + 1 } else { 0 };
            before = now;
        }
        Ok(())
    }

    /// Seconds of processor time that it has used.
    fn cpu(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(self.file("stat"))?;
        let after = stat.rsplit_once(')').ok_or("no process")?.1;
        let ticks: Vec<f64> =
            after.split_whitespace().skip(11).take(2).map(str::parse).collect::<std::result::Result<_, _>>()?;
        Ok(ticks.iter().sum::<f64>() * TICK)
    }

    /// Kilobytes of its share of memory, its program's file included.
    pub(crate) fn share(&self) -> Result<f64> {
        self.kilobytes("smaps_rollup", "Pss:")
    }

    /// Kilobytes that are its own: not of files.
    pub(crate) fn own(&self) -> Result<f64> {
        self.kilobytes("smaps_rollup", "Pss_Anon:")
    }

    /// The most kilobytes that it had in memory since [`Subject::forget_peak`].
    pub(crate) fn peak(&self) -> Result<f64> {
        self.kilobytes("status", "VmHWM:")
    }

    /// The peak counts from now. Returns the kilobytes that are in memory now.
    pub(crate) fn forget_peak(&self) -> Result<f64> {
        std::fs::write(self.file("clear_refs"), "5")?;
        self.kilobytes("status", "VmRSS:")
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.launched.pid())
    }

    fn kilobytes(&self, file: &str, name: &str) -> Result<f64> {
        let text = std::fs::read_to_string(self.file(file))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Kilobytes of keys and values that lie in etcd under a prefix.
    #[allow(clippy::cast_precision_loss, reason = "less than what doubles count exactly")]
    pub(crate) async fn stored(&self, prefix: &str) -> Result<f64> {
        let store = self.etcd.store(None).await;
        let (mut request, mut bytes) = (RangeRequest::prefix(prefix.to_owned()).limit(PAGE), 0);
        loop {
            let kvs = store.range(request.clone()).await?.kvs;
            bytes += kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum::<usize>();
            match kvs.last() {
                Some(last) if kvs.len() == PAGE => request.start = [&*last.key, &[0]].concat().into(),
                _ => return Ok(bytes as f64 / 1024.0),
            }
        }
    }
}

/// Milliseconds until a server is ready: ours on its store in memory, upstream's, which has none, on an empty etcd.
pub(crate) async fn starts(options: &Options, whose: Whose) -> Result<f64> {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let etcd = match whose {
            Whose::Upstream => Some(Etcd::start(options.etcd(), 1, &[])),
            Whose::Ours => None,
        };
        if let Some(etcd) = &etcd {
            tokio::time::timeout(PATIENCE, etcd.healthy(0)).await?;
        }
        let url = etcd.as_ref().map(|etcd| etcd.url(0));
        took.push(Launched::start(&options.program(whose), url.as_deref(), ADVERTISED).ready().await);
    }
    took.sort();
    Ok(took[STARTS / 2].as_secs_f64() * 1000.0)
}
