//! A debug container for an administrator: made when they connect; removed when they leave, when it ends, or when its time
//! is over. Who, what and how it ended is told to the machine's events.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use machine_api::DebugRequest;
use tokio::io::copy;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, Known, Server, text, whole};
use crate::debug::{Maker, check};
use crate::{chance, event};

/// What the runtime has to join us within, once there is a container.
const JOIN: Duration = Duration::from_secs(15);
/// What the runtime gets to remove it.
const REMOVE: Duration = Duration::from_secs(60);
/// How much of a refusal is told.
const REASON_BYTES: usize = 4096;
/// Headers of the caller's that are not for the runtime.
const OWN: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::AUTHORIZATION];

/// Makes the container and joins the caller with its terminal.
pub(super) async fn answer<M>(server: &Server, caller: &Known, maker: M, mut request: Request<Incoming>) -> Answer
where
    M: Maker + 'static,
{
    let asked = match parse(request.uri().query()) {
        Ok(asked) => asked,
        Err(reason) => return whole(text(StatusCode::BAD_REQUEST, format!("{reason}\n"))),
    };
    if !request.headers().contains_key(header::UPGRADE) {
        return whole(text(StatusCode::UPGRADE_REQUIRED, "a terminal needs a websocket\n".to_owned()));
    }
    let Ok(turn) = server.debuggers.clone().try_acquire_owned() else {
        let reason = "there are as many debug containers already as this machine has at once\n".to_owned();
        return whole(text(StatusCode::SERVICE_UNAVAILABLE, reason));
    };
    let session = Session {
        id: format!("{:08x}", chance::number()),
        who: caller.name.clone(),
        asked,
        run: server.run.clone(),
        near: hyper::upgrade::on(&mut request),
        headers: request.headers().clone(),
    };
    let (reply, agreed) = oneshot::channel();
    let shutdown = server.shutdown.clone();
    // Whatever becomes of this request, what is made is removed.
    drop(tokio::spawn(async move {
        session.run(&maker, reply, shutdown.wait()).await;
        drop(turn);
    }));
    match agreed.await {
        Ok(Ok(head)) => {
            let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            *answer.headers_mut() = head;
            answer
        }
        Ok(Err(reason)) => whole(text(StatusCode::BAD_GATEWAY, format!("{reason}\n"))),
        Err(_over) => whole(text(StatusCode::GATEWAY_TIMEOUT, "its time was over before it had begun\n".to_owned())),
    }
}

fn parse(query: Option<&str>) -> Result<DebugRequest, String> {
    let spec =
        query.and_then(|query| query.strip_prefix("spec=")).ok_or("which container: ?spec=JSON, as base64url")?;
    let json = URL_SAFE_NO_PAD.decode(spec).map_err(|error| format!("spec: {error}"))?;
    let asked = serde_json::from_slice(&json).map_err(|error| format!("spec: {error}"))?;
    check(&asked)?;
    Ok(asked)
}

/// One container and its caller.
struct Session {
    id: String,
    who: String,
    asked: DebugRequest,
    run: PathBuf,
    near: OnUpgrade,
    headers: HeaderMap,
}

type Reply = oneshot::Sender<Result<HeaderMap, String>>;

impl Session {
    async fn run<M: Maker>(self, maker: &M, reply: Reply, shutdown: impl Future<Output = ()>) {
        let Self { id, who, asked, run, near, headers } = self;
        let began = Instant::now();
        let reach = if asked.host { "the whole machine" } else { "its network" };
        let what = format!("debug container {id}");
        event::tell(&run, &id, &format!("{what} of {who}: {}, with {reach}, for {} s", asked.image, asked.seconds));
        let why = tokio::select! {
            why = join(maker, (&id, &asked), reply, (near, headers)) => why,
            () = tokio::time::sleep_until(began + Duration::from_secs(asked.seconds)) => "its time is over".to_owned(),
            () = shutdown => "the machine API ends".to_owned(),
        };
        let removed = tokio::time::timeout(REMOVE, maker.end(&id)).await;
        let removed = removed.unwrap_or_else(|_elapsed| Err(format!("not within {} s", REMOVE.as_secs())));
        let removed = match removed {
            Ok(()) => "removed".to_owned(),
            Err(error) => format!("not removed before the next start of the machine API ({error})"),
        };
        let seconds = began.elapsed().as_secs();
        event::tell(&run, &id, &format!("{what} of {who}: {removed} after {seconds} s: {why}"));
    }
}

/// Answers why it is over.
async fn join<M: Maker>(
    maker: &M,
    (id, asked): (&str, &DebugRequest),
    mut reply: Reply,
    (near, headers): (OnUpgrade, HeaderMap),
) -> String {
    let made = tokio::select! {
        made = maker.begin(id, asked) => made,
        () = reply.closed() => return "its caller did not wait for it".to_owned(),
    };
    let joined = match made {
        Ok(url) => tokio::time::timeout(JOIN, upgrade(&url, &headers)).await.unwrap_or_else(|_elapsed| {
            Err(format!("the runtime did not join its terminal within {} s", JOIN.as_secs()))
        }),
        Err(reason) => Err(reason),
    };
    let (head, far) = match joined {
        Ok(joined) => joined,
        Err(reason) => {
            reply.send(Err(reason.clone())).ok();
            return reason;
        }
    };
    reply.send(Ok(head)).ok();
    let near = match near.await {
        Ok(near) => near,
        Err(error) => return format!("its caller went away: {error}"),
    };
    let (mut from_caller, mut to_caller) = tokio::io::split(TokioIo::new(near));
    let (mut from_box, mut to_box) = tokio::io::split(TokioIo::new(far));
    // Either end is the end: nobody half closes a terminal.
    tokio::select! {
        _ = copy(&mut from_caller, &mut to_box) => "its caller went away".to_owned(),
        _ = copy(&mut from_box, &mut to_caller) => "its command ended".to_owned(),
    }
}

/// Joins the terminal at `url` in the caller's own words.
async fn upgrade(url: &str, headers: &HeaderMap) -> Result<(HeaderMap, Upgraded), String> {
    let words = |error: &dyn std::error::Error| format!("the runtime's terminal: {}", stdx::chain(error));
    let target: Uri = url.parse().map_err(|error: http::uri::InvalidUri| words(&error))?;
    let host = target.host().ok_or_else(|| format!("{url:?} has no host"))?;
    let stream = TcpStream::connect((host, target.port_u16().unwrap_or(80))).await.map_err(|error| words(&error))?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| words(&error))?;
    // It ends with one of its ends.
    drop(tokio::spawn(connection.with_upgrades()));
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(header::HOST, host);
    for (name, value) in headers.iter().filter(|(name, _)| !OWN.contains(name)) {
        request = request.header(name, value);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|error| words(&error))?;
    let mut answer = sender.send_request(request).await.map_err(|error| words(&error))?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let head = answer.headers().clone();
        return Ok((head, hyper::upgrade::on(&mut answer).await.map_err(|error| words(&error))?));
    }
    let status = answer.status();
    let reason = Limited::new(answer.into_body(), REASON_BYTES).collect().await.map(|body| body.to_bytes());
    Err(format!(
        "the runtime's terminal: {status}: {}",
        String::from_utf8_lossy(&reason.unwrap_or_default()).trim_end()
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::Config;

    /// Makes containers whose terminals repeat what they are told, and tells which it removes.
    #[derive(Clone)]
    struct Echo {
        terminal: Result<String, String>,
        removed: mpsc::Sender<String>,
    }

    impl Maker for Echo {
        async fn begin(&self, _id: &str, _asked: &DebugRequest) -> Result<String, String> {
            self.terminal.clone()
        }

        async fn end(&self, id: &str) -> Result<(), String> {
            self.removed.send(id.to_owned()).await.map_err(|error| error.to_string())
        }
    }

    const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";

    /// A terminal as the runtime has them; it ends when it is told `exit`.
    async fn terminal() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/attach/x", listener.local_addr().unwrap());
        drop(tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert!(head.starts_with("GET /attach/x") && head.contains("sec-websocket-key: k"), "{head}");
            stream.write_all(AGREED.as_bytes()).await.unwrap();
            let mut buffer = [0; 64];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if buffer.starts_with(b"exit") {
                    return;
                }
                stream.write_all(&buffer[..count]).await.unwrap();
            }
        }));
        url
    }

    struct Machine {
        address: std::net::SocketAddr,
        folder: tempfile::TempDir,
        removed: mpsc::Receiver<String>,
        server: Arc<Server>,
    }

    async fn machine(terminal: Result<String, String>) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inbox")).unwrap();
        let config = Config { run: folder.path().to_owned(), ..Config::new(None, std::time::UNIX_EPOCH) };
        let server = Server::alone(&config);
        let (sender, removed) = mpsc::channel(1);
        let maker = Echo { terminal, removed: sender };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = server.clone();
        drop(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (server, maker) = (own.clone(), maker.clone());
                let service = service_fn(move |request| {
                    let (server, maker) = (server.clone(), maker.clone());
                    async move {
                        let caller = Known { name: "ann".to_owned(), ..Known::default() };
                        Ok::<_, std::convert::Infallible>(answer(&server, &caller, maker, request).await)
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                drop(tokio::spawn(connection.with_upgrades()));
            }
        }));
        Machine { address, folder, removed, server }
    }

    impl Machine {
        /// Asks for a container; answers the connection and the head of what came back.
        async fn ask(&self, seconds: u64) -> (TcpStream, String) {
            let asked = DebugRequest { image: "busybox".to_owned(), seconds, ..DebugRequest::default() };
            let spec = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&asked).unwrap());
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let head = "host: m\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: k";
            stream.write_all(format!("GET /debug?spec={spec} HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            (stream, String::from_utf8(head).unwrap())
        }

        async fn says(&self, stream: &mut TcpStream, words: &str) {
            stream.write_all(words.as_bytes()).await.unwrap();
            let mut back = vec![0; words.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, words.as_bytes());
        }

        /// What was told when it was over.
        async fn end(&mut self) -> String {
            let id = tokio::time::timeout(Duration::from_secs(20), self.removed.recv()).await.unwrap().unwrap();
            drop(self.server.debuggers.acquire_many(super::super::DEBUGGERS).await.unwrap());
            let told = events(self.folder.path());
            assert!(told.iter().all(|line| line.contains(&format!("debug container {id} of ann"))), "{told:?}");
            assert!(told.iter().any(|line| line.contains("busybox, with its network, for")), "{told:?}");
            told.into_iter().find(|line| line.contains("removed after")).unwrap()
        }
    }

    fn events(run: &Path) -> Vec<String> {
        let files = std::fs::read_dir(run.join("inbox")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_caller_has_a_terminal_until_they_leave() {
        let mut machine = machine(Ok(terminal().await)).await;
        let (mut stream, head) = machine.ask(600).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        machine.says(&mut stream, "hello").await;
        drop(stream);
        assert!(machine.end().await.ends_with("its caller went away"));
    }

    #[tokio::test]
    async fn it_ends_with_its_command_and_after_its_time() {
        let mut machine = machine(Ok(terminal().await)).await;
        let (mut stream, _) = machine.ask(600).await;
        stream.write_all(b"exit").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(machine.end().await.ends_with("its command ended"));

        let mut machine = super::tests::machine(Ok(terminal().await)).await;
        let (mut stream, _) = machine.ask(1).await;
        machine.says(&mut stream, "hello").await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "the connection ends with it");
        assert!(machine.end().await.ends_with("its time is over"));
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_told_and_removed() {
        let mut machine = machine(Err("busybox: no registry".to_owned())).await;
        let (_stream, head) = machine.ask(600).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        assert!(machine.end().await.ends_with("busybox: no registry"));
    }

    #[test]
    fn what_is_asked_for_is_read_precisely() {
        let spec = |text: &str| format!("spec={}", URL_SAFE_NO_PAD.encode(text));
        assert!(parse(Some(&spec(r#"{"image":"a","seconds":5}"#))).is_ok());
        for bad in
            [spec(r#"{"image":"a"}"#), spec(r#"{"image":"a","seconds":5,"x":1}"#), spec("no"), "spec=*".to_owned()]
        {
            assert!(parse(Some(&bad)).is_err(), "{bad}");
        }
        assert!(parse(None).is_err());
    }
}
