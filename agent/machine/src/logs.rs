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

use bytes::Bytes;
use lifecycle::Shutdown;
use machine_api::LogLine;
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
}

impl Part {
    /// Takes a word of a query, if it is one of these.
    fn take(&mut self, word: &str) -> Result<bool, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|_not| format!("{word:?}: {text:?} is no whole number"));
        match word.split_once('=') {
            Some(("tail", lines)) => {
                let lines = usize::try_from(number(lines)?).unwrap_or(MOST_LINES);
                self.tail = Some(lines.min(MOST_LINES));
            }
            Some(("since", seconds)) => self.since = Some(number(seconds)?),
            None if word == "follow" => self.follow = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads a query: how much of the log, and what `take` takes of the rest. `known` names that.
fn parse(query: &str, known: &str, mut take: impl FnMut(&str, &str) -> bool) -> Result<Part, String> {
    let mut part = Part::default();
    for word in query.split('&').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        if !part.take(word)? && !take(name, value) {
            return Err(format!("{word:?} is not understood; there are {known}, tail=LINES, since=SECONDS, follow"));
        }
    }
    Ok(part)
}

/// The log that a caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// A service, or the kernel.
    pub(crate) service: String,
    /// How much of it.
    pub(crate) part: Part,
}

impl Wanted {
    /// Reads a query.
    ///
    /// # Errors
    /// In words, when there is something else in it.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let mut service = String::new();
        let part = parse(query, "service=NAME", |name, value| {
            let is_it = name == "service";
            if is_it {
                value.clone_into(&mut service);
            }
            is_it
        })?;
        Ok(Self { service, part })
    }
}

/// Names of everything that has a log.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let files = Linux.list(folder).unwrap_or_default();
    let names = files.iter().filter_map(|file| file.strip_suffix(ENDING)).map(str::to_owned);
    names.chain([KERNEL.to_owned()]).collect()
}

/// Begins to read; the parts are lines of JSON. `folder` is that of the services' files.
pub(crate) fn read(folder: &Path, wanted: Wanted, secrets: Secrets, shutdown: Shutdown) -> mpsc::Receiver<Bytes> {
    let path = folder.join(format!("{}{ENDING}", wanted.service));
    let Wanted { service, part } = wanted;
    let is_kernel = service == KERNEL;
    let follow = part.follow;
    begin(service, &part, (secrets, shutdown), move |out| {
        if is_kernel { kernel::read(follow, out) } else { file::read(&mut file::OfService::new(&path), follow, out) }
    })
}

/// Lets a thread read a log, called `name`, for a caller.
fn begin<F>(name: String, part: &Part, (secrets, shutdown): (Secrets, Shutdown), read: F) -> mpsc::Receiver<Bytes>
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
    sender: mpsc::Sender<Bytes>,
    shutdown: Shutdown,
    secrets: Secrets,
    /// The time before which lines are left out.
    from: f64,
    /// How many lines are held back; none once that is over.
    tail: Option<usize>,
    held: VecDeque<LogLine>,
    part: Vec<u8>,
}

impl Out {
    fn new(sender: mpsc::Sender<Bytes>, wanted: &Part, secrets: Secrets, shutdown: Shutdown) -> Self {
        let from =
            wanted.since.map_or(f64::MIN, |seconds| now().as_secs_f64() - Duration::from_secs(seconds).as_secs_f64());
        Self { sender, shutdown, secrets, from, tail: wanted.tail, held: VecDeque::new(), part: Vec::new() }
    }

    /// Takes a line. Fails once nobody wants any more.
    fn line(&mut self, line: LogLine) -> io::Result<()> {
        if line.time < self.from {
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
        line.text = self.secrets.redact(&line.text);
        serde_json::to_writer(&mut self.part, &line)?;
        self.part.push(b'\n');
        if self.part.len() >= PART_BYTES { self.flush() } else { Ok(()) }
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
        if self.part.is_empty() {
            return Ok(());
        }
        let part = Bytes::from(std::mem::take(&mut self.part));
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

    #[test]
    fn what_is_wanted_is_read_precisely() {
        let wanted = Wanted::parse("service=etcd&tail=5&since=60&follow").unwrap();
        let part = Part { tail: Some(5), since: Some(60), follow: true };
        let expected = Wanted { service: "etcd".to_owned(), part };
        assert_eq!(wanted, expected);
        for bad in ["tail=-1", "since=soon", "follow=no", "tial=3"] {
            assert!(Wanted::parse(bad).unwrap_err().contains(bad.split('=').next().unwrap()), "{bad}");
        }
    }

    async fn next(lines: &mut mpsc::Receiver<Bytes>) -> Vec<String> {
        let part = lines.recv().await.unwrap_or_default();
        let lines = part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice::<LogLine>(line).unwrap().text).collect()
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
