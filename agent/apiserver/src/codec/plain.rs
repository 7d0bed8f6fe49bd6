//! Plain words of a YAML text that mean something else to the reader clients know than to ours.
//!
//! Whether a word is plain is lost once a text is read, so such words are spelled as booleans, decimals and texts before.

use std::borrow::Cow;

use super::scalar;

/// The text with the words of YAML 1.1 spelled as those of 1.2, and without tags that are known to nobody.
pub(super) fn modern(text: &str) -> Cow<'_, str> {
    let words = Scanner { text: text.as_bytes(), at: 0, depth: 0, tag: None }.words();
    let changes: Vec<(usize, usize, String)> = words.into_iter().filter_map(|word| word.change(text)).collect();
    if changes.is_empty() {
        return text.into();
    }
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for (start, end, word) in changes {
        out.push_str(&text[done..start]);
        out.push_str(&word);
        done = end;
    }
    out.push_str(&text[done..]);
    out.into()
}

/// A place in the text.
type Range = (usize, usize);

/// Something that may be spelled otherwise.
enum Word {
    /// A plain scalar, and the tag before it.
    Plain(Range, Option<Range>),
    /// A tag of what is no plain scalar.
    Tag(Range),
}

impl Word {
    /// From where to where the text becomes what.
    fn change(&self, text: &str) -> Option<(usize, usize, String)> {
        match *self {
            Self::Plain((from, to), None) => Some((from, to, scalar::spelled(text.get(from..to)?)?)),
            Self::Plain((from, to), Some((start, end))) => {
                let word = scalar::tagged(text.get(start..end)?, text.get(from..to)?)?;
                // An anchor may stand between the two.
                Some((start, to, format!("{} {word}", text.get(end..from)?.trim()).trim_start().to_owned()))
            }
            // Those of YAML itself begin with two marks.
            Self::Tag((from, to)) => (!text.get(from..to)?.starts_with("!!")).then(|| (from, to, String::new())),
        }
    }
}

/// Finds the plain scalars of one line, and tags.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    /// How many brackets and braces are open.
    depth: usize,
    /// The tag before what comes next.
    tag: Option<Range>,
}

impl Scanner<'_> {
    fn words(mut self) -> Vec<Word> {
        let mut found = Vec::new();
        while self.at < self.text.len() {
            if self.depth == 0 {
                self.line(&mut found);
            } else {
                self.flow(&mut found);
            }
        }
        found
    }

    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn is_blank_at(&self, at: usize) -> bool {
        self.text.get(at).is_none_or(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
    }

    fn end_of_line(&self) -> usize {
        let rest = &self.text[self.at..];
        rest.iter().position(|b| *b == b'\n').map_or(self.text.len(), |end| self.at + end)
    }

    fn skip_line(&mut self) {
        self.at = (self.end_of_line() + 1).min(self.text.len());
    }

    fn skip_spaces(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// How far the line at a place is indented; `None` for an empty one.
    fn indent_at(&self, start: usize) -> Option<usize> {
        let rest = self.text.get(start..)?;
        let indent = rest.iter().take_while(|b| **b == b' ').count();
        (!matches!(rest.get(indent), None | Some(b'\n' | b'\r'))).then_some(indent)
    }

    /// Reads a line in block style, to its end or into the flow style that begins in it.
    fn line(&mut self, found: &mut Vec<Word>) {
        let start = self.at;
        self.skip_spaces();
        let mut indent = self.at - start;
        let mut is_value = false;
        loop {
            match self.byte() {
                None => return,
                Some(b'\n') => {
                    self.drop_tag(found);
                    self.at += 1;
                    return;
                }
                Some(b'\r') => self.at += 1,
                Some(b'#') => {
                    self.drop_tag(found);
                    return self.skip_line();
                }
                Some(b'-' | b'?' | b':') if self.is_blank_at(self.at + 1) => {
                    // What follows a dash is as deep as it stands.
                    if self.byte() != Some(b':') {
                        indent = self.at - start;
                    }
                    is_value = true;
                    self.at += 1;
                }
                Some(b'|' | b'>') if is_value => {
                    self.drop_tag(found);
                    return self.skip_block(indent);
                }
                Some(b'"' | b'\'') => {
                    self.skip_quoted();
                    is_value = false;
                }
                Some(b'[' | b'{') => {
                    self.drop_tag(found);
                    self.depth = 1;
                    self.at += 1;
                    return;
                }
                Some(b'!') => {
                    self.mark(found);
                    self.skip_spaces();
                    continue;
                }
                Some(b'&' | b'*') => {
                    self.skip_word();
                    self.skip_spaces();
                    continue;
                }
                Some(_) => {
                    let word = self.plain();
                    let is_key = self.byte() == Some(b':');
                    if is_key || is_value && !self.goes_on(indent) {
                        found.push(Word::Plain(word, self.tag.take()));
                    }
                }
            }
            self.drop_tag(found);
            self.skip_spaces();
        }
    }

    fn skip_word(&mut self) {
        let ends = |byte: u8| self.depth > 0 && matches!(byte, b',' | b']' | b'}');
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r') || ends(*b));
        self.at += end.unwrap_or(rest.len());
    }

    /// Reads a tag.
    fn mark(&mut self, found: &mut Vec<Word>) {
        self.drop_tag(found);
        let start = self.at;
        self.skip_word();
        self.tag = Some((start, self.at));
    }

    /// What the tag stands before is no plain scalar.
    fn drop_tag(&mut self, found: &mut Vec<Word>) {
        found.extend(self.tag.take().map(Word::Tag));
    }

    /// Whether the text after this line is deeper and so belongs to the scalar before it.
    fn goes_on(&self, indent: usize) -> bool {
        let mut next = self.end_of_line() + 1;
        while next < self.text.len() {
            if let Some(deep) = self.indent_at(next) {
                return deep > indent;
            }
            next += self.text[next..].iter().position(|b| *b == b'\n').unwrap_or(self.text.len()) + 1;
        }
        false
    }

    fn skip_block(&mut self, indent: usize) {
        self.skip_line();
        while self.at < self.text.len() && self.indent_at(self.at).is_none_or(|deep| deep > indent) {
            self.skip_line();
        }
    }

    fn skip_quoted(&mut self) {
        let quote = self.byte();
        self.at += 1;
        while let Some(byte) = self.byte() {
            self.at += 1;
            if byte == b'\\' && quote == Some(b'"') {
                self.at += 1;
            } else if Some(byte) == quote {
                return;
            }
        }
    }

    /// A plain scalar to its end on this line, without the space after it.
    fn plain(&mut self) -> (usize, usize) {
        let from = self.at;
        let mut to = from;
        while let Some(byte) = self.byte() {
            let ends = match byte {
                b'\n' | b'\r' => true,
                b':' => self.is_blank_at(self.at + 1) || self.depth > 0 && self.text.get(self.at + 1) == Some(&b','),
                b'#' => self.at > from && self.is_blank_at(self.at - 1),
                b',' | b'[' | b']' | b'{' | b'}' => self.depth > 0,
                _ => false,
            };
            if ends {
                break;
            }
            self.at += 1;
            if !matches!(byte, b' ' | b'\t') {
                to = self.at;
            }
        }
        (from, to)
    }

    /// Reads flow style until its last bracket is closed.
    fn flow(&mut self, found: &mut Vec<Word>) {
        while self.depth > 0 {
            match self.byte() {
                None => break,
                Some(b' ' | b'\t' | b'\n' | b'\r') => {
                    self.at += 1;
                    continue;
                }
                Some(b'!') => {
                    self.mark(found);
                    continue;
                }
                Some(b'&' | b'*') => {
                    self.skip_word();
                    continue;
                }
                Some(b'[' | b'{') => {
                    self.depth += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') => {
                    self.depth -= 1;
                    self.at += 1;
                }
                Some(b'"' | b'\'') => self.skip_quoted(),
                Some(b',' | b':') => self.at += 1,
                Some(b'#') => self.skip_line(),
                Some(_) => {
                    let word = self.plain();
                    found.push(Word::Plain(word, self.tag.take()));
                    // What stands at no place of a scalar is no YAML, and is for the reader to refuse.
                    if word.0 == self.at {
                        self.at += 1;
                    }
                }
            }
            self.drop_tag(found);
        }
        self.drop_tag(found);
    }
}

#[cfg(test)]
mod tests {
    use super::modern;

    #[test]
    fn plain_words_of_old_are_spelled_anew() {
        for (old, new) in [
            ("a: yes\nb: \"yes\"\nc: 'no'\n", "a: true\nb: \"yes\"\nc: 'no'\n"),
            ("- on\n- off # no\n-  y\n", "- true\n- false # no\n-  true\n"),
            ("a: {b: y, no: n, c: [0644, \"0644\", x]}\n", "a: {b: true, false: false, c: [420, \"0644\", x]}\n"),
            ("mode: 0400\nother: 00\nnone: 08\nminus: -010", "mode: 256\nother: 0\nnone: 8\nminus: -8"),
            ("a: &x yes\nb: !!str z", "a: &x true\nb: \"z\""),
            ("a: !foo &x 5\nb: *x\n", "a: &x \"5\"\nb: *x\n"),
            ("yes: 1_0\n1.2.3: !foo 5\n", "true: 10\n\"1.2.3\": \"5\"\n"),
            ("a: !foo {b: !bar [1]}\nc: !x\n  d: !!map {}\n", "a:  {b:  [1]}\nc: \n  d: !!map {}\n"),
            (
                "a: !!float 1\nb: !!str |\n  yes\nc: [!!str 1, &x yes, *x]",
                "a: 1\nb: !!str |\n  yes\nc: [\"1\", &x true, *x]",
            ),
            ("a: yes\r\n\r\nb:\r\n- 0644\r\n", "a: true\r\n\r\nb:\r\n- 420\r\n"),
        ] {
            assert_eq!(modern(old), new);
        }
    }

    #[test]
    fn texts_and_keys_stay() {
        for text in [
            "a: |\n  b: yes\n  - no\nc: d\n",
            "- k: >-\n    yes\n  v: x\n",
            "a: yes\n  and more\n",
            "z: 1\nurl: http://on\nt: yes sir\nq: \"a\n  b: yes\n\"\n",
            "# yes\na: b#no\n",
            "{\"a\":\"yes\",\"b\":[1,2]}",
            "a: [",
        ] {
            assert_eq!(modern(text), text);
        }
    }
}
