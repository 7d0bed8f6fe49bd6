//! Regular expressions as Go reads them, written as the `regex` crate reads them: the two differ in what they refuse,
//! in what is a digit, a space or a word, and in what stands for itself.

use regex::Regex;

/// Compiles a pattern in Go's syntax. Groups have no names and no numbers.
///
/// # Errors
/// What Go says of a pattern that it does not take.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let is_class = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_uppercase()) && Regex::new(&format!("\\p{{{name}}}")).is_ok()
    };
    let text = translated(pattern, &is_class)?;
    Regex::new(&text).map_err(|_| format!("error parsing regexp: expression too large: `{pattern}`"))
}

/// A pattern in the syntax of the `regex` crate that matches what Go's pattern does. `is_class` knows the names of
/// Unicode's classes.
fn translated(pattern: &str, is_class: &dyn Fn(&str) -> bool) -> Result<String, String> {
    let mut parser =
        Parser { whole: pattern, rest: pattern, out: String::new(), levels: vec![Level::default()], is_class };
    parser.run().map_err(|(what, part)| format!("error parsing regexp: {what}: `{part}`"))?;
    Ok(parser.out)
}

type Refused<'p> = (&'static str, &'p str);

const PERL: &str = "invalid or unsupported Perl syntax";
const RANGE: &str = "invalid character class range";
const ESCAPE: &str = "invalid escape sequence";
const COUNT: &str = "invalid repeat count";
/// Most repetitions, also of one in another.
const MAX_REPEAT: u32 = 1000;
/// Most groups in one another.
const MAX_DEPTH: usize = 1000;

/// What is inside one pair of parentheses.
#[derive(Default)]
struct Level {
    /// How often the last piece repeats what is in it; none where there is nothing to repeat.
    last: Option<u32>,
    /// The most of all pieces.
    most: u32,
}

struct Parser<'p, 'c> {
    whole: &'p str,
    rest: &'p str,
    out: String,
    levels: Vec<Level>,
    is_class: &'c dyn Fn(&str) -> bool,
}

impl<'p> Parser<'p, '_> {
    fn run(&mut self) -> Result<(), Refused<'p>> {
        let mut repeated: Option<&'p str> = None;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let mut repeats = None;
            match c {
                '(' => self.open()?,
                ')' => self.close()?,
                '|' => {
                    self.take(1);
                    self.out.push('|');
                    self.level().last = None;
                }
                '[' => self.class()?,
                '^' | '$' | '.' => {
                    self.take(1);
                    self.piece(&c.to_string());
                }
                '*' | '+' | '?' => {
                    self.take(1);
                    self.repeat((&c.to_string(), 1), before, repeated)?;
                    repeats = Some(before);
                }
                '{' => match counts(self.rest) {
                    None => {
                        self.take(1);
                        self.piece("\\{");
                    }
                    Some((min, max, len)) => {
                        self.take(len);
                        let text = &before[..len];
                        let is_more = max.is_some_and(|max| min.is_none_or(|min| min > max) || max > MAX_REPEAT);
                        if is_more || min.is_none_or(|min| min > MAX_REPEAT) {
                            return Err((COUNT, text));
                        }
                        self.repeat((text, max.or(min).unwrap_or(0).max(1)), before, repeated)?;
                        repeats = Some(before);
                    }
                },
                '\\' => self.escape()?,
                c => {
                    self.take(c.len_utf8());
                    self.piece(&literal(c));
                }
            }
            repeated = repeats;
        }
        if self.levels.len() == 1 { Ok(()) } else { Err(("missing closing )", self.whole)) }
    }

    fn take(&mut self, len: usize) -> &'p str {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn piece(&mut self, text: &str) {
        self.out.push_str(text);
        self.done(1);
    }

    fn done(&mut self, repeats: u32) {
        let level = self.level();
        level.last = Some(repeats);
        level.most = level.most.max(repeats);
    }

    fn repeat(
        &mut self,
        (sign, count): (&str, u32),
        before: &'p str,
        repeated: Option<&'p str>,
    ) -> Result<(), Refused<'p>> {
        let is_lazy = self.rest.starts_with('?');
        if is_lazy {
            self.take(1);
        }
        let until_here = |from: &'p str| &from[..from.len() - self.rest.len()];
        if let Some(from) = repeated {
            return Err(("invalid nested repetition operator", until_here(from)));
        }
        let (own, rest) = (until_here(before), self.rest.len());
        let Some(inner) = self.level().last else { return Err(("missing argument to repetition operator", own)) };
        let all = inner.saturating_mul(count);
        if all > MAX_REPEAT {
            return Err((COUNT, &before[..before.len() - rest]));
        }
        self.out.push_str(sign);
        if is_lazy {
            self.out.push('?');
        }
        self.done(all);
        Ok(())
    }

    fn open(&mut self) -> Result<(), Refused<'p>> {
        if self.levels.len() > MAX_DEPTH {
            return Err(("expression nests too deeply", self.whole));
        }
        if !self.rest.starts_with("(?") {
            self.take(1);
            self.out.push_str("(?:");
            self.levels.push(Level::default());
            return Ok(());
        }
        for start in ["(?P<", "(?<"] {
            let Some(after) = self.rest.strip_prefix(start).filter(|after| !after.is_empty()) else { continue };
            let bad = "invalid named capture";
            let end = after.find('>').ok_or((bad, self.rest))?;
            let capture = self.take(start.len() + end + 1);
            let is_name = |name: &str| name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
            if end == 0 || !is_name(&after[..end]) {
                return Err((bad, capture));
            }
            self.out.push_str("(?:");
            self.levels.push(Level::default());
            return Ok(());
        }
        self.flags()
    }

    /// `(?i)` and `(?i-s:`.
    fn flags(&mut self) -> Result<(), Refused<'p>> {
        let (mut negated, mut named) = (false, false);
        for (at, c) in self.rest.char_indices().skip(2) {
            let end = at + c.len_utf8();
            match c {
                'i' | 'm' | 's' | 'U' => named = true,
                '-' if !negated => (negated, named) = (true, false),
                ':' | ')' if named || !negated => {
                    let text = self.take(end);
                    // Without flags it says nothing.
                    self.out.push_str(if text == "(?)" { "" } else { text });
                    if c == ':' {
                        self.levels.push(Level::default());
                    }
                    return Ok(());
                }
                _ => return Err((PERL, &self.rest[..end])),
            }
        }
        Err((PERL, self.rest))
    }

    fn close(&mut self) -> Result<(), Refused<'p>> {
        if self.levels.len() < 2 {
            return Err(("unexpected )", self.whole));
        }
        let most = self.levels.pop().map_or(1, |level| level.most.max(1));
        self.take(1);
        self.out.push(')');
        self.done(most);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Refused<'p>> {
        match self.rest[1..].chars().next() {
            Some('A') => self.assertion("\\A"),
            Some('z') => self.assertion("\\z"),
            Some('b') => self.assertion("(?-u:\\b)"),
            Some('B') => self.assertion("\\B"),
            Some('C') => return Err((ESCAPE, &self.rest[..2])),
            Some('Q') => {
                self.take(2);
                let end = self.rest.find("\\E").unwrap_or(self.rest.len());
                for c in self.take(end).chars() {
                    self.piece(&literal(c));
                }
                if !self.rest.is_empty() {
                    self.take(2);
                }
            }
            _ => {
                let text = match self.known_class()? {
                    Some(class) => format!("[{class}]"),
                    None => literal(self.escaped()?),
                };
                self.piece(&text);
            }
        }
        Ok(())
    }

    fn assertion(&mut self, text: &str) {
        self.take(2);
        self.piece(text);
    }

    /// `\d` and `\pN`, as what stands between brackets.
    fn known_class(&mut self) -> Result<Option<String>, Refused<'p>> {
        let class = match self.rest[1..].chars().next() {
            Some('d') => "0-9",
            Some('D') => "[^0-9]",
            Some('s') => "\\t\\n\\x0C\\r\\x20",
            Some('S') => "[^\\t\\n\\x0C\\r\\x20]",
            Some('w') => "0-9A-Za-z_",
            Some('W') => "[^0-9A-Za-z_]",
            Some('p' | 'P') => return self.unicode_class().map(Some),
            _ => return Ok(None),
        };
        self.take(2);
        Ok(Some(class.to_owned()))
    }

    fn unicode_class(&mut self) -> Result<String, Refused<'p>> {
        let start = self.rest;
        let mut negated = start.starts_with("\\P");
        let (name, len) = match start[2..].chars().next() {
            None => return Err((RANGE, start)),
            Some('{') => {
                let end = start.find('}').ok_or((RANGE, start))?;
                (&start[3..end], end + 1)
            }
            Some(c) => (&start[2..2 + c.len_utf8()], 2 + c.len_utf8()),
        };
        let plain = name.strip_prefix('^').unwrap_or(name);
        negated ^= plain.len() != name.len();
        if !(self.is_class)(plain) {
            return Err((RANGE, &start[..len]));
        }
        self.take(len);
        Ok(format!("\\{}{{{plain}}}", if negated { 'P' } else { 'p' }))
    }

    /// A character behind a backslash.
    fn escaped(&mut self) -> Result<char, Refused<'p>> {
        let start = self.rest;
        self.take(1);
        let Some(c) = self.rest.chars().next() else { return Err(("trailing backslash at end of expression", "")) };
        self.take(c.len_utf8());
        let found = match c {
            '1'..='7' if !self.rest.starts_with(|next| matches!(next, '0'..='7')) => None,
            '0'..='7' => {
                let more = self.rest.bytes().take(2).take_while(|b| matches!(b, b'0'..=b'7')).count();
                let digits = &start[1..2 + more];
                self.take(more);
                u32::from_str_radix(digits, 8).ok().and_then(char::from_u32)
            }
            'x' => self.hexadecimal(),
            'a' => Some('\u{7}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            'v' => Some('\u{b}'),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c),
            _ => None,
        };
        found.ok_or((ESCAPE, &start[..start.len() - self.rest.len()]))
    }

    fn hexadecimal(&mut self) -> Option<char> {
        let of = |digits: &str| u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        if self.rest.starts_with('{') {
            self.take(1);
            let digits = self.rest.bytes().take_while(u8::is_ascii_hexdigit).count();
            let digits = self.take(digits);
            let next = self.rest.chars().next()?;
            self.take(next.len_utf8());
            return of(digits).filter(|_| next == '}');
        }
        let len: usize = self.rest.chars().take(2).map(char::len_utf8).sum();
        let digits = self.take(len);
        of(digits).filter(|_| digits.len() == 2 && !digits.starts_with('+'))
    }

    /// `[a-z\d[:alpha:]]`.
    fn class(&mut self) -> Result<(), Refused<'p>> {
        let start = self.rest;
        self.take(1);
        let mut text = "[".to_owned();
        if self.rest.starts_with('^') {
            self.take(1);
            text.push('^');
        }
        let mut is_first = true;
        while is_first || !self.rest.starts_with(']') {
            is_first = false;
            if let Some(end) = self.rest.strip_prefix("[:").and_then(|name| name.find(":]")) {
                let name = &self.rest[..end + 4];
                if !is_named(name.trim_start_matches("[:").trim_start_matches('^').trim_end_matches(":]")) {
                    return Err((RANGE, name));
                }
                text.push_str(self.take(end + 4));
                continue;
            }
            if self.rest.starts_with('\\')
                && let Some(class) = self.known_class()?
            {
                text.push_str(&class);
                continue;
            }
            let before = self.rest;
            let low = self.member(start)?;
            let mut high = low;
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.take(1);
                high = self.member(start)?;
                if high < low {
                    return Err((RANGE, &before[..before.len() - self.rest.len()]));
                }
            }
            text.push_str(&format!("\\x{{{:X}}}-\\x{{{:X}}}", u32::from(low), u32::from(high)));
        }
        self.take(1);
        text.push(']');
        self.piece(&text);
        Ok(())
    }

    fn member(&mut self, class: &'p str) -> Result<char, Refused<'p>> {
        match self.rest.chars().next() {
            None => Err(("missing closing ]", class)),
            Some('\\') => self.escaped(),
            Some(c) => {
                self.take(c.len_utf8());
                Ok(c)
            }
        }
    }
}

/// A character that stands for itself.
fn literal(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() { c.to_string() } else { format!("\\x{{{:X}}}", u32::from(c)) }
}

/// The numbers in `{1,2}`, and its length; none where the braces stand for themselves. A number that is too great is
/// none.
fn counts(text: &str) -> Option<(Option<u32>, Option<u32>, usize)> {
    let end = text.find('}')?;
    let number = |text: &str| {
        let is_number =
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text.len() < 2 || !text.starts_with('0'));
        is_number.then(|| text.parse::<u32>().ok().or(Some(u32::MAX)))
    };
    let (min, max) = match text[1..end].split_once(',') {
        None => {
            let count = number(&text[1..end])?;
            (count, count)
        }
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, number(max)?),
    };
    Some((min, max, end + 1))
}

fn is_named(class: &str) -> bool {
    const NAMES: [&str; 14] = [
        "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
        "word", "xdigit",
    ];
    NAMES.contains(&class)
}

#[cfg(test)]
mod tests;
