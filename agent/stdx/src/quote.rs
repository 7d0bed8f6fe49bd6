//! Text in quotes, as messages of the Kubernetes API show it.

use std::fmt::{self, Display, Write};

/// Shows `text` in double quotes with Go's escapes, which are those of its `%q`.
#[must_use]
pub const fn quoted(text: &str) -> Quoted<'_> {
    Quoted(text)
}

/// See [`quoted`].
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\x07' => f.write_str("\\a")?,
                '\x08' => f.write_str("\\b")?,
                '\x0b' => f.write_str("\\v")?,
                '\x0c' => f.write_str("\\f")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c if is_shown(c) => f.write_char(c)?,
                c if u32::from(c) > 0xffff => write!(f, "\\U{:08x}", u32::from(c))?,
                c => write!(f, "\\u{:04x}", u32::from(c))?,
            }
        }
        f.write_char('"')
    }
}

/// Whether a character has a shape of its own. Rust's own escapes know, but treat combining marks as if they had none.
fn is_shown(c: char) -> bool {
    c == '\'' || c.is_alphanumeric() || c.escape_debug().len() == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        let text = "<a&b>\u{2028}\"\\\té\u{0}\u{feff}日😀'";
        assert_eq!(quoted(text).to_string(), r#""<a&b>\u2028\"\\\té\x00\ufeff日😀'""#);
    }
}
