//! What stands in a column of a row.

use serde_json::Value;

use super::text::Stamp;

/// What stands in a column of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// The same at all times.
    Value(Value),
    /// How long ago something was when the row is shown.
    Age {
        /// What stands in front.
        before: String,
        /// When it was, in nanoseconds since 1970.
        time: i64,
        /// What comes after it, of which nothing is escaped in JSON.
        after: &'static str,
    },
}

macro_rules! from {
    ($($type:ty),+) => { $(
        impl From<$type> for Cell {
            fn from(value: $type) -> Self {
                Self::Value(value.into())
            }
        }
    )+ };
}

from!(&str, String, bool, i32, i64, usize, Option<i32>, Option<bool>, Value);

#[cfg(test)]
impl PartialEq<&str> for Cell {
    fn eq(&self, text: &&str) -> bool {
        matches!(self, Self::Value(value) if value == text)
    }
}

/// How long ago a time is.
pub(super) fn age(time: &impl Stamp) -> Cell {
    Cell::since(time.in_nanos())
}

impl Cell {
    /// How long ago a time in nanoseconds since 1970 is, if there is one.
    #[must_use]
    pub fn since(nanos: Option<i64>) -> Self {
        nanos.map_or_else(|| "<unknown>".into(), |time| Self::Age { before: String::new(), time, after: "" })
    }

    /// Appends the JSON text without ages, and to `ages` the places where they belong, with their times.
    pub fn put(&self, out: &mut Vec<u8>, ages: &mut Vec<(usize, i64)>) {
        match self {
            Self::Value(value) => api::transcode::put_json(value, out),
            Self::Age { before, time, after } => {
                api::transcode::put_json(&Value::from(before.as_str()), out);
                // Behind the quotation mark that ends it.
                out.pop();
                ages.push((out.len(), *time));
                out.extend_from_slice(after.as_bytes());
                out.push(b'"');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use api::meta::v1::Time;

    use super::*;

    #[test]
    fn a_time_leaves_a_place_for_its_age() {
        let (mut out, mut ages) = (Vec::new(), Vec::new());
        for cell in [age(&Time::default()), Cell::Age { before: "2 (".into(), time: 7, after: " ago)" }, 5.into()] {
            cell.put(&mut out, &mut ages);
        }
        let unknown = r#""\u003cunknown\u003e""#;
        assert_eq!(String::from_utf8(out).unwrap(), format!(r#"{unknown}"2 ( ago)"5"#));
        assert_eq!(ages, [(unknown.len() + 4, 7)]);
    }
}
