//! The plugin that keeps the keys that keys are encrypted by: gRPC over a socket of this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

/// How a plugin is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatusResponse {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    #[prost(string, tag = "2")]
    pub(crate) healthz: String,
    #[prost(string, tag = "3")]
    pub(crate) key_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

/// A key as the plugin encrypted it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) key_id: String,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub(crate) annotations: BTreeMap<String, Vec<u8>>,
}

/// Why a plugin did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PluginError {
    /// No answer in time.
    #[error("the plugin at {path} did not answer within {after:?}", path = path.display())]
    Timeout { path: PathBuf, after: Duration },
    /// No connection, or a refusal.
    #[error("the plugin at {path} failed: {status}", path = path.display())]
    Failed { path: PathBuf, status: Box<tonic::Status> },
}

/// A connection that is made when it is needed, and made again.
pub(crate) struct Plugin {
    channel: Channel,
    path: PathBuf,
    timeout: Duration,
}

impl Plugin {
    /// The plugin at a socket's path; with `@` in front the socket lies in no folder.
    pub(crate) fn new(path: &str, timeout: Duration) -> Self {
        let path = path.to_owned();
        let shown = PathBuf::from(&path);
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(&*stdx::socket_path(&path)).await.map(TokioIo::new) }
        });
        // The name is never looked up: the connector knows one place only.
        let channel = Endpoint::from_static("http://localhost").connect_timeout(timeout);
        Self { channel: channel.connect_with_connector_lazy(connector), path: shown, timeout }
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, PluginError> {
        self.ask(StatusRequest {}, "/v2.KeyManagementService/Status").await
    }

    pub(crate) async fn encrypt(&self, plaintext: Vec<u8>) -> Result<EncryptResponse, PluginError> {
        self.ask(EncryptRequest { plaintext, uid: uid() }, "/v2.KeyManagementService/Encrypt").await
    }

    pub(crate) async fn decrypt(
        &self,
        ciphertext: Vec<u8>,
        key_id: String,
        annotations: BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<u8>, PluginError> {
        let request = DecryptRequest { ciphertext, uid: uid(), key_id, annotations };
        let answer: DecryptResponse = self.ask(request, "/v2.KeyManagementService/Decrypt").await?;
        Ok(answer.plaintext)
    }

    async fn ask<Q, A>(&self, request: Q, method: &'static str) -> Result<A, PluginError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let failed = |status: tonic::Status| PluginError::Failed { path: self.path.clone(), status: Box::new(status) };
        let exchange = async {
            let mut client = Grpc::new(self.channel.clone());
            client.ready().await.map_err(|e| failed(tonic::Status::unavailable(stdx::chain(&e).to_string())))?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let path = PathAndQuery::from_static(method);
            let answer = client.unary(tonic::Request::new(request), path, codec).await;
            answer.map(tonic::Response::into_inner).map_err(failed)
        };
        let late = || PluginError::Timeout { path: self.path.clone(), after: self.timeout };
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

/// An id by which plugin and server name one request in their logs.
fn uid() -> String {
    format!("{:032x}", rand::random::<u128>())
}
