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

/// Reads a Go duration such as `1h30m0.5s`: nanoseconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<i64> {
    crate::json::read_duration(text)
}
