//! The ends of container log files.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use cri::{LogLine, parse_log_line};

/// Read at a time from a file's end.
const BLOCK_BYTES: u64 = 64 * 1024;

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
    for line in raw.split(|byte| *byte == b'\n').filter_map(parse_log_line) {
        with_end(&line, &mut text);
    }
    let from = text.len().saturating_sub(bytes);
    Ok(String::from_utf8_lossy(&text[from..]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

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
