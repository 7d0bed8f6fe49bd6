//! Answers on their way out: how much of one may wait for its client, and for how long.
//!
//! HTTP/1 takes pieces of a body far ahead of what its client reads; here it gets the next one when those before are
//! nearly gone. HTTP/2 keeps to its own limit, but asks for nothing while the client's window is closed, and could
//! wait for it for ever: [`Streams`] runs its streams and ends those that stand still.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};

use super::idle::Busy;
use crate::answer::{Body, BodyError};

/// Bytes that HTTP/1 may have taken and not sent before it gets another piece.
const WINDOW: usize = 32 << 10;

tokio::task_local! {
    /// The stream that is being run.
    static STREAM: Arc<Mutex<Piece>>;
}

/// The last piece of an answer that a stream took.
#[derive(Default)]
struct Piece {
    /// Whether it waits to be sent.
    waits: bool,
    /// How many there were.
    count: u64,
    /// When the whole answer has to be sent.
    end: Option<Instant>,
}

/// By when an answer has to be sent, as a mark on it. Those without go on for as long as they are read.
#[derive(Clone, Copy)]
pub struct SentBy(pub std::time::Instant);

/// What bounds an answer.
pub struct Bounds {
    /// When it has to be sent.
    pub end: Option<SentBy>,
    /// Whether it goes over HTTP/1.
    pub is_http1: bool,
    /// Keeps the connection from being idle.
    pub busy: Busy,
}

/// A body that keeps to its bounds.
pub fn bounded(body: Body, bounds: Bounds) -> Body {
    let is_whole = body.size_hint().exact().is_some();
    let end = bounds.end.filter(|_| !is_whole).map(|SentBy(end)| Instant::from_std(end));
    let stream = STREAM.try_with(Arc::clone).ok();
    if let Some(stream) = &stream {
        stream.lock().end = end;
    }
    let window = (bounds.is_http1 && !is_whole).then(Arc::<Mutex<Window>>::default);
    let alarm = end.filter(|_| window.is_some()).map(|end| Box::pin(sleep_until(end)));
    Sending { body, stream, window, alarm, _busy: bounds.busy }.boxed_unsync()
}

struct Sending {
    body: Body,
    stream: Option<Arc<Mutex<Piece>>>,
    window: Option<Arc<Mutex<Window>>>,
    alarm: Option<Pin<Box<Sleep>>>,
    _busy: Busy,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(alarm) = &mut this.alarm
            && alarm.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::new("the client took too long to read the answer"))));
        }
        if this.window.as_ref().is_some_and(|window| window.lock().is_full(cx)) {
            return Poll::Pending;
        }
        let next = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(stream) = &this.stream {
            let mut piece = stream.lock();
            piece.waits = matches!(next, Poll::Ready(Some(Ok(_))));
            piece.count += 1;
        }
        match (&this.window, next) {
            (Some(window), Poll::Ready(Some(Ok(frame)))) => {
                Poll::Ready(Some(Ok(frame.map_data(|bytes| Held::count(bytes, window)))))
            }
            (_, next) => next,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What HTTP/1 has taken and not sent.
#[derive(Default)]
struct Window {
    bytes: usize,
    waiting: Option<Waker>,
}

impl Window {
    /// Whether nothing more may be taken; if so, the task is woken as soon as something may.
    fn is_full(&mut self, cx: &Context<'_>) -> bool {
        let is_full = self.bytes >= WINDOW;
        self.waiting = is_full.then(|| cx.waker().clone());
        is_full
    }
}

/// Bytes that count until they are sent.
struct Held {
    bytes: Bytes,
    window: Arc<Mutex<Window>>,
}

impl Held {
    fn count(bytes: Bytes, window: &Arc<Mutex<Window>>) -> Bytes {
        window.lock().bytes += bytes.len();
        Bytes::from_owner(Self { bytes, window: window.clone() })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let waiting = {
            let mut window = self.window.lock();
            window.bytes -= self.bytes.len();
            if window.bytes < WINDOW { window.waiting.take() } else { None }
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Runs the streams of an HTTP/2 connection.
#[derive(Clone)]
pub struct Streams {
    /// How long a piece may wait for the client.
    pub patience: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(run(stream, self.patience));
    }
}

/// Runs a stream to its end, or until a piece of its answer waits for too long. Dropping it tells the client.
async fn run<F: Future>(stream: F, patience: Duration) {
    let piece = Arc::<Mutex<Piece>>::default();
    let mut stream = Box::pin(STREAM.scope(piece.clone(), stream));
    let mut alarm: Option<(u64, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let piece = piece.lock();
        if !piece.waits {
            alarm = None;
            return Poll::Pending;
        }
        let (_, alarm) = match &mut alarm {
            Some(alarm) if alarm.0 == piece.count => alarm,
            other => {
                let late = Instant::now() + patience;
                other.insert((piece.count, Box::pin(sleep_until(piece.end.map_or(late, |end| end.min(late))))))
            }
        };
        alarm.as_mut().poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::super::idle::Activity;
    use super::*;

    fn endless() -> Body {
        let pieces = futures::stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![0; WINDOW / 2]))));
        StreamBody::new(pieces).boxed_unsync()
    }

    fn bounds(end: Option<SentBy>, is_http1: bool) -> Bounds {
        Bounds { end, is_http1, busy: Activity::new().begin() }
    }

    #[tokio::test]
    async fn http1_gets_the_next_piece_when_those_before_are_sent() {
        let mut body = bounded(endless(), bounds(None, true));
        let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
        let (first, _second) = (next().await, next().await);
        assert!(futures::poll!(std::pin::pin!(next())).is_pending());
        drop(first);
        assert!(futures::poll!(std::pin::pin!(next())).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_when_its_client_does_not_read_or_its_answer_takes_too_long() {
        let patience = Duration::from_secs(60);
        for (within, wanted) in [(None, 60), (Some(10), 10)] {
            let end = within.map(|within| SentBy((Instant::now() + Duration::from_secs(within)).into_std()));
            let start = Instant::now();
            // Takes a piece, for which the client has no room.
            let stream = async {
                let mut body = bounded(endless(), bounds(end, false));
                let _piece = body.frame().await;
                std::future::pending::<()>().await;
            };
            run(stream, patience).await;
            assert_eq!(start.elapsed().as_secs(), wanted);
        }
        // One that waits for its server has all the time.
        let waiting = run(std::future::pending::<()>(), patience);
        assert!(tokio::time::timeout(patience * 10, waiting).await.is_err());
    }
}
