//! A proxy that speaks packets over gRPC, as konnectivity's servers do.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Conduct, Places};

/// By which a proxy knows the one connection of a stream.
const ID: i64 = 7;

/// A packet with the fields of all kinds, each of which has one number in one message of the protocol.
#[derive(Clone, PartialEq, prost::Message)]
struct Packet {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, tag = "2")]
    dial: Option<Dial>,
    #[prost(message, tag = "3")]
    dialled: Option<Dialled>,
    #[prost(message, tag = "4")]
    data: Option<Data>,
    #[prost(message, tag = "5")]
    close: Option<Close>,
    #[prost(message, tag = "6")]
    closed: Option<Closed>,
    #[prost(message, tag = "7")]
    dial_closed: Option<Close>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dial {
    #[prost(string, tag = "1")]
    protocol: String,
    #[prost(string, tag = "2")]
    address: String,
    #[prost(int64, tag = "3")]
    random: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dialled {
    #[prost(string, tag = "1")]
    error: String,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    random: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Data {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

/// The end of a connection, or of an attempt by its number.
#[derive(Clone, PartialEq, prost::Message)]
struct Close {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Closed {
    #[prost(string, tag = "1")]
    error: String,
    #[prost(int64, tag = "2")]
    id: i64,
}

/// The proxy; it ends with the test.
#[derive(Clone)]
pub(crate) struct Packets {
    places: Arc<Places>,
    conduct: Conduct,
    /// How many streams have ended.
    pub(crate) ended: tokio::sync::watch::Sender<usize>,
}

impl Packets {
    pub(crate) fn start(socket: &Path, places: Arc<Places>, conduct: Conduct) -> Self {
        let proxy = Self { places, conduct, ended: tokio::sync::watch::Sender::new(0) };
        let (listener, serving) = (UnixListener::bind(socket).unwrap(), proxy.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = hyper_util::service::TowerToHyperService::new(serving.clone());
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
        proxy
    }

    /// Waits until so many streams have ended.
    #[allow(dead_code, reason = "not every test does")]
    pub(crate) async fn have_ended(&self, count: usize) {
        self.ended.subscribe().wait_for(|ended| *ended >= count).await.unwrap();
    }
}

impl tower::Service<http::Request<hyper::body::Incoming>> for Packets {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        assert_eq!(request.uri().path(), "/ProxyService/Proxy");
        let proxy = self.clone();
        Box::pin(async move {
            let codec: ProstCodec<Packet, Packet> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).streaming(proxy, request).await)
        })
    }
}

impl tonic::server::StreamingService<Packet> for Packets {
    type Response = Packet;
    type ResponseStream = BoxStream<'static, Result<Packet, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let (answers, stream) = futures::channel::mpsc::channel(1);
        let (proxy, packets) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            proxy.lead(packets, answers).await;
            proxy.ended.send_modify(|ended| *ended += 1);
        });
        Box::pin(async { Ok(Response::new(stream.boxed())) })
    }
}

type Answers = futures::channel::mpsc::Sender<Result<Packet, Status>>;

impl Packets {
    async fn lead(&self, mut packets: Streaming<Packet>, mut answers: Answers) -> Option<()> {
        let asked = packets.next().await?.ok()?;
        assert_eq!(asked.kind, 0);
        let dial = asked.dial.unwrap();
        assert_eq!(dial.protocol, "tcp");
        let answer = |error: String| {
            let dialled = Dialled { id: if error.is_empty() { ID } else { 0 }, error, random: dial.random };
            Ok(Packet { kind: 1, dialled: Some(dialled), ..Packet::default() })
        };
        let far = match &self.conduct {
            Conduct::Lead => self.places.find(&dial.address).await,
            Conduct::Refuse(error) => Err(std::io::Error::other(error.clone())),
            Conduct::Hang => self.places.leave_open(&dial.address).await,
            Conduct::End => {
                let closed = Packet { kind: 5, dial_closed: Some(Close { id: dial.random }), ..Packet::default() };
                return answers.send(Ok(closed)).await.ok();
            }
        };
        let far = match far {
            Ok(far) => far,
            Err(error) => return answers.send(answer(error.to_string())).await.ok(),
        };
        answers.send(answer(String::new())).await.ok()?;
        let (mut from, mut to) = far.into_split();
        let inwards = async {
            let mut buffer = vec![0; 4096];
            while let Ok(len @ 1..) = from.read(&mut buffer).await {
                let data = Data { id: ID, data: buffer[..len].to_vec() };
                answers.send(Ok(Packet { kind: 4, data: Some(data), ..Packet::default() })).await.ok()?;
            }
            let closed = Closed { error: String::new(), id: ID };
            answers.send(Ok(Packet { kind: 3, closed: Some(closed), ..Packet::default() })).await.ok()
        };
        let outwards = async {
            while let Some(Ok(packet)) = packets.next().await {
                match packet.kind {
                    4 => to.write_all(&packet.data?.data).await.ok()?,
                    2 => to.shutdown().await.ok()?,
                    other => panic!("a packet of kind {other}"),
                }
            }
            Some(())
        };
        tokio::select! {
            _ = inwards => {}
            // Who asks has gone.
            _ = outwards => {}
        }
        Some(())
    }
}
