//! Whether a text can be read as upstream's JSONPath, and what is said if not. Nothing is ever looked up by it here.

/// Characters that end a name.
const ENDS: [char; 11] = [' ', '\t', '\r', '\n', '.', ',', '[', ']', '$', '@', '}'];

/// What is wrong with a path, if anything is.
pub(super) fn complaint(path: &str) -> Option<String> {
    inside(&format!("{path}}}")).err()
}

/// Reads what stands between braces, to the closing one.
fn inside(mut rest: &str) -> Result<(), String> {
    let mut was_recursive = false;
    loop {
        let first = rest.chars().next();
        let is_recursive = rest.starts_with("..");
        rest = match first {
            // What follows is a text, which may have further paths in it.
            Some('}') => match rest[1..].split_once('{') {
                Some((_, next)) => next,
                None => return Ok(()),
            },
            _ if rest.starts_with("[?(") => filter(&rest[3..])?,
            Some('.') if is_recursive && was_recursive => {
                return Err("invalid multiple recursive descent".to_owned());
            }
            Some('.') if is_recursive => {
                let rest = &rest[2..];
                if rest.starts_with(|c: char| c == '_' || c.is_alphanumeric()) { name_end(rest) } else { rest }
            }
            Some('.') => name_end(&rest[1..]),
            None | Some('\r' | '\n') => return Err("unclosed action".to_owned()),
            Some(' ' | '@' | '$') => &rest[1..],
            Some('[') => list(&rest[1..])?,
            Some(quote @ ('"' | '\'')) => quoted(&rest[1..], quote)?,
            Some(digit) if digit == '+' || digit == '-' || digit.is_numeric() => number(rest)?,
            Some(letter) if letter == '_' || letter.is_alphabetic() => {
                rest.find(|c| ENDS.contains(&c) || c == '{').map_or("", |end| &rest[end..])
            }
            Some(other) => return Err(unrecognized(other)),
        };
        was_recursive = is_recursive;
    }
}

fn unrecognized(found: char) -> String {
    let code = u32::from(found);
    let shown = if found.is_control() { String::new() } else { format!(" '{found}'") };
    format!("unrecognized character in action: U+{code:04X}{shown}")
}

/// What follows a name, in which a backslash keeps what would end it.
fn name_end(text: &str) -> &str {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '{' => return &text[at..],
            end if ENDS.contains(&end) => return &text[at..],
            _ => {}
        }
    }
    ""
}

/// What follows the members of a list.
fn list(text: &str) -> Result<&str, String> {
    let end = text.find([']', '\n']).filter(|at| text[*at..].starts_with(']'));
    let end = end.ok_or("unterminated array")?;
    let (members, rest) = (&text[..end], &text[end + 1..]);
    let several = members.contains(',');
    for member in members.split(',').map(|one| if several { one.trim_matches(' ') } else { one }) {
        let is_name = member.len() >= 2 && member.starts_with('\'') && member.ends_with('\'');
        let is_range = member.split(':').count() <= 3 && member.split(':').all(is_index);
        if member != "*" && !is_name && !is_range {
            return Err(format!("invalid array index {member}"));
        }
    }
    Ok(rest)
}

fn is_index(text: &str) -> bool {
    text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit())
}

/// What follows a condition.
fn filter(text: &str) -> Result<&str, String> {
    let (mut pair, mut is_closed) = (None, true);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '\n' => break,
            '"' | '\'' if pair.is_none() => (pair, is_closed) = (Some(c), false),
            quote if Some(quote) == pair && before != '\\' => is_closed = true,
            ')' if is_closed => {
                let rest = &text[at + 1..];
                return rest.strip_prefix(']').ok_or_else(|| "unclosed array expect ]".to_owned());
            }
            _ => {}
        }
        before = c;
    }
    Err("unterminated filter".to_owned())
}

/// What follows a text between quotes.
fn quoted(text: &str, quote: char) -> Result<&str, String> {
    let mut before = quote;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => break,
            end if end == quote && before != '\\' => return Ok(&text[at + 1..]),
            _ => before = c,
        }
    }
    Err("unterminated quoted string".to_owned())
}

/// What follows a number.
fn number(text: &str) -> Result<&str, String> {
    let signed = text.strip_prefix(['+', '-']).unwrap_or(text);
    let rest = signed.trim_start_matches(|c: char| c == '.' || c.is_numeric());
    let number = &text[..text.len() - rest.len()];
    if number.parse::<f64>().is_ok() { Ok(rest) } else { Err(format!("cannot parse number {number}")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::complaint;

    #[test]
    fn what_is_wrong_is_told_in_upstreams_words() {
        for good in
            ["spec.validations[0].expression", "a", "a b", "..", "a[0]b", "x['a.b'][*][1:2,3]", ".a", "a[-1]", "a}{b"]
        {
            assert_eq!(complaint(good), None, "{good}");
        }
        for (path, why) in [
            ("<a", "unrecognized character in action: U+003C '<'"),
            ("a\tb", "unrecognized character in action: U+0009"),
            ("a]", "unrecognized character in action: U+005D ']'"),
            ("a[0", "unterminated array"),
            ("x[abc]", "invalid array index abc"),
            ("a[\"x\"]", "invalid array index \"x\""),
            ("a[?(@.b", "unterminated filter"),
            ("....a", "invalid multiple recursive descent"),
            ("'a", "unterminated quoted string"),
            ("1.2.3", "cannot parse number 1.2.3"),
        ] {
            assert_eq!(complaint(path).as_deref(), Some(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z.\\[\\]'\"{}?()@\\\\*:0-9 é,+-]{0,30}") {
            let _either_way = complaint(&text);
        }
    }
}
