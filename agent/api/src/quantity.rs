//! Resource quantities: decimal numbers with SI, binary SI or exponent suffixes.
//!
//! Reading rounds up to 10^-9 as upstream does; [`Quantity::canonical`] gives the spelling upstream stores.

use std::cmp::Ordering;

use crate::Quantity;

/// How a quantity is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `k`, `M`, … and `m`, `u`, `n`.
    Decimal,
    /// `Ki`, `Mi`, …
    Binary,
    /// `e3`.
    Exponent,
}

/// A quantity's value: `nanos / 10^9`, exact within its range of about ±1.7 × 10^29.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    nanos: i128,
    /// How it was spelled.
    pub format: Format,
}

/// Why text is no quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text does not have the form of a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    /// The suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Amount {
    /// Reads a quantity such as `100m`, `1.5Gi` or `1e3`.
    ///
    /// # Errors
    /// When the text is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (whole, rest) = unsigned.split_at(digits(unsigned));
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), |rest| rest.split_at(digits(rest)));
        let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if text.is_empty() || digits(exponent) != exponent.len() {
            return Err(QuantityError::Form);
        }
        let (format, binary_steps, exponent) = parse_suffix(suffix)?;
        let digits = format!("{whole}{fraction}");
        let scale = exponent - i32::try_from(fraction.len()).map_err(|_| QuantityError::Form)? + 9;
        let nanos = scaled(digits.trim_start_matches('0'), scale, binary_steps);
        Ok(Self { nanos: if text.starts_with('-') { -nanos } else { nanos }, format })
    }

    /// The value in 10^-9.
    #[must_use]
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// A whole number of units.
    #[must_use]
    pub fn from_units(units: i64, format: Format) -> Self {
        Self { nanos: i128::from(units) * NANO, format }
    }

    /// A number of thousandths.
    #[must_use]
    pub fn from_milli(milli: i64) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format: Format::Decimal }
    }

    /// Whole units, rounded up (towards positive infinity), as upstream's `Value`.
    #[must_use]
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below nothing.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// The sum, spelled as this one (or as `other` where this is zero).
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }

    /// Upstream's canonical spelling: no fraction, the largest suffix that keeps the number whole.
    #[must_use]
    pub fn canonical(&self) -> String {
        if self.nanos == 0 {
            return "0".to_owned();
        }
        let whole = self.nanos % NANO == 0;
        if self.format == Format::Binary && whole && (self.nanos / NANO).unsigned_abs() >= 1024 {
            return binary(self.nanos / NANO);
        }
        let (mut mantissa, mut exponent) = (self.nanos, -9);
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        match self.format {
            Format::Exponent if exponent != 0 => format!("{mantissa}e{exponent}"),
            _ => {
                let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
                format!("{mantissa}{suffix}")
            }
        }
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.nanos.cmp(&other.nanos))
    }
}

fn binary(units: i128) -> String {
    let (mut mantissa, mut suffix) = (units, "");
    for next in BINARY {
        if mantissa % 1024 != 0 {
            break;
        }
        mantissa /= 1024;
        suffix = next;
    }
    format!("{mantissa}{suffix}")
}

/// (format, steps of 1024, power of ten) of a suffix.
fn parse_suffix(suffix: &str) -> Result<(Format, u32, i32), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((Format::Decimal, 0, *exponent));
    }
    if let Some((step, _)) = (1..).zip(BINARY).find(|(_, s)| *s == suffix) {
        return Ok((Format::Binary, step, 0));
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
    let exponent: i32 = digits.parse().map_err(|_| QuantityError::Suffix)?;
    Ok((Format::Exponent, 0, exponent))
}

/// `digits × 10^scale × 1024^steps`, rounded up, clamped.
fn scaled(digits: &str, scale: i32, steps: u32) -> i128 {
    const MAX: i128 = i64::MAX as i128 * NANO;
    if digits.is_empty() {
        return 0;
    }
    if digits.len() > 37 || scale > 37 {
        return MAX;
    }
    let Ok(number) = digits.parse::<i128>() else { return MAX };
    let Some(number) = number.checked_mul(1024i128.pow(steps)) else { return MAX };
    let scaled = match u32::try_from(scale) {
        Ok(up) => number.checked_mul(10i128.pow(up)).unwrap_or(MAX),
        Err(_) if scale < -37 => 1,
        Err(_) => ceil_div(number, 10i128.pow(scale.unsigned_abs())),
    };
    scaled.min(MAX)
}

fn ceil_div(value: i128, by: i128) -> i128 {
    value.div_euclid(by) + i128::from(value.rem_euclid(by) != 0)
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl Quantity {
    /// A quantity spelled `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self { string: text.into() }
    }

    /// Reads the spelling.
    ///
    /// # Errors
    /// When it is no quantity.
    pub fn parse(&self) -> Result<Amount, QuantityError> {
        Amount::parse(&self.string)
    }

    /// The value, nothing where the spelling is wrong: for objects that were validated before.
    #[must_use]
    pub fn amount(&self) -> Amount {
        self.parse().unwrap_or(Amount { nanos: 0, format: Format::Decimal })
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Self::new(amount.canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_upstreams_canonical_ones() {
        let cases = [
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1", "1"),
            ("100m", "100m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("1000k", "1M"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-1.5", "-1500m"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1E", "1E"),
            ("512", "512"),
            ("0.1Gi", "107374182400m"),
            (".5", "500m"),
            ("1.", "1"),
            ("2k", "2k"),
            ("1n", "1n"),
            ("0.0000000001", "1n"),
            ("1Ki", "1Ki"),
            ("1023Ki", "1023Ki"),
        ];
        for (input, expected) in cases {
            assert_eq!(Amount::parse(input).unwrap().canonical(), expected, "{input}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for input in ["", "1.2.3", "1x", "abc", "1 Gi", "1e", "1KI"] {
            assert!(Amount::parse(input).is_err(), "{input}");
        }
    }

    #[test]
    fn no_digits_are_zero() {
        for input in [".", "-", "Ki"] {
            assert!(Amount::parse(input).unwrap().is_zero(), "{input}");
        }
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Amount::parse("1m").unwrap().value(), 1);
        assert_eq!(Amount::parse("1500m").unwrap().milli(), 1500);
        assert_eq!(Amount::parse("-1500m").unwrap().value(), -1);
        assert!(Amount::parse("1Gi").unwrap() > Amount::parse("1G").unwrap());
    }
}
