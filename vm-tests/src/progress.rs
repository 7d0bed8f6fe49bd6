//! What a person sees while something takes its time.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Prints lines with the time since the start. On a terminal, what is being waited for is one line that changes.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    start: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Starts the clock.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), is_terminal: std::io::stderr().is_terminal() }
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Something is done, or begins.
    pub fn say(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{:6.1} s  {text}", self.elapsed().as_secs_f64());
    }

    /// What is still missing. Plain outputs do not get these.
    pub fn waiting(&self, text: &str) {
        if self.is_terminal {
            eprint!("\r\x1b[K{:6.1} s  waiting: {text}", self.elapsed().as_secs_f64());
            std::io::stderr().flush().ok();
        }
    }
}
