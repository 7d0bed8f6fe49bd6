//! Logs: what services printed, and the kernel. Read from where they are kept, line by line, as fast as the caller
//! takes them; nothing is held in memory but the last lines that were asked for.

mod file;
mod kernel;
mod pod;

pub(crate) use pod::PodLog;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use lifecycle::Shutdown;
use machine_api::{EVENTS_LOG, Event, LogLine, LogLines, LogPart, Severity};
use sys::{Linux, System};
use tokio::sync::mpsc;

use crate::redact::Secrets;

/// What the kernel's own log is called.
pub(crate) const KERNEL: &str = "kernel";
/// The ending of the files.
const ENDING: &str = ".log";
/// How much waits for a slow caller before reading stops, in parts of about [`PART_BYTES`].
const QUEUE_LEN: usize = 8;
const PART_BYTES: usize = 32 << 10;
/// What a line takes beside its text.
const LINE_BYTES: usize = 24;
/// More lines than the files of a service hold.
const MOST_LINES: usize = 1_000_000;
/// How often it is looked whether a caller that waits for more is still there.
const LOOK: Duration = Duration::from_secs(2);

/// How much of a log a caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// No more than the last lines.
    pub(crate) tail: Option<usize>,
    /// None that is older, in seconds.
    pub(crate) since: Option<u64>,
    /// What is printed later, too.
    pub(crate) follow: bool,
    /// Of events, none but these.
    pub(crate) only: Option<Only>,
}

/// Which events a caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Only {
    /// Their kinds; all if there is none.
    pub(crate) kinds: Vec<String>,
    /// How much they matter at least.
    pub(crate) at_least: Severity,
}

impl Only {
    fn takes(&self, line: &LogLine) -> bool {
        let event = Event::parse(&line.text);
        event.severity >= self.at_least.into() && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
    }
}

impl From<Option<LogPart>> for Part {
    fn from(asked: Option<LogPart>) -> Self {
        let LogPart { tail, since_seconds, follow } = asked.unwrap_or_default();
        let tail = tail.map(|lines| usize::try_from(lines).unwrap_or(MOST_LINES).min(MOST_LINES));
        Self { tail, since: since_seconds, follow, only: None }
    }
}

/// The log that a caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// A service, or the kernel.
    pub(crate) service: String,
    /// How much of it.
    pub(crate) part: Part,
}

/// Names of everything that has a log.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let files = Linux.list(folder).unwrap_or_default();
    let names = files.iter().filter_map(|file| file.strip_suffix(ENDING)).map(str::to_owned);
    names.chain([KERNEL.to_owned()]).collect()
}

/// Begins to read. `folder` is that of the services' files.
pub(crate) fn read(folder: &Path, wanted: Wanted, secrets: Secrets, shutdown: Shutdown) -> mpsc::Receiver<LogLines> {
    let path = folder.join(format!("{}{ENDING}", wanted.service));
    let Wanted { service, part } = wanted;
    let (is_kernel, is_events) = (service == KERNEL, service == EVENTS_LOG);
    let follow = part.follow;
    begin(service, &part, (secrets, shutdown), move |out| {
        out.are_events = is_events;
        if is_kernel { kernel::read(follow, out) } else { file::read(&mut file::OfService::new(&path), follow, out) }
    })
}

/// Lets a thread read a log, called `name`, for a caller.
fn begin<F>(name: String, part: &Part, (secrets, shutdown): (Secrets, Shutdown), read: F) -> mpsc::Receiver<LogLines>
where
    F: FnOnce(&mut Out) -> io::Result<()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(QUEUE_LEN);
    let mut out = Out::new(sender, part, secrets, shutdown);
    drop(tokio::task::spawn_blocking(move || {
        let done = read(&mut out);
        let flushed = out.flush();
        if let Err(error) = done.and(flushed)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            tracing::warn!(name, %error, "its log cannot be read");
        }
    }));
    receiver
}

/// Where lines go: held back while only the last ones are wanted, then on to the caller.
struct Out {
    sender: mpsc::Sender<LogLines>,
    shutdown: Shutdown,
    secrets: Secrets,
    /// The time before which lines are left out.
    from: f64,
    /// How many lines are held back; none once that is over.
    tail: Option<usize>,
    /// Which lines are not left out.
    only: Option<Only>,
    /// Whether each line is an event.
    are_events: bool,
    held: VecDeque<LogLine>,
    part: LogLines,
    part_bytes: usize,
}

impl Out {
    fn new(sender: mpsc::Sender<LogLines>, wanted: &Part, secrets: Secrets, shutdown: Shutdown) -> Self {
        let from =
            wanted.since.map_or(f64::MIN, |seconds| now().as_secs_f64() - Duration::from_secs(seconds).as_secs_f64());
        let part = LogLines::default();
        Self {
            sender,
            shutdown,
            secrets,
            from,
            tail: wanted.tail,
            only: wanted.only.clone(),
            are_events: false,
            held: VecDeque::new(),
            part,
            part_bytes: 0,
        }
    }

    /// Takes a line. Fails once nobody wants any more.
    fn line(&mut self, line: LogLine) -> io::Result<()> {
        if line.time < self.from || self.only.as_ref().is_some_and(|only| !only.takes(&line)) {
            return Ok(());
        }
        let Some(most) = self.tail else { return self.pass(line) };
        self.held.push_back(line);
        if self.held.len() > most {
            self.held.pop_front();
        }
        Ok(())
    }

    fn pass(&mut self, mut line: LogLine) -> io::Result<()> {
        line.text = match self.are_events {
            true => self.secrets.redact_event(&line.text),
            false => self.secrets.redact(&line.text),
        };
        self.part_bytes += LINE_BYTES + line.text.len();
        self.part.lines.push(line);
        if self.part_bytes >= PART_BYTES { self.flush() } else { Ok(()) }
    }

    /// What was there is all read: the last lines are known.
    fn caught_up(&mut self) -> io::Result<()> {
        self.tail = None;
        for line in std::mem::take(&mut self.held) {
            self.pass(line)?;
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_unwanted() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.part.lines.is_empty() {
            return Ok(());
        }
        self.part_bytes = 0;
        let part = std::mem::take(&mut self.part);
        self.sender.blocking_send(part).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    fn is_unwanted(&self) -> bool {
        self.sender.is_closed() || self.shutdown.is_triggered()
    }
}

fn now() -> Duration {
    Linux.now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn next(lines: &mut mpsc::Receiver<LogLines>) -> Vec<String> {
        let part = lines.recv().await.unwrap_or_default();
        part.lines.into_iter().map(|line| line.text).collect()
    }

    #[tokio::test]
    async fn old_lines_come_first_and_new_ones_as_they_are_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.log");
        let line = |text: &str| {
            let time = now().as_secs_f64();
            LogLine { time, uptime: 1.0, text: text.to_owned() }.to_text() + "\n"
        };
        let old = LogLine { time: 5.0, uptime: 1.0, text: "old".to_owned() }.to_text() + "\n";
        std::fs::write(folder.path().join("etcd.log.1"), old + &line("first")).unwrap();
        std::fs::write(&path, line("second") + &line("third abcdef.0123456789abcdef")).unwrap();
        assert_eq!(names(folder.path()), ["etcd", "kernel"]);
        let read = |wanted: Wanted| read(folder.path(), wanted, Secrets::default(), Shutdown::new());
        let etcd = |part: Part| Wanted { service: "etcd".to_owned(), part };
        let third = "third abcdef.<redacted>";
        assert_eq!(next(&mut read(etcd(Part::default()))).await, ["old", "first", "second", third]);
        assert_eq!(
            next(&mut read(etcd(Part { since: Some(60), ..Part::default() }))).await,
            ["first", "second", third]
        );
        assert_eq!(next(&mut read(etcd(Part { tail: Some(0), ..Part::default() }))).await, Vec::<String>::new());
        let mut follower = read(etcd(Part { tail: Some(1), follow: true, ..Part::default() }));
        assert_eq!(next(&mut follower).await, [third]);
        let append = || std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut file = append();
        file.write_all(line("fourth").as_bytes()).unwrap();
        assert_eq!(next(&mut follower).await, ["fourth"]);
        // Full files become the previous ones.
        std::fs::rename(&path, folder.path().join("etcd.log.1")).unwrap();
        append().write_all(line("fifth").as_bytes()).unwrap();
        assert_eq!(next(&mut follower).await, ["fifth"]);
    }
}
