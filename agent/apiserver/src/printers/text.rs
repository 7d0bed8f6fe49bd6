//! Pieces of cells: ages, selectors, short lists.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use api::Quantity;
use api::core::v1::Container;
use api::meta::v1::{LabelSelector, MicroTime, Time};

/// The time that ages are counted from.
#[derive(Clone, Copy, Debug)]
pub struct Now(i64);

const SECOND: i64 = 1_000_000_000;

/// A time of the API in nanoseconds since 1970.
pub(super) trait Stamp {
    /// None where no time is set.
    fn in_nanos(&self) -> Option<i64>;
}

impl Stamp for Time {
    fn in_nanos(&self) -> Option<i64> {
        Some(self.unix()?.saturating_mul(SECOND).saturating_add(self.nanos.unwrap_or(0).into()))
    }
}

impl Stamp for MicroTime {
    fn in_nanos(&self) -> Option<i64> {
        Some(self.unix()?.saturating_mul(SECOND).saturating_add(self.nanos.unwrap_or(0).into()))
    }
}

impl Now {
    /// The time of the clock.
    #[must_use]
    pub fn from_clock() -> Self {
        Self(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX))
    }

    /// Nanoseconds since 1970.
    #[cfg(test)]
    pub(crate) fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// How long ago a time is, in nanoseconds since 1970.
    pub(crate) fn since(self, time: i64) -> String {
        duration(self.0.saturating_sub(time))
    }
}

/// A length of time in two or three significant digits.
pub(super) fn duration(nanos: i64) -> String {
    let seconds = nanos / SECOND;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        // Clocks of two machines may differ a little.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// The text, or a placeholder for none.
pub(super) fn or<'t>(text: &'t str, placeholder: &'t str) -> &'t str {
    if text.is_empty() { placeholder } else { text }
}

/// The text, or `<none>`.
pub(super) fn or_none(text: &str) -> &str {
    or(text, "<none>")
}

/// `True`, `False` or `<unset>`.
pub(super) fn flag(value: Option<bool>) -> &'static str {
    match value {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
}

/// A quantity; zero where there is none.
pub(super) fn quantity(quantity: Option<&Quantity>) -> &str {
    quantity.map_or("0", |q| or(&q.string, "0"))
}

/// `a=b,c=d`, or `<none>`.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    or_none(&pairs.join(",")).to_owned()
}

/// A selector in query form; empty for none and for one that selects all, `None` for one with an unknown operator.
pub(super) fn selector(selector: Option<&LabelSelector>) -> Option<String> {
    let Some(selector) = selector else { return Some(String::new()) };
    let mut parts: Vec<(&str, String)> =
        selector.match_labels.iter().map(|(key, value)| (key.as_str(), format!("{key}={value}"))).collect();
    for expression in &selector.match_expressions {
        let mut values = expression.values.clone();
        values.sort();
        let (key, values) = (&expression.key, values.join(","));
        let part = match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        };
        parts.push((key, part));
    }
    parts.sort_by_key(|(key, _)| *key);
    Some(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(","))
}

/// As [`selector`], with words for nothing and for what is wrong.
pub(super) fn selector_or_none(of: Option<&LabelSelector>) -> String {
    selector(of).map_or_else(|| "<error>".to_owned(), |text| or_none(&text).to_owned())
}

/// A selector as Go prints the object.
pub(super) fn go_selector(selector: &LabelSelector) -> String {
    let mut out = "&LabelSelector{MatchLabels:map[string]string{".to_owned();
    let mut add = |text: std::fmt::Arguments<'_>| out.write_fmt(text).unwrap_or_default();
    for (key, value) in &selector.match_labels {
        add(format_args!("{key}: {value},"));
    }
    add(format_args!("}},MatchExpressions:[]LabelSelectorRequirement{{"));
    for expression in &selector.match_expressions {
        let (key, operator, values) = (&expression.key, &expression.operator, expression.values.join(" "));
        add(format_args!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},"));
    }
    add(format_args!("}},}}"));
    out
}

/// Names and images of containers.
pub(super) fn containers(containers: &[Container]) -> (String, String) {
    let join = |field: fn(&Container) -> &str| containers.iter().map(field).collect::<Vec<_>>().join(",");
    (join(|c| &c.name), join(|c| &c.image))
}

/// The first `max` of a list and how many more there are.
pub(super) fn first(list: &[String], max: usize, separator: &str) -> String {
    let shown = list[..list.len().min(max)].join(separator);
    match list.len().saturating_sub(max) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use api::meta::v1::LabelSelectorRequirement;

    use super::*;

    #[test]
    fn durations_have_two_or_three_digits() {
        let cases = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds * SECOND), expected, "{seconds}");
        }
        assert_eq!(duration(-SECOND - SECOND / 2), "0s");
    }

    #[test]
    fn a_selector_is_sorted_by_key() {
        let expression = |key: &str, operator: &str, values: &[&str]| LabelSelectorRequirement {
            key: key.into(),
            operator: operator.into(),
            values: values.iter().map(|v| (*v).to_owned()).collect(),
        };
        let some = LabelSelector {
            match_labels: [("m".to_owned(), "x".to_owned())].into(),
            match_expressions: vec![expression("z", "Exists", &[]), expression("a", "In", &["d", "c"])],
        };
        assert_eq!(selector_or_none(Some(&some)), "a in (c,d),m=x,z");
        let go = "&LabelSelector{MatchLabels:map[string]string{m: x,},MatchExpressions:[]LabelSelectorRequirement{\
                  LabelSelectorRequirement{Key:z,Operator:Exists,Values:[],},\
                  LabelSelectorRequirement{Key:a,Operator:In,Values:[d c],},},}";
        assert_eq!(go_selector(&some), go);
        assert_eq!(selector_or_none(None), "<none>");
        assert_eq!(
            selector_or_none(Some(&LabelSelector { match_expressions: vec![expression("a", "?", &[])], ..some })),
            "<error>"
        );
    }
}
