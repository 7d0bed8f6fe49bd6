//! What tests of rules share.

use api::features::Features;
use serde_json::Value;

use super::Context;
use crate::strategy::Part;

/// What a rule says of a change from `old`, one error a line; both are JSON in the version named, defaulted before.
pub(super) fn told(version: &str, kind: &str, part: Part, new: &str, old: Option<&str>) -> String {
    let context = Context { features: &Features::default(), now: 0 };
    told_in(context, (version, kind), part, new, old)
}

/// As [`told`], with other features and at another time.
pub(super) fn told_in(
    context: Context<'_>,
    (version, kind): (&str, &str),
    part: Part,
    new: &str,
    old: Option<&str>,
) -> String {
    let kind = api::known_name(version, kind).unwrap();
    let tree = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let message = |text: &str| {
        let tree = tree(text);
        api::transcode::value_to_proto(kind.schema(), &tree, &mut api::transcode::Report::default()).unwrap()
    };
    let given = tree(new);
    let (new, old) = (message(new), old.map(message));
    let errors = super::judge(kind, part, ((&new, &given), old.as_deref()), context).unwrap().errors;
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
