//! Words for amounts: bytes, CPU, durations, eviction thresholds.

use std::fmt;
use std::time::Duration;

use super::{Word, WordError, WordFormat, from_str_by_word};

const BYTE_UNITS: [(&str, u64); 9] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

fn quoted(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

/// Splits a text after its leading decimal digits.
fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// An amount of bytes, in Kubernetes' notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = BYTE_UNITS[..4].iter().rev().find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match binary {
            Some((suffix, unit)) => write!(f, "{}{suffix}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Word for ByteSize {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "size",
        expected: "a whole number and a unit, Ki, Mi, Gi, Ti, k, M, G or T, such as `512Mi`",
        pattern: Some("^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let (number, unit) = split_number(text);
        if number.is_empty() {
            return Err(WordError::new(format!("{} does not begin with a number", quoted(text))));
        }
        let Some((_, factor)) = BYTE_UNITS.iter().find(|(suffix, _)| *suffix == unit) else {
            let reason = format!("{} has the unit {}", quoted(text), quoted(unit));
            let lower = unit.trim().to_lowercase();
            let meant = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower).trim_end_matches('i');
            return Err(match meant {
                "k" | "m" | "g" | "t" => WordError::meant(reason, format!("{number}{}i", meant.to_uppercase())),
                _ => WordError::new(reason),
            });
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        bytes.map(Self).ok_or_else(|| WordError::new(format!("{} is more than 64 bits hold", quoted(text))))
    }
}
from_str_by_word!(ByteSize);

/// An amount of CPU time per time, in Kubernetes' notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cpu {
    millis: u32,
}

impl Cpu {
    /// Thousandths of a CPU.
    #[must_use]
    pub const fn millis(self) -> u32 {
        self.millis
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.millis % 1000 {
            0 => write!(f, "{}", self.millis / 1000),
            _ => write!(f, "{}m", self.millis),
        }
    }
}

impl Word for Cpu {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "CPU amount",
        expected: "a number of CPUs or thousandths with `m`, such as `2` or `250m`",
        pattern: Some("^[0-9]+(m|\\.[0-9]{1,3})?$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let refused = || WordError::new(format!("{} is no CPU amount", quoted(text)));
        let (whole, rest) = split_number(text);
        let whole: u32 = whole.parse().map_err(|_invalid| refused())?;
        let millis = match rest {
            "m" => Some(whole),
            "" => whole.checked_mul(1000),
            _ => {
                let digits = rest.strip_prefix('.').ok_or_else(refused)?;
                if digits.is_empty() || digits.len() > 3 || !digits.chars().all(|c| c.is_ascii_digit()) {
                    return Err(refused());
                }
                let part: u32 = format!("{digits:0<3}").parse().map_err(|_invalid| refused())?;
                whole.checked_mul(1000).and_then(|millis| millis.checked_add(part))
            }
        };
        millis.map(|millis| Self { millis }).ok_or_else(refused)
    }
}
from_str_by_word!(Cpu);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeSpan(Duration);

impl TimeSpan {
    /// The length.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        match millis {
            _ if !millis.is_multiple_of(1000) => write!(f, "{millis}ms"),
            _ if !millis.is_multiple_of(60_000) || millis == 0 => write!(f, "{}s", millis / 1000),
            _ if !millis.is_multiple_of(3_600_000) => write!(f, "{}m", millis / 60_000),
            _ => write!(f, "{}h", millis / 3_600_000),
        }
    }
}

impl Word for TimeSpan {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "duration",
        expected: "whole numbers with `ms`, `s`, `m` or `h`, such as `30s` or `1h30m`",
        pattern: Some("^([0-9]+(ms|s|m|h))+$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let refused = || WordError::new(format!("{} is no duration", quoted(text)));
        if text.is_empty() {
            return Err(refused());
        }
        if text.chars().all(|c| c.is_ascii_digit()) {
            return Err(WordError::meant(format!("{} has no unit", quoted(text)), format!("{text}s")));
        }
        let (mut rest, mut millis) = (text, 0_u64);
        while !rest.is_empty() {
            let (number, tail) = split_number(rest);
            let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let factor = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(refused()),
            };
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(refused)?;
            millis = millis.checked_add(part).ok_or_else(refused)?;
            rest = tail;
        }
        Ok(Self(Duration::from_millis(millis)))
    }
}
from_str_by_word!(TimeSpan);

/// How much of a resource must be left before pods are evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threshold {
    /// A percentage of the capacity.
    Percent(u8),
    /// An absolute amount, in bytes or whatever the resource is counted in.
    Amount(ByteSize),
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Amount(amount) => amount.fmt(f),
        }
    }
}

impl Word for Threshold {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "threshold",
        expected: "a percentage or a size, such as `10%` or `100Mi`",
        pattern: Some("^[0-9]+(%|Ki|Mi|Gi|Ti|k|M|G|T)?$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some(percent) = text.strip_suffix('%') else {
            return ByteSize::parse_word(text).map(Self::Amount);
        };
        match percent.parse() {
            Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
            _ => Err(WordError::new(format!("{} is not from 0% to 100%", quoted(text)))),
        }
    }
}
from_str_by_word!(Threshold);
