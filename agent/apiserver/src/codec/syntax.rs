//! What is wrong with a JSON text, in the words of the decoder that clients know.

/// The complaint about a text that is no JSON value.
pub fn complaint(text: &[u8]) -> String {
    let mut scanner = Scanner { text, at: 0, depth: 0 };
    let found = scanner.value("looking for beginning of value").and_then(|()| scanner.end());
    found.err().unwrap_or_else(|| "invalid character".to_owned())
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// Lists and objects inside one another that are read; the reader of values has the same limit.
pub(super) const MAX_DEPTH: usize = 127;

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
            Some(b @ (b'{' | b'[')) if self.depth == MAX_DEPTH => Err(self.bad(Some(b), "exceeded max depth")),
            Some(b @ (b'{' | b'[')) => {
                self.depth += 1;
                if b == b'{' {
                    self.object()?
                } else {
                    self.array()?
                }
                self.depth -= 1;
                Ok(())
            }
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
        Value::Number(number) => go_number(number),
        Value::Bool(on) => on.to_string(),
    }
}

/// A value as Go prints it with its types, nested ones as interfaces.
pub(super) fn go_syntax(value: &serde_json::Value) -> String {
    use serde_json::Value;
    let quoted = |text: &str| stdx::quoted(text).to_string();
    match value {
        Value::Object(map) => {
            let entries: Vec<String> = map.iter().map(|(k, v)| format!("{}:{}", quoted(k), go_syntax(v))).collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::String(text) => quoted(text),
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(on) => on.to_string(),
        Value::Number(number) => go_number(number),
    }
}

/// The type that a decoded value has in Go.
pub(super) fn go_type(value: &serde_json::Value) -> &'static str {
    use serde_json::Value;
    match value {
        Value::Object(_) => "map[string]interface {}",
        Value::Array(_) => "[]interface {}",
        Value::String(_) => "string",
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        // Whole numbers of more than 64 bits are read as fractions.
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
    }
}

/// A number as Go prints it: fractions in the shortest form, with an exponent from 10^6 on or below 10^-4.
fn go_number(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    shortest(&format!("{float:e}"), &float)
}

/// A number as Go prints it of which only the first digits are told.
#[allow(clippy::cast_possible_truncation, reason = "that is what is told")]
pub(super) fn go_short(float: f64) -> String {
    match float as f32 {
        short if short.is_nan() => ".nan".to_owned(),
        f32::INFINITY => ".inf".to_owned(),
        f32::NEG_INFINITY => "-.inf".to_owned(),
        short => shortest(&format!("{short:e}"), &short),
    }
}

fn shortest(scientific: &str, float: &dyn std::fmt::Display) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.to_owned() };
    let power: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&power) {
        return float.to_string();
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
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
        assert_eq!(complaint(&b"[".repeat(1 << 20)), "invalid character '[' exceeded max depth");
        assert_eq!(complaint(b"{} x"), "invalid character 'x' after top-level value");
    }
}
