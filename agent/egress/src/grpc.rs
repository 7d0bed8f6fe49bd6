//! A way by packets over gRPC, as upstream's konnectivity servers speak them.

use std::sync::Arc;
use std::time::Duration;

use client::Io;
use futures::channel::mpsc;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use stdx::Backoff;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::counts::{Counted, Counts};
use crate::error::Error;
use crate::packet::{METHOD, Packet, Payload};
use crate::proxy::{STAGE_TIMEOUT, unix};
use crate::tunnel::Tunnel;

/// Pauses between attempts to connect, as gRPC has them.
const BACKOFF: Backoff =
    Backoff { initial: Duration::from_secs(1), factor: 1.6, max: Duration::from_secs(20), jitter: 0.2 };
/// Packets that wait to be sent; with their size this bounds what a slow proxy makes us hold.
const QUEUE_LEN: usize = 4;

/// A connection with the proxy, which may just be starting: it is tried until the stage is over.
pub(crate) async fn connect(socket: &str) -> Result<Channel, Error> {
    let deadline = tokio::time::Instant::now() + STAGE_TIMEOUT;
    let mut attempt = 0;
    loop {
        let error = match unix(socket).await {
            Ok(stream) => match channel(stream).await {
                Ok(channel) => return Ok(channel),
                Err(error) => Error::Tls(stdx::chain(&error).to_string()),
            },
            Err(error) => error,
        };
        let next = tokio::time::Instant::now() + BACKOFF.next(attempt, rand::random());
        if next >= deadline {
            return Err(Error::Grpc(Box::new(error)));
        }
        tracing::debug!(%error, socket, "a proxy is not there yet");
        tokio::time::sleep_until(next).await;
        attempt += 1;
    }
}

/// Speaks gRPC over one connection, and over no other after it.
async fn channel(stream: tokio::net::UnixStream) -> Result<Channel, tonic::transport::Error> {
    let mut only = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = only.take();
        async move { stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected)) }
    });
    // The name is never looked up: the connection is there.
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// Asks the proxy for a connection with an address.
pub(crate) async fn dial(channel: Channel, address: &str, counts: &Arc<Counts>) -> Result<Box<dyn Io>, Error> {
    let mut failed = Failed { counts, reason: Some("context") };
    let counted = Counted::new(counts.clone(), "dialing");
    let answer = tokio::time::timeout(STAGE_TIMEOUT, ask(channel, address, counted)).await;
    let tunnel = answer.unwrap_or(Err(Error::Timeout)).inspect_err(|error| failed.reason = Some(reason(error)))?;
    failed.reason = None;
    Ok(Box::new(tunnel))
}

/// Counts a dial as failed when it is dropped, unless there is no reason to. Until there is another one, the reason is that
/// somebody gave it up.
struct Failed<'a> {
    counts: &'a Counts,
    reason: Option<&'static str>,
}

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.counts.dial_failed(reason);
        }
    }
}

async fn ask(channel: Channel, address: &str, mut counted: Counted) -> Result<Tunnel, Error> {
    let random = rand::random::<i64>() & i64::MAX;
    let (mut outgoing, packets) = mpsc::channel(QUEUE_LEN);
    let request = Packet::dial(address.to_owned(), random);
    counted.counts().sent(request.kind());
    // Before the call: servers answer its head with their first packet only.
    outgoing.try_send(request).map_err(|_full| Error::TunnelClosed)?;
    let mut client = Grpc::new(channel);
    let closed = |status: tonic::Status, counted: &Counted| {
        counted.counts().broke(status.code());
        tracing::warn!(%status, address, "a proxy broke off");
        Error::TunnelClosed
    };
    client.ready().await.map_err(|error| closed(tonic::Status::from_error(Box::new(error)), &counted))?;
    let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
    let answer = client.streaming(tonic::Request::new(packets), PathAndQuery::from_static(METHOD), codec).await;
    let mut incoming = answer.map_err(|status| closed(status, &counted))?.into_inner();
    let id = connection(&mut incoming, random, &counted).await?;
    counted.become_status("ok");
    Ok(Tunnel::new(id, incoming, outgoing, counted))
}

/// Waits for what the proxy says of our request.
async fn connection(incoming: &mut Streaming<Packet>, random: i64, counted: &Counted) -> Result<i64, Error> {
    loop {
        let packet = incoming.message().await.map_err(|status| {
            counted.counts().broke(status.code());
            tracing::warn!(%status, "a proxy broke off");
            Error::TunnelClosed
        })?;
        let packet = packet.ok_or(Error::TunnelClosed)?;
        counted.counts().received(packet.kind());
        match packet.payload {
            Some(Payload::DialResponse(answer)) if answer.random != random => return Err(Error::TunnelClosed),
            Some(Payload::DialResponse(answer)) if answer.error.is_empty() => return Ok(answer.connect_id),
            Some(Payload::DialResponse(answer)) => return Err(Error::Endpoint(answer.error)),
            Some(Payload::CloseDial(closed)) if closed.random == random => return Err(Error::DialClosed),
            Some(Payload::CloseDial(_)) => return Err(Error::TunnelClosed),
            Some(
                Payload::DialRequest(_)
                | Payload::Data(_)
                | Payload::CloseRequest(_)
                | Payload::CloseResponse(_)
                | Payload::Drain(_),
            )
            | None => {}
        }
    }
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::Endpoint(_) => "endpoint",
        Error::DialClosed => "dialclosed",
        Error::TunnelClosed => "tunnelclosed",
        Error::Timeout => "timeout",
        Error::Connect { .. } | Error::Tls(_) | Error::Grpc(_) | Error::Answer { .. } | Error::Refused { .. } => {
            "unknown"
        }
    }
}
