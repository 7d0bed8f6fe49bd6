//! Documents inside a manifest: the configuration files of upstream's API server, as texts. Their errors tell the line
//! inside the text and never quote it, as it may hold keys.

use std::fmt;

use serde_yaml_ng::Value;

use super::{Word, WordError, WordFormat, from_str_by_word, text_word};

/// Longest name of a file.
const FILE_NAME_CHARS: usize = 63;

/// A document's type, and what more there is to check.
struct Type {
    versions: &'static [&'static str],
    kind: &'static str,
    check: fn(&Value) -> Result<(), WordError>,
}

impl Type {
    fn parse(&self, text: &str) -> Result<(), WordError> {
        let document: Value = serde_yaml_ng::from_str(text).map_err(|error| {
            let at = error.location().map(|at| format!(": line {}, column {} of the text", at.line(), at.column()));
            WordError::new(format!("this is not YAML{}", at.unwrap_or_default()))
        })?;
        if !document.is_mapping() {
            return Err(WordError::new("the text is no YAML mapping"));
        }
        for (key, allowed) in [("apiVersion", self.versions), ("kind", &[self.kind][..])] {
            let quoted = allowed.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(" or ");
            match document.get(key).and_then(Value::as_str) {
                Some(given) if allowed.contains(&given) => {}
                Some(given) => {
                    let reason = format!("the text has the {key} `{}`, not {quoted}", given.escape_debug());
                    return Err(WordError::new(reason));
                }
                None => return Err(WordError::new(format!("the text has no `{key}`, which is {quoted}"))),
            }
        }
        (self.check)(&document)
    }
}

/// The list under a key, which must not be empty.
fn list<'a>(document: &'a Value, key: &str) -> Result<&'a [Value], WordError> {
    match document.get(key).and_then(Value::as_sequence) {
        Some(list) if !list.is_empty() => Ok(list),
        _ => Err(WordError::new(format!("the text has no list `{key}` with something in it"))),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What documents hold keys, tokens and passwords under.
const HIDDEN: [&str; 4] = ["secret", "token", "password", "client-key-data"];

/// The values in a document that must not be shown.
fn secrets_in(document: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut left: Vec<Value> = serde_yaml_ng::from_str(document).into_iter().collect();
    while let Some(value) = left.pop() {
        match value {
            Value::Mapping(entries) => {
                for (name, value) in entries {
                    let is_hidden = name.as_str().is_some_and(|name| HIDDEN.contains(&name));
                    match value {
                        Value::String(text) if is_hidden => found.extend(text.lines().map(str::to_owned)),
                        other => left.push(other),
                    }
                }
            }
            Value::Sequence(elements) => left.extend(elements),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
        }
    }
    found
}

macro_rules! document_word {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $label:literal, $type:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The document.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(***)"))
            }
        }

        impl Word for $name {
            const FORMAT: &'static WordFormat =
                &WordFormat { name: $label, expected: $expected, pattern: None, choices: &[] };

            fn parse_word(text: &str) -> Result<Self, WordError> {
                $type.parse(text)?;
                Ok(Self(text.to_owned()))
            }

            fn hidden(text: &str) -> Vec<String> {
                secrets_in(text)
            }
        }

        from_str_by_word!($name);
    };
}

const CONFIG_VERSIONS: &[&str] =
    &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

document_word!(
    /// Which requests are written down.
    AuditPolicy,
    "a Policy of audit.k8s.io/v1 in YAML, between `'''`",
    "audit policy",
    Type {
        versions: &["audit.k8s.io/v1"],
        kind: "Policy",
        check: |policy| {
            const LEVELS: [&str; 4] = ["None", "Metadata", "Request", "RequestResponse"];
            let rules = list(policy, "rules")?;
            match rules.iter().position(|rule| !LEVELS.contains(&text(rule, "level"))) {
                None => Ok(()),
                Some(at) => {
                    let levels = LEVELS.join("`, `");
                    Err(WordError::new(format!("rule {} of the policy has none of the levels `{levels}`", at + 1)))
                }
            }
        },
    }
);

document_word!(
    /// What is encrypted in etcd, and by which keys.
    EncryptionConfiguration,
    "an EncryptionConfiguration of apiserver.config.k8s.io/v1 in YAML, between `'''`",
    "encryption configuration",
    Type {
        versions: &["apiserver.config.k8s.io/v1"],
        kind: "EncryptionConfiguration",
        check: |configuration| {
            for (at, entry) in list(configuration, "resources")?.iter().enumerate() {
                if list(entry, "resources").and(list(entry, "providers")).is_err() {
                    let reason = format!("entry {} of `resources` does not have both `resources` and `providers`", at + 1);
                    return Err(WordError::new(reason));
                }
            }
            Ok(())
        },
    }
);

document_word!(
    /// Whose tokens are believed.
    AuthenticationConfiguration,
    "an AuthenticationConfiguration of apiserver.config.k8s.io/v1 in YAML, between `'''`",
    "authentication configuration",
    Type { versions: CONFIG_VERSIONS, kind: "AuthenticationConfiguration", check: |_| Ok(()) }
);

document_word!(
    /// Who decides what is allowed, in order.
    AuthorizationConfiguration,
    "an AuthorizationConfiguration of apiserver.config.k8s.io/v1 in YAML, between `'''`",
    "authorization configuration",
    Type {
        versions: CONFIG_VERSIONS,
        kind: "AuthorizationConfiguration",
        check: |configuration| {
            let authorizers = list(configuration, "authorizers")?;
            // Without them the machines of the cluster, and its own controllers, may do nothing.
            for needed in ["Node", "RBAC"] {
                if !authorizers.iter().any(|authorizer| text(authorizer, "type") == needed) {
                    return Err(WordError::new(format!("there is no authorizer of the type `{needed}`")));
                }
            }
            Ok(())
        },
    }
);

document_word!(
    /// Where a server is, and what it is shown.
    Kubeconfig,
    "a kubeconfig in YAML, between `'''`",
    "kubeconfig",
    Type { versions: &["v1"], kind: "Config", check: |config| list(config, "clusters").map(|_| ()) }
);

/// What is in a file that documents refer to.
#[derive(Clone, PartialEq, Eq)]
pub struct FileContent(String);

impl FileContent {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for FileContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileContent(***)")
    }
}

impl Word for FileContent {
    const FORMAT: &'static WordFormat =
        &WordFormat { name: "text", expected: "the text of a file, between `'''`", pattern: None, choices: &[] };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        if text.trim().is_empty() {
            return Err(WordError::new("the file is empty"));
        }
        Ok(Self(text.to_owned()))
    }

    fn hidden(text: &str) -> Vec<String> {
        secrets_in(text)
    }
}
from_str_by_word!(FileContent);

text_word!(
    /// Name of a file that documents refer to.
    FileName,
    WordFormat {
        name: "file name",
        expected: "letters, digits, `-`, `_` and `.`, the first no `.`",
        pattern: Some("^[A-Za-z0-9_-][A-Za-z0-9._-]{0,62}$"),
        choices: &[],
    },
    |text| {
        let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.chars().find(|c| !is_good(*c)) {
            Some(c) => Err(WordError::new(format!("the name contains `{}`", c.escape_debug()))),
            None if text.is_empty() || text.starts_with('.') => Err(WordError::new("the name is empty or begins with `.`")),
            None if text.len() > FILE_NAME_CHARS => {
                Err(WordError::new(format!("the name has {} characters, not at most {FILE_NAME_CHARS}", text.len())))
            }
            None => Ok(()),
        }
    }
);

text_word!(
    /// A folder for what must survive a restart.
    KeptFolder,
    WordFormat {
        name: "folder",
        expected: "a folder below `/var/lib/` or `/state/`, which survive a restart",
        pattern: Some("^(/var/lib|/state)/.+[^/]$"),
        choices: &[],
    },
    |text| {
        let below = text.strip_prefix("/var/lib/").or(text.strip_prefix("/state/"));
        match below.filter(|below| !below.is_empty() && !below.ends_with('/')) {
            Some(below) if below.split('/').all(|part| !matches!(part, "" | "." | "..")) => Ok(()),
            Some(_) => Err(WordError::new(format!("`{}` has a part that leads nowhere", text.escape_debug()))),
            None => Err(WordError::new(format!("`{}` is no such folder", text.escape_debug()))),
        }
    }
);

text_word!(
    /// Where a log is written.
    LogPath,
    WordFormat {
        name: "path of a log",
        expected: "a path below `/var/log/`, which survives a restart",
        pattern: Some("^/var/log/.+[^/]$"),
        choices: &[],
    },
    |text| {
        let below = text.strip_prefix("/var/log/").filter(|below| !below.is_empty() && !below.ends_with('/'));
        match below {
            Some(below) if below.split('/').all(|part| !matches!(part, "" | "." | "..")) => Ok(()),
            Some(_) => Err(WordError::new(format!("`{}` has a part that leads nowhere", text.escape_debug()))),
            None => Err(WordError::new(format!("`{}` is no file below `/var/log/`", text.escape_debug()))),
        }
    }
);
