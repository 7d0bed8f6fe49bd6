//! Commands over a WebSocket whose streams end one by one (v5), which kubelets know as streams of SPDY.
//!
//! ```text
//!  client                      this server                      kubelet
//!  0 input, 4 sizes, 255 end ─▶ stream `stdin`, stream `resize` ─▶
//!  1, 2 outputs              ◀─ streams `stdout`, `stderr`      ◀─
//!  3 what came of it         ◀─ stream `error`                  ◀─
//! ```
//! The client has its WebSocket before the kubelet is asked: whatever goes wrong then is told in channel 3.

mod outcome;

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, HOST, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncWrite, split};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::{Error, Message};

use outcome::{internal, not_upgraded, outcome};

use super::stream;
use crate::answer::{self, Body, PassedOn};
use crate::backend::{Duplex, Target};
use crate::spdy::{Reader, Said, Stream, Writer};
use crate::status::Result;
use crate::{handover, websocket};

/// The protocol of the client's WebSocket.
pub(super) const PROTOCOL: &str = "v5.channel.k8s.io";
/// The protocols over SPDY, best first.
const SPOKEN: [&str; 5] = [PROTOCOL, "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const RESULT: u8 = 3;
const SIZES: u8 = 4;
const END: u8 = 255;
/// As much as a kubelet may say about what came of a command.
const MAX_RESULT_BYTES: usize = 64 << 10;
/// As much of a size as may wait for its rest.
const MAX_SIZE_BYTES: usize = 4 << 10;
/// Things that the kubelet wants to hear again at once.
const MAX_ASKED: usize = 16;
/// How long a kubelet may take to answer, and to take the streams of a command.
const PATIENCE: Duration = Duration::from_secs(30);

/// The streams that a client wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    input: bool,
    output: bool,
    errors: bool,
    terminal: bool,
}

impl Wanted {
    pub(super) fn of(options: &Value) -> Self {
        let is = |key: &str| options[key] == true;
        Self { input: is("stdin"), output: is("stdout"), errors: is("stderr"), terminal: is("tty") }
    }

    /// The channel on which the client is told that the WebSocket is there.
    fn first(self) -> u8 {
        match self {
            Self { output: true, .. } => OUTPUT,
            Self { errors: true, .. } => ERRORS,
            _ => RESULT,
        }
    }

    /// The streams by their names and channels; a terminal has one output.
    fn streams(self) -> impl Iterator<Item = (u8, &'static str)> {
        let all = [
            (RESULT, "error", true),
            (INPUT, "stdin", self.input),
            (OUTPUT, "stdout", self.output),
            (ERRORS, "stderr", self.errors && !self.terminal),
            (SIZES, "resize", self.terminal),
        ];
        all.into_iter().filter(|(.., is_wanted)| *is_wanted).map(|(channel, name, _)| (channel, name))
    }
}

/// Agrees to the client's WebSocket and carries what is said over SPDY of our own.
pub(super) fn translate(target: Target, uri: Uri, parts: &mut Parts, wanted: Wanted) -> Result<Response<Body>> {
    if let Some(refusal) = websocket::no_handshake(parts) {
        return Ok(refusal);
    }
    let (mut answer, near) = websocket::accept(parts, PROTOCOL)?.split();
    answer.extensions_mut().insert(PassedOn::Whole);
    handover::serve(&mut answer, async move {
        let Some(near) = near.open().await else { return };
        if let Err(error) = serve(&target, uri, near, wanted).await {
            tracing::debug!(%error, "a command's WebSocket broke");
        }
    });
    Ok(answer)
}

async fn serve(target: &Target, uri: Uri, near: websocket::Near, wanted: Wanted) -> std::result::Result<(), Error> {
    let (mut sink, source) = near.split();
    sink.send(framed(wanted.first(), &[])).await?;
    let told = match upgrade(target, uri).await {
        Ok((far, spoken)) => carry(far, &spoken, (&mut sink, source), wanted).await?,
        Err(status) => Some(status),
    };
    // Without a client there is nobody to tell.
    if let Some(status) = told {
        sink.send(framed(RESULT, status.to_string().as_bytes())).await?;
        websocket::end(&mut sink).await;
    }
    Ok(())
}

fn framed(channel: u8, data: &[u8]) -> Message {
    Message::Binary([&[channel], data].concat().into())
}

/// Opens SPDY to the kubelet; what is spoken over it is the kubelet's choice. The error is what the client is told.
async fn upgrade(target: &Target, uri: Uri) -> std::result::Result<(impl Duplex, String), Value> {
    let mut request = Request::new(answer::full(""));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    answer::set(headers, HOST, &target.authority());
    answer::set(headers, CONNECTION, "Upgrade");
    answer::set(headers, UPGRADE, "SPDY/3.1");
    let version = HeaderName::from_static("x-stream-protocol-version");
    for protocol in SPOKEN {
        headers.append(version.clone(), HeaderValue::from_static(protocol));
    }
    let answered = tokio::time::timeout(PATIENCE, target.send(request)).await;
    let answered = answered.map_err(|_elapsed| internal("error sending request: i/o timeout"))?;
    let mut answered = answered.map_err(|error| internal(&format!("error sending request: {error}")))?;
    if answered.status() != StatusCode::SWITCHING_PROTOCOLS || !stream::says_spdy(&answered) {
        let body = Limited::new(answered.into_body(), MAX_RESULT_BYTES).collect().await;
        return Err(not_upgraded(&body.map(|body| body.to_bytes()).unwrap_or_default()));
    }
    let spoken = answered.headers().get(&version).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let far = hyper::upgrade::on(&mut answered).await;
    let far = far.map_err(|error| internal(&format!("unable to upgrade connection: {error}")))?;
    Ok((TokioIo::new(far), spoken))
}

/// The kubelet's streams, by channel.
#[derive(Clone, Default)]
struct Streams(Vec<(u8, Stream)>);

impl Streams {
    fn of(&self, channel: u8) -> Option<Stream> {
        self.0.iter().find(|(own, _)| *own == channel).map(|(_, stream)| *stream)
    }

    fn channel(&self, stream: Stream) -> Option<u8> {
        self.0.iter().find(|(_, own)| *own == stream).map(|(channel, _)| *channel)
    }
}

/// Carries streams both ways until the kubelet says what came of the command; nothing if the client leaves before.
async fn carry(
    far: impl Duplex,
    spoken: &str,
    (sink, source): (
        &mut (impl futures::Sink<Message, Error = Error> + Unpin),
        impl futures::Stream<Item = std::result::Result<Message, Error>> + Unpin,
    ),
    wanted: Wanted,
) -> std::result::Result<Option<Value>, Error> {
    let (reader, writer) = split(far);
    let mut writer = Writer::new(writer);
    let mut streams = Streams::default();
    for (channel, name) in wanted.streams() {
        match writer.open("streamtype", name).await {
            Ok(stream) => streams.0.push((channel, stream)),
            Err(error) => return Ok(Some(internal(&error.to_string()))),
        }
    }
    let (asks, asked) = mpsc::channel(MAX_ASKED);
    let (takes, taken) = watch::channel(false);
    let up = Up { writer, streams: streams.clone(), size: Vec::new(), is_input_open: true };
    let mut down = Down { streams, result: Vec::new(), taken: 0, ended: Vec::new() };
    tokio::select! {
        done = down.serve(Reader::new(reader), sink, asks, takes) => {
            done?;
            Ok(Some(outcome(spoken, &down.result)))
        }
        () = up.serve(source, asked, taken) => Ok(None),
    }
}

/// From the kubelet to the client.
struct Down {
    streams: Streams,
    /// What was said so far of what came of the command.
    result: Vec<u8>,
    taken: usize,
    ended: Vec<u8>,
}

impl Down {
    async fn serve(
        &mut self,
        mut reader: Reader<impl tokio::io::AsyncRead + Unpin>,
        sink: &mut (impl futures::Sink<Message, Error = Error> + Unpin),
        asks: mpsc::Sender<Bytes>,
        takes: watch::Sender<bool>,
    ) -> std::result::Result<(), Error> {
        while !self.is_over() {
            let said = match reader.next().await {
                Ok(Some(said)) => said,
                Ok(None) => break,
                Err(error) => {
                    tracing::debug!(%error, "a kubelet's streams broke");
                    break;
                }
            };
            match said {
                Said::Takes(_) => {
                    self.taken += 1;
                    takes.send_replace(self.taken >= self.streams.0.len());
                }
                Said::Data(stream, data, is_last) => self.data(sink, stream, &data, is_last).await?,
                Said::Breaks(stream) => self.ended.extend(self.streams.channel(stream)),
                // Who asks faster than answers are written gets fewer of them.
                Said::Asks(what) => _ = asks.try_send(what),
                Said::Leaves => {}
            }
        }
        Ok(())
    }

    async fn data(
        &mut self,
        sink: &mut (impl futures::Sink<Message, Error = Error> + Unpin),
        stream: Stream,
        data: &[u8],
        is_last: bool,
    ) -> std::result::Result<(), Error> {
        let Some(channel) = self.streams.channel(stream) else { return Ok(()) };
        match channel {
            OUTPUT | ERRORS if !data.is_empty() => sink.send(framed(channel, data)).await?,
            RESULT if self.result.len() + data.len() <= MAX_RESULT_BYTES => self.result.extend(data),
            _ => {}
        }
        if is_last {
            self.ended.push(channel);
        }
        Ok(())
    }

    /// Whether the command is over, and all that it wrote is there.
    fn is_over(&self) -> bool {
        [OUTPUT, ERRORS, RESULT].iter().all(|own| self.streams.of(*own).is_none() || self.ended.contains(own))
    }
}

/// The size of a terminal.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    #[serde(default)]
    width: u16,
    #[serde(default)]
    height: u16,
}

/// From the client to the kubelet.
struct Up<W> {
    writer: Writer<W>,
    streams: Streams,
    /// What there is of a size that is not whole yet.
    size: Vec<u8>,
    is_input_open: bool,
}

impl<W: AsyncWrite + Unpin> Up<W> {
    async fn serve(
        mut self,
        mut source: impl futures::Stream<Item = std::result::Result<Message, Error>> + Unpin,
        mut asked: mpsc::Receiver<Bytes>,
        mut taken: watch::Receiver<bool>,
    ) {
        let mut is_taken = false;
        let late = tokio::time::sleep(PATIENCE);
        tokio::pin!(late);
        loop {
            let sent = tokio::select! {
                what = asked.recv() => match what {
                    Some(what) => self.writer.answer(&what).await,
                    // The other way is over.
                    None => return std::future::pending().await,
                },
                all = async { taken.wait_for(|all| *all).await.is_ok() }, if !is_taken => {
                    is_taken = all;
                    Ok(())
                }
                () = &mut late, if !is_taken => return,
                // What comes before the streams are taken would be lost.
                said = source.next(), if is_taken => match said {
                    Some(Ok(Message::Binary(data))) => self.said(&data).await,
                    Some(Ok(Message::Text(text))) => self.said(text.as_bytes()).await,
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(()),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                },
            };
            if let Err(error) = sent {
                tracing::debug!(%error, "a kubelet takes no more input");
                return std::future::pending().await;
            }
        }
    }

    async fn said(&mut self, data: &[u8]) -> std::io::Result<()> {
        match data {
            [INPUT, data @ ..] if !data.is_empty() => self.input(data, false).await,
            [END, INPUT] => self.input(&[], true).await,
            [SIZES, data @ ..] => self.sizes(data).await,
            _ => Ok(()),
        }
    }

    async fn input(&mut self, data: &[u8], is_last: bool) -> std::io::Result<()> {
        let Some(stream) = self.streams.of(INPUT).filter(|_| self.is_input_open) else { return Ok(()) };
        self.is_input_open = !is_last;
        self.writer.data(stream, data, is_last).await
    }

    /// Sizes may come in parts, and several at once; after what is none, none is read.
    async fn sizes(&mut self, data: &[u8]) -> std::io::Result<()> {
        let Some(stream) = self.streams.of(SIZES).filter(|_| self.size.len() + data.len() <= MAX_SIZE_BYTES) else {
            return Ok(());
        };
        self.size.extend(data);
        let mut sizes = serde_json::Deserializer::from_slice(&self.size).into_iter::<Size>();
        let mut told = Vec::new();
        while let Some(Ok(size)) = sizes.next() {
            told.extend(serde_json::to_vec(&size).map_err(std::io::Error::other)?);
            told.push(b'\n');
        }
        let read = sizes.byte_offset();
        self.size.drain(..read);
        if told.is_empty() { Ok(()) } else { self.writer.data(stream, &told, false).await }
    }
}

#[cfg(test)]
mod tests;
