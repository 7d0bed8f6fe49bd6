use super::*;

fn told(pattern: &str) -> String {
    match translated(pattern, &|name| name == "Greek" || name == "L") {
        Ok(text) => text,
        Err(why) => why.strip_prefix("error parsing regexp: ").unwrap_or(&why).to_owned(),
    }
}

#[test]
fn what_go_refuses_is_told_in_its_words() {
    for (pattern, why) in [
        ("[", "missing closing ]: `[`"),
        ("a(b", "missing closing ): `a(b`"),
        ("(?P<1>a", "missing closing ): `(?P<1>a`"),
        ("a)", "unexpected ): `a)`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a|*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{2,1}", "invalid repeat count: `{2,1}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("(a{100}){11}", "invalid repeat count: `{11}`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?z)a", "invalid or unsupported Perl syntax: `(?z`"),
        ("(?<n", "invalid named capture: `(?<n`"),
        ("\\", "trailing backslash at end of expression: ``"),
        ("\\1", "invalid escape sequence: `\\1`"),
        ("\\xZZ", "invalid escape sequence: `\\xZZ`"),
        ("[a-\\d]", "invalid escape sequence: `\\d`"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
        ("\\p{Foo}", "invalid character class range: `\\p{Foo}`"),
    ] {
        assert_eq!(told(pattern), why, "{pattern}");
    }
}

#[test]
fn what_go_takes_means_the_same() {
    for (pattern, text) in [
        ("a{,2}", "a\\{\\x{2C}2\\x{7D}"),
        ("\\z\\Qa.\\E+", "\\za\\x{2E}+"),
        ("(?P<n>a)(?P<n>b)", "(?:a)(?:b)"),
        ("^\\d+\\s$", "^[0-9]+[\\t\\n\\x0C\\r\\x20]$"),
        ("[]a[]", "[\\x{5D}-\\x{5D}\\x{61}-\\x{61}\\x{5B}-\\x{5B}]"),
        ("[^\\w-z]", "[^0-9A-Za-z_\\x{2D}-\\x{2D}\\x{7A}-\\x{7A}]"),
        ("\\PL\\p{^Greek}", "[\\P{L}][\\P{Greek}]"),
        ("(?i)a{2,}?|(?s-m:.)", "(?i)a{2,}?|(?s-m:.)"),
        ("\\101\\x41\\x{1F600}", "AA😀"),
    ] {
        assert_eq!(told(pattern), text, "{pattern}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(pattern in "[\\[\\](){}|*+?^$.\\\\dpPQEx:,a-c0-9-]{0,16}") {
        let read = translated(&pattern, &|_| true);
        proptest::prop_assert!(read.is_ok() || read.is_err_and(|why| why.starts_with("error parsing regexp: ")));
    }
}
