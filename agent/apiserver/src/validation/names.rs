//! Forms of names, with what clients are told about a name that does not have the form.
//!
//! Each function lists what is wrong with a text; the list is empty, and nothing is allocated, if nothing is.

use std::borrow::Cow;

/// What is wrong with a text.
pub type Complaints = Vec<Cow<'static, str>>;

/// A form in which the value's length and its characters are judged apart.
struct Form {
    max: usize,
    too_long: &'static str,
    fits: fn(&str) -> bool,
    unfit: &'static str,
}

impl Form {
    fn complaints(&self, text: &str) -> Complaints {
        let mut found = Complaints::new();
        if text.len() > self.max {
            found.push(self.too_long.into());
        }
        if !(self.fits)(text) {
            found.push(self.unfit.into());
        }
        found
    }
}

const MAX_63: &str = "must be no more than 63 characters";
const MAX_253: &str = "must be no more than 253 characters";

const LABEL: Form = Form {
    max: 63,
    too_long: MAX_63,
    fits: is_label,
    unfit: "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
};

const LABEL_1035: Form = Form {
    max: 63,
    too_long: MAX_63,
    fits: |text| is_label(text) && text.as_bytes()[0].is_ascii_lowercase(),
    unfit: "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
};

const SUBDOMAIN: Form = Form { max: 253, too_long: MAX_253, fits: is_subdomain, unfit: api::labels::NO_SUBDOMAIN };

const SUBDOMAIN_CASELESS: Form = Form {
    max: 253,
    too_long: "must be no more than 253 bytes",
    fits: |text| is_subdomain(&text.to_ascii_lowercase()),
    unfit: "an RFC 1123 subdomain must consist of alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'Example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
};

const SUBDOMAIN_UNDERSCORE: Form = Form {
    max: 253,
    too_long: MAX_253,
    fits: |text| text.split('.').all(is_underscored_label),
    unfit: "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
};

const WILDCARD: Form = Form {
    max: 253,
    too_long: MAX_253,
    fits: |text| text.strip_prefix("*.").is_some_and(is_subdomain),
    unfit: "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
};

const CONFIG_KEY: Form = Form {
    max: 253,
    too_long: MAX_253,
    fits: |text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')),
    unfit: "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
};

const C_IDENTIFIER: Form = Form {
    max: usize::MAX,
    too_long: "",
    fits: |text| {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        text.bytes().all(word) && text.bytes().next().is_some_and(|c| !c.is_ascii_digit())
    },
    unfit: "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')",
};

const PERCENT: Form = Form {
    max: usize::MAX,
    too_long: "",
    fits: |text| text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit())),
    unfit: "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
};

const HTTP_HEADER: Form = Form {
    max: usize::MAX,
    too_long: "",
    fits: |text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'),
    unfit: "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
};

/// A DNS label, such as the name of a container.
#[must_use]
pub fn dns1123_label(text: &str) -> Complaints {
    let mut found = LABEL.complaints(text);
    if is_subdomain(text) && !is_label(text) {
        found.pop();
        found.push("must not contain dots".into());
    }
    found
}

/// A DNS label that starts with a letter, such as the name of a Service.
#[must_use]
pub fn dns1035_label(text: &str) -> Complaints {
    LABEL_1035.complaints(text)
}

/// A DNS subdomain, such as the name of most objects.
#[must_use]
pub fn dns1123_subdomain(text: &str) -> Complaints {
    SUBDOMAIN.complaints(text)
}

/// As [`dns1123_label`], in the words of names that upstream declares.
#[must_use]
pub fn short_name(text: &str) -> Complaints {
    let in_bytes = |why: Cow<'static, str>| match why.as_ref() {
        MAX_63 => "must be no more than 63 bytes".into(),
        _ => why,
    };
    dns1123_label(text).into_iter().map(in_bytes).collect()
}

/// As [`long_name`], in large letters, too.
#[must_use]
pub fn long_name_caseless(text: &str) -> Complaints {
    SUBDOMAIN_CASELESS.complaints(text)
}

/// As [`dns1123_subdomain`], in the words of names that upstream declares.
#[must_use]
pub fn long_name(text: &str) -> Complaints {
    Form { too_long: "must be no more than 253 bytes", ..SUBDOMAIN }.complaints(text)
}

/// A DNS subdomain that may have underscores.
#[must_use]
pub fn dns1123_subdomain_with_underscore(text: &str) -> Complaints {
    SUBDOMAIN_UNDERSCORE.complaints(text)
}

/// `*.` and a DNS subdomain.
#[must_use]
pub fn wildcard_subdomain(text: &str) -> Complaints {
    WILDCARD.complaints(text)
}

/// The value of a label.
#[must_use]
pub fn label_value(text: &str) -> Complaints {
    api::labels::value_complaints(text)
}

/// A key in a ConfigMap or Secret.
#[must_use]
pub fn config_key(text: &str) -> Complaints {
    let mut found = CONFIG_KEY.complaints(text);
    match text {
        "." => found.push("must not be '.'".into()),
        ".." => found.push("must not be '..'".into()),
        _ if text.starts_with("..") => found.push("must not start with '..'".into()),
        _ => {}
    }
    found
}

/// An identifier of the language C.
#[must_use]
pub fn c_identifier(text: &str) -> Complaints {
    C_IDENTIFIER.complaints(text)
}

/// A number with a percent sign.
#[must_use]
pub fn percent(text: &str) -> Complaints {
    PERCENT.complaints(text)
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header(text: &str) -> Complaints {
    HTTP_HEADER.complaints(text)
}

/// A name that may have a DNS subdomain and a slash before it, such as the key of a label.
#[must_use]
pub fn qualified(text: &str) -> Complaints {
    api::labels::key_complaints(text)
}

/// The name of an environment variable.
#[must_use]
pub fn env_var(text: &str) -> Complaints {
    let mut found = Complaints::new();
    if text.is_empty() {
        found.push("environment variable name must be non-empty".into());
    }
    if !text.bytes().all(|c| matches!(c, b' '..=b'~') && c != b'=') {
        let why = "a valid environment variable name must consist only of printable ASCII characters other than '='";
        found.push(why.into());
    }
    found
}

/// The name of a port, as IANA registers services.
#[must_use]
pub fn port_name(text: &str) -> Complaints {
    let bytes = text.as_bytes();
    let word = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-';
    let hyphens = bytes.first() == Some(&b'-') || bytes.last() == Some(&b'-');
    let rules = [
        (bytes.len() > 15, "must be no more than 15 characters"),
        (
            bytes.is_empty() || !bytes.iter().all(word),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!bytes.iter().any(u8::is_ascii_lowercase), "must contain at least one letter (a-z)"),
        (text.contains("--"), "must not contain consecutive hyphens"),
        (hyphens, "must not begin or end with a hyphen"),
    ];
    rules.iter().filter(|(broken, _)| *broken).map(|(_, why)| (*why).into()).collect()
}

/// A segment of a URL's path, such as the name of a ClusterRole.
#[must_use]
pub fn path_segment(text: &str) -> Complaints {
    match text {
        "." => return vec!["may not be '.'".into()],
        ".." => return vec!["may not be '..'".into()],
        _ => {}
    }
    let rules = [('/', "may not contain '/'"), ('%', "may not contain '%'")];
    rules.iter().filter(|(c, _)| text.contains(*c)).map(|(_, why)| (*why).into()).collect()
}

/// A name that may be the beginning of one: a dash at its end stands for what follows.
#[must_use]
pub fn masked_prefix(text: &str) -> Cow<'_, str> {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let kept: String = rest.chars().take(rest.chars().count() - 1).collect();
            Cow::Owned(kept + "a")
        }
        _ => Cow::Borrowed(text),
    }
}

/// Whether the text is a DNS label, whatever its length.
#[must_use]
pub fn is_label(text: &str) -> bool {
    framed(text.as_bytes(), |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| c == b'-')
}

/// Whether the text is a DNS subdomain, whatever its length.
#[must_use]
pub fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_underscored_label(text: &str) -> bool {
    let rest = text.strip_prefix('_').unwrap_or(text).as_bytes();
    framed(rest, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), |c| matches!(c, b'-' | b'_'))
}

/// Whether every byte is an edge or an inner one, and the first and last are edges.
fn framed(text: &[u8], edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let at_edge = |c: Option<&u8>| c.is_some_and(|c| edge(*c));
    at_edge(text.first()) && at_edge(text.last()) && text.iter().all(|c| edge(*c) || inner(*c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_forms() {
        type Row =
            (fn(&str) -> Complaints, &'static [&'static str], &'static [(&'static str, &'static [&'static str])]);
        let rows: &[Row] = &[
            (
                dns1123_label,
                &["a", "1-b"],
                &[("a.b", &["must not contain dots"]), ("", &["a lowercase RFC 1123 label"])],
            ),
            (dns1035_label, &["a-1"], &[("1a", &["a DNS-1035 label"])]),
            (dns1123_subdomain, &["a.b-c.1"], &[("a..b", &["a lowercase RFC 1123 subdomain"])]),
            (
                qualified,
                &["a", "A_b.c", "x.y/Z"],
                &[
                    ("", &["name part must be non-empty", "name part must consist"]),
                    ("/a", &["prefix part must be non-empty"]),
                    ("X/a", &["prefix part a lowercase RFC 1123 subdomain"]),
                    ("a/b/c", &["a valid label key must consist"]),
                ],
            ),
            (label_value, &["", "A.b_c"], &[("-a", &["a valid label must be an empty string"])]),
            (
                env_var,
                &["A", "a b-c"],
                &[("", &["environment variable name must be"]), ("a=b", &["a valid environment"])],
            ),
            (
                port_name,
                &["http", "a-1"],
                &[
                    ("80", &["must contain at least one letter"]),
                    ("-A", &["must contain only", "must contain at", "must not begin"]),
                ],
            ),
            (config_key, &["a.B_c-d"], &[("..", &["must not be '..'"]), ("a b", &["a valid config key"])]),
            (percent, &["10%"], &[("%", &["a valid percent"]), ("10", &["a valid percent"])]),
            (c_identifier, &["_a1"], &[("1a", &["a valid C identifier"])]),
        ];
        for (form, good, bad) in rows {
            for text in *good {
                assert!(form(text).is_empty(), "{text}");
            }
            for (text, starts) in *bad {
                let told = form(text);
                let equal = told.len() == starts.len() && told.iter().zip(*starts).all(|(t, s)| t.starts_with(s));
                assert!(equal, "{text}: {told:?}");
            }
        }
        assert_eq!(dns1123_label(&"a".repeat(64)), [MAX_63]);
    }
}
