//! What a person types.

use std::fmt;

use super::{Reference, Word, WordError, WordFormat, from_str_by_word};

/// Shorter ones are found by trying.
const LEAST_CHARS: usize = 12;
/// Longer ones than disks take.
const MOST_BYTES: usize = 512;

/// A passphrase, or who has it.
#[derive(Clone, PartialEq, Eq)]
pub enum Passphrase {
    /// Somebody gives it to the machine.
    Ask,
    /// Itself.
    Text(String),
}

impl Passphrase {
    /// Checks what somebody gives.
    ///
    /// # Errors
    /// It is too short or too long, or nobody could type it.
    pub fn check(text: &str) -> Result<(), WordError> {
        let found = text.chars().count();
        if found < LEAST_CHARS {
            return Err(WordError::new(format!("the passphrase has {found} characters, fewer than {LEAST_CHARS}")));
        }
        if text.len() > MOST_BYTES || text.contains(char::is_control) {
            let reason = format!("the passphrase has more than {MOST_BYTES} bytes, or a control character in it");
            return Err(WordError::new(reason));
        }
        Ok(())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask => f.write_str("Ask"),
            Self::Text(_) => f.write_str("Text(***)"),
        }
    }
}

impl Word for Passphrase {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "passphrase",
        expected: "`ask`, or at least 12 characters that are the passphrase",
        pattern: None,
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if text == "ask" {
            return Ok(Self::Ask);
        }
        if text.starts_with("file:") {
            return Err(WordError::new("`file:` needs an absolute path that is there before STATE and DATA are open"));
        }
        Self::check(text).map(|()| Self::Text(text.to_owned()))
    }

    fn hidden(text: &str) -> Vec<String> {
        text.lines().next().filter(|line| *line != "ask").map(str::to_owned).into_iter().collect()
    }

    /// How it was written before all secrets could be in files.
    fn reference(text: &str) -> Option<Reference> {
        let path = text.strip_prefix("file:")?;
        let is_plain = path.starts_with('/') && !path.contains(char::is_control);
        let is_early = !path.starts_with("/state/") && !path.starts_with("/var/");
        (is_plain && is_early).then(|| Reference::File(path.to_owned()))
    }

    /// Of a file the first line.
    fn parse_found(text: &str) -> Result<Self, WordError> {
        let line = text.lines().next().unwrap_or_default();
        Self::check(line).map(|()| Self::Text(line.to_owned()))
    }
}
from_str_by_word!(Passphrase);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_asked_for_read_or_given_and_never_shown() {
        let parse = |text| Passphrase::parse_word(text);
        assert_eq!(parse("ask"), Ok(Passphrase::Ask));
        let file = Passphrase::reference("file:/sys/firmware/x");
        assert_eq!(file, Some(Reference::File("/sys/firmware/x".to_owned())));
        let found = Passphrase::parse_found("correct horse battery\nmore");
        assert_eq!(found, Ok(Passphrase::Text("correct horse battery".to_owned())));
        assert_eq!(format!("{:?}", parse("correct horse battery").unwrap()), "Text(***)");
        for bad in ["short", "file:relative", "file:/state/key", "twelve chars\nand a line"] {
            assert!(!parse(bad).unwrap_err().reason.contains(bad), "{bad}");
        }
    }
}
