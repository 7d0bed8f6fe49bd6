//! The bytes of one connection in packets.
//!
//! ```text
//!        write                    shutdown: CLOSE_REQ                    CLOSE_RSP, or the stream's end
//! Open ───────────▶ DATA … ─────────────────────────▶ Closing ── DATA … ──────────────────────────────▶ Closed
//! ```
//! The stream of packets has a connection to itself, so its flow control is this one's: what is not read is not sent.
//! Whoever drops a tunnel ends the stream, upon which the proxy closes the other end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::channel::mpsc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::Streaming;

use crate::counts::Counted;
use crate::packet::{Packet, Payload};

/// Most bytes of one packet.
const MAX_DATA_BYTES: usize = 32 << 10;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The end was asked for.
    Closing,
    /// Nothing more will come.
    Closed,
}

/// One connection.
pub(crate) struct Tunnel {
    id: i64,
    incoming: Streaming<Packet>,
    outgoing: mpsc::Sender<Packet>,
    unread: Bytes,
    state: State,
    counted: Counted,
}

impl Tunnel {
    pub(crate) fn new(id: i64, incoming: Streaming<Packet>, outgoing: mpsc::Sender<Packet>, counted: Counted) -> Self {
        Self { id, incoming, outgoing, unread: Bytes::new(), state: State::Open, counted }
    }

    /// What a packet says to whoever reads.
    fn take(&mut self, packet: Packet) {
        self.counted.counts().received(packet.kind());
        match packet.payload {
            Some(Payload::Data(data)) if data.connect_id == self.id => self.unread = data.data,
            Some(Payload::CloseResponse(end)) if end.connect_id == self.id => {
                self.state = State::Closed;
                if !end.error.is_empty() {
                    tracing::debug!(error = end.error, "a connection by way of a proxy ended");
                }
            }
            Some(
                Payload::DialRequest(_)
                | Payload::DialResponse(_)
                | Payload::Data(_)
                | Payload::CloseRequest(_)
                | Payload::CloseResponse(_)
                | Payload::CloseDial(_)
                | Payload::Drain(_),
            )
            | None => tracing::debug!("a packet for nobody came from a proxy"),
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, packet: impl FnOnce() -> Packet) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.outgoing.poll_ready(cx)).map_err(gone)?;
        let packet = packet();
        self.counted.counts().sent(packet.kind());
        Poll::Ready(self.outgoing.start_send(packet).map_err(gone))
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unread.is_empty() && self.state != State::Closed {
            match ready!(self.incoming.poll_next_unpin(cx)) {
                Some(Ok(packet)) => self.take(packet),
                Some(Err(status)) => {
                    self.counted.counts().broke(status.code());
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, status)));
                }
                None => self.state = State::Closed,
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..len]);
        self.unread.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.state != State::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let (id, len) = (self.id, buf.len().min(MAX_DATA_BYTES));
        ready!(self.send(cx, || Packet::data(id, Bytes::copy_from_slice(&buf[..len]))))?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was handed over is on its way: nothing waits to be filled.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state == State::Open {
            let id = self.id;
            ready!(self.send(cx, || Packet::close(id)))?;
            self.state = State::Closing;
            self.counted.become_status("closing");
        }
        Poll::Ready(Ok(()))
    }
}
