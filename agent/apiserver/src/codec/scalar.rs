//! What a plain word of YAML means to the reader that clients know, and how it is spelled for ours.
//!
//! Upstream reads YAML 1.1, in which a plain `yes` or `off` is a boolean, `0644` octal and `1_000` a number.

const TRUE: &[&str] = &["y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"];
const FALSE: &[&str] = &["n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"];
/// Words that both readers take for the same.
const SAME: &[&str] = &["", "~", "null", "Null", "NULL", "true", "false", "<<"];

/// A word as it is meant.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meaning {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text,
}

/// How a plain word is spelled so that our reader takes it for what it means; none if it does already.
pub(super) fn spelled(word: &str) -> Option<String> {
    if SAME.contains(&word) || is_endless(word) {
        return None;
    }
    let spelled = match meaning(word) {
        Meaning::Bool(is) => is.to_string(),
        Meaning::Signed(number) => number.to_string(),
        Meaning::Unsigned(number) => number.to_string(),
        // As JSON has it, in which it goes on: what has no fraction is whole.
        Meaning::Float(number) => stdx::go_json_float(number),
        Meaning::Text if is_like_a_number(word) => quoted(word),
        Meaning::Text => return None,
    };
    (spelled != word).then_some(spelled)
}

/// How a word is spelled that has a tag, which is its first part; none if both may stay.
pub(super) fn tagged(tag: &str, word: &str) -> Option<String> {
    match tag {
        "!!int" | "!!bool" | "!!null" | "!!timestamp" => spelled(word).map(|word| format!("{tag} {word}")),
        "!!float" => match meaning(word) {
            Meaning::Signed(_) | Meaning::Unsigned(_) | Meaning::Float(_) => {
                Some(spelled(word).unwrap_or_else(|| word.to_owned()))
            }
            Meaning::Bool(_) | Meaning::Text => None,
        },
        "!!binary" => None,
        _ => Some(quoted(word)),
    }
}

fn quoted(word: &str) -> String {
    serde_json::Value::from(word).to_string()
}

/// Infinities, and what is no number: they have no other spelling.
fn is_endless(word: &str) -> bool {
    let word = word.strip_prefix(['+', '-']).unwrap_or(word);
    matches!(word, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

/// Whether our reader might see a number in a text.
fn is_like_a_number(word: &str) -> bool {
    let inner = |c: char| c.is_ascii_hexdigit() || matches!(c, '+' | '-' | '.' | '_' | 'x' | 'X' | 'o' | 'O');
    word.chars().all(inner) && word.contains(|c: char| c.is_ascii_digit())
}

fn meaning(word: &str) -> Meaning {
    if TRUE.contains(&word) {
        return Meaning::Bool(true);
    }
    if FALSE.contains(&word) {
        return Meaning::Bool(false);
    }
    match word.as_bytes().first() {
        Some(b'.') => float(word).map_or(Meaning::Text, Meaning::Float),
        Some(b'0'..=b'9' | b'+' | b'-') if !is_date(word) => number(&word.replace('_', "")),
        _ => Meaning::Text,
    }
}

fn number(plain: &str) -> Meaning {
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(plain)),
    };
    let prefix = digits.get(..2).unwrap_or_default();
    let (radix, digits) = match prefix {
        "0x" | "0X" => (16, &digits[2..]),
        "0o" | "0O" => (8, &digits[2..]),
        "0b" | "0B" => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    // A second sign is none.
    if digits.starts_with(|c: char| c.is_digit(radix)) {
        if let Ok(number) = i64::from_str_radix(&format!("{sign}{digits}"), radix) {
            return Meaning::Signed(number);
        }
        if !plain.starts_with(['+', '-'])
            && let Ok(number) = u64::from_str_radix(digits, radix)
        {
            return Meaning::Unsigned(number);
        }
    }
    float(plain).map_or(Meaning::Text, Meaning::Float)
}

/// Digits with a point and an exponent, of which a sign, the point and the exponent may be missing.
fn float(text: &str) -> Option<f64> {
    let body = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let has_exponent = exponent.is_none_or(|e| {
        let digits_of = e.strip_prefix(['+', '-']).unwrap_or(e);
        !digits_of.is_empty() && digits(digits_of)
    });
    let fits = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && has_exponent;
    text.parse().ok().filter(|number: &f64| fits && number.is_finite())
}

/// Whether a word may be a date, which stays a text.
fn is_date(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 4 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-'
}

#[cfg(test)]
mod tests {
    use super::{spelled, tagged};

    #[test]
    fn words_are_spelled_as_they_are_meant() {
        for (word, expected) in [
            ("yes", "true"),
            ("N", "false"),
            ("0644", "420"),
            ("-010", "-8"),
            ("08", "8"),
            ("1_000", "1000"),
            ("0b11", "3"),
            ("0x1F", "31"),
            ("1.0", "1"),
            ("1e3", "1000"),
            ("685_230.15", "685230.15"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("0xFFFFFFFFFFFFFFFFFF", "\"0xFFFFFFFFFFFFFFFFFF\""),
            ("1e400", "\"1e400\""),
            ("1.2.3", "\"1.2.3\""),
            ("2020-01-01", "\"2020-01-01\""),
        ] {
            assert_eq!(spelled(word).as_deref(), Some(expected), "{word}");
        }
        for word in ["", "true", "null", "~", "12", "-1", "0.5", "a", "-x", ".inf", "<<", "1:30"] {
            assert_eq!(spelled(word), None, "{word}");
        }
    }

    #[test]
    fn tags_say_what_words_are() {
        for (tag, word, expected) in [
            ("!!str", "0644", Some("\"0644\"")),
            ("!foo", "5", Some("\"5\"")),
            ("!", "yes", Some("\"yes\"")),
            ("!!bool", "yes", Some("!!bool true")),
            ("!!float", "1", Some("1")),
            ("!!int", "12", None),
            ("!!float", "x", None),
        ] {
            assert_eq!(tagged(tag, word).as_deref(), expected, "{tag} {word}");
        }
    }
}
