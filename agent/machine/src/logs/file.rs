//! A service's files: the one before, and the one that grows.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use machine_api::LogLine;
use sys::{FileWatch, wait_readable};

use super::{LOOK, Out, Wanted};

/// Reads what is there, and goes on if that is wanted.
pub(super) fn read(path: &Path, wanted: &Wanted, out: &mut Out) -> io::Result<()> {
    let mut before = path.as_os_str().to_owned();
    before.push(".1");
    if let Some(mut before) = open(&PathBuf::from(before))? {
        before.lines(out)?;
    }
    let mut file = open(path)?;
    if let Some(file) = &mut file {
        file.lines(out)?;
    }
    out.caught_up()?;
    if !wanted.follow {
        return Ok(());
    }
    loop {
        let Some(current) = &mut file else {
            // It was moved away, and the next line makes another one.
            wait(path.parent().unwrap_or(path), FileWatch::add_folder)?;
            file = open(path)?;
            out.flush()?;
            continue;
        };
        let is_moved = current.is_moved(path);
        if !is_moved {
            wait_for_more(current, path)?;
        }
        current.lines(out)?;
        out.flush()?;
        if is_moved {
            file = open(path)?;
        }
    }
}

struct Reader {
    lines: BufReader<File>,
    inode: u64,
    partial: String,
}

fn open(path: &Path) -> io::Result<Option<Reader>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(Reader { lines: BufReader::new(file), inode, partial: String::new() }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Reader {
    /// All whole lines that there are now.
    fn lines(&mut self, out: &mut Out) -> io::Result<()> {
        let mut bytes = Vec::new();
        while self.lines.read_until(b'\n', &mut bytes)? > 0 {
            self.partial.push_str(&String::from_utf8_lossy(&bytes));
            bytes.clear();
            if self.partial.ends_with('\n') {
                let line = std::mem::take(&mut self.partial);
                out.line(LogLine::parse(line.trim_end()))?;
            }
        }
        Ok(())
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
