//! Trees as YAML, in the style that clients of upstream know: block style, keys in natural order, strings quoted only
//! where they would be read as something else, long lines folded at spaces.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// Column after which a line is folded at the next space.
const WIDTH: usize = 80;
/// The longest key, in bytes, that has its value behind it; longer ones are marked and have it below.
const SIMPLE_KEY_BYTES: usize = 128;

/// The text of a tree.
pub(super) fn text(value: &Value) -> String {
    let mut writer = Writer { out: String::new(), column: 0 };
    match value {
        Value::Object(map) if !map.is_empty() => writer.map(map, 0, true),
        Value::Array(list) if !list.is_empty() => writer.list(list, 0, true),
        other => writer.scalar(other, 0),
    }
    writer.out.push('\n');
    writer.out
}

/// The text of a tree, cut where the items of one of its lists belong. The list has to be empty in it.
pub(super) fn around(value: &Value, list: &str) -> (String, String) {
    let Value::Object(map) = value else { return (text(value), String::new()) };
    let part = |wanted: Ordering| {
        let fields = map.iter().filter(|(key, _)| natural(key, list) == wanted);
        let fields: Map<String, Value> = fields.map(|(key, value)| (key.clone(), value.clone())).collect();
        if fields.is_empty() { String::new() } else { text(&Value::Object(fields)) }
    };
    (part(Ordering::Less), part(Ordering::Greater))
}

/// The text of one item of a list that is a field of the whole.
pub(super) fn item(value: &Value) -> String {
    text(&Value::Array(vec![value.clone()]))
}

struct Writer {
    out: String,
    column: usize,
}

impl Writer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self, indent: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    /// `inline`: the first entry goes where the writer stands.
    fn map(&mut self, map: &Map<String, Value>, indent: usize, inline: bool) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_by(|a, b| natural(a, b));
        for (i, key) in keys.into_iter().enumerate() {
            if i > 0 || !inline {
                self.line(indent);
            }
            let value = &map[key.as_str()];
            if key.len() > SIMPLE_KEY_BYTES {
                self.put("? ");
                self.string(key, indent, false);
                self.line(indent);
                self.put(": ");
                self.nested(value, indent);
                continue;
            }
            self.string(key, indent, true);
            self.put(":");
            match value {
                Value::Object(inner) if !inner.is_empty() => self.map(inner, indent + 2, false),
                // Lists in maps are not indented.
                Value::Array(list) if !list.is_empty() => self.list(list, indent, false),
                other => {
                    self.put(" ");
                    self.scalar(other, indent);
                }
            }
        }
    }

    fn list(&mut self, list: &[Value], indent: usize, inline: bool) {
        for (i, item) in list.iter().enumerate() {
            if i > 0 || !inline {
                self.line(indent);
            }
            self.put("- ");
            self.nested(item, indent);
        }
    }

    /// A value behind a mark of two letters.
    fn nested(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(inner) if !inner.is_empty() => self.map(inner, indent + 2, true),
            Value::Array(inner) if !inner.is_empty() => self.list(inner, indent + 2, true),
            other => self.scalar(other, indent),
        }
    }

    fn scalar(&mut self, value: &Value, indent: usize) {
        match value {
            Value::String(text) => self.string(text, indent, false),
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            Value::Number(number) if number.is_f64() => self.put(&stdx::go_number(number)),
            other => self.put(&other.to_string()),
        }
    }

    fn string(&mut self, text: &str, indent: usize, is_key: bool) {
        let shape = Shape::of(text);
        if text.contains('\n') && !is_key && shape.block {
            self.literal(text, indent + 2);
        } else if !text.contains('\n') && is_ambiguous(text) || !shape.single {
            self.double_quoted(text, indent + 2, is_key);
        } else if shape.plain {
            self.folded(text, indent + 2, is_key);
        } else {
            self.put("'");
            self.folded(&text.replace('\'', "''"), indent + 2, is_key);
            self.put("'");
        }
    }

    fn folded(&mut self, text: &str, indent: usize, is_key: bool) {
        let chars: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (i, c) in chars.iter().enumerate() {
            let inner = i > 0 && i + 1 < chars.len() && chars[i + 1] != ' ';
            if *c == ' ' && !is_key && !after_space && self.column > WIDTH && inner {
                self.line(indent);
            } else {
                self.out.push(*c);
                self.column += 1;
            }
            after_space = *c == ' ';
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, is_key: bool) {
        self.put("\"");
        let chars: Vec<char> = text.chars().collect();
        let mut after_space = false;
        for (i, c) in chars.iter().enumerate() {
            if *c == ' ' && !is_key && !after_space && self.column > WIDTH && i > 0 && i + 1 < chars.len() {
                self.line(indent);
                if chars[i + 1] == ' ' {
                    self.put("\\");
                }
            } else {
                let escaped = escape(*c);
                self.put(&escaped);
            }
            after_space = *c == ' ';
        }
        self.put("\"");
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put("+");
        }
        let body = text.strip_suffix('\n').unwrap_or(text);
        for line in body.split('\n') {
            if line.is_empty() {
                self.out.push('\n');
            } else {
                self.line(indent);
                self.put(line);
            }
        }
    }
}

/// In which styles a text can be written.
struct Shape {
    plain: bool,
    single: bool,
    block: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (first, last) = (chars.first().copied().unwrap_or(' '), chars.last().copied().unwrap_or(' '));
        let blank = |c: Option<&char>| c.is_none_or(|c| matches!(c, ' ' | '\n' | '\t' | '\r'));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        for (i, c) in chars.iter().enumerate() {
            let blank_after = blank(chars.get(i + 1));
            indicators |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
                    if i == 0 =>
                {
                    true
                }
                '?' | '-' if i == 0 => blank_after,
                ':' => blank_after,
                '#' => blank(chars.get(i - 1)),
                _ => false,
            };
        }
        let special = chars.iter().any(|c| *c != '\n' && !is_printable(*c));
        // Two of them stand in texts as they are, but break a plain one.
        let breaks = text.contains(['\n', '\u{2028}', '\u{2029}']);
        let space_break = text.contains(" \n");
        let edge = |c: char| c == ' ' || c == '\n';
        let ends = !chars.is_empty() && (edge(first) || edge(last));
        Self {
            plain: !indicators && !special && !breaks && !ends,
            single: !special && !space_break && !text.contains("\n "),
            block: !special && !space_break && last != ' ',
        }
    }
}

fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
        && c != '\u{feff}'
}

fn escape(c: char) -> String {
    match c {
        '\0' => "\\0".into(),
        '\x07' => "\\a".into(),
        '\x08' => "\\b".into(),
        '\t' => "\\t".into(),
        '\n' => "\\n".into(),
        '\x0b' => "\\v".into(),
        '\x0c' => "\\f".into(),
        '\r' => "\\r".into(),
        '\x1b' => "\\e".into(),
        '"' => "\\\"".into(),
        '\\' => "\\\\".into(),
        '\u{85}' => "\\N".into(),
        '\u{2028}' => "\\L".into(),
        '\u{2029}' => "\\P".into(),
        c if is_printable(c) => c.to_string(),
        c if u32::from(c) <= 0xff => format!("\\x{:02X}", u32::from(c)),
        c if u32::from(c) <= 0xffff => format!("\\u{:04X}", u32::from(c)),
        c => format!("\\U{:08X}", u32::from(c)),
    }
}

/// Words that are read as booleans, null or numbers.
const WORDS: &[&str] = &[
    "", "~", "null", "Null", "NULL", "y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON", "n", "N",
    "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF",
    "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF", "<<",
];

/// Whether the plain text would be read as something else than a text.
fn is_ambiguous(text: &str) -> bool {
    if WORDS.contains(&text) {
        return true;
    }
    match text.as_bytes().first() {
        Some(b'.') => text.len() > 1 && is_float(text),
        Some(b'+' | b'-' | b'0'..=b'9') => {
            let plain = text.replace('_', "");
            is_integer(&plain) || is_float(&plain) || is_base60(text) || is_time(text)
        }
        _ => false,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all = |text: &str, radix: u32| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    match digits.get(..2) {
        Some("0x" | "0X") => all(&digits[2..], 16) && digits.len() <= 18,
        Some("0b" | "0B") => all(&digits[2..], 2) && digits.len() <= 66,
        Some("0o" | "0O") => all(&digits[2..], 8),
        _ if digits.starts_with('0') && digits.len() > 1 => all(digits, 8),
        _ => all(digits, 10) && digits.parse::<u64>().is_ok(),
    }
}

fn is_float(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (number, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let mantissa = match number.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(number),
    };
    mantissa && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

/// Numbers such as 1:30 in old YAML.
fn is_base60(text: &str) -> bool {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mut parts = body.split(':');
    let first = parts.next().unwrap_or_default();
    let leads =
        first.starts_with(|c: char| c.is_ascii_digit()) && first.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let rest: Vec<&str> = parts.collect();
    let sixty = |t: &str| {
        let b = t.as_bytes();
        matches!(b, [d] if d.is_ascii_digit())
            || matches!(b, [t @ b'0'..=b'5', d] if t.is_ascii_digit() && d.is_ascii_digit())
    };
    let fits = |(i, part): (usize, &&str)| match part.split_once('.') {
        Some((whole, rest_of)) if i + 1 == rest.len() => {
            sixty(whole) && rest_of.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        }
        _ => sixty(part),
    };
    leads && !rest.is_empty() && rest.iter().enumerate().all(fits)
}

/// Dates and times.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || !bytes[..4].iter().all(u8::is_ascii_digit) || bytes[4] != b'-' {
        return false;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let mut numbers = date.split('-').map(|n| n.parse::<u32>().unwrap_or(u32::MAX));
    let (_, month, day) = (numbers.next(), numbers.next(), numbers.next());
    let date_fits = month.is_some_and(|m| (1..=12).contains(&m)) && day.is_some_and(|d| (1..=31).contains(&d));
    if !date_fits || numbers.next().is_some() {
        return false;
    }
    time.is_none_or(|time| {
        let clock = time.split(['Z', '+']).next().unwrap_or_default();
        clock.len() >= 5 && clock.starts_with(|c: char| c.is_ascii_digit()) && clock.matches(':').count() >= 2
    })
}

/// Numbers inside names by their value, letters after everything else.
fn natural(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let number = |text: &[char], from: usize, leading: i64| {
        let mut value = leading;
        let mut at = from;
        while let Some(digit) = text.get(at).and_then(|c| c.to_digit(10)) {
            value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
            at += 1;
        }
        (value, at)
    };
    for i in 0..a.len().min(b.len()) {
        let (x, y) = (a[i], b[i]);
        if x == y {
            continue;
        }
        match (x.is_alphabetic(), y.is_alphabetic()) {
            (true, true) => return x.cmp(&y),
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        let within =
            (x == '0' || y == '0') && a[..i].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
        let (left, right) = (number(&a, i, within.into()), number(&b, i, within.into()));
        return left.cmp(&right).then(x.cmp(&y));
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::text;
    use serde_json::json;

    #[test]
    fn long_keys_are_marked() {
        let key = "k".repeat(129);
        let tree = json!({"a": {key.clone(): {"b": 1, "c": {}}}});
        assert_eq!(text(&tree), format!("a:\n  ? {key}\n  : b: 1\n    c: {{}}\n"));
        assert_eq!(text(&json!({"k".repeat(128): 1})), format!("{}: 1\n", "k".repeat(128)));
    }

    #[test]
    fn fractions_are_spelled_as_messages_spell_them() {
        for (number, expected) in [
            ("1.5", "1.5"),
            ("1234567.5", "1.2345675e+06"),
            ("0.00001", "1e-05"),
            ("1e20", "1e+20"),
            ("7", "7"),
            ("9223372036854776000", "9223372036854776000"),
        ] {
            let tree = serde_json::from_str(&format!(r#"{{"v":{number}}}"#)).unwrap();
            assert_eq!(text(&tree), format!("v: {expected}\n"));
        }
    }

    #[test]
    fn other_ends_of_lines_are_quoted() {
        assert_eq!(text(&json!({"a": "<b>\u{2028}"})), "a: '<b>\u{2028}'\n");
    }

    #[test]
    fn strings_are_quoted_where_they_would_be_misread() {
        let value = json!({
            "a": "true", "b": "x: y", "c": "2024-01-02T03:04:05Z", "d": "12", "e": "plain text", "f": "", "g": "a\nb",
            "h": [{"x": 1, "y": []}], "i10": null, "i9": {}, "j": "*", "k": "a\nb\n", "l": "1:30", "m": "100m",
        });
        let expected = "a: \"true\"\nb: 'x: y'\nc: \"2024-01-02T03:04:05Z\"\nd: \"12\"\ne: plain text\nf: \"\"\ng: |-\n  a\n  b\nh:\n- x: 1\n  \"y\": []\ni9: {}\ni10: null\nj: '*'\nk: |\n  a\n  b\nl: \"1:30\"\nm: 100m\n";
        assert_eq!(text(&value), expected);
    }
}
