//! Logs of pods, as the kubelet lays them out: `NAMESPACE_POD_UID/CONTAINER/N.log`, where N counts the container's
//! starts, and `N.log.TIME` are full ones.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lifecycle::Shutdown;
use machine_api::{LogLine, LogLines, PodLogRequest};
use sys::{Linux, System};
use tokio::sync::mpsc;

use super::{Part, begin, file};
use crate::redact::Secrets;

/// A line that comes in parts is put together up to this length.
const LINE_BYTES: usize = 256 << 10;

/// The log that a caller wants.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodLog {
    namespace: String,
    pod: String,
    /// Needed where the pod has several.
    container: Option<String>,
    /// That of the start before.
    is_previous: bool,
    /// How much of it.
    pub(crate) part: Part,
}

impl From<PodLogRequest> for PodLog {
    fn from(asked: PodLogRequest) -> Self {
        let PodLogRequest { namespace, pod, container, previous, part } = asked;
        let container = (!container.is_empty()).then_some(container);
        Self { namespace, pod, container, is_previous: previous, part: part.into() }
    }
}

impl PodLog {
    /// Looks for its files. Names are only ever compared, so that none leads elsewhere.
    ///
    /// # Errors
    /// In words, when there are none: with what there is.
    pub(crate) fn find(&self, root: &Path) -> Result<Found, String> {
        let pod = self.pod_folder(root)?;
        let containers: Vec<String> = list(&pod).into_iter().filter(|name| pod.join(name).is_dir()).collect();
        let there_are = format!("the containers that have one are {}", containers.join(", "));
        let container = match (&self.container, containers.as_slice()) {
            (Some(name), _) if containers.contains(name) => name,
            (Some(name), _) => return Err(format!("{name:?} has no log; {there_are}")),
            (None, [only]) => only,
            (None, _) => return Err(format!("which container: {there_are}")),
        };
        let folder = pod.join(container);
        let mut starts = starts(&folder);
        if self.is_previous {
            starts.pop();
        }
        match starts.last() {
            Some(number) => Ok(Found::new(folder, *number, self.is_previous)),
            None if self.is_previous => Err(format!("of the start before of {container:?} there is no log any more")),
            None => Err(format!("{container:?} has not printed anything yet")),
        }
    }

    /// The newest one, where several pods had the name.
    fn pod_folder(&self, root: &Path) -> Result<PathBuf, String> {
        let prefix = format!("{}_{}_", self.namespace, self.pod);
        let known = list(root);
        let own = known.iter().filter(|name| name.strip_prefix(&prefix).is_some_and(|uid| !uid.contains('_')));
        let changed = |path: &PathBuf| path.metadata().and_then(|it| it.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        own.map(|name| root.join(name)).max_by_key(changed).ok_or_else(|| {
            let mut pods: Vec<String> = known.iter().filter_map(|name| name.rsplit_once('_')).map(name_of).collect();
            pods.sort();
            pods.dedup();
            format!("{}/{} has no logs here; there are {}", self.namespace, self.pod, pods.join(", "))
        })
    }
}

fn name_of((pod, _uid): (&str, &str)) -> String {
    pod.replacen('_', "/", 1)
}

fn list(folder: &Path) -> Vec<String> {
    Linux.list(folder).unwrap_or_default()
}

/// Numbers of the container's starts of which there is a log.
fn starts(folder: &Path) -> Vec<u32> {
    let mut starts: Vec<u32> = list(folder).iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect();
    starts.sort_unstable();
    starts
}

/// The files of a container's log.
#[derive(Debug)]
pub(crate) struct Found {
    folder: PathBuf,
    number: u32,
    current: PathBuf,
    /// A start that is over does not go on.
    is_over: bool,
    partial: Vec<u8>,
}

impl Found {
    fn new(folder: PathBuf, number: u32, is_over: bool) -> Self {
        let current = folder.join(format!("{number}.log"));
        Self { folder, number, current, is_over, partial: Vec::new() }
    }

    /// Begins to read.
    pub(crate) fn read(mut self, part: &Part, secrets: Secrets, shutdown: Shutdown) -> mpsc::Receiver<LogLines> {
        let follow = part.follow && !self.is_over;
        let name = self.current.display().to_string();
        begin(name, part, (secrets, shutdown), move |out| -> io::Result<()> { file::read(&mut self, follow, out) })
    }
}

impl file::Files for Found {
    fn before(&self) -> Vec<PathBuf> {
        let prefix = format!("{}.log.", self.number);
        let full = list(&self.folder).into_iter().filter(|name| name.starts_with(&prefix));
        // Names end with the time, and are sorted.
        full.map(|name| self.folder.join(name)).collect()
    }

    fn current(&self) -> &Path {
        &self.current
    }

    fn advance(&mut self) -> bool {
        let next = starts(&self.folder).into_iter().find(|number| *number > self.number);
        if let Some(number) = next {
            self.number = number;
            self.current = self.folder.join(format!("{number}.log"));
        }
        next.is_some()
    }

    fn line(&mut self, line: &[u8]) -> Option<LogLine> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let Some(parsed) = cri::parse_log_line(line) else {
            return Some(LogLine { text: String::from_utf8_lossy(line).into_owned(), ..LogLine::default() });
        };
        self.partial.extend_from_slice(parsed.text);
        if parsed.is_partial && self.partial.len() < LINE_BYTES {
            return None;
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).trim_end_matches('\r').to_owned();
        Some(LogLine { time: machine_api::parse_time(parsed.time).unwrap_or_default(), text, ..LogLine::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "shop_web-1_aaaa";

    fn write(root: &Path, file: &str, lines: &[&str]) {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let line = |text: &&str| format!("2026-09-21T14:13:20.25Z stdout {text}\n");
        std::fs::write(path, lines.iter().map(line).collect::<String>()).unwrap();
    }

    /// The log of a pod's container, from words such as `shop/web-1 container=nginx previous tail=3`.
    fn wanted(words: &str) -> PodLog {
        let mut words = words.split(' ');
        let (namespace, pod) = words.next().unwrap().split_once('/').unwrap();
        let mut asked =
            PodLogRequest { namespace: namespace.to_owned(), pod: pod.to_owned(), ..PodLogRequest::default() };
        let mut part = machine_api::LogPart::default();
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("container", name) => name.clone_into(&mut asked.container),
                ("previous", _) => asked.previous = true,
                ("follow", _) => part.follow = true,
                ("tail", lines) => part.tail = Some(lines.parse().unwrap()),
                ("since", seconds) => part.since_seconds = Some(seconds.parse().unwrap()),
                other => panic!("{other:?}"),
            }
        }
        PodLog::from(PodLogRequest { part: Some(part), ..asked })
    }

    fn find(root: &Path, words: &str) -> Result<Found, String> {
        wanted(words).find(root)
    }

    async fn next(parts: &mut mpsc::Receiver<LogLines>) -> Vec<String> {
        parts.recv().await.unwrap_or_default().lines.into_iter().map(|line| line.text).collect()
    }

    async fn lines(root: &Path, words: &str) -> Vec<String> {
        let wanted = wanted(words);
        let mut parts = wanted.find(root).unwrap().read(&wanted.part, Secrets::default(), Shutdown::new());
        next(&mut parts).await
    }

    #[tokio::test]
    async fn logs_of_containers_are_read_from_their_files() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, &format!("{POD}/nginx/0.log"), &["F first start"]);
        write(root, &format!("{POD}/nginx/1.log.20260921-141320"), &["F old"]);
        write(root, &format!("{POD}/nginx/1.log.20260921-151320"), &["F older than new"]);
        write(root, &format!("{POD}/nginx/1.log"), &["P a ", "P long ", "F line", "F abcdef.0123456789abcdef"]);
        write(root, "shop_web-1-other_bbbb/x/0.log", &["F not of this pod"]);
        let expected = ["old", "older than new", "a long line", "abcdef.<redacted>"];
        assert_eq!(lines(root, "shop/web-1").await, expected);
        assert_eq!(lines(root, "shop/web-1 tail=1").await, expected[3..]);
        assert_eq!(lines(root, "shop/web-1 since=60").await, Vec::<String>::new());
        assert_eq!(lines(root, "shop/web-1 previous follow").await, ["first start"]);
        write(root, &format!("{POD}/sidecar/0.log"), &["F other"]);
        let why = find(root, "shop/web-1").unwrap_err();
        assert!(why.contains("which container") && why.contains("nginx, sidecar"), "{why}");
        assert_eq!(lines(root, "shop/web-1 container=sidecar").await, ["other"]);
        let why = find(root, "shop/web-1 container=sidecar previous").unwrap_err();
        assert!(why.contains("no log any more"), "{why}");
        for elsewhere in ["shop/web", "shop/web-1/../x", "../web-1", "shop/"] {
            let why = find(root, elsewhere).unwrap_err();
            assert!(why.contains("there are shop/web-1, shop/web-1-other"), "{why}");
        }
        assert!(find(root, "shop/web-1 container=../nginx").unwrap_err().contains("has no log"));
    }

    #[tokio::test]
    async fn who_follows_sees_the_next_start_of_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, &format!("{POD}/nginx/0.log"), &["F one"]);
        let wanted = wanted("shop/web-1 follow");
        let mut parts = wanted.find(root).unwrap().read(&wanted.part, Secrets::default(), Shutdown::new());
        assert_eq!(next(&mut parts).await, ["one"]);
        write(root, &format!("{POD}/nginx/0.log"), &["F one", "F two"]);
        assert_eq!(next(&mut parts).await, ["two"]);
        write(root, &format!("{POD}/nginx/1.log"), &["F three"]);
        assert_eq!(next(&mut parts).await, ["three"]);
    }
}
