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

/// Appends [`format_seconds`] as a JSON string.
pub(crate) fn put_seconds(out: &mut Vec<u8>, seconds: i64) {
    const DAY: i64 = 86_400;
    // Years of four digits, counted in days since 1970.
    if !(-719_162 * DAY..2_932_897 * DAY).contains(&seconds) {
        out.push(b'"');
        out.extend_from_slice(format_seconds(seconds).as_bytes());
        out.push(b'"');
        return;
    }
    let (days, rest) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let mut text = *b"\"0000-00-00T00:00:00Z\"";
    let mut put = |at: usize, width: usize, mut value: i64| {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(1, 4, year);
    put(6, 2, month);
    put(9, 2, day);
    put(12, 2, rest / 3600);
    put(15, 2, rest / 60 % 60);
    put(18, 2, rest % 60);
    out.extend_from_slice(&text);
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
    let shaped = text.len() >= 20 && text.as_bytes()[10] == b'T' && !text.contains('[');
    let time: jiff::Timestamp = if shaped { text.parse().ok()? } else { return None };
    Some((time.as_second(), time.subsec_nanosecond()))
}

/// Reads RFC 3339 with six fraction digits, no more and no fewer, as `metav1.MicroTime` is read.
#[must_use]
pub fn parse_micros(text: &str) -> Option<(i64, i32)> {
    let fraction = text.get(19..)?.strip_prefix('.')?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 6 { parse(text) } else { None }
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
            let mut out = Vec::new();
            put_seconds(&mut out, seconds);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"{}\"", format_seconds(seconds)), "{seconds}");
        }
    }

    #[test]
    fn microseconds_are_six_digits() {
        assert_eq!(parse_micros("2024-05-06T07:08:09.000123Z").map(|(_, nanos)| nanos), Some(123_000));
        assert!(parse_micros("2024-05-06T07:08:09.000123+02:00").is_some());
        for text in ["2024-05-06T07:08:09Z", "2024-05-06T07:08:09.123Z", "2024-05-06T07:08:09.0001234Z", "x"] {
            assert_eq!(parse_micros(text), None, "{text}");
        }
    }
}
