//! `$(NAME)` references in commands, arguments, environment values and sub paths.

/// Replaces `$(NAME)` by what `lookup` gives, `$$` by `$`; unknown references stay as they are.
pub(crate) fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    expand_counting(text, lookup).0
}

/// The same, and the first reference that was not known.
pub(crate) fn expand_strict(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    match expand_counting(text, lookup) {
        (expanded, None) => Ok(expanded),
        (_, Some(unknown)) => Err(unknown),
    }
}

fn expand_counting(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> (String, Option<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unknown = None;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(end) = rest.strip_prefix('(').and_then(|inner| inner.find(')')) {
            let name = &rest[1..=end];
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str(&format!("$({name})"));
                    unknown.get_or_insert_with(|| name.to_owned());
                }
            }
            rest = &rest[end + 2..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    (out, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_and_unknown_ones_stay() {
        let lookup = |name: &str| (name == "A").then(|| "x".to_owned());
        for (text, expected) in [
            ("$(A)", "x"),
            ("a$(A)b$(A)", "axbx"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$x"),
            ("$(B)", "$(B)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("$()", "$()"),
            ("", ""),
        ] {
            assert_eq!(expand(text, &lookup), expected, "{text}");
        }
        assert_eq!(expand_strict("$(B)", &lookup), Err("B".to_owned()));
    }
}
