//! Field selectors as they are written: `name=value` and `name!=value` between commas; pure.

use crate::status::{Failure, Result};

/// What is asked of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The field.
    pub name: String,
    /// The value.
    pub value: String,
    /// Whether the field has to have the value, or must not.
    pub is_equal: bool,
}

/// The terms of a selector, in the order of their texts.
///
/// # Errors
/// Of the first that cannot be read.
pub fn parse(text: &str) -> Result<Vec<Term>> {
    let mut parts: Vec<&str> = parts(text).filter(|p| !p.is_empty()).collect();
    parts.sort_unstable();
    // What names nothing and asks for nothing is no term.
    let parts = parts.into_iter().filter(|part| !matches!(*part, "=" | "==" | "!="));
    parts.map(|part| term(part, text)).collect()
}

/// What stands between commas; one behind a backslash is part of a value.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    text.split(move |c| {
        let is_end = c == ',' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })
}

fn term(part: &str, whole: &str) -> Result<Term> {
    let found = part.char_indices().find_map(|(at, _)| {
        let operator = ["!=", "==", "="].into_iter().find(|operator| part[at..].starts_with(operator))?;
        Some((&part[..at], &part[at + operator.len()..], operator != "!="))
    });
    let Some((name, value, is_equal)) = found else {
        let text = format!("invalid selector: '{whole}'; can't understand '{part}'");
        return Err(Failure::bad_request(text));
    };
    Ok(Term { name: name.to_owned(), value: unescaped(value)?, is_equal })
}

/// A value without its backslashes.
fn unescaped(text: &str) -> Result<String> {
    let bad = |why: String| Failure::bad_request(format!("invalid field selector: {why}"));
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => value.push(escaped),
                other => {
                    let shown: String = other.into_iter().collect();
                    return Err(bad(format!("invalid escape sequence: \\{shown}")));
                }
            },
            ',' | '=' => return Err(bad(format!("unescaped character in value: {}", u32::from(c)))),
            plain => value.push(plain),
        }
    }
    Ok(value)
}

/// The one value that a field has to have, if a selector says that.
#[must_use]
pub fn exact(text: &str, name: &str) -> Option<String> {
    let terms = parse(text).ok()?;
    terms.into_iter().find(|term| term.is_equal && term.name == name).map(|term| term.value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_must_be_are_found_among_others() {
        assert_eq!(exact("spec.nodeName=a,metadata.name=x", "metadata.name").as_deref(), Some("x"));
        assert_eq!(exact("metadata.name!=x", "metadata.name"), None);
        assert_eq!(exact("metadata.name=x,foo", "metadata.name"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z=!,\\\\]{0,40}") {
            let _either_way = parse(&text).is_ok();
        }
    }
}
