//! JSON text as Go writes it.

use std::fmt::Write as _;

use serde_json::Value;

/// Appends `text` as a JSON string: Go escapes `<`, `>`, `&` and the two line separators too.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut start = 0;
    for (i, c) in text.char_indices() {
        let plain = c >= ' ' && !matches!(c, '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        if plain {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[start..i]);
        start = i + c.len_utf8();
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            other => out.extend_from_slice(format!("\\u{:04x}", u32::from(other)).as_bytes()),
        }
    }
    out.extend_from_slice(&text.as_bytes()[start..]);
    out.push(b'"');
}

/// Appends bytes that should be UTF-8 as a JSON string.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        put_string(out, &String::from_utf8_lossy(text));
    }
}

/// Appends a tree as Go writes it: compact, and characters that mean something in HTML escaped.
pub fn put_json(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Number(number) => {
            let text = number.to_string();
            // Without an exponent both spell alike, and what is raw keeps its fraction of zero.
            match number.as_f64().filter(|_| text.contains('e')) {
                Some(float) => put_float(out, float),
                None => out.extend_from_slice(text.as_bytes()),
            }
        }
        Value::String(text) => put_text(out, text.as_bytes()),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_json(item, out);
            }
            out.push(b']');
        }
        Value::Object(map) => {
            out.push(b'{');
            for (i, (key, item)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                put_text(out, key.as_bytes());
                out.push(b':');
                put_json(item, out);
            }
            out.push(b'}');
        }
    }
}

/// Whether a text is ASCII of which nothing has to be escaped. Looked at in blocks, which the compiler makes vectors.
fn is_plain(text: &[u8]) -> bool {
    let plain =
        |b: u8| (b' '..0x80).contains(&b) & (b != b'"') & (b != b'\\') & (b != b'<') & (b != b'>') & (b != b'&');
    text.chunks(32).all(|block| block.iter().fold(true, |ok, b| ok & plain(*b)))
}

/// Appends an integer.
pub(crate) fn put_int(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    put_uint(out, value.unsigned_abs());
}

/// Appends an integer.
pub(crate) fn put_uint(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a floating point number in Go's shortest form.
pub(crate) fn put_float(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        out.extend_from_slice(value.to_string().as_bytes());
        return;
    }
    let text = format!("{value:e}");
    let text = if text.contains("e-") { text } else { text.replace('e', "e+") };
    out.extend_from_slice(text.as_bytes());
}

/// Appends bytes as a base64 string.
pub(crate) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().enumerate().fold(0u32, |word, (i, b)| word | u32::from(*b) << (16 - 8 * i));
        for i in 0..4 {
            let sextet = ALPHABET[(word >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { sextet } else { b'=' });
        }
    }
    out.push(b'"');
}

/// Reads base64 as Go's standard encoding does: padded, line breaks ignored. The error is the place that Go names.
///
/// # Errors
/// The place of the first byte that does not fit.
pub fn read_base64(text: &str) -> Result<Vec<u8>, usize> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let mut rest = text.bytes().enumerate().filter(|(_, b)| !matches!(b, b'\n' | b'\r'));
    loop {
        let (mut word, mut count, mut padding) = (0u32, 0, 0);
        while count + padding < 4 {
            match rest.next() {
                None if count == 0 => return Ok(out),
                None if padding > 0 => return Err(text.len()),
                None => return Err(text.len() - count),
                Some((at, b'=')) if count < 2 => return Err(at),
                Some((_, b'=')) => padding += 1,
                Some((at, _)) if padding > 0 => return Err(at - 1),
                Some((at, byte)) => {
                    word = word << 6 | u32::from(sextet(byte).ok_or(at)?);
                    count += 1;
                }
            }
        }
        out.extend_from_slice(&(word << (6 * padding)).to_be_bytes()[1..4 - padding]);
        if padding > 0 {
            return rest.next().map_or(Ok(out), |(at, _)| Err(at));
        }
    }
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// A Go duration such as `1h0m0s` or `1.5s`.
pub(crate) fn duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".to_owned();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let text = format!("{}.{:0width$}", value / unit, value % unit, width = unit.ilog10() as usize);
        format!("{sign}{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
    };
    match total {
        0..1_000 => return format!("{sign}{total}ns"),
        1_000..1_000_000 => return fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => return fraction(total, 1_000_000, "ms"),
        _ => {}
    }
    let minutes = total / 60_000_000_000;
    let mut text = sign.to_owned();
    if minutes >= 60 {
        let _infallible = write!(text, "{}h", minutes / 60);
    }
    if minutes > 0 {
        let _infallible = write!(text, "{}m", minutes % 60);
    }
    text + fraction(total % 60_000_000_000, 1_000_000_000, "s").trim_start_matches('-')
}

/// Reads a Go duration.
pub(crate) fn read_duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
        let (unit, factor) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += number * factor;
    }
    #[allow(clippy::cast_possible_truncation, reason = "saturates")]
    Some((sign * total) as i64)
}
