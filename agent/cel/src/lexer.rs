//! From text to tokens. Positions count characters, as messages do.

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) at: u32,
    pub(crate) kind: TokenKind,
    /// As written.
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Int,
    Uint,
    Float,
    String,
    Bytes,
    Ident,
    EscapedIdent,
    /// `in`, `true`, `false`, `null` and everything that is no letter.
    Fixed,
    End,
}

/// Something that is no token.
pub(crate) struct Unrecognised {
    pub(crate) at: u32,
    pub(crate) text: String,
}

const TWO: [&str; 6] = ["==", "!=", "<=", ">=", "&&", "||"];
const ONE: &str = "<>[]{}().,-!?:+*/%";
const WORDS: [&str; 4] = ["in", "true", "false", "null"];

struct Lexer<'a> {
    chars: &'a [char],
    at: usize,
}

/// All tokens, the end among them, and what was passed over.
pub(crate) fn tokens(source: &str) -> (Vec<Token>, Vec<Unrecognised>) {
    let chars: Vec<char> = source.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let (mut tokens, mut unrecognised) = (Vec::new(), Vec::new());
    loop {
        lexer.skip_space();
        let start = lexer.at;
        if start >= chars.len() {
            tokens.push(Token { at: position(start), kind: TokenKind::End, text: "<EOF>".to_owned() });
            return (tokens, unrecognised);
        }
        match lexer.token() {
            Some((kind, end)) => {
                let text = chars[start..end].iter().collect();
                tokens.push(Token { at: position(start), kind, text });
                lexer.at = end;
            }
            None => {
                let end = lexer.error_end(start);
                unrecognised.push(Unrecognised { at: position(start), text: chars[start..end].iter().collect() });
                lexer.at = end;
            }
        }
    }
}

fn position(at: usize) -> u32 {
    at.try_into().unwrap_or(u32::MAX)
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek(0) {
            match c {
                '\t' | ' ' | '\r' | '\n' | '\u{c}' => self.at += 1,
                '/' if self.peek(1) == Some('/') => {
                    while self.peek(0).is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    /// How far an error reaches: past the character with which what stands here can be nothing.
    fn error_end(&self, start: usize) -> usize {
        let at = match self.chars[start] {
            quote @ ('"' | '\'') => self.unclosed(start + 1, quote),
            '&' | '|' | '=' => start + 1,
            '`' => self.scan(start + 1, |c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c)),
            _ => start,
        };
        (at + 1).min(self.chars.len())
    }

    /// Where text without an end goes wrong.
    fn unclosed(&self, from: usize, quote: char) -> usize {
        let mut at = from;
        while let Some(c) = self.chars.get(at).copied().filter(|c| *c != quote && *c != '\n' && *c != '\r') {
            match (c, self.escape(at)) {
                ('\\', Some(length)) => at += length,
                ('\\', None) => return at + 1,
                _ => at += 1,
            }
        }
        at
    }

    fn token(&self) -> Option<(TokenKind, usize)> {
        let c = self.peek(0)?;
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return Some(self.number());
        }
        if let Some(found) = self.text() {
            return Some(found);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let end = self.scan(self.at, |c| c.is_ascii_alphanumeric() || c == '_');
            let word: String = self.chars[self.at..end].iter().collect();
            let kind = if WORDS.contains(&word.as_str()) { TokenKind::Fixed } else { TokenKind::Ident };
            return Some((kind, end));
        }
        if c == '`' {
            let end = self.scan(self.at + 1, |c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c));
            let closed = end > self.at + 1 && self.chars.get(end) == Some(&'`');
            return closed.then_some((TokenKind::EscapedIdent, end + 1));
        }
        let two: String = self.chars[self.at..(self.at + 2).min(self.chars.len())].iter().collect();
        if TWO.contains(&two.as_str()) {
            return Some((TokenKind::Fixed, self.at + 2));
        }
        ONE.contains(c).then_some((TokenKind::Fixed, self.at + 1))
    }

    fn scan(&self, from: usize, accept: impl Fn(char) -> bool) -> usize {
        let mut end = from;
        while self.chars.get(end).is_some_and(|c| accept(*c)) {
            end += 1;
        }
        end
    }

    fn number(&self) -> (TokenKind, usize) {
        let is_unsigned = |end: usize| matches!(self.chars.get(end), Some('u' | 'U'));
        if self.peek(0) == Some('0') && self.peek(1) == Some('x') && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit())
        {
            let end = self.scan(self.at + 2, |c| c.is_ascii_hexdigit());
            return if is_unsigned(end) { (TokenKind::Uint, end + 1) } else { (TokenKind::Int, end) };
        }
        let mut end = self.scan(self.at, |c| c.is_ascii_digit());
        let mut kind = TokenKind::Int;
        if self.chars.get(end) == Some(&'.') && self.chars.get(end + 1).is_some_and(char::is_ascii_digit) {
            kind = TokenKind::Float;
            end = self.scan(end + 1, |c| c.is_ascii_digit());
        }
        if matches!(self.chars.get(end), Some('e' | 'E')) {
            let sign = usize::from(matches!(self.chars.get(end + 1), Some('+' | '-')));
            if self.chars.get(end + 1 + sign).is_some_and(char::is_ascii_digit) {
                kind = TokenKind::Float;
                end = self.scan(end + 1 + sign, |c| c.is_ascii_digit());
            }
        }
        if kind == TokenKind::Int && is_unsigned(end) {
            return (TokenKind::Uint, end + 1);
        }
        (kind, end)
    }

    /// Text or bytes, with their prefixes.
    fn text(&self) -> Option<(TokenKind, usize)> {
        let mut start = self.at;
        let mut kind = TokenKind::String;
        if matches!(self.chars.get(start), Some('b' | 'B')) {
            kind = TokenKind::Bytes;
            start += 1;
        }
        let is_raw = matches!(self.chars.get(start), Some('r' | 'R'));
        start += usize::from(is_raw);
        let quote = *self.chars.get(start).filter(|c| matches!(c, '"' | '\''))?;
        let at = |i: usize| self.chars.get(i).copied();
        if at(start + 1) == Some(quote) && at(start + 2) == Some(quote) {
            let closes = |i: usize| (i..i + 3).all(|i| at(i) == Some(quote));
            if let Some(end) = self.quoted(start + 3, is_raw, |i| closes(i).then_some(i + 3), |_| false) {
                return Some((kind, end));
            }
        }
        let line_end = |c: char| c == '\n' || c == '\r';
        let end = self.quoted(start + 1, is_raw, |i| (at(i) == Some(quote)).then_some(i + 1), line_end)?;
        Some((kind, end))
    }

    fn quoted(
        &self,
        from: usize,
        is_raw: bool,
        close: impl Fn(usize) -> Option<usize>,
        ends: impl Fn(char) -> bool,
    ) -> Option<usize> {
        let mut at = from;
        loop {
            if let Some(end) = close(at) {
                return Some(end);
            }
            let c = *self.chars.get(at)?;
            if ends(c) {
                return None;
            }
            at += if c == '\\' && !is_raw { self.escape(at)? } else { 1 };
        }
    }

    /// The length of an escape sequence.
    fn escape(&self, at: usize) -> Option<usize> {
        let c = *self.chars.get(at + 1)?;
        let digits = |count: usize, accept: fn(&char) -> bool| {
            let all = self.chars.get(at + 2..at + 2 + count).is_some_and(|d| d.iter().all(accept));
            all.then_some(2 + count)
        };
        match c {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '"' | '\'' | '\\' | '?' | '`' => Some(2),
            'x' | 'X' => digits(2, char::is_ascii_hexdigit),
            'u' => digits(4, char::is_ascii_hexdigit),
            'U' => digits(8, char::is_ascii_hexdigit),
            '0'..='3' => digits(2, |c| ('0'..='7').contains(c)),
            _ => None,
        }
    }
}

/// What a text or bytes token stands for, as bytes; `None` if an escape names no character.
pub(crate) fn unquote(token: &str, is_bytes: bool) -> Option<Vec<u8>> {
    let rest = if is_bytes { &token[1..] } else { token };
    let (rest, is_raw) = match rest.strip_prefix(['r', 'R']) {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let triple = rest.len() >= 6 && (rest.starts_with("\"\"\"") || rest.starts_with("'''"));
    let trim = if triple { 3 } else { 1 };
    let inner = &rest[trim..rest.len() - trim];
    let inner = inner.replace("\r\n", "\n").replace('\r', "\n");
    if is_raw {
        return Some(inner.into_bytes());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let simple = match chars.next()? {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            c @ ('"' | '\'' | '\\' | '?' | '`') => u8::try_from(c).ok()?,
            kind => {
                push_code(&mut out, kind, &mut chars, is_bytes)?;
                continue;
            }
        };
        out.push(simple);
    }
    Some(out)
}

fn push_code(out: &mut Vec<u8>, kind: char, chars: &mut std::str::Chars<'_>, is_bytes: bool) -> Option<()> {
    let mut number = |count: usize, radix: u32, first: u32| {
        (0..count).try_fold(first, |sum, _| Some(sum * radix + chars.next()?.to_digit(radix)?))
    };
    let (code, is_byte) = match kind {
        'x' | 'X' => (number(2, 16, 0)?, true),
        'u' => (number(4, 16, 0)?, false),
        'U' => (number(8, 16, 0)?, false),
        digit => (number(2, 8, digit.to_digit(8)?)?, true),
    };
    if is_bytes {
        if !is_byte {
            return None;
        }
        out.push(u8::try_from(code).ok()?);
    } else {
        out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(())
}
