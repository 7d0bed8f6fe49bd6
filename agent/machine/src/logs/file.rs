//! Logs in files: those before, and the one that grows.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machine_api::LogLine;
use sys::{FileWatch, wait_readable};

use super::{LOOK, Out};

/// What is longer is taken for a line of its own.
const LINE_BYTES: usize = 256 << 10;

/// The files of a log.
pub(super) trait Files {
    /// Those that do not grow any more, oldest first.
    fn before(&self) -> Vec<PathBuf>;
    /// The one that grows.
    fn current(&self) -> &Path;
    /// Goes on to the next one that grows, if there is one.
    fn advance(&mut self) -> bool;
    /// Reads a line; none if it goes on in the next one.
    fn line(&mut self, line: &[u8]) -> Option<LogLine>;
}

/// Those of a service: the one before, and the one that grows and takes its place in the end.
pub(super) struct OfService(PathBuf);

impl OfService {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Files for OfService {
    fn before(&self) -> Vec<PathBuf> {
        let mut before = self.0.as_os_str().to_owned();
        before.push(".1");
        vec![before.into()]
    }

    fn current(&self) -> &Path {
        &self.0
    }

    fn advance(&mut self) -> bool {
        false
    }

    fn line(&mut self, line: &[u8]) -> Option<LogLine> {
        Some(LogLine::parse(String::from_utf8_lossy(line).trim_end()))
    }
}

/// Reads what is there, and goes on if that is wanted.
pub(super) fn read(files: &mut dyn Files, follow: bool, out: &mut Out) -> io::Result<()> {
    for path in files.before() {
        if let Some(mut before) = open(&path)? {
            before.lines(files, out)?;
        }
    }
    let mut file = open(files.current())?;
    if let Some(file) = &mut file {
        file.lines(files, out)?;
    }
    out.caught_up()?;
    if !follow {
        return Ok(());
    }
    loop {
        let Some(current) = &mut file else {
            // It was moved away, and the next line makes another one.
            let path = files.current();
            wait(path.parent().unwrap_or(path), FileWatch::add_folder)?;
            file = open(path)?;
            out.flush()?;
            continue;
        };
        let is_over = current.is_moved(files.current()) || files.advance();
        if !is_over {
            wait_for_more(current, files.current())?;
        }
        current.lines(files, out)?;
        out.flush()?;
        if is_over {
            file = open(files.current())?;
        }
    }
}

struct Reader {
    lines: BufReader<File>,
    inode: u64,
    partial: Vec<u8>,
}

fn open(path: &Path) -> io::Result<Option<Reader>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Reader { lines: BufReader::new(file), inode, partial: Vec::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Reader {
    /// All whole lines that there are now.
    fn lines(&mut self, files: &mut dyn Files, out: &mut Out) -> io::Result<()> {
        loop {
            let room = LINE_BYTES.saturating_sub(self.partial.len()) as u64;
            if self.lines.by_ref().take(room).read_until(b'\n', &mut self.partial)? == 0 {
                return Ok(());
            }
            if self.partial.ends_with(b"\n") || self.partial.len() >= LINE_BYTES {
                let line = files.line(&self.partial);
                self.partial.clear();
                line.map_or(Ok(()), |line| out.line(line))?;
            }
        }
    }

    fn is_moved(&self, path: &Path) -> bool {
        !path.metadata().is_ok_and(|found| found.ino() == self.inode)
    }
}

/// Waits until the file grows or is moved away, or it is time to look after the caller.
fn wait_for_more(reader: &mut Reader, path: &Path) -> io::Result<()> {
    let watch = FileWatch::new().map_err(io::Error::other)?;
    // What is moved away meanwhile is found out the next time.
    watch.add_file(path).ok();
    let has_more = !reader.lines.fill_buf()?.is_empty();
    if !has_more {
        drop(wait_readable(&[watch.as_fd()], LOOK));
    }
    Ok(())
}

fn wait(folder: &Path, add: fn(&FileWatch, &Path) -> Result<(), sys::Error>) -> io::Result<()> {
    let watch = FileWatch::new().map_err(io::Error::other)?;
    add(&watch, folder).map_err(io::Error::other)?;
    drop(wait_readable(&[watch.as_fd()], LOOK));
    Ok(())
}
