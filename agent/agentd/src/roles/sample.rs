//! `keelson sample-server`: what the sample application runs.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use lifecycle::Shutdown;

/// Options of the sample server.
#[derive(Args)]
pub(crate) struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    crate::process::run(1, |shutdown| serve(options.listen, shutdown))
}

async fn serve(listen: SocketAddr, shutdown: Shutdown) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.with_context(|| format!("listening on {listen}"))?;
    let name: Bytes = nix::unistd::gethostname().context("reading the host name")?.into_encoded_bytes().into();
    loop {
        let (connection, _) = tokio::select! {
            () = shutdown.wait() => return Ok(()),
            accepted = listener.accept() => accepted.context("accepting a connection")?,
        };
        let name = name.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let answer = answer(request.uri().path(), &name);
            async move { Ok::<_, Infallible>(answer) }
        });
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), answer);
        // A client that goes away is not an event for a sample.
        drop(tokio::spawn(serving));
    }
}

fn answer(path: &str, name: &Bytes) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/" => (StatusCode::OK, name.clone()),
        "/healthz" => (StatusCode::OK, Bytes::from_static(b"ok")),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"not found")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response
}
