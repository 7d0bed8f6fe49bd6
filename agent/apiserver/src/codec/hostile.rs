//! Bodies that are broken, or made to do harm.

/// Brackets inside one another that a YAML text may have: its reader takes time with the square of them.
const MAX_BRACKETS: usize = 1000;

/// Whether a YAML text has too many brackets inside one another. Counted are those that begin a value, once as if there
/// were no quotes and once without what is in quotes: a text in block style may hold anything.
pub(super) fn nests_deeply(text: &[u8]) -> bool {
    let (mut plain, mut careful) = (0_usize, 0_usize);
    let mut quote: Option<u8> = None;
    // The last byte that is no space; a value begins after one of these.
    let mut before = b'\n';
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let begins = matches!(before, b'\n' | b'[' | b'{' | b',' | b':' | b'-' | b'?');
        match byte {
            b'[' | b'{' if begins => {
                plain += 1;
                careful += usize::from(quote.is_none());
            }
            b']' | b'}' => {
                plain = plain.saturating_sub(1);
                careful -= usize::from(quote.is_none() && careful > 0);
            }
            b'"' | b'\'' if quote == Some(byte) => quote = None,
            b'"' | b'\'' if quote.is_none() && begins && careful > 0 => quote = Some(byte),
            b'\\' if quote == Some(b'"') => _ = bytes.next(),
            _ => {}
        }
        if plain.max(careful) > MAX_BRACKETS {
            return true;
        }
        if !matches!(byte, b' ' | b'\t' | b'\r') {
            before = byte;
        }
    }
    false
}

/// A JSON text with what is no Unicode replaced, as the decoder that clients know does it. None if there is no such.
pub(super) fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut changed = false;
    for chunk in text.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        // One for each byte.
        for _ in chunk.invalid() {
            out.extend_from_slice("\u{fffd}".as_bytes());
            changed = true;
        }
    }
    changed |= mend_escapes(&mut out);
    changed.then_some(out)
}

/// Replaces escaped halves of characters whose other half is missing.
fn mend_escapes(text: &mut [u8]) -> bool {
    let unit = |text: &[u8], at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut at, mut changed) = (0, false);
    while at < text.len() {
        if text[at] != b'\\' {
            at += 1;
            continue;
        }
        match (unit(text, at), unit(text, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                text[at + 2..at + 6].copy_from_slice(b"fffd");
                changed = true;
                at += 6;
            }
            (Some(_), _) => at += 6,
            (None, _) => at += 2,
        }
    }
    changed
}

/// What is wrong with a protobuf body, in the words of the decoder that clients know where it has any.
pub(super) fn proto_complaint(error: &(dyn std::error::Error + 'static)) -> String {
    let text = stdx::chain(error).to_string();
    let what = text.rsplit(": unexpected ").next().unwrap_or(&text);
    match what {
        "end of data" => "unexpected EOF".to_owned(),
        "negative length" => "proto: negative length found during unmarshaling".to_owned(),
        other => format!("proto: unexpected {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_where_they_begin_values() {
        assert!(nests_deeply(&b"[".repeat(2000)));
        assert!(nests_deeply(&b"{a: ".repeat(2000)));
        assert!(nests_deeply(&b"[\"]\", ".repeat(2000)));
        assert!(!nests_deeply(&b"a: [b, {c: d}]\n".repeat(2000)));
        assert!(!nests_deeply(&b"a: b[\nc: (d{\n".repeat(2000)));
        assert!(!nests_deeply(&b"a: [\"[\", '[[']\n".repeat(200)));
    }

    #[test]
    fn what_is_no_unicode_is_replaced() {
        let mend = |text: &[u8]| mended(text).map(|t| String::from_utf8(t).unwrap());
        assert_eq!(mend(b"\"a\xff\xfe\"").as_deref(), Some("\"a\u{fffd}\u{fffd}\""));
        assert_eq!(
            mend(br#""\ud800x\ude00\ud83d\ude00\\ud800""#).as_deref(),
            Some(r#""\ufffdx\ufffd\ud83d\ude00\\ud800""#)
        );
        assert_eq!(mend(b"\"a\""), None);
    }
}
