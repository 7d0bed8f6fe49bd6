//! A debug container for an administrator: made when they connect; removed when they leave, when it ends, or when its time
//! is over. Who, what and how it ended is told to the machine's events.
//!
//! The terminal is the container runtime's own, in the form in which Kubernetes' clients speak to it: a websocket whose
//! messages begin with the number of a channel.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use http::{HeaderValue, Uri, header};
use machine_api::{DebugInput, DebugOutput, DebugRequest, Event, EventKind, TerminalSize, detail};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tonic::Status;

use super::refusal::{away, bad, busy};
use super::{Incoming, Known, Messages, Server, next, streamed};
use crate::debug::{Maker, check};
use crate::{chance, event};

/// What the runtime has to join us within, once there is a container.
const JOIN: Duration = Duration::from_secs(15);
/// What the runtime gets to remove it.
const REMOVE: Duration = Duration::from_secs(60);
/// How much of what is printed waits for a slow caller.
const QUEUE_LEN: usize = 16;
const PROTOCOL: &str = "v4.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const ERRORS: u8 = 2;
const END: u8 = 3;
const SIZE: u8 = 4;

type Terminal = WebSocketStream<TcpStream>;
type Printed = mpsc::Sender<Result<DebugOutput, Status>>;

/// Makes the container and joins the caller with its terminal.
pub(super) async fn answer<M>(
    server: &Server,
    caller: &Known,
    maker: M,
    mut input: Incoming<DebugInput>,
) -> Result<Messages<DebugOutput>, Status>
where
    M: Maker + 'static,
{
    let first = next(&mut input).await?.unwrap_or_default();
    let asked = first.request.clone().ok_or_else(|| bad("which container: request, in the first message"))?;
    check(&asked).map_err(bad)?;
    let Ok(turn) = server.debuggers.clone().try_acquire_owned() else {
        return Err(busy("there are as many debug containers already as this machine has at once"));
    };
    let input = stream::iter([Ok(DebugInput { request: None, ..first })]).chain(input).boxed();
    let session =
        Session { id: format!("{:08x}", chance::number()), who: caller.name.clone(), asked, run: server.run.clone() };
    let (reply, agreed) = oneshot::channel();
    let (printed, messages) = mpsc::channel(QUEUE_LEN);
    let shutdown = server.shutdown.clone();
    // Whatever becomes of this call, what is made is removed.
    drop(tokio::spawn(async move {
        session.run(&maker, reply, (input, printed), shutdown.wait()).await;
        drop(turn);
    }));
    match agreed.await {
        Ok(Ok(())) => Ok(streamed(messages, (), std::convert::identity)),
        Ok(Err(reason)) => Err(away(reason)),
        Err(_over) => Err(Status::deadline_exceeded("its time was over before it had begun")),
    }
}

/// One container and its caller.
struct Session {
    id: String,
    who: String,
    asked: DebugRequest,
    run: PathBuf,
}

type Reply = oneshot::Sender<Result<(), String>>;

impl Session {
    async fn run<M: Maker>(
        self,
        maker: &M,
        reply: Reply,
        near: (Incoming<DebugInput>, Printed),
        shutdown: impl Future<Output = ()>,
    ) {
        let Self { id, who, asked, run } = self;
        let began = Instant::now();
        let reach = if asked.host { "the whole machine" } else { "its network" };
        let what = format!("debug container {id}");
        let of_it = |text: String| Event::new(EventKind::DebugContainer, &id, text).with(detail::CALLER, &who);
        let text = format!("{what} of {who}: {}, with {reach}, for {} s", asked.image, asked.seconds);
        event::tell(&run, &id, &of_it(text).with(detail::IMAGE, &asked.image).with(detail::SECONDS, asked.seconds));
        let why = tokio::select! {
            why = join(maker, (&id, &asked), reply, near) => why,
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
        event::tell(
            &run,
            &id,
            &of_it(format!("{what} of {who}: {removed} after {seconds} s: {why}")).with(detail::WHY, &why),
        );
    }
}

/// Answers why it is over.
async fn join<M: Maker>(
    maker: &M,
    (id, asked): (&str, &DebugRequest),
    mut reply: Reply,
    (input, printed): (Incoming<DebugInput>, Printed),
) -> String {
    let made = tokio::select! {
        made = maker.begin(id, asked) => made,
        () = reply.closed() => return "its caller did not wait for it".to_owned(),
    };
    let joined = match made {
        Ok(url) => tokio::time::timeout(JOIN, open(&url)).await.unwrap_or_else(|_elapsed| {
            Err(format!("the runtime did not join its terminal within {} s", JOIN.as_secs()))
        }),
        Err(reason) => Err(reason),
    };
    let terminal = match joined {
        Ok(terminal) => terminal,
        Err(reason) => {
            reply.send(Err(reason.clone())).ok();
            return reason;
        }
    };
    reply.send(Ok(())).ok();
    talk(terminal, input, printed).await
}

/// Joins the terminal at `url`.
async fn open(url: &str) -> Result<Terminal, String> {
    let words = |error: &dyn std::error::Error| format!("the runtime's terminal: {}", stdx::chain(error));
    let target: Uri = url.parse().map_err(|error: http::uri::InvalidUri| words(&error))?;
    let host = target.host().ok_or_else(|| format!("{url:?} has no host"))?;
    let stream = TcpStream::connect((host, target.port_u16().unwrap_or(80))).await.map_err(|error| words(&error))?;
    // The runtime has no TLS here: it listens on the loopback interface only.
    let place = target.authority().map_or(host, |authority| authority.as_str());
    let path = target.path_and_query().map_or("/", |path| path.as_str());
    let mut request = format!("ws://{place}{path}").into_client_request().map_err(|error| words(&error))?;
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    let (terminal, _) = tokio_tungstenite::client_async(request, stream).await.map_err(|error| words(&error))?;
    Ok(terminal)
}

/// Passes on what is typed and printed, until one of them ends; answers which.
async fn talk(terminal: Terminal, mut input: Incoming<DebugInput>, printed: Printed) -> String {
    const GONE: &str = "its caller went away";
    const ENDED: &str = "its command ended";
    let (mut to_box, mut from_box) = terminal.split();
    loop {
        let message = tokio::select! {
            typed = input.try_next() => {
                let Ok(Some(typed)) = typed else { return GONE.to_owned() };
                for message in messages(typed) {
                    if to_box.send(message).await.is_err() {
                        return ENDED.to_owned();
                    }
                }
                continue;
            }
            message = from_box.next() => message,
            () = printed.closed() => return GONE.to_owned(),
        };
        let (output, is_over) = match message {
            Some(Ok(Message::Binary(bytes))) => output(&bytes),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return ENDED.to_owned(),
            Some(Ok(_)) => continue,
        };
        if let Some(output) = output
            && printed.send(Ok(output)).await.is_err()
        {
            return GONE.to_owned();
        }
        if is_over {
            return ENDED.to_owned();
        }
    }
}

/// What the runtime is told of what a caller did.
fn messages(typed: DebugInput) -> Vec<Message> {
    let on = |channel: u8, bytes: &[u8]| Message::Binary(Bytes::from([&[channel], bytes].concat()));
    let size = typed.size.map(|TerminalSize { width, height }| {
        on(SIZE, json!({"Width": width, "Height": height}).to_string().as_bytes())
    });
    let input = (!typed.input.is_empty()).then(|| on(INPUT, &typed.input));
    size.into_iter().chain(input).collect()
}

/// What a message of the runtime's is for the caller, and whether nothing comes after it.
fn output(message: &Bytes) -> (Option<DebugOutput>, bool) {
    match message.first() {
        Some(&(OUTPUT | ERRORS)) if message.len() > 1 => {
            (Some(DebugOutput { output: message.slice(1..), failure: None }), false)
        }
        Some(&END) => {
            // How the command ended, in Kubernetes' words.
            let status: Value = serde_json::from_slice(&message[1..]).unwrap_or_default();
            let failure = (status["status"] == "Failure")
                .then(|| status["message"].as_str().unwrap_or("the command failed").to_owned());
            (failure.map(|failure| DebugOutput { failure: Some(failure), ..DebugOutput::default() }), true)
        }
        _ => (None, false),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    use tonic::Code;

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

    #[allow(clippy::result_large_err, reason = "the form that the server wants")]
    fn agree(request: &Request, mut answer: Response) -> Result<Response, ErrorResponse> {
        assert_eq!(
            (request.uri().path(), &request.headers()["sec-websocket-protocol"]),
            ("/attach/x", &PROTOCOL.parse().unwrap())
        );
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
        Ok(answer)
    }

    /// A terminal as the runtime has them; it ends when it is told `exit`, and fails when it is told `fail`.
    async fn terminal() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/attach/x", listener.local_addr().unwrap());
        drop(tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut terminal = tokio_tungstenite::accept_hdr_async(stream, agree).await.unwrap();
            while let Some(Ok(Message::Binary(message))) = terminal.next().await {
                let end = match &message[..] {
                    b"\0exit" => r#"{"status":"Success"}"#,
                    b"\0fail" => r#"{"status":"Failure","message":"command terminated with exit code 3"}"#,
                    _ => {
                        let text = String::from_utf8_lossy(&message[1..]).into_owned();
                        let told = format!("\u{1}{}:{text}", message[0]);
                        terminal.send(Message::Binary(told.into())).await.unwrap();
                        continue;
                    }
                };
                terminal.send(Message::Binary(format!("\u{3}{end}").into())).await.unwrap();
                return;
            }
        }));
        url
    }

    struct Machine {
        folder: tempfile::TempDir,
        maker: Echo,
        removed: mpsc::Receiver<String>,
        server: Arc<Server>,
    }

    fn machine(terminal: Result<String, String>) -> Machine {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inbox")).unwrap();
        let config = Config { run: folder.path().to_owned(), ..Config::new(None, std::time::UNIX_EPOCH) };
        let server = Server::alone(&config);
        let (sender, removed) = mpsc::channel(1);
        Machine { folder, maker: Echo { terminal, removed: sender }, removed, server }
    }

    /// A caller with a terminal.
    struct Caller {
        typed: mpsc::Sender<Result<DebugInput, Status>>,
        printed: Messages<DebugOutput>,
    }

    impl Caller {
        async fn types(&self, words: &str) {
            let input = DebugInput { input: words.to_owned().into(), ..DebugInput::default() };
            self.typed.send(Ok(input)).await.unwrap();
        }

        async fn sees(&mut self, words: &str) {
            let output = self.printed.next().await.unwrap().unwrap().output;
            assert_eq!(String::from_utf8_lossy(&output), words);
        }
    }

    impl Machine {
        /// Asks for a container.
        async fn ask(&self, seconds: u64) -> Result<Caller, Status> {
            let request = DebugRequest { image: "busybox".to_owned(), seconds, ..DebugRequest::default() };
            let (typed, input) = mpsc::channel(4);
            typed.send(Ok(DebugInput { request: Some(request), ..DebugInput::default() })).await.unwrap();
            let caller = Known { name: "ann".to_owned(), ..Known::default() };
            let input = streamed(input, (), std::convert::identity);
            let printed = answer(&self.server, &caller, self.maker.clone(), input).await?;
            Ok(Caller { typed, printed })
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
        let told = files.map(|file| Event::parse(&std::fs::read_to_string(file.unwrap().path()).unwrap()));
        told.inspect(|event| assert_eq!((event.kind.as_str(), &*event.details["caller"]), ("DebugContainer", "ann")))
            .map(|event| event.message)
            .collect()
    }

    #[tokio::test]
    async fn a_caller_has_a_terminal_until_they_leave() {
        let mut machine = machine(Ok(terminal().await));
        let mut caller = machine.ask(600).await.unwrap();
        caller.types("hello").await;
        caller.sees("0:hello").await;
        let size = Some(TerminalSize { width: 80, height: 24 });
        caller.typed.send(Ok(DebugInput { size, ..DebugInput::default() })).await.unwrap();
        caller.sees(r#"4:{"Height":24,"Width":80}"#).await;
        drop(caller);
        assert!(machine.end().await.ends_with("its caller went away"));
    }

    #[tokio::test]
    async fn it_ends_with_its_command_and_after_its_time() {
        for (word, failure) in [("exit", None), ("fail", Some("command terminated with exit code 3"))] {
            let mut machine = machine(Ok(terminal().await));
            let caller = machine.ask(600).await.unwrap();
            caller.types(word).await;
            let told: Vec<DebugOutput> = caller.printed.try_collect().await.unwrap();
            assert_eq!(told.into_iter().find_map(|output| output.failure).as_deref(), failure);
            assert!(machine.end().await.ends_with("its command ended"));
        }
        let mut machine = machine(Ok(terminal().await));
        let mut caller = machine.ask(1).await.unwrap();
        caller.types("hello").await;
        caller.sees("0:hello").await;
        assert!(caller.printed.next().await.is_none(), "the call ends with it");
        assert!(machine.end().await.ends_with("its time is over"));
    }

    #[tokio::test]
    async fn what_cannot_be_made_is_told_and_removed() {
        let mut machine = machine(Err("busybox: no registry".to_owned()));
        let refused = machine.ask(600).await.map(drop).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "busybox: no registry"));
        assert!(machine.end().await.ends_with("busybox: no registry"));
        assert_eq!(machine.ask(0).await.map(drop).unwrap_err().code(), Code::InvalidArgument);
    }
}
