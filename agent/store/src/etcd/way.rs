//! Members that are not reached straight over the network.

use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint, Uri};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Reach = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> + Send + Sync;

/// Makes connections with who answers at a host's port.
#[derive(Clone)]
pub struct Way(Arc<Reach>);

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

impl Way {
    /// A way by a function.
    pub fn new<F, S>(reach: impl Fn(String, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        Self(Arc::new(move |host, port| {
            let stream = reach(host, port);
            Box::pin(async move { Ok(Box::new(stream.await?) as Box<dyn Stream>) })
        }))
    }

    /// Connections with a member, made when they are needed.
    pub(super) fn channel(&self, member: Endpoint) -> Channel {
        let reach = self.0.clone();
        let connector = tower::service_fn(move |place: Uri| {
            let host = place.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let default = if place.scheme_str() == Some("https") { 443 } else { 80 };
            let stream = reach(host, place.port_u16().unwrap_or(default));
            async move { stream.await.map(TokioIo::new) }
        });
        member.connect_with_connector_lazy(connector)
    }
}
