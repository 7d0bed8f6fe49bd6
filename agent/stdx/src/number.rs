//! Numbers as Go writes them.

use serde_json::Number;

/// A decoded number as Go prints it: whole numbers of its widest integer are plain, others are floats.
#[must_use]
pub fn go_number(number: &Number) -> String {
    match (number.as_i64(), number.as_f64()) {
        (None, Some(float)) => go_float(float),
        _ => number.to_string(),
    }
}

/// A float as Go prints it, in messages and in YAML: with an exponent from 10^6 on and below 10^-4.
#[must_use]
pub fn go_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e6).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    value.to_string()
}

/// A float as Go writes it in JSON: without a fraction where it has none, with an exponent from 10^21 on and below
/// 10^-6.
#[must_use]
pub fn go_json_float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{value:e}");
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    // Negative zero is read as zero again.
    (value + 0.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_printed_as_go_does() {
        let of = |text: &str| go_number(&serde_json::from_str(text).unwrap());
        assert_eq!(
            (of("10.0"), of("0.5"), of("1e21"), of("7")),
            ("10".into(), "0.5".into(), "1e+21".into(), "7".into())
        );
        assert_eq!((of("1e-7"), of("9223372036854775808")), ("1e-07".into(), "9.223372036854776e+18".into()));
        assert_eq!((go_float(999_999.5), go_float(1_234_567.5)), ("999999.5".into(), "1.2345675e+06".into()));
        assert_eq!((go_float(0.0001), go_float(0.000_01)), ("0.0001".into(), "1e-05".into()));
    }

    #[test]
    fn floats_are_written_as_go_does() {
        let of = go_json_float;
        assert_eq!((of(1.0), of(-0.0), of(1e18)), ("1".into(), "0".into(), "1000000000000000000".into()));
        assert_eq!((of(1e21), of(1e-7), of(0.25)), ("1e+21".into(), "1e-7".into(), "0.25".into()));
        let (wide, least) = ("-9223372036854776000".to_owned(), "0.000001".to_owned());
        assert_eq!((of(-9_223_372_036_854_775_808.0), of(1e-6)), (wide, least));
        assert_eq!(of(1e20), "100000000000000000000");
    }
}
