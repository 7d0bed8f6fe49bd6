//! Container log files in the runtime's format: `TIME STREAM TAG TEXT`, a line cut into parts marked `P` and `F`.

/// One line, or part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When, as RFC 3339.
    pub time: &'a str,
    /// Whether it was printed to standard error, not standard output.
    pub is_stderr: bool,
    /// The line goes on in the next one.
    pub is_partial: bool,
    /// What was printed.
    pub text: &'a [u8],
}

/// Reads one line (without its line feed).
#[must_use]
pub fn parse_log_line(line: &[u8]) -> Option<LogLine<'_>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = parse_log_line(b"2026-01-02T03:04:05.6Z stderr P:x hello  world").unwrap();
        assert_eq!((line.time, line.is_stderr, line.is_partial), ("2026-01-02T03:04:05.6Z", true, true));
        assert_eq!(line.text, b"hello  world");
        assert!(parse_log_line(b"garbage").is_none());
        assert_eq!(parse_log_line(b"t stdout F ").unwrap().text, b"");
        assert_eq!(parse_log_line(b"t stdout F").unwrap().text, b"");
    }
}
