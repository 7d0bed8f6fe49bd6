//! Connections whose client stopped reading.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Says that a connection may stand still: somebody looks at a log, or at a terminal.
#[derive(Clone, Default)]
pub struct Patience(Arc<AtomicBool>);

impl Patience {
    /// From now on the connection may stand still.
    pub fn grant(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it may.
    #[must_use]
    pub fn is_granted(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// A stream that breaks when what was written cannot be passed on for too long. What waits to be written takes memory,
/// and a client that does not read it would hold that forever.
pub struct Stall<S> {
    inner: S,
    limit: Duration,
    patience: Patience,
    /// Until when everything has to be written, while something waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> Stall<S> {
    /// Guards a stream.
    #[must_use]
    pub fn new(inner: S, limit: Duration, patience: Patience) -> Self {
        Self { inner, limit, patience, deadline: None }
    }

    /// After an attempt to write: whether it is too late for it.
    fn judge<T>(&mut self, cx: &mut Context<'_>, result: Poll<Result<T>>, is_all: bool) -> Poll<Result<T>> {
        if result.is_ready() {
            if is_all {
                self.deadline = None;
            }
            return result;
        }
        if self.patience.is_granted() {
            self.deadline = None;
            return Poll::Pending;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client does not read what it asked for")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, result, false)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.judge(cx, result, false)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    // Whoever writes here flushes once nothing of its own is left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, result, true)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, result, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_left() {
        let (server, _client) = tokio::io::duplex(16);
        let mut stream = Stall::new(server, LIMIT, Patience::default());
        let before = Instant::now();
        let error = stream.write_all(&[0; 64]).await.err().unwrap();
        assert_eq!((error.kind(), before.elapsed()), (ErrorKind::TimedOut, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_too_slowly_is_left_as_well() {
        let (server, mut client) = tokio::io::duplex(16);
        let mut stream = Stall::new(server, LIMIT, Patience::default());
        let reader = tokio::spawn(async move {
            let mut read = 0;
            while client.read_u8().await.is_ok() {
                read += 1;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            read
        });
        let error = async {
            stream.write_all(&[0; 640]).await?;
            stream.flush().await
        };
        assert_eq!(error.await.err().unwrap().kind(), ErrorKind::TimedOut);
        drop(stream);
        assert!(reader.await.unwrap() < 32);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_reads_in_time_or_looks_at_a_log_is_served() {
        let (server, mut client) = tokio::io::duplex(16);
        let patience = Patience::default();
        let mut stream = Stall::new(server, LIMIT, patience.clone());
        for _ in 0..5 {
            stream.write_all(&[0; 16]).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(LIMIT).await;
            client.read_exact(&mut [0; 16]).await.unwrap();
        }
        patience.grant();
        let write = tokio::spawn(async move { stream.write_all(&[0; 32]).await.map(|()| stream) });
        tokio::time::sleep(10 * LIMIT).await;
        client.read_exact(&mut [0; 32]).await.unwrap();
        assert!(write.await.unwrap().is_ok());
    }
}
