//! Secrets are not shown: neither those of the manifest nor what looks like a bootstrap token or a key.

use machine_api::Event;
use manifest::Manifest;

/// What is shown instead.
const HIDDEN: &str = "<redacted>";
/// A bootstrap token: so many characters, a dot, so many characters.
const TOKEN: (usize, usize) = (6, 16);

/// What is not to be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Those of the manifest in force, as they are and as they are written in JSON.
    pub(crate) fn new(manifest: Option<&Manifest>) -> Self {
        let hidden = manifest.into_iter().flat_map(Manifest::hidden);
        let forms = |secret: &str| [secret.to_owned(), in_json(secret)];
        Self(hidden.flat_map(forms).filter(|form| !form.is_empty()).collect())
    }

    /// A text without them.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            text = text.replace(secret, HIDDEN);
        }
        if text.contains("PRIVATE KEY-----") {
            return HIDDEN.to_owned();
        }
        without_tokens(&text)
    }

    /// The same of an event as it is written down, which stays one. What is none is taken as text.
    pub(crate) fn redact_event(&self, text: &str) -> String {
        let Ok(mut event) = serde_json::from_str::<Event>(text) else { return self.redact(text) };
        let all = [&mut event.message, &mut event.subject].into_iter().chain(event.details.values_mut());
        for words in all {
            *words = self.redact(words);
        }
        event.to_json()
    }

    /// The same line by line, of what may be no text.
    pub(crate) fn redact_all(&self, content: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(content);
        let lines = text.split_inclusive('\n').map(|line| self.redact(line));
        lines.collect::<String>().into_bytes()
    }
}

/// A text as it stands between the quotes of JSON.
fn in_json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().to_owned()
}

/// Hides the secret part of everything that has the form of a bootstrap token.
fn without_tokens(text: &str) -> String {
    let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut shown = String::new();
    let mut from = 0;
    for (dot, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'.') {
        let before = bytes[..dot].iter().rev().take_while(|byte| is_part(byte)).count();
        let after = bytes[dot + 1..].iter().take_while(|byte| is_part(byte)).count();
        if (before, after) == TOKEN {
            shown.push_str(&text[from..=dot]);
            shown.push_str(HIDDEN);
            from = dot + 1 + after;
        }
    }
    shown + &text[from..]
}

#[cfg(test)]
mod tests {
    use machine_api::EventKind;
    use machine_api::detail::LAST_LINE;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\n\
                    token = \"abcdef.0123456789abcdef\"\n[control-plane]\nsecret = \"SECRET\"\n\
                    [etcd.snapshots]\ninterval = \"1h\"\n[etcd.snapshots.store]\nurl = \"https://x.example.com\"\n\
                    bearer-token = \"open-sesame\"\n[outbound.servers.\"r.example.com\"]\nusername = \"k\"\n\
                    password = \"shut-sesame\"\n[outbound.proxy]\nurl = \"http://p\"\nusername = \"k\"\n\
                    password = \"by-sesame\"\n";
        let secret = "c0ffee5eed5a17f0".repeat(4);
        let manifest = manifest::parse("m", &text.replace("SECRET", &secret)).unwrap();
        let secrets = Secrets::new(Some(&manifest));
        let line = format!("joined by 0123456789abcdef, {secret} and zyxwvu.0000000000000000.");
        assert_eq!(secrets.redact(&line), "joined by <redacted>, <redacted> and zyxwvu.<redacted>.");
        assert_eq!(secrets.redact("Bearer open-sesame"), "Bearer <redacted>");
        assert_eq!(secrets.redact("-----BEGIN EC PRIVATE KEY-----"), "<redacted>");
        let names = "master.example.com abcdef.0123456789abcdef0 10.0.0.1";
        assert_eq!(Secrets::default().redact(names), names);
    }
    #[test]
    fn an_event_stays_one_and_tells_no_secret_however_it_is_quoted() {
        const SECRET: &str = "a\"b\\-secret-x";
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[outbound.proxy]\n\
                    url = \"http://p\"\nusername = \"k\"\npassword = \"a\\\"b\\\\-secret-x\"\n";
        let manifest = manifest::parse("m", text).unwrap_or_else(|error| panic!("{error}"));
        let secrets = Secrets::new(Some(&manifest));
        let ended = Event::new(EventKind::ServiceEnded, "etcd", format!("etcd: ended; last line: {SECRET}"));
        let ended = Event { time: 5.0, ..ended.with(LAST_LINE, SECRET) };
        let shown = Event::parse(&secrets.redact_event(&ended.to_json()));
        assert_eq!((shown.kind.as_str(), shown.time), ("ServiceEnded", 5.0));
        assert_eq!(
            (shown.message.as_str(), shown.details[LAST_LINE].as_str()),
            ("etcd: ended; last line: <redacted>", "<redacted>")
        );
        // So it is in what else is JSON.
        let json = serde_json::json!({"lastLines": [SECRET, "other"]}).to_string();
        assert_eq!(secrets.redact(&json), r#"{"lastLines":["<redacted>","other"]}"#);
        // A key hides the words that it is in, and not what happened, or when.
        let key = Event::new(EventKind::ServiceEnded, "etcd", "-----BEGIN EC PRIVATE KEY-----");
        let shown = Event::parse(&secrets.redact_event(&Event { time: 5.0, ..key }.to_json()));
        assert_eq!((shown.kind.as_str(), shown.message.as_str(), shown.time), ("ServiceEnded", "<redacted>", 5.0));
        assert_eq!(secrets.redact_event("by abcdef.0123456789abcdef"), "by abcdef.<redacted>");
    }
}
