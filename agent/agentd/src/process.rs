//! What every long-running role has: logs, a runtime, signals, and word of its readiness.

use std::future::Future;
use std::num::NonZero;
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use lifecycle::Shutdown;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// Threads for what serves a whole cluster, at most.
pub(crate) const FOR_A_CLUSTER: usize = 8;
/// Threads for what serves a machine, at most.
pub(crate) const FOR_A_MACHINE: usize = 2;
/// Time that a role gets to end after it was asked to.
pub(crate) const END_WITHIN: Duration = Duration::from_secs(20);

/// A process has one log, and this is what of it is shown.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();
/// Words of the libraries below, of which a log of ours would drown.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,rustls=info,tower=info,mio=info";

/// Sends logs to standard error, filtered by `KEELSON_LOG` (`info` without).
pub(crate) fn start_logs() {
    let (filter, handle) = reload::Layer::new(filter(0));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(log).init();
    // A second start of the log is refused above.
    let _first = FILTER.set(handle);
}

/// Shows more of the log, or less again, by the numbers that upstream's `-v` has.
pub(crate) fn set_log_detail(detail: i32) {
    let changed = FILTER.get().map(|handle| handle.reload(filter(detail)));
    tracing::info!(detail, is_changed = matches!(changed, Some(Ok(()))), "the log's detail is set");
}

fn filter(detail: i32) -> EnvFilter {
    match detail {
        ..4 => EnvFilter::try_from_env("KEELSON_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        4..6 => EnvFilter::new(format!("debug,{QUIET}")),
        6..10 => EnvFilter::new(format!("trace,{QUIET}")),
        10.. => EnvFilter::new("trace"),
    }
}

/// Runs a role until it ends, or until SIGTERM or SIGINT and a while for it to end in order. It gets as many threads as
/// there are processors, and no more than `most`: each costs memory, and two on one processor wake one another in vain.
pub(crate) fn run<F, Fut>(most: usize, role: F) -> Result<()>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    run_within(most, || END_WITHIN, role)
}

/// The same of a role that may take longer to end in order; how long is asked when it has to.
pub(crate) fn run_within<F, Fut>(most: usize, within: impl FnOnce() -> Duration, role: F) -> Result<()>
where
    F: FnOnce(Shutdown) -> Fut,
    Fut: Future<Output = Result<()>>,
{
    start_logs();
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(most.min(processors))
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let result = runtime.block_on(async {
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
        let within = within();
        match tokio::time::timeout(within, work).await {
            Ok(result) => result,
            Err(_elapsed) => anyhow::bail!("did not end within {} s of being asked to", within.as_secs()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(2));
    result
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
