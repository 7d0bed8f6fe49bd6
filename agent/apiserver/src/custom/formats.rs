//! Formats of texts that schemas may ask for; pure.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// Formats of texts that are checked, without their dashes.
const TEXTS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether a format means something for values of this type.
#[must_use]
pub fn is_known(format: &str, ty: &str) -> bool {
    match ty {
        "" | "string" => TEXTS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

macro_rules! patterns {
    ($($name:ident = $text:expr;)+) => {
        $(static $name: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new($text).ok());)+
    };
}

patterns! {
    HOSTNAME = r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$";
    UUID = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    CREDIT_CARD = r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*\)$";
    BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$";
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    CLOCK = r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    SPAN = r"([0-9]+)\s*([A-Za-zµ]+)";
    GO_SPAN = r"^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$";
    SHORT_NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$";
    LONG_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    SCHEME = r"^[a-zA-Z][a-zA-Z0-9+.-]*:";
    ATOMS = r"^[^\s@<>(),;:\\\[\]\x00-\x1f\x22]+$";
}

fn fits(pattern: &LazyLock<Option<Regex>>, text: &str) -> bool {
    pattern.as_ref().is_some_and(|p| p.is_match(text))
}

/// Whether a text has a format; formats that are not known fit everything.
#[must_use]
pub fn has(text: &str, format: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_request_uri(text),
        "email" => is_email(text),
        "hostname" => fits(&HOSTNAME, text) && text.len() <= 255 && text.split('.').all(|p| p.len() <= 63),
        "ipv4" => is_ipv4(text),
        "ipv6" => text.contains(':') && text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => fits(&UUID, text),
        "uuid3" => fits(&UUID3, text),
        "uuid4" => fits(&UUID4, text),
        "uuid5" => fits(&UUID5, text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => text.len() == 11 && fits(&SSN, text),
        "hexcolor" => fits(&HEX_COLOR, text),
        "rgbcolor" => fits(&RGB_COLOR, text),
        "byte" => fits(&BASE64, text),
        "date" => is_date(text),
        "datetime" => is_date_time(text),
        "duration" => is_duration(text),
        "k8sshortname" => fits(&SHORT_NAME, text),
        "k8slongname" => text.len() <= 253 && fits(&LONG_NAME, text),
        _ => true,
    }
}

/// IPv4, leading zeros allowed; an IPv6 address that ends in one counts.
fn is_ipv4(text: &str) -> bool {
    let plain = || {
        let parts: Vec<&str> = text.split('.').collect();
        let byte = |p: &&str| !p.is_empty() && p.len() < 4 && p.bytes().all(|b| b.is_ascii_digit());
        parts.len() == 4 && parts.iter().all(|p| byte(p) && p.parse::<u16>().is_ok_and(|n| n < 256))
    };
    text.contains('.') && (plain() || text.parse::<Ipv6Addr>().is_ok())
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let width = if is_ipv4(address) && !address.contains(':') {
        32
    } else if matches!(address.parse(), Ok(IpAddr::V6(_))) {
        128
    } else {
        return false;
    };
    bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u16>().is_ok_and(|b| b <= width)
}

fn is_mac(text: &str) -> bool {
    let groups = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|p| p.len() == width && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, &[6, 8, 20]) || groups('-', 2, &[6, 8, 20]) || groups('.', 4, &[3, 4, 10])
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn without_gaps(text: &str) -> String {
    text.chars().filter(|c| *c != '-' && !c.is_ascii_whitespace()).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_gaps(text);
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes[..9].iter().all(u8::is_ascii_digit)
        && (bytes[9] == b'X' || bytes[9].is_ascii_digit());
    let value = |b: u8| if b == b'X' { 10 } else { u32::from(b.wrapping_sub(b'0')) };
    shaped && (1u32..).zip(bytes).map(|(weight, b)| weight * value(*b)).sum::<u32>().is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = without_gaps(text);
    if text.len() != 13 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = digits(&text).iter().zip([1, 3].iter().cycle()).map(|(d, weight)| d * weight).sum();
    sum.is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let text: String = text.chars().filter(char::is_ascii_digit).collect();
    if !fits(&CREDIT_CARD, &text) {
        return false;
    }
    let doubled = |d: &u32| if d * 2 > 9 { d * 2 - 9 } else { d * 2 };
    let sum: u32 = digits(&text).iter().rev().enumerate().map(|(i, d)| if i % 2 == 1 { doubled(d) } else { *d }).sum();
    sum.is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(clock)) = (parts.next(), parts.next()) else { return false };
    let Some(found) = CLOCK.as_ref().and_then(|p| p.captures(clock)) else { return false };
    is_date(date) && &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59"
}

/// A span of time as Go writes it, or a number with a unit in words.
fn is_duration(text: &str) -> bool {
    const EXACT: [&str; 12] = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk", "nano"];
    const BEGINNINGS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let unit = |unit: &str| {
        let unit = unit.to_lowercase();
        EXACT.contains(&unit.as_str()) || BEGINNINGS.iter().any(|b| unit.starts_with(b))
    };
    fits(&GO_SPAN, text)
        || SPAN
            .as_ref()
            .is_some_and(|p| p.captures_iter(text).any(|found| unit(found.get(2).map_or("", |u| u.as_str()))))
}

/// What Go takes for the address of a request: an absolute path, or anything with a scheme.
fn is_request_uri(text: &str) -> bool {
    let escapes = || {
        let bytes = text.as_bytes();
        let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
        bytes.iter().enumerate().all(|(at, b)| *b != b'%' || hex(at + 1) && hex(at + 2))
    };
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) || !escapes() {
        return false;
    }
    let Some(rest) = SCHEME.as_ref().and_then(|p| p.find(text)).map(|m| &text[m.end()..]) else {
        return text.starts_with('/') || text == "*";
    };
    let host = rest.strip_prefix("//").map(|r| r.split(['/', '?']).next().unwrap_or_default());
    host.is_none_or(|host| {
        let port = host.rsplit_once(':').filter(|(_, p)| !p.contains(']')).map_or("", |(_, port)| port);
        !host.contains(' ') && port.bytes().all(|b| b.is_ascii_digit())
    })
}

/// An address of mail, perhaps with a name in front.
fn is_email(text: &str) -> bool {
    let address = match text.trim().strip_suffix('>') {
        Some(rest) => rest.rsplit_once('<').map(|(_, address)| address),
        None => Some(text.trim()),
    };
    let Some((local, domain)) = address.and_then(|a| a.rsplit_once('@')) else { return false };
    let dotted = |t: &str| fits(&ATOMS, t) && t.split('.').all(|part| !part.is_empty());
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    (dotted(local) || quoted) && (dotted(domain) || domain.starts_with('[') && domain.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_know_their_own() {
        for (format, good, bad) in [
            ("date-time", "2026-01-02T03:04:05.5Z", "2026-01-02 03:04:05"),
            ("date", "2026-01-02", "2026-13-02"),
            ("ipv4", "010.1.2.3", "1.2.3"),
            ("ipv6", "fe80::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:23:45:67:89:ab", "01:23"),
            ("uuid", "123E4567-e89b-12d3-a456-426614174000", "x"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111-1111-1111-1111", "4111-1111-1111-1112"),
            ("ssn", "111-11-1111", "111111111"),
            ("hexcolor", "#FFF", "#FF"),
            ("rgbcolor", "rgb(1,2,255)", "rgb(1,2,256)"),
            ("byte", "aGVsbG8=", "aGVsbG8"),
            ("duration", "1h30m", "soon"),
            ("duration", "3 days", ""),
            ("uri", "http://a.b/c", "a.b/c"),
            ("email", "Bob <bob@example.com>", "bob"),
            ("hostname", "example.com", "-x.com"),
            ("k8s-short-name", "a-b", "A"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ] {
            assert!(has(good, format), "{format} {good}");
            assert!(!has(bad, format), "{format} {bad}");
        }
        assert!(is_known("date-time", "string") && !is_known("date-time", "integer") && !is_known("other", "string"));
    }
}
