//! What a connection writes in one turn goes out together.
//!
//! An HTTP/2 connection flushes after every frame. With frames of 16 KB that is a system call, and a walk through the
//! network stack, for each, which costs more than encrypting them; small ones would each be a record of their own, too.
//! [`Corked`] takes flushes as done and keeps the bytes; [`Uncork`] runs the connection and sends what it wrote when it
//! has nothing more to write for now, and neither after those who are about to run had their turn: an event wakes all
//! watches of a connection, and the first of them wakes the connection at once. With no request left to write for,
//! nothing is waited for.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are kept at most. A reader that is too slow lets this much pile up here, and no more.
const LIMIT: usize = 64 << 10;
/// Bytes from which on room for all that may be kept is had at once, not by doubling.
const MUCH: usize = 4 << 10;
/// Buffers that wait for the next connection with much to write: new ones cost page faults.
const SPARE: usize = 8;

static SPARES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A stream whose writes wait for the end of the turn, once it is corked.
pub struct Corked<S>(Arc<Mutex<Cork<S>>>);

/// Runs a connection over a [`Corked`] stream.
pub struct Uncork<F: Future, S, B> {
    connection: F,
    /// Whether others may have something to write.
    is_busy: B,
    cork: Arc<Mutex<Cork<S>>>,
    /// What the connection came to, until everything is sent.
    done: Option<F::Output>,
    /// Whether others had their turn since something was kept.
    has_waited: bool,
}

struct Cork<S> {
    stream: S,
    is_in: bool,
    kept: Vec<u8>,
    /// How many of the kept bytes are sent.
    sent: usize,
}

impl<S> Corked<S> {
    /// A stream that is not corked yet.
    pub fn new(stream: S) -> Self {
        Self(Arc::new(Mutex::new(Cork { stream, is_in: false, kept: Vec::new(), sent: 0 })))
    }

    /// Puts the cork in; the connection made by `serve` over the stream is to be run by what is returned.
    pub fn handle(&self) -> CorkHandle<S> {
        CorkHandle(self.0.clone())
    }
}

/// Corks a stream that a connection has already been given.
pub struct CorkHandle<S>(Arc<Mutex<Cork<S>>>);

impl<S> CorkHandle<S> {
    /// The connection, with its writes sent turn by turn. `is_busy` tells whether there are requests that may write.
    pub fn run<F: Future, B: Fn() -> bool>(self, connection: F, is_busy: B) -> Uncork<F, S, B> {
        self.0.lock().is_in = true;
        Uncork { connection, is_busy, cork: self.0, done: None, has_waited: false }
    }
}

impl<S> Cork<S> {
    /// Whether there is something to send, and so little that more is welcome.
    fn is_worth_waiting(&self) -> bool {
        (1..LIMIT / 2).contains(&(self.kept.len() - self.sent))
    }
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Sends what is kept.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.sent < self.kept.len() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.kept[self.sent..]))?;
            if n == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.sent += n;
        }
        // Connections are idle most of the time and many.
        let mut spare = std::mem::take(&mut self.kept);
        self.sent = 0;
        if spare.capacity() >= LIMIT {
            let mut spares = SPARES.lock();
            if spares.len() < SPARE {
                spare.clear();
                spares.push(spare);
            }
        }
        // The stream below watches whether what it was given gets away.
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize, Error>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let fits = self.kept.len() + length <= LIMIT;
        if !self.is_in || !fits {
            ready!(self.poll_drain(cx))?;
        }
        if !self.is_in || length > LIMIT {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        if self.kept.len() + length > MUCH && self.kept.capacity() < LIMIT {
            let mut roomy = SPARES.lock().pop().unwrap_or_else(|| Vec::with_capacity(LIMIT));
            roomy.extend_from_slice(&self.kept);
            self.kept = roomy;
        }
        slices.iter().for_each(|slice| self.kept.extend_from_slice(slice));
        Poll::Ready(Ok(length))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut cork = self.0.lock();
        if cork.is_in {
            return Poll::Ready(Ok(()));
        }
        ready!(cork.poll_drain(cx))?;
        Pin::new(&mut cork.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut cork = self.0.lock();
        ready!(cork.poll_drain(cx))?;
        Pin::new(&mut cork.stream).poll_shutdown(cx)
    }
}

impl<F, S, E, B> Future for Uncork<F, S, B>
where
    B: Fn() -> bool + Unpin,
    F: Future<Output = Result<(), E>> + Unpin,
    S: AsyncWrite + Unpin,
    E: From<Error> + Unpin,
{
    type Output = Result<(), E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.done.is_none()
            && let Poll::Ready(done) = Pin::new(&mut this.connection).poll(cx)
        {
            this.done = Some(done);
            // After an upgrade somebody else writes, whom nobody flushes for.
            this.cork.lock().is_in = false;
        }
        let mut cork = this.cork.lock();
        let may_wait = !this.has_waited && this.done.is_none();
        if may_wait && cork.is_worth_waiting() && (this.is_busy)() {
            this.has_waited = true;
            // Unlike a wake, which another thread is woken for to take it, this is for after all that is to run here.
            return std::pin::pin!(tokio::task::yield_now()).poll(cx).map(|()| Ok(()));
        }
        this.has_waited = false;
        match (cork.poll_drain(cx), this.done.take()) {
            (Poll::Ready(Ok(())), Some(done)) => Poll::Ready(done),
            (Poll::Ready(Err(_)), Some(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Ready(Err(error)), _) => Poll::Ready(Err(error.into())),
            (_, done) => {
                this.done = done;
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_one_turn_arrives_together_and_in_order() {
        let (near, mut far) = tokio::io::duplex(LIMIT * 4);
        let mut stream = Corked::new(near);
        let handle = stream.handle();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (tell, mut told) = tokio::sync::oneshot::channel::<()>();
        let of_connection = seen.clone();
        let connection = Box::pin(async move {
            for byte in 0..10_u8 {
                stream.write_all(&[byte; 1000]).await?;
                stream.flush().await?;
            }
            of_connection.lock().push("written");
            // The end of a turn.
            let _gone = (&mut told).await;
            stream.write_all(&vec![10; LIMIT * 2]).await?;
            Ok::<(), Error>(())
        });
        let running = tokio::spawn(handle.run(connection, || true));
        let mut first = vec![0; 10_000];
        far.read_exact(&mut first).await.unwrap();
        assert_eq!(*seen.lock(), ["written"]);
        assert!(first.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i / 1000));
        tell.send(()).unwrap();
        let mut rest = Vec::new();
        running.await.unwrap().unwrap();
        far.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), LIMIT * 2);
    }

    #[tokio::test]
    async fn a_reader_that_stops_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut stream = Corked::new(near);
        let handle = stream.handle();
        let mut running = handle.run(Box::pin(async move { stream.write_all(&vec![7; LIMIT * 2]).await }), || true);
        let stopped = poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx).is_pending())).await;
        assert!(stopped && running.cork.lock().kept.len() <= LIMIT);
        let mut all = Vec::new();
        let (ended, read) = tokio::join!(running, far.read_to_end(&mut all));
        ended.unwrap();
        assert_eq!((read.unwrap(), all.len()), (LIMIT * 2, LIMIT * 2));
    }
}
