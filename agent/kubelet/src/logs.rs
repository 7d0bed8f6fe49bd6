//! Container log files in the runtime's format: `TIME STREAM TAG TEXT`, a line cut into parts marked `P` and `F`.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Read at a time from a file's end.
const BLOCK_BYTES: u64 = 64 * 1024;

/// One line, or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogLine<'a> {
    pub(crate) time: &'a str,
    pub(crate) is_stderr: bool,
    /// The line goes on in the next one.
    pub(crate) is_partial: bool,
    pub(crate) text: &'a [u8],
}

/// Reads one line (without its line feed).
pub(crate) fn parse_line(line: &[u8]) -> Option<LogLine<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tag = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let is_stderr = match stream {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let is_partial = tag.split(|byte| *byte == b':').next() == Some(b"P");
    Some(LogLine { time, is_stderr, is_partial, text })
}

/// A line's text with its line feed, if it has one.
pub(crate) fn with_end(line: &LogLine<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(line.text);
    if !line.is_partial {
        out.push(b'\n');
    }
}

/// Where the last `lines` lines of a file begin.
pub(crate) fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let mut at = file.metadata()?.len();
    if lines == 0 {
        return Ok(at);
    }
    let mut found = 0;
    let mut is_end = true;
    while at > 0 {
        let len = at.min(BLOCK_BYTES);
        at -= len;
        file.seek(SeekFrom::Start(at))?;
        let mut block = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact(&mut block)?;
        for (index, byte) in block.iter().enumerate().rev() {
            if *byte != b'\n' {
                is_end = false;
                continue;
            }
            // The line feed of the last line does not begin another one.
            if !std::mem::take(&mut is_end) {
                found += 1;
                if found == lines {
                    return Ok(at + u64::try_from(index).unwrap_or(0) + 1);
                }
            }
        }
    }
    Ok(0)
}

/// The text of a log's last lines, at most so many bytes.
pub(crate) fn tail_text(path: &Path, lines: usize, bytes: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let start = tail_offset(&mut file, lines as u64)?;
    file.seek(SeekFrom::Start(start))?;
    let mut raw = Vec::new();
    file.take(BLOCK_BYTES * 16).read_to_end(&mut raw)?;
    let mut text = Vec::new();
    for line in raw.split(|byte| *byte == b'\n').filter_map(parse_line) {
        with_end(&line, &mut text);
    }
    let from = text.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = parse_line(b"2026-01-02T03:04:05.6Z stderr P:x hello  world").unwrap();
        assert_eq!((line.time, line.is_stderr, line.is_partial), ("2026-01-02T03:04:05.6Z", true, true));
        assert_eq!(line.text, b"hello  world");
        assert!(parse_line(b"garbage").is_none());
        assert_eq!(parse_line(b"t stdout F ").unwrap().text, b"");
        assert_eq!(parse_line(b"t stdout F").unwrap().text, b"");
    }

    #[test]
    fn the_tail_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "t stdout F a\nt stdout F b\nt stdout F c\n").unwrap();
        assert_eq!(tail_text(&path, 2, 100).unwrap(), "b\nc\n");
        assert_eq!(tail_text(&path, 9, 100).unwrap(), "a\nb\nc\n");
        assert_eq!(tail_text(&path, 9, 3).unwrap(), "\nc\n");
    }
}
