//! What every long-running role has: logs, a runtime, signals, and word of its readiness.

use std::future::Future;
use std::num::NonZero;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result};
use lifecycle::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

use crate::logs::Logs;

/// Threads for what serves a whole cluster, at most.
pub(crate) const FOR_A_CLUSTER: usize = 8;
/// Threads for what serves a machine, at most.
pub(crate) const FOR_A_MACHINE: usize = 2;
/// How often what was freed is given back.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// Time that a role gets to end after it was asked to.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(20);

/// How a role runs.
pub(crate) struct Running<W> {
    /// Threads, at most. There are as many as processors, and no more: each costs memory, and two on one processor wake
    /// one another in vain.
    pub(crate) threads: usize,
    /// How its log is written.
    pub(crate) logs: Logs,
    /// How long it gets to end after it was asked to; it is asked then.
    pub(crate) end_within: W,
}

/// Runs a role on so many threads, at most, until it ends, or until SIGTERM or SIGINT and a while for it to end in order.
pub(crate) fn run<F, Fut>(threads: usize, role: F) -> Result<()>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    run_as(Running { threads, logs: Logs::default(), end_within: || END_WITHIN }, role)
}

/// The same, in another way than most roles.
pub(crate) fn run_as<F, Fut>(running: Running<impl FnOnce() -> Duration>, role: F) -> Result<()>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    running.logs.start();
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(running.threads.min(processors))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(async {
        tokio::spawn(give_memory_back());
        let shutdown = Shutdown::new();
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
        let work = role(shutdown.clone());
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.trigger();
        let within = (running.end_within)();
        match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_elapsed) => anyhow::bail!("did not end within {} s of being asked to", within.as_secs()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
}

/// Gives back what many things at a time have taken, now and then, as long as the process runs.
async fn give_memory_back() {
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        sys::give_memory_back();
    }
}

/// Does one short thing, by a deadline: what a person at a terminal waits for.
pub(crate) fn ask<T>(within: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    ask_all(by(within, work))
}

/// Does something whose parts have deadlines of their own.
pub(crate) fn ask_all<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(work)
}

/// Gives something a deadline.
pub(crate) async fn by<T>(within: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let done = tokio::time::timeout(within, work).await;
    done.with_context(|| format!("there was no answer within {} s", within.as_secs()))?
}

/// Tells the supervisor something, where there is one: `READY=1`, `STATUS=what is waited for`.
pub(crate) fn notify(message: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
    if let Err(error) = sent {
        tracing::warn!(%error, "telling the supervisor");
    }
}

/// Tells this process from others in a leader election: host name and a random part.
pub(crate) fn identity() -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{host}_{}", uuid::Uuid::new_v4())
}
