//! Logs of pods, as the kubelet lays them out: `NAMESPACE_POD_UID/CONTAINER/N.log`, where N counts the container's
//! starts, and `N.log.TIME` are full ones.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use lifecycle::Shutdown;
use machine_api::LogLine;
use sys::{Linux, System};
use tokio::sync::mpsc;

use super::{Part, begin, file, parse};
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

impl PodLog {
    /// Reads a query.
    ///
    /// # Errors
    /// In words, when there is something else in it, or no pod.
    pub(crate) fn parse(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        let mut pod = None;
        let known = "pod=NAMESPACE/NAME, container=NAME, previous";
        wanted.part = parse(query, known, |name, value| {
            match name {
                "pod" => pod = value.split_once('/').map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned())),
                "container" => wanted.container = Some(value.to_owned()),
                "previous" if value.is_empty() => wanted.is_previous = true,
                _ => return false,
            }
            true
        })?;
        (wanted.namespace, wanted.pod) = pod.ok_or("which pod: ?pod=NAMESPACE/NAME")?;
        Ok(wanted)
    }

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
            (None, _) => return Err(format!("which container: &container=NAME; {there_are}")),
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

    /// Begins to read; the parts are lines of JSON.
    pub(crate) fn read(mut self, part: &Part, secrets: Secrets, shutdown: Shutdown) -> mpsc::Receiver<Bytes> {
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

    fn find(root: &Path, query: &str) -> Result<Found, String> {
        PodLog::parse(query)?.find(root)
    }

    async fn next(parts: &mut mpsc::Receiver<Bytes>) -> Vec<String> {
        let part = parts.recv().await.unwrap_or_default();
        let lines = part.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice::<LogLine>(line).unwrap().text).collect()
    }

    async fn lines(root: &Path, query: &str) -> Vec<String> {
        let wanted = PodLog::parse(query).unwrap();
        let mut parts = wanted.find(root).unwrap().read(&wanted.part, Secrets::default(), Shutdown::new());
        next(&mut parts).await
    }

    #[test]
    fn a_query_names_a_pod() {
        let wanted = PodLog::parse("pod=shop/web-1&container=nginx&previous&tail=3").unwrap();
        let part = Part { tail: Some(3), ..Part::default() };
        let (namespace, pod) = ("shop".to_owned(), "web-1".to_owned());
        assert_eq!(wanted, PodLog { namespace, pod, container: Some("nginx".to_owned()), is_previous: true, part });
        for bad in ["", "pod=web-1", "pod=a/b&previous=1", "pod=a/b&service=etcd"] {
            assert!(PodLog::parse(bad).is_err(), "{bad}");
        }
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
        assert_eq!(lines(root, "pod=shop/web-1").await, expected);
        assert_eq!(lines(root, "pod=shop/web-1&tail=1").await, expected[3..]);
        assert_eq!(lines(root, "pod=shop/web-1&since=60").await, Vec::<String>::new());
        assert_eq!(lines(root, "pod=shop/web-1&previous&follow").await, ["first start"]);
        write(root, &format!("{POD}/sidecar/0.log"), &["F other"]);
        let why = find(root, "pod=shop/web-1").unwrap_err();
        assert!(why.contains("which container") && why.contains("nginx, sidecar"), "{why}");
        assert_eq!(lines(root, "pod=shop/web-1&container=sidecar").await, ["other"]);
        let why = find(root, "pod=shop/web-1&container=sidecar&previous").unwrap_err();
        assert!(why.contains("no log any more"), "{why}");
        for elsewhere in ["pod=shop/web", "pod=shop/web-1/../x", "pod=../web-1", "pod=shop/"] {
            let why = find(root, elsewhere).unwrap_err();
            assert!(why.contains("there are shop/web-1, shop/web-1-other"), "{why}");
        }
        assert!(find(root, "pod=shop/web-1&container=../nginx").unwrap_err().contains("has no log"));
    }

    #[tokio::test]
    async fn who_follows_sees_the_next_start_of_the_container() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, &format!("{POD}/nginx/0.log"), &["F one"]);
        let wanted = PodLog::parse("pod=shop/web-1&follow").unwrap();
        let mut parts = wanted.find(root).unwrap().read(&wanted.part, Secrets::default(), Shutdown::new());
        assert_eq!(next(&mut parts).await, ["one"]);
        write(root, &format!("{POD}/nginx/0.log"), &["F one", "F two"]);
        assert_eq!(next(&mut parts).await, ["two"]);
        write(root, &format!("{POD}/nginx/1.log"), &["F three"]);
        assert_eq!(next(&mut parts).await, ["three"]);
    }
}
