//! Lines of logs.

use crate::LogLine;

impl LogLine {
    /// As it stands in a service's file.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{} {:.3} {}", time_of(self.time), self.uptime, self.text)
    }

    /// Reads what [`LogLine::to_text`] wrote. What has another form has no time.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let read = || {
            let (time, rest) = line.split_once(' ')?;
            let (uptime, text) = rest.split_once(' ')?;
            Some(Self { time: parse_time(time)?, uptime: uptime.parse().ok()?, text: text.to_owned() })
        };
        read().unwrap_or_else(|| Self { text: line.to_owned(), ..Self::default() })
    }
}

/// RFC 3339 with milliseconds.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "times of which the years have four digits")]
pub fn time_of(seconds: f64) -> String {
    let millis = (seconds * 1000.0).round() as i64;
    let whole = api::time::format_seconds(millis.div_euclid(1000));
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), millis.rem_euclid(1000))
}

/// Seconds since 1970, from RFC 3339.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "seconds have few digits")]
pub fn parse_time(text: &str) -> Option<f64> {
    let (seconds, nanos) = api::time::parse(text)?;
    Some(seconds as f64 + f64::from(nanos) / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back() {
        let line = LogLine { time: 1_790_000_000.25, uptime: 12.5, text: "ready  now".to_owned() };
        assert_eq!(line.to_text(), "2026-09-21T14:13:20.250Z 12.500 ready  now");
        assert_eq!(LogLine::parse(&line.to_text()), line);
        assert_eq!(
            LogLine::parse("panic: no time"),
            LogLine { text: "panic: no time".to_owned(), ..LogLine::default() }
        );
    }
}
