//! Kubernetes times: seconds and nanoseconds since 1970, absent altogether when unset.

use crate::meta::v1::{MicroTime, Time};

macro_rules! time_methods {
    ($name:ident) => {
        impl $name {
            /// A time `seconds` after 1970-01-01T00:00:00Z.
            #[must_use]
            pub fn from_unix(seconds: i64) -> Self {
                Self { seconds: Some(seconds), nanos: Some(0) }
            }

            /// Seconds since 1970, `None` when unset.
            #[must_use]
            pub fn unix(&self) -> Option<i64> {
                match (self.seconds, self.nanos) {
                    (None, None) => None,
                    (seconds, _) => Some(seconds.unwrap_or(0)),
                }
            }

            /// Whether no time is set.
            #[must_use]
            pub fn is_zero(&self) -> bool {
                self.unix().is_none()
            }
        }
    };
}

time_methods!(Time);
time_methods!(MicroTime);

impl MicroTime {
    /// A time of this many microseconds since 1970.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or(0);
        Self { seconds: Some(micros.div_euclid(1_000_000)), nanos: Some(nanos) }
    }
}

/// RFC 3339 in UTC with whole seconds, as `metav1.Time` is written.
#[must_use]
pub fn format_seconds(seconds: i64) -> String {
    format_with(seconds, "%Y-%m-%dT%H:%M:%SZ", 0)
}

/// A span of time as Go writes it: `1m30s`.
#[must_use]
pub fn format_duration(nanos: i64) -> String {
    crate::json::duration(nanos)
}

/// [`format_seconds`] where the year has four digits.
pub(crate) fn plain_seconds(seconds: i64) -> Option<[u8; 20]> {
    const DAY: i64 = 86_400;
    // Years of four digits, counted in days since 1970.
    if !(-719_162 * DAY..2_932_897 * DAY).contains(&seconds) {
        return None;
    }
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00Z";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, rest / 3600);
    put(14, 2, rest / 60 % 60);
    put(17, 2, rest % 60);
    Some(text)
}

/// Year, month and day, counted from 1, of a number of days since 1970 in the Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    // Years that begin in March end with the leap day; cycles of 400 of them are all alike.
    let since = days + 719_468;
    let (cycle, day_of_cycle) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524 - day_of_cycle / 146_096) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_of_year = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_of_year + 2) / 5 + 1;
    let month = if month_of_year < 10 { month_of_year + 3 } else { month_of_year - 9 };
    (cycle * 400 + year_of_cycle + i64::from(month <= 2), month, day)
}

/// RFC 3339 in UTC with six fraction digits, as `metav1.MicroTime` is written.
#[must_use]
pub fn format_micros(seconds: i64, nanos: i32) -> String {
    format_with(seconds, "%Y-%m-%dT%H:%M:%S.%6fZ", nanos / 1000 * 1000)
}

fn format_with(seconds: i64, format: &str, nanos: i32) -> String {
    jiff::Timestamp::new(seconds, nanos).map(|t| t.strftime(format).to_string()).unwrap_or_default()
}

/// Reads RFC 3339: seconds and nanoseconds since 1970.
#[must_use]
pub fn parse(text: &str) -> Option<(i64, i32)> {
    parse_as(text, false).ok()
}

/// Layout of `metav1.Time`.
const SECONDS_LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
/// Layout of `metav1.MicroTime`.
const MICROS_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads RFC 3339, for `micros` with exactly six fraction digits: seconds and nanoseconds since 1970.
///
/// # Errors
/// What is wrong with the text, in the words of Go's decoder.
pub fn parse_as(text: &str, micros: bool) -> Result<(i64, i32), String> {
    let mut reader =
        TimeReader { whole: text, rest: text, layout: if micros { MICROS_LAYOUT } else { SECONDS_LAYOUT } };
    let year = reader.year()?;
    reader.literal("-")?;
    let month = reader.number("01", true, "month", 1..=12)?;
    reader.literal("-")?;
    let day = reader.number("02", true, "day", 0..=99)?;
    reader.literal("T")?;
    let hour = reader.number("15", false, "hour", 0..=23)?;
    reader.literal(":")?;
    let minute = reader.number("04", true, "minute", 0..=59)?;
    reader.literal(":")?;
    let second = reader.number("05", true, "second", 0..=59)?;
    let nanos = if micros { reader.micros()? } else { reader.fraction() };
    let offset = reader.offset()?;
    if !reader.rest.is_empty() {
        return Err(reader.because(&format!("extra text: {}", go_quoted(reader.rest))));
    }
    let [month, day, hour, minute, second] = [month, day, hour, minute, second].map(|n| i8::try_from(n).unwrap_or(0));
    let civil = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0);
    let civil = civil.map_err(|_| reader.because("day out of range"))?;
    let utc = civil.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| reader.because("day out of range"))?;
    Ok((utc.timestamp().as_second() - offset, nanos))
}

/// Reads a time piece by piece, as Go does by a layout.
struct TimeReader<'a> {
    whole: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl<'a> TimeReader<'a> {
    fn because(&self, why: &str) -> String {
        format!("parsing time {}: {why}", go_quoted(self.whole))
    }

    fn unlike(&self, value: &str, layout: &str) -> String {
        let why = format!("cannot parse {} as {}", go_quoted(value), go_quoted(layout));
        format!("parsing time {} as {}: {why}", go_quoted(self.whole), go_quoted(self.layout))
    }

    fn digit(&self, at: usize) -> Option<i64> {
        self.rest.as_bytes().get(at).filter(|b| b.is_ascii_digit()).map(|b| i64::from(b - b'0'))
    }

    fn literal(&mut self, text: &'static str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(text).ok_or_else(|| self.unlike(self.rest, text))?;
        Ok(())
    }

    fn year(&mut self) -> Result<i16, String> {
        let year = self.rest.get(..4).filter(|y| y.bytes().all(|b| b.is_ascii_digit())).and_then(|y| y.parse().ok());
        let year = year.ok_or_else(|| self.unlike(self.rest, "2006"))?;
        self.rest = &self.rest[4..];
        Ok(year)
    }

    fn number(
        &mut self,
        layout: &'static str,
        two_digits: bool,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Result<i64, String> {
        let (number, len) = match (self.digit(0), self.digit(1)) {
            (Some(tens), Some(ones)) => (tens * 10 + ones, 2),
            (Some(ones), None) if !two_digits => (ones, 1),
            _ => return Err(self.unlike(self.rest, layout)),
        };
        self.rest = &self.rest[len..];
        if range.contains(&number) { Ok(number) } else { Err(self.because(&format!("{name} out of range"))) }
    }

    /// A fraction that the layout does not ask for.
    fn fraction(&mut self) -> i32 {
        if !self.rest.starts_with(['.', ',']) || self.digit(1).is_none() {
            return 0;
        }
        let digits = &self.rest[1..];
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        self.rest = &digits[end..];
        let nanos: String = digits[..end].chars().chain("000000000".chars()).take(9).collect();
        nanos.parse().unwrap_or(0)
    }

    fn micros(&mut self) -> Result<i32, String> {
        const LEN: usize = ".000000".len();
        let digits = self.rest.get(..LEN).and_then(|f| f.strip_prefix(['.', ',']));
        let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_digit())).and_then(|d| d.parse::<i32>().ok());
        let micros = digits.ok_or_else(|| self.unlike(self.rest, ".000000"))?;
        self.rest = &self.rest[LEN..];
        Ok(micros * 1000)
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i64, String> {
        const LEN: usize = "+00:00".len();
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bad = || self.unlike(self.rest, "Z07:00");
        let text = self.rest.get(..LEN).ok_or_else(bad)?.as_bytes();
        let sign = match (text[0], text[3]) {
            (b'+', b':') => 1,
            (b'-', b':') => -1,
            _ => return Err(bad()),
        };
        let two = |at: usize| Some(self.digit(at)? * 10 + self.digit(at + 1)?);
        let (hours, minutes) = (two(1).ok_or_else(bad)?, two(4).ok_or_else(bad)?);
        self.rest = &self.rest[LEN..];
        match (hours, minutes) {
            (25.., _) => Err(self.because("time zone offset hour out of range")),
            (_, 61..) => Err(self.because("time zone offset minute out of range")),
            _ => Ok(sign * (hours * 3600 + minutes * 60)),
        }
    }
}

/// Text in quotes, as errors about times and durations have it: bytes that are not plain ASCII are escaped.
fn go_quoted(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            other => {
                for byte in other.encode_utf8(&mut [0; 4]).bytes() {
                    let _infallible = write!(out, "\\x{byte:02x}");
                }
            }
        }
    }
    out.push('"');
    out
}

/// What is wrong with a duration, in the words of Go's decoder.
#[must_use]
pub fn duration_complaint(text: &str) -> String {
    let invalid = || format!("time: invalid duration {}", go_quoted(text));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number = &rest[..end];
        if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
            return invalid();
        }
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return format!("time: missing unit in duration {}", go_quoted(text));
        }
        if !["ns", "us", "µs", "μs", "ms", "s", "m", "h"].contains(&unit) {
            return format!("time: unknown unit {} in duration {}", go_quoted(unit), go_quoted(text));
        }
        rest = &rest[end..];
    }
    invalid()
}

/// Reads a Go duration such as `1h30m0.5s`: nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    crate::json::read_duration(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_as_the_calendar_says() {
        let edges = [0, -1, 951_782_399, 951_868_800, 1_709_164_800, 4_107_542_400, -62_135_596_800, 253_402_207_200];
        let spread = (-62_135_596_800..253_402_207_200).step_by(86_399 * 37 + 11);
        for seconds in edges.into_iter().chain(spread).chain([-62_135_596_801]) {
            let plain = plain_seconds(seconds).map(|text| String::from_utf8(text.to_vec()).unwrap());
            assert_eq!(plain.is_some(), seconds >= -62_135_596_800, "{seconds}");
            assert!(plain.is_none_or(|text| text == format_seconds(seconds)), "{seconds}");
        }
    }

    #[test]
    fn times_are_read_by_the_layout() {
        assert_eq!(parse("1970-01-02T00:00:01Z"), Some((86_401, 0)));
        assert_eq!(parse("1970-01-01T01:00:00.5+01:00"), Some((0, 500_000_000)));
        assert_eq!(parse_as("1970-01-01T00:00:00.000001Z", true), Ok((0, 1000)));
        assert_eq!(parse_as("1970-01-01T0:00:00Z", false), Ok((0, 0)));
    }

    #[test]
    fn complaints_name_the_piece() {
        let told = |text: &str| parse_as(text, false).unwrap_err();
        let layout = "as \"2006-01-02T15:04:05Z07:00\": cannot parse";
        assert_eq!(told("foo"), format!("parsing time \"foo\" {layout} \"foo\" as \"2006\""));
        assert_eq!(told(""), format!("parsing time \"\" {layout} \"\" as \"2006\""));
        assert_eq!(told("2020-01-01"), format!("parsing time \"2020-01-01\" {layout} \"\" as \"T\""));
        assert_eq!(told("2020-13-01T00:00:00Z"), "parsing time \"2020-13-01T00:00:00Z\": month out of range");
        assert_eq!(told("2020-02-30T00:00:00Z"), "parsing time \"2020-02-30T00:00:00Z\": day out of range");
        assert_eq!(told("2020-02-01T00:00:00Zx"), "parsing time \"2020-02-01T00:00:00Zx\": extra text: \"x\"");
        let micro = parse_as("1970-01-01T00:00:00Z", true).unwrap_err();
        assert!(micro.ends_with("cannot parse \"Z\" as \".000000\""));
    }

    #[test]
    fn complaints_about_durations() {
        assert_eq!(duration_complaint("x"), "time: invalid duration \"x\"");
        assert_eq!(duration_complaint("5"), "time: missing unit in duration \"5\"");
        assert_eq!(duration_complaint("5d"), "time: unknown unit \"d\" in duration \"5d\"");
    }
}
