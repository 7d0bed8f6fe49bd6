//! Start and end of a server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lifecycle::{Shutdown, Tasks};
use tokio::net::{TcpListener, TcpSocket};

use crate::app::App;
use crate::config::Config;
use crate::error::Error;
use crate::serve::{self, ApiService};
use crate::{ending, peers, start};

/// How long the tasks in the background may take to end.
const TASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted, as many as the standard library has.
const BACKLOG: u32 = 1024;

/// Serves the API until shutdown. Returns once everything has ended.
///
/// # Errors
/// When it cannot start: files, address, or the first objects.
pub async fn run(config: Config, store: Arc<dyn store::Store>, shutdown: Shutdown) -> Result<(), Error> {
    let tls = config.tls.as_ref().map(|tls| serve::Certificates::new(tls, config.front_proxy.as_ref())).transpose()?;
    let listener = listener(&config).await.map_err(|source| Error::Listen { address: config.bind, source })?;
    let tasks = Tasks::new();
    // Watches end first, so that the connections they run on can drain.
    let background = Shutdown::new();
    let (app, exporter) = App::new(config, store, shutdown)?;
    spawn(&app, &tasks, &background);
    export(exporter, &tasks, &background);
    tracing::info!(address = ?listener.local_addr().ok(), "serving");
    serve::listen(app, listener, tls).await;
    background.trigger();
    let left = tasks.drain(TASK_TIMEOUT).await;
    if !left.is_empty() {
        tracing::warn!(?left, "tasks did not end in time");
    }
    Ok(())
}

async fn listener(config: &Config) -> std::io::Result<TcpListener> {
    let Some(bound) = &config.listener else {
        if !config.conduct.shares_port {
            return TcpListener::bind(config.bind).await;
        }
        let socket = if config.bind.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(config.bind)?;
        return socket.listen(BACKLOG);
    };
    let bound = bound.try_clone()?;
    bound.set_nonblocking(true)?;
    TcpListener::from_std(bound)
}

/// A server without a socket, for the same process and for tests. It serves until shutdown; the future returned
/// besides it ends when the first objects are there.
///
/// # Errors
/// When a file of the configuration cannot be used.
pub fn service(
    config: Config,
    store: Arc<dyn store::Store>,
    shutdown: &Shutdown,
) -> Result<(ApiService, impl Future<Output = ()> + use<>), Error> {
    let (app, exporter) = App::new(config, store, shutdown.clone())?;
    let tasks = Tasks::new();
    spawn(&app, &tasks, shutdown);
    export(exporter, &tasks, shutdown);
    let ready = {
        let app = app.clone();
        async move {
            let mut revisions = app.cache.revisions();
            while !app.bootstrapped.load(Ordering::Acquire) && !app.shutdown.is_triggered() {
                // Bootstrapping writes objects, so each step of it shows here; the deadline covers the last one.
                let _either_way = tokio::time::timeout(Duration::from_millis(20), revisions.changed()).await;
            }
        }
    };
    Ok((ApiService::new(app), ready))
}

fn export(exporter: Option<traces::Exporter>, tasks: &Tasks, shutdown: &Shutdown) {
    if let Some(exporter) = exporter {
        let stop = shutdown.clone();
        tasks.spawn("traces", async move { exporter.run(&stop).await });
    }
}

fn spawn(app: &Arc<App>, tasks: &Tasks, shutdown: &Shutdown) {
    let closed = app.clone();
    tasks.spawn("ending", async move { ending::run(&closed).await });
    let (cache, stop) = (app.cache.clone(), shutdown.clone());
    tasks.spawn("cache", async move { cache.run(stop).await });
    let (fed, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("access", async move { fed.access.follow(&fed.cache, &stop).await });
    let (defined, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("custom-resources", async move { crate::custom::run(&defined, &stop).await });
    let (behind, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("aggregation", async move { crate::aggregate::run(&behind, &stop).await });
    let (access, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("access-files", async move { access.access.reload(&access.config, &stop).await });
    let (noted, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("audit", async move {
        if let Some(auditor) = &noted.auditor {
            auditor.run(&stop).await;
        }
    });
    let (flows, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("flow-schemas", async move { crate::flow::run(&flows, &stop).await });
    let (read, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("forms", async move { read.forms.run(&stop).await });
    let (app, stop) = (app.clone(), shutdown.clone());
    tasks.spawn("first-objects", async move {
        tokio::select! {
            () = start::run(&app) => {}
            () = stop.wait() => return,
        }
        // This one takes back what it told while everything else still runs.
        tokio::join!(
            peers::run(&app, &app.stopping),
            crate::services::keep_repaired(&app, &app.shutdown),
            start::keep_flow(&app, &app.shutdown),
            crate::used_tokens::run(&app, &app.shutdown),
        );
    });
}
