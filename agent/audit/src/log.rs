//! The log file: one line an event, rotated by size, old files kept by number and age.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The whole event as JSON.
    Json,
    /// Its most needed facts as text.
    Legacy,
}

/// Where the log is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// The file; `-` is the standard output.
    pub path: PathBuf,
    /// How lines look.
    pub format: Format,
    /// Largest size of a file.
    pub max_bytes: u64,
    /// How long old files are kept; without, for ever.
    pub max_age: Option<Duration>,
    /// How many old files are kept; 0 keeps all.
    pub max_backups: usize,
    /// Whether old files are compressed.
    pub compress: bool,
}

/// Why a log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file cannot be made or opened.
    #[error("the audit log {path} cannot be opened")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be renamed, compressed or removed.
    #[error("the audit log {path} cannot be rotated")]
    Rotate {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line is larger than a file may be.
    #[error("write length {len} exceeds maximum file size {max}")]
    TooLong {
        /// The line's length.
        len: usize,
        /// A file's largest size.
        max: u64,
    },
    /// A line cannot be written.
    #[error("the audit log {path} cannot be written")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The time in the names of old files.
const STAMP: &str = "%Y-%m-%dT%H-%M-%S.%3f";
/// Only the owner may read who asked for what.
const MODE: u32 = 0o600;

/// An open log.
pub(crate) struct Log {
    config: LogConfig,
    /// The open file and its size; none for the standard output.
    file: Option<(File, u64)>,
}

impl Log {
    pub(crate) fn open(config: LogConfig) -> Result<Self, LogError> {
        let file = if config.path == Path::new("-") { None } else { Some(open(&config.path)?) };
        Ok(Self { config, file })
    }

    /// Writes a line, which ends with its end of line.
    pub(crate) fn write(&mut self, line: &[u8], now: Timestamp) -> Result<(), LogError> {
        let failed = |source| LogError::Write { path: self.config.path.clone(), source };
        let Some((_, size)) = &self.file else {
            return io::stdout().lock().write_all(line).map_err(failed);
        };
        let (len, max) = (line.len() as u64, self.config.max_bytes);
        if len > max {
            return Err(LogError::TooLong { len: line.len(), max });
        }
        if size + len > max {
            self.rotate(now)?;
        }
        if let Some((file, size)) = &mut self.file {
            file.write_all(line).map_err(|source| LogError::Write { path: self.config.path.clone(), source })?;
            *size += len;
        }
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> Result<(), LogError> {
        let path = self.config.path.clone();
        let failed = |source| LogError::Rotate { path: path.clone(), source };
        std::fs::rename(&path, self.backup(now)).map_err(failed)?;
        self.file = Some(open(&path)?);
        self.tidy(now).map_err(failed)
    }

    /// Beginning and end of the names of old files.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let extension = self.config.path.extension().map_or(String::new(), |e| format!(".{}", text(Some(e))));
        (format!("{}-", text(self.config.path.file_stem())), extension)
    }

    fn backup(&self, now: Timestamp) -> PathBuf {
        let (before, after) = self.name_parts();
        self.config.path.with_file_name(format!("{before}{}{after}", now.strftime(STAMP)))
    }

    /// Removes old files that are too many or too old, and compresses the others.
    fn tidy(&self, now: Timestamp) -> io::Result<()> {
        let mut old = self.old_files()?;
        old.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let oldest = self.config.max_age.and_then(|age| now.checked_sub(age).ok());
        let kept = if self.config.max_backups == 0 { usize::MAX } else { self.config.max_backups };
        for (at, (time, path)) in old.into_iter().enumerate() {
            if at >= kept || oldest.is_some_and(|oldest| time < oldest) {
                std::fs::remove_file(&path)?;
            } else if self.config.compress && path.extension().is_none_or(|e| e != "gz") {
                compress(&path)?;
            }
        }
        Ok(())
    }

    fn old_files(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (before, after) = self.name_parts();
        let folder = self.config.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            let stamp = plain.strip_prefix(&before).and_then(|rest| rest.strip_suffix(&after));
            let time = stamp.and_then(|stamp| DateTime::strptime(STAMP, stamp).ok());
            if let Some(time) = time.and_then(|time| time.to_zoned(TimeZone::UTC).ok()) {
                found.push((time.timestamp(), path));
            }
        }
        Ok(found)
    }
}

fn open(path: &Path) -> Result<(File, u64), LogError> {
    let failed = |source| LogError::Open { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(MODE).open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    Ok((file, size))
}

fn compress(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".gz");
    let target = OpenOptions::new().create(true).truncate(true).write(true).mode(MODE).open(&name)?;
    let mut encoder = flate2::write::GzEncoder::new(target, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_rotated_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/audit.log");
        let mut log = Log::open(LogConfig {
            path: path.clone(),
            format: Format::Json,
            max_bytes: 10,
            max_age: Some(Duration::from_secs(3600)),
            max_backups: 2,
            compress: true,
        })
        .unwrap();
        let at = |minute: i64| Timestamp::from_second(1_767_225_600 + minute * 60).unwrap();
        for minute in 0..4 {
            log.write(b"12345678\n", at(minute)).unwrap();
        }
        let folder = path.parent().unwrap();
        let old = ["audit-2026-01-01T00-02-00.000.log.gz", "audit-2026-01-01T00-03-00.000.log.gz", "audit.log"];
        assert_eq!(names(folder), old);
        log.write(b"12345678\n", at(63)).unwrap();
        assert_eq!(names(folder), [old[1], "audit-2026-01-01T01-03-00.000.log.gz", "audit.log"]);
        assert!(matches!(log.write(b"12345678901\n", at(64)), Err(LogError::TooLong { len: 12, max: 10 })));
        assert_eq!(std::fs::read(&path).unwrap(), b"12345678\n");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
    }

    #[test]
    fn a_log_goes_on_where_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let config = LogConfig {
            path: folder.path().join("a"),
            format: Format::Json,
            max_bytes: 10,
            max_age: None,
            max_backups: 0,
            compress: false,
        };
        Log::open(config.clone()).unwrap().write(b"123456\n", Timestamp::UNIX_EPOCH).unwrap();
        Log::open(config).unwrap().write(b"123456\n", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(names(folder.path()), ["a", "a-1970-01-01T00-00-00.000"]);
    }
}
