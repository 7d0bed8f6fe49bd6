//! What is wrong with a JSON text, in the words of the decoder that clients know.

/// The complaint about a text that is no JSON value.
pub(super) fn complaint(text: &[u8]) -> String {
    let mut scanner = Scanner { text, at: 0 };
    let found = scanner.value("looking for beginning of value").and_then(|()| scanner.end());
    found.err().unwrap_or_else(|| "invalid character".to_owned())
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

type Found = Result<(), String>;

impl Scanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn bad(&self, byte: Option<u8>, context: &str) -> String {
        match byte {
            None => "unexpected end of JSON input".to_owned(),
            Some(b'\'') => format!("invalid character '\\'' {context}"),
            Some(b'"') => format!("invalid character '\"' {context}"),
            Some(b'\n') => format!("invalid character '\\n' {context}"),
            Some(b'\t') => format!("invalid character '\\t' {context}"),
            Some(b) if b < 0x20 => format!("invalid character '\\x{b:02x}' {context}"),
            Some(b) => format!("invalid character '{}' {context}", char::from(b)),
        }
    }

    fn end(&mut self) -> Found {
        match self.peek() {
            None => Ok(()),
            other => Err(self.bad(other, "after top-level value")),
        }
    }

    fn value(&mut self, context: &str) -> Found {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string(),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            other => Err(self.bad(other, context)),
        }
    }

    fn object(&mut self) -> Found {
        self.at += 1;
        let mut first = true;
        loop {
            match self.peek() {
                Some(b'}') if first => break,
                Some(b'"') => self.string()?,
                other => return Err(self.bad(other, "looking for beginning of object key string")),
            }
            first = false;
            match self.peek() {
                Some(b':') => self.at += 1,
                other => return Err(self.bad(other, "after object key")),
            }
            self.value("looking for beginning of value")?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                other => return Err(self.bad(other, "after object key:value pair")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn array(&mut self) -> Found {
        self.at += 1;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value("looking for beginning of value")?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                other => return Err(self.bad(other, "after array element")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Found {
        self.at += 1;
        loop {
            match self.text.get(self.at).copied() {
                Some(b'"') => break,
                Some(b'\\') => {
                    let next = self.text.get(self.at + 1).copied();
                    if !next.is_some_and(|b| b"\"\\/bfnrtu".contains(&b)) {
                        return Err(self.bad(next, "in string escape code"));
                    }
                    self.at += 2;
                }
                Some(b) if b >= 0x20 => self.at += 1,
                other => return Err(self.bad(other, "in string literal")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str) -> Found {
        for expected in word.bytes() {
            match self.text.get(self.at).copied() {
                Some(b) if b == expected => self.at += 1,
                other => {
                    return Err(self.bad(other, &format!("in literal {word} (expecting '{}')", char::from(expected))));
                }
            }
        }
        Ok(())
    }

    fn number(&mut self) -> Found {
        if self.text.get(self.at) == Some(&b'-') {
            self.at += 1;
            if !self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
                return Err(self.bad(self.text.get(self.at).copied(), "in numeric literal"));
            }
        }
        while self
            .text
            .get(self.at)
            .is_some_and(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        {
            self.at += 1;
        }
        Ok(())
    }
}

/// A value as Go prints maps and lists of interfaces.
pub(super) fn go_map(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{k}:{}", go_map(v))).collect();
            format!("map[{}]", entries.join(" "))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(go_map).collect::<Vec<_>>().join(" ")),
        Value::String(text) => text.clone(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::complaint;

    #[test]
    fn complaints_name_the_character_and_the_place() {
        assert_eq!(complaint(b"{bad"), "invalid character 'b' looking for beginning of object key string");
        assert_eq!(complaint(b"{\"a\":1"), "unexpected end of JSON input");
        assert_eq!(complaint(b"{\"a\" 1}"), "invalid character '1' after object key");
        assert_eq!(complaint(b"nul"), "unexpected end of JSON input");
        assert_eq!(complaint(b"{} x"), "invalid character 'x' after top-level value");
    }
}
