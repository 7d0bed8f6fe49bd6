//! The services' logs on disk: one file each, and the one before it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use machine_api::LogLine;

/// At this size a log becomes the previous one. Two of them for each service stay far below any disk.
const FILE_BYTES: u64 = 8 << 20;

/// All log files of a folder. Logs are worth something, but never the machine: what cannot be written is dropped.
pub(crate) struct Logs {
    folder: PathBuf,
    files: BTreeMap<String, LogFile>,
}

struct LogFile {
    file: File,
    bytes: u64,
}

impl Logs {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), files: BTreeMap::new() }
    }

    /// Adds a line to a service's log.
    pub(crate) fn write(&mut self, name: &str, line: &LogLine) {
        if self.try_write(name, line).is_err() {
            // Opened anew for the next line: the disk may have space again by then.
            self.files.remove(name);
        }
    }

    fn try_write(&mut self, name: &str, line: &LogLine) -> io::Result<()> {
        let path = self.folder.join(format!("{name}.log"));
        if self.files.get(name).is_some_and(|log| log.bytes >= FILE_BYTES) {
            self.files.remove(name);
            std::fs::rename(&path, self.folder.join(format!("{name}.log.1")))?;
        }
        if !self.files.contains_key(name) {
            self.files.insert(name.to_owned(), LogFile::open(&path)?);
        }
        if let Some(log) = self.files.get_mut(name) {
            let text = format!("{}\n", line.to_text());
            log.file.write_all(text.as_bytes())?;
            log.bytes += text.len() as u64;
        }
        Ok(())
    }

    /// Closes everything, so that the disk can be unmounted.
    pub(crate) fn close(&mut self) {
        self.files.clear();
        self.folder = PathBuf::from("/nonexistent");
    }
}

impl LogFile {
    /// A full disk, or a power cut, may have left half a line at the end, which is not to swallow the next one.
    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let mut bytes = file.metadata()?.len();
        let mut last = *b"\n";
        if bytes > 0 {
            file.read_exact_at(&mut last, bytes - 1)?;
        }
        if last != *b"\n" {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        Ok(Self { file, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_does_not_swallow_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.log");
        let half = LogLine { text: "half".to_owned(), ..LogLine::default() }.to_text();
        std::fs::write(&path, &half).unwrap();
        let mut logs = Logs::new(folder.path());
        for text in ["next", "last"] {
            logs.write("events", &LogLine { text: text.to_owned(), ..LogLine::default() });
        }
        let content = std::fs::read_to_string(&path).unwrap();
        let texts: Vec<String> = content.lines().map(|line| LogLine::parse(line).text).collect();
        assert_eq!(texts, ["half", "next", "last"]);
    }

    #[test]
    fn a_full_log_becomes_the_previous_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut logs = Logs::new(folder.path());
        let line = "x".repeat(1 << 20);
        let line = LogLine { text: line, ..LogLine::default() };
        for _ in 0..9 {
            logs.write("etcd", &line);
        }
        let size = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(size("etcd.log.1") >= FILE_BYTES);
        assert!(size("etcd.log") < 2 << 20);
        logs.close();
        logs.write("etcd", &line);
    }
}
