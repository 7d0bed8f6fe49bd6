//! What the operator reads: one line per change, with the time since boot.

use std::io::Write;
use std::time::Duration;

/// The console. Writing never fails visibly: there is nobody else to tell.
pub(crate) struct Console<W: Write> {
    out: W,
}

impl<W: Write> Console<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Prints a text; each of its lines gets the time.
    pub(crate) fn say(&mut self, now: Duration, text: &str) {
        let mut lines = String::new();
        for line in text.lines() {
            lines += &format!("[{:8.2}] {}\n", now.as_secs_f64(), printable(line));
        }
        // One write per message, so that messages of the kernel do not get in between.
        if self.out.write_all(lines.as_bytes()).is_ok() {
            self.out.flush().ok();
        }
    }
}

/// Control characters of a service must not steer the operator's terminal.
fn printable(line: &str) -> String {
    line.chars().map(|character| if character.is_control() && character != '\t' { '.' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_the_time_and_no_control_characters() {
        let mut out = Vec::new();
        Console::new(&mut out).say(Duration::from_millis(2410), "etcd: ready\nbad \x1b[2Jline");
        assert_eq!(String::from_utf8(out).unwrap(), "[    2.41] etcd: ready\n[    2.41] bad .[2Jline\n");
    }
}
