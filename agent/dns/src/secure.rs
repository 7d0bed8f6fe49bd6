//! One name server by DNS over TLS (RFC 7858): many questions on one connection, which is opened when there is one.
//!
//! ```text
//!   idle ──question──▶ connecting ──▶ conversing ──closed, silent, or idle for long──▶ idle
//!    ▲                     └─failed─▶ resting: questions fail at once, for longer each time ─┘
//! ```
//!
//! Invariants: nothing is ever sent but to who has proved to be the server; connecting goes on when who asked has gone,
//! so that whoever asks again finds a connection; a question is sent again once only, on another connection, where the
//! one that it was on was closed before its answer.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use hickory_proto::op::Message;
use machine_api::NameServerTls;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use stdx::Backoff;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::clock::Clock;
use crate::counters::UpstreamCounters;
use crate::upstream::AskError;
use crate::{trust, wire};

/// For TCP and TLS together: a slow network may take longer than whoever asks waits.
const CONNECT: Duration = Duration::from_secs(5);
/// Where questions wait for so long and nothing comes, the connection leads nowhere.
const ANSWER: Duration = Duration::from_secs(3);
/// A connection on which nobody asks is closed after this. Servers keep them for about as long.
const IDLE: Duration = Duration::from_secs(20);
/// For a question to be on its way.
const SEND: Duration = Duration::from_secs(2);
/// Questions that wait for the connection; more are refused.
const WAITING: usize = 256;
/// Questions on the connection at once; more wait.
const PIPELINED: usize = 128;
/// How often a question is sent, each time on another connection.
const TRIES: u8 = 2;
/// Before a server with which no connection came about is tried again.
const REST: Backoff =
    Backoff { initial: Duration::from_millis(500), factor: 2.0, max: Duration::from_secs(15), jitter: 0.2 };

/// For so long a failure tells something about now: a server that nobody asks may be well again.
const TROUBLE: Duration = Duration::from_secs(120);

struct Question {
    message: Message,
    tries: u8,
    answer: oneshot::Sender<Result<Message, AskError>>,
}

/// A name server that is asked by TLS.
pub(crate) struct Secure {
    questions: mpsc::Sender<Question>,
    trouble: watch::Receiver<Trouble>,
}

/// When, and why, nothing came of the last connection.
type Trouble = Option<(Instant, String)>;

impl Secure {
    /// Begins without a connection. The task that owns the connection ends with the last of those who ask.
    pub(crate) fn start(
        address: SocketAddr,
        tls: &NameServerTls,
        clock: Clock,
        counters: Arc<UpstreamCounters>,
    ) -> Self {
        let (questions, asked) = mpsc::channel(WAITING);
        let (told, trouble) = watch::channel(None);
        let owner = Owner { address, tls: tls.clone(), clock, counters, told, config: None, failures: 0, rest: None };
        drop(tokio::spawn(owner.run(asked)));
        Self { questions, trouble }
    }

    /// Asks. Cancel-safe: an answer that nobody waits for is dropped.
    pub(crate) async fn ask(&self, message: Message) -> Result<Message, AskError> {
        let (answer, answered) = oneshot::channel();
        self.questions.try_send(Question { message, tries: 0, answer }).map_err(|_full| AskError::Busy)?;
        answered.await.unwrap_or(Err(AskError::Closed))
    }

    /// Why it cannot be asked at present.
    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.borrow();
        trouble.as_ref().filter(|(since, _)| since.elapsed() < TROUBLE).map(|(_, why)| why.clone())
    }
}

/// Whom the connection belongs to.
struct Owner {
    address: SocketAddr,
    tls: NameServerTls,
    clock: Clock,
    counters: Arc<UpstreamCounters>,
    told: watch::Sender<Trouble>,
    /// With whether the clock was told when it was made: sessions that are taken up again are not judged again.
    config: Option<(bool, Arc<ClientConfig>)>,
    /// How often in a row nothing came of a connection.
    failures: u32,
    /// Until when, and why, nobody is asked.
    rest: Option<(Instant, String)>,
}

impl Owner {
    async fn run(mut self, mut asked: mpsc::Receiver<Question>) {
        let mut left = Vec::new();
        loop {
            if left.is_empty() {
                let Some(question) = asked.recv().await else { return };
                left.push(question);
            }
            if let Some((_, why)) = self.rest.as_ref().filter(|(until, _)| Instant::now() < *until) {
                fail(&mut left, why);
                continue;
            }
            let late = || format!("no connection within {} s", CONNECT.as_secs());
            let is_told = self.clock.is_told();
            match timeout(CONNECT, self.open(is_told)).await.unwrap_or_else(|_elapsed| Err(late())) {
                Ok(stream) => left = self.converse(stream, is_told, left, &mut asked).await,
                Err(why) => {
                    fail(&mut left, &why);
                    self.failed(why);
                }
            }
        }
    }

    /// A connection to who has proved to be the server.
    async fn open(&mut self, is_told: bool) -> Result<TlsStream<TcpStream>, String> {
        let config = match &self.config {
            Some((of, config)) if *of == is_told => config.clone(),
            Some(_) | None => {
                let config = Arc::new(trust::client_config(self.tls.ca.as_deref(), &self.clock)?);
                self.config.insert((is_told, config)).1.clone()
            }
        };
        let name = ServerName::try_from(self.tls.name.clone())
            .map_err(|_bad| format!("{:?} is no name of a certificate", self.tls.name))?;
        let stream =
            TcpStream::connect(self.address).await.map_err(|error| format!("it cannot be reached: {error}"))?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "questions may wait for one another");
        }
        self.counters.count_connection();
        let connected = TlsConnector::from(config).connect(name, stream).await;
        connected.map_err(|error| trust::words(&error, &self.tls.name))
    }

    /// Asks on a connection until it ends. Answers what is to be asked again on another.
    async fn converse(
        &mut self,
        stream: TlsStream<TcpStream>,
        is_told: bool,
        first: Vec<Question>,
        asked: &mut mpsc::Receiver<Question>,
    ) -> Vec<Question> {
        let frames = LengthDelimitedCodec::builder().length_field_type::<u16>().new_framed(stream);
        let (waiting, doubt) = (HashMap::new(), (!is_told).then_some(&self.clock));
        let mut conversation = Conversation { frames, waiting, answers: 0, told: &self.told, doubt };
        let end = conversation.run(first, asked).await;
        let (answers, waiting) = (conversation.answers, conversation.waiting);
        match end {
            // Something was asked, and nothing came of it.
            End::Broken(why) if answers == 0 && !waiting.is_empty() => self.failed(why),
            End::Broken(why) => {
                tracing::debug!(address = %self.address, why, "connection ended");
                self.well();
            }
            End::Idle => self.well(),
        }
        waiting.into_values().filter(|question| question.tries < TRIES && !question.answer.is_closed()).collect()
    }

    fn well(&mut self) {
        (self.failures, self.rest) = (0, None);
    }

    fn failed(&mut self, why: String) {
        let wait = REST.next(self.failures, rand::random());
        self.failures = self.failures.saturating_add(1);
        let is_news = self.told.send_if_modified(|told| {
            let is_news = told.as_ref().is_none_or(|(_, before)| *before != why);
            *told = Some((Instant::now(), why.clone()));
            is_news
        });
        if is_news {
            tracing::warn!(address = %self.address, name = self.tls.name, why, "a name server cannot be asked by TLS");
        }
        self.rest = Some((Instant::now() + wait, why));
    }
}

fn fail(questions: &mut Vec<Question>, why: &str) {
    for question in questions.drain(..) {
        // Who has gone needs no answer.
        let _gone = question.answer.send(Err(AskError::Tls { why: why.to_owned() }));
    }
}

/// Returns once there is no doubt any more; never, where there was none.
async fn ended(doubt: Option<&Clock>) {
    match doubt {
        Some(clock) => clock.told().await,
        None => std::future::pending().await,
    }
}

/// Why a conversation ended.
enum End {
    Idle,
    Broken(String),
}

struct Conversation<'a> {
    frames: Framed<TlsStream<TcpStream>, LengthDelimitedCodec>,
    /// Questions on their way, by their numbers.
    waiting: HashMap<u16, Question>,
    /// How often something was answered.
    answers: u64,
    told: &'a watch::Sender<Trouble>,
    /// The clock, if nobody had told it when the server was judged: once somebody has, it is judged again.
    doubt: Option<&'a Clock>,
}

impl Conversation<'_> {
    async fn run(&mut self, first: Vec<Question>, asked: &mut mpsc::Receiver<Question>) -> End {
        for question in first {
            if let Err(why) = self.send(question).await {
                return End::Broken(why);
            }
        }
        // Since when nothing has come that was waited for, or nothing was asked.
        let mut since = Instant::now();
        loop {
            let has_room = self.waiting.len() < PIPELINED || self.forget_who_has_gone();
            let limit = if self.waiting.is_empty() { IDLE } else { ANSWER };
            tokio::select! {
                // Before a question is sent to whoever is not believed any more.
                biased;
                () = ended(self.doubt) => return End::Idle,
                question = asked.recv(), if has_room => {
                    // Nobody asks any more.
                    let Some(question) = question else { return End::Idle };
                    if self.waiting.is_empty() {
                        since = Instant::now();
                    }
                    if let Err(why) = self.send(question).await {
                        return End::Broken(why);
                    }
                }
                frame = self.frames.next() => {
                    if let Err(why) = self.receive(frame) {
                        return End::Broken(why);
                    }
                    since = Instant::now();
                }
                () = sleep_until(since + limit) => {
                    return if self.waiting.is_empty() {
                        End::Idle
                    } else {
                        End::Broken(format!("it did not answer within {} s", ANSWER.as_secs()))
                    };
                }
            }
        }
    }

    /// Whether that made room.
    fn forget_who_has_gone(&mut self) -> bool {
        self.waiting.retain(|_, question| !question.answer.is_closed());
        self.waiting.len() < PIPELINED
    }

    async fn send(&mut self, mut question: Question) -> Result<(), String> {
        if question.answer.is_closed() {
            return Ok(());
        }
        question.tries += 1;
        while self.waiting.contains_key(&question.message.metadata.id) {
            question.message.metadata.id = rand::random();
        }
        let bytes = wire::padded(&question.message).map_err(|error| error.to_string())?;
        self.waiting.insert(question.message.metadata.id, question);
        let sent = timeout(SEND, self.frames.send(Bytes::from(bytes))).await;
        let sent = sent.map_err(|_elapsed| format!("it took no question within {} s", SEND.as_secs()))?;
        sent.map_err(|error| format!("the connection broke: {error}"))
    }

    fn receive(&mut self, frame: Option<std::io::Result<BytesMut>>) -> Result<(), String> {
        let frame = frame.ok_or("it closed the connection")?;
        let frame = frame.map_err(|error| format!("the connection broke: {error}"))?;
        let answer = Message::from_vec(&frame).map_err(|_unreadable| "it sent something unreadable")?;
        let number = answer.metadata.id;
        if self.waiting.get(&number).is_some_and(|question| wire::is_answer(&answer, &question.message))
            && let Some(question) = self.waiting.remove(&number)
        {
            self.answers += 1;
            self.told.send_if_modified(|told| told.take().is_some());
            // Who has gone needs no answer.
            let _gone = question.answer.send(Ok(answer));
        }
        Ok(())
    }
}
