//! Checks the shape of a manifest against the key table: unknown keys, missing keys, types.
//!
//! Values are not looked into here; that is what [`crate::reader`] does.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Extent;
use crate::findings::{Finding, Findings};
use crate::keys::{self, Key, Kind, Presence, Scalar};
use crate::secret::without_indices;
use crate::words::{Reference, SealedSecret, Word, closest};

/// Whether a value is of the type that a scalar can be written as.
pub(crate) fn fits(value: &DeValue<'_>, scalar: Scalar) -> bool {
    match scalar {
        Scalar::Bool => value.is_bool(),
        Scalar::Integer { .. } => value.is_integer(),
        Scalar::Word(_) => value.is_str(),
        Scalar::Text => value.is_str() || value.is_integer() || value.is_bool(),
    }
}

/// The path of a key inside a table, quoted if it must be.
pub(crate) fn join(at: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let name = if bare { name.to_owned() } else { format!("\"{}\"", name.escape_debug()) };
    if at.is_empty() { name } else { format!("{at}.{name}") }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Checks a manifest, or a part of one.
pub(crate) fn check(root: &DeTable<'_>, extent: Extent, findings: &mut Findings) {
    check_table(root, 0..0, Place { row: "", at: "", extent }, findings);
}

/// A table of the manifest: its row, its path, and whether nothing can come to it.
#[derive(Clone, Copy)]
struct Place<'a> {
    row: &'a str,
    at: &'a str,
    extent: Extent,
}

fn check_table(table: &DeTable<'_>, span: Range<usize>, place: Place<'_>, findings: &mut Findings) {
    for (name, value) in table {
        let at = join(place.at, name.get_ref());
        match keys::children(place.row).find(|key| key.name() == name.get_ref().as_ref()) {
            Some(key) => check_value(key, value, (&at, place.extent), findings),
            None => unknown(findings, name, place, &at),
        }
    }
    if findings.has_broken_syntax() || place.extent == Extent::Part {
        // What seems to be missing may well stand where the syntax is broken, or in another part.
        return;
    }
    for key in keys::children(place.row).filter(|key| key.presence == Presence::Required) {
        if table.get(key.name()).is_none() {
            let inside = if place.at.is_empty() { "the manifest".to_owned() } else { format!("`{}`", place.at) };
            let example = match key.kind {
                Kind::Section => format!("[{}]", key.path),
                Kind::Sections => format!("[[{}]]", key.path),
                Kind::Map(_) | Kind::One(_) | Kind::List(_) => format!("{} = {}", key.name(), key.example),
            };
            let reason = format!("`{}` is missing in {inside}", key.name());
            findings
                .push(Finding::error(span.clone(), join(place.at, key.name()), reason))
                .expected(expected(key.kind))
                .help(format!("for example: {example}"));
        }
    }
}

fn expected(kind: Kind) -> String {
    match kind {
        Kind::Section | Kind::Map(_) => "a table".to_owned(),
        Kind::Sections => "an array of tables".to_owned(),
        Kind::One(scalar) => scalar.expected(),
        Kind::List(scalar) => format!("an array, each element: {}", scalar.expected()),
    }
}

fn unknown(findings: &mut Findings, name: &Spanned<std::borrow::Cow<'_, str>>, place: Place<'_>, at: &str) {
    let text = name.get_ref().as_ref();
    let inside = if place.at.is_empty() { "the manifest".to_owned() } else { format!("`{}`", place.at) };
    let siblings: Vec<&str> = keys::children(place.row).map(Key::name).collect();
    let reason = format!("unknown key `{}` in {inside}", text.escape_debug());
    let finding = findings.push(Finding::error(name.span(), at, reason));
    finding.expected(format!("one of {}", siblings.join(", ")));
    match (closest(text, siblings.iter().copied()), elsewhere(text)) {
        (Some(sibling), _) => finding.did_you_mean(Some(sibling)),
        (None, Some(key)) => finding.help(format!("there is a key `{}`", key.path)),
        (None, None) => finding,
    };
}

/// A key of this name in another table.
fn elsewhere(name: &str) -> Option<&'static Key> {
    keys::all().iter().find(|key| key.name() == name.replace('_', "-"))
}

fn check_value(key: &'static Key, value: &Spanned<DeValue<'_>>, (at, extent): (&str, Extent), findings: &mut Findings) {
    match (key.kind, value.get_ref()) {
        (Kind::Section, DeValue::Table(table)) => {
            check_table(table, value.span(), Place { row: key.path, at, extent }, findings)
        }
        (Kind::Sections, DeValue::Array(elements)) => {
            let row = format!("{}[]", key.path);
            for (index, element) in elements.iter().enumerate() {
                let at = format!("{at}[{index}]");
                match element.get_ref() {
                    // Arrays do not merge: each element is whole.
                    DeValue::Table(table) => {
                        let place = Place { row: &row, at: &at, extent: Extent::Whole };
                        check_table(table, element.span(), place, findings);
                    }
                    other => {
                        findings.push(mistyped(element.span(), &at, "a table", other));
                    }
                }
            }
        }
        (Kind::Map(_), DeValue::Table(table)) => {
            for inner in keys::children(key.path) {
                for (name, value) in table {
                    check_value(inner, value, (&join(at, name.get_ref()), extent), findings);
                }
            }
        }
        (Kind::One(scalar), inner) if fits(inner, scalar) => {}
        (Kind::One(_), DeValue::Table(table)) if key.is_secret() => check_reference(table, value.span(), at, findings),
        (Kind::List(scalar), DeValue::Array(elements)) => {
            for (index, element) in elements.iter().enumerate() {
                if !fits(element.get_ref(), scalar) {
                    let at = format!("{at}[{index}]");
                    findings.push(mistyped(element.span(), &at, &wanted(Kind::One(scalar)), element.get_ref()));
                }
            }
        }
        (kind, found) => {
            let finding = findings.push(mistyped(value.span(), at, &wanted(kind), found));
            if let Some(help) = type_help(key, found) {
                finding.help(help);
            }
        }
    }
}

/// The reference that stands in the place of a secret, if it is a good one.
pub(crate) fn reference(value: &DeValue<'_>) -> Option<Reference> {
    let mut entries = value.as_table()?.iter();
    let (Some((name, text)), None) = (entries.next(), entries.next()) else { return None };
    Reference::parse(name.get_ref(), text.get_ref().as_str()?).ok()
}

/// What is wrong with what stands in the place of a secret is shown at its key, as the rest may be the secret.
fn check_reference(table: &DeTable<'_>, span: Range<usize>, at: &str, findings: &mut Findings) {
    let refused = |findings: &mut Findings, reason: String, expected: &str, meant: Option<&str>| {
        findings.push(Finding::error(span.clone(), at, reason)).expected(expected).did_you_mean(meant);
    };
    let mut entries = table.iter();
    let (Some((name, value)), None) = (entries.next(), entries.next()) else {
        let reason = format!("this table has {} keys, and a secret is in one place", table.len());
        return refused(findings, reason, Reference::EXPECTED, None);
    };
    let Some(text) = value.get_ref().as_str() else {
        let reason = format!("`{}` is {}", name.get_ref().escape_debug(), type_name(value.get_ref()));
        return refused(findings, reason, Reference::EXPECTED, None);
    };
    if let Err((error, expected)) = Reference::parse(name.get_ref(), text) {
        return refused(findings, error.reason, expected, error.suggestion.as_deref());
    }
    let sealed = (name.get_ref() == "sealed").then(|| SealedSecret::parse_word(text).ok()).flatten();
    if let Some(sealed) = sealed.filter(|sealed| sealed.key != without_indices(at)) {
        let reason = format!("this was sealed for `{}`, and is not given out for another key", sealed.key);
        refused(findings, reason, SealedSecret::FORMAT.expected, None);
    }
}

fn mistyped(span: Range<usize>, at: &str, wanted: &str, found: &DeValue<'_>) -> Finding {
    let mut finding = Finding::error(span, at, format!("this is {}", type_name(found)));
    finding.expected(wanted);
    finding
}

/// The type, and what a value of it must look like.
fn wanted(kind: Kind) -> String {
    match kind {
        Kind::One(Scalar::Word(format)) => format!("a string: {}", format.expected),
        Kind::One(scalar) => scalar.expected(),
        Kind::Section | Kind::Sections | Kind::Map(_) | Kind::List(_) => kind.type_name().to_owned(),
    }
}

/// Says how to write what was probably meant.
fn type_help(key: &Key, found: &DeValue<'_>) -> Option<String> {
    let quotes = "put it into quotes".to_owned();
    match (key.kind, found) {
        (Kind::List(scalar), one) if fits(one, scalar) => Some("put it into brackets: `[...]`".to_owned()),
        (Kind::Sections, DeValue::Table(_)) => Some(format!("write `[[{}]]`", key.path.replace("[]", ""))),
        (Kind::One(Scalar::Integer { .. } | Scalar::Bool), DeValue::String(text)) => {
            let plain = matches!(text.as_ref(), "true" | "false") || text.parse::<i64>().is_ok();
            plain.then(|| "remove the quotes".to_owned())
        }
        (Kind::One(Scalar::Word(format)), DeValue::Integer(_) | DeValue::Float(_)) if format.choices.is_empty() => {
            Some(quotes)
        }
        (Kind::One(_), DeValue::Array(elements)) if elements.len() == 1 => Some("remove the brackets".to_owned()),
        _ => None,
    }
}
