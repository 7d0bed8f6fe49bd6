//! Connections that go on in another protocol.
//!
//! The answer that agrees to the other protocol is over as soon as its head is written; the request is over when the
//! connection is. Whoever waits for the end of an answer does so in its body, which is therefore handed to the task that
//! serves the connection, and dropped with it.

use std::sync::Arc;

use futures::stream;
use http::Response;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;

use crate::answer::{self, Body};

/// The place of an answer's body, in its extensions and in the task that serves the connection.
#[derive(Clone, Default)]
struct Place(Arc<Mutex<Option<Body>>>);

/// Serves the connection that this answer hands over.
pub fn serve(answer: &mut Response<Body>, connection: impl Future<Output = ()> + Send + 'static) {
    let place = Place::default();
    answer.extensions_mut().insert(place.clone());
    // Its length is unknown, so that nobody takes it for complete.
    *answer.body_mut() = StreamBody::new(stream::empty()).boxed_unsync();
    tokio::spawn(async move {
        connection.await;
        drop(place);
    });
}

/// The answer as it is sent: of one that hands its connection over, the body stays with the connection.
pub fn settled(mut answer: Response<Body>) -> Response<Body> {
    let Some(place) = answer.extensions_mut().remove::<Place>() else { return answer };
    answer.map(|body| {
        *place.0.lock() = Some(body);
        answer::full("")
    })
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use tokio::sync::oneshot;

    use super::*;

    /// A body that tells when it is dropped.
    fn told(end: oneshot::Sender<()>) -> Body {
        let frames = stream::once(async move {
            let _end = end;
            std::future::pending().await
        });
        StreamBody::new(frames).boxed_unsync()
    }

    #[tokio::test]
    async fn the_body_lives_as_long_as_the_connection() {
        let (close, closed) = oneshot::channel::<()>();
        let mut answer = Response::new(answer::full("x"));
        serve(&mut answer, async move { closed.await.unwrap() });
        assert_eq!(answer.body().size_hint().exact(), None);
        let (end, mut ended) = oneshot::channel();
        let sent = settled(answer.map(|_body| told(end)));
        assert_eq!(sent.body().size_hint().exact(), Some(0));
        drop(sent);
        assert_eq!(ended.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        close.send(()).unwrap();
        assert!(ended.await.is_err());
    }

    #[tokio::test]
    async fn other_answers_keep_their_body() {
        let sent = settled(Response::new(answer::full("x")));
        assert_eq!(sent.into_body().collect().await.unwrap().to_bytes(), "x");
    }
}
