//! What is typed at the console, line by line.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use sys::wait_readable;

/// What is longer is taken for a line of its own.
const LINE_BYTES: usize = 16 << 10;

/// The console, to be read from.
pub(crate) struct Typed {
    from: File,
    partial: Vec<u8>,
}

impl Typed {
    /// Standard input, if there is one.
    pub(crate) fn open() -> Option<Self> {
        let from = std::io::stdin().as_fd().try_clone_to_owned().ok()?;
        Some(Self { from: from.into(), partial: Vec::new() })
    }

    /// The lines that are there. Never waits; none once nothing will ever come.
    pub(crate) fn lines(&mut self) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        if !wait_readable(&[self.from.as_fd()], Duration::ZERO).first().is_some_and(|is_readable| *is_readable) {
            return Some(Vec::new());
        }
        let count = self.from.read(&mut buffer).ok().filter(|count| *count > 0)?;
        self.partial.extend_from_slice(&buffer[..count]);
        let whole = self.partial.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
        let end = whole.or_else(|| (self.partial.len() >= LINE_BYTES).then_some(self.partial.len()));
        let taken: Vec<u8> = self.partial.drain(..end.unwrap_or(0)).collect();
        Some(String::from_utf8_lossy(&taken).lines().map(str::to_owned).collect())
    }
}

impl AsFd for Typed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}
