//! Names: of hosts, labels, taints, interfaces, devices, modules.

use std::fmt;

use super::{TaintEffect, Word, WordError, WordFormat, from_str_by_word, text_word};

const DNS_LABEL_CHARS: usize = 63;
const DNS_NAME_CHARS: usize = 253;
/// Linux keeps 64 bytes with the final zero, and a node's name is its host name.
const HOSTNAME_CHARS: usize = 63;
/// What is left of a partition's name of 36 behind what tells that it is a volume.
const VOLUME_NAME_CHARS: usize = 20;
/// IFNAMSIZ without the final zero.
const INTERFACE_NAME_BYTES: usize = 15;

fn quoted(text: &str) -> String {
    format!("`{}`", text.escape_debug())
}

/// Checks a DNS subdomain as Kubernetes has it (RFC 1123, lower case).
pub(super) fn check_dns_name(text: &str, max: usize) -> Result<(), WordError> {
    if text.is_empty() {
        return Err(WordError::new("the name is empty"));
    }
    if text.chars().any(|c| c.is_ascii_uppercase()) {
        let reason = format!("{} has capital letters", quoted(text));
        let lower = text.to_lowercase();
        return Err(match check_dns_name(&lower, max) {
            Ok(()) => WordError::meant(reason, lower),
            Err(_) => WordError::new(reason),
        });
    }
    if text.len() > max {
        return Err(WordError::new(format!(
            "{} has {} characters, at most {max} are allowed",
            quoted(text),
            text.len()
        )));
    }
    for label in text.split('.') {
        check_dns_label(text, label)?;
    }
    Ok(())
}

fn check_dns_label(text: &str, label: &str) -> Result<(), WordError> {
    if let Some(c) = label.chars().find(|c| !c.is_ascii_lowercase() && !c.is_ascii_digit() && *c != '-') {
        let reason = format!("{} contains `{}`", quoted(text), c.escape_debug());
        return Err(match c {
            '_' => WordError::meant(reason, text.replace('_', "-")),
            _ => WordError::new(reason),
        });
    }
    if label.is_empty() {
        return Err(WordError::new(format!("{} has an empty part between dots", quoted(text))));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return Err(WordError::new(format!("{} has a part that begins or ends with `-`", quoted(text))));
    }
    if label.len() > DNS_LABEL_CHARS {
        return Err(WordError::new(format!("{} has a part longer than {DNS_LABEL_CHARS} characters", quoted(text))));
    }
    Ok(())
}

text_word! {
    /// The name of a machine, which is also the name of its Node.
    Hostname,
    WordFormat {
        name: "host name",
        expected: "lower-case letters, digits, `-` and `.`, at most 63 characters, such as `worker-1`",
        pattern: Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        choices: &[],
    },
    |text| check_dns_name(text, HOSTNAME_CHARS)
}

text_word! {
    /// A DNS domain.
    DnsName,
    WordFormat {
        name: "DNS name",
        expected: "lower-case letters, digits, `-` and `.`, at most 253 characters, such as `cluster.local`",
        pattern: Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        choices: &[],
    },
    |text| check_dns_name(text, DNS_NAME_CHARS)
}

text_word! {
    /// The name of a volume for pods, which is that of its folder, too.
    VolumeName,
    WordFormat {
        name: "volume name",
        expected: "lower-case letters, digits and `-`, at most 20 characters, such as `longhorn`",
        pattern: Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        choices: &[],
    },
    |text| match text.contains('.') {
        true => Err(WordError::meant(format!("{} contains `.`", quoted(text)), text.replace('.', "-"))),
        false => check_dns_name(text, VOLUME_NAME_CHARS),
    }
}

text_word! {
    /// The name of a cluster, used in kubeconfig files and certificates.
    ClusterName,
    WordFormat {
        name: "cluster name",
        expected: "lower-case letters, digits and `-`, at most 63 characters, such as `home`",
        pattern: Some("^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        choices: &[],
    },
    |text| {
        check_dns_name(text, DNS_LABEL_CHARS)?;
        check_dns_label(text, text)
    }
}

/// Checks the part of a label key after the slash, or a label value that is not empty.
fn check_qualified(what: &str, text: &str) -> Result<(), WordError> {
    if text.len() > DNS_LABEL_CHARS {
        return Err(WordError::new(format!("the {what} has {} characters, at most 63 are allowed", text.len())));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.')) {
        return Err(WordError::new(format!("the {what} {} contains `{}`", quoted(text), c.escape_debug())));
    }
    let alphanumeric = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if !alphanumeric(text.chars().next()) || !alphanumeric(text.chars().last()) {
        return Err(WordError::new(format!("the {what} {} must begin and end with a letter or digit", quoted(text))));
    }
    Ok(())
}

fn check_label_key(text: &str) -> Result<(), WordError> {
    match text.split_once('/') {
        Some((prefix, name)) => {
            check_dns_name(prefix, DNS_NAME_CHARS)?;
            check_qualified("name after `/`", name)
        }
        None => check_qualified("name", text),
    }
}

text_word! {
    /// The key of a label or a taint.
    LabelKey,
    WordFormat {
        name: "label key",
        expected: "a name of letters, digits, `-`, `_` and `.`, with a DNS prefix and `/` before it if wanted, \
                   such as `example.com/rack`",
        pattern: None,
        choices: &[],
    },
    check_label_key
}

text_word! {
    /// The value of a label or a taint; may be empty.
    LabelValue,
    WordFormat {
        name: "label value",
        expected: "at most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
        pattern: Some("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"),
        choices: &[],
    },
    |text| if text.is_empty() { Ok(()) } else { check_qualified("value", text) }
}

/// What labels and taints the Nodes of masters.
pub const CONTROL_PLANE_KEY: &str = "node-role.kubernetes.io/control-plane";

/// A taint of a node, written `key=value:Effect` or `key:Effect`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// The key.
    pub key: LabelKey,
    /// The value, often empty.
    pub value: LabelValue,
    /// What happens to pods without a toleration.
    pub effect: TaintEffect,
}

impl Taint {
    /// The taint that keeps ordinary pods off masters.
    #[must_use]
    pub fn control_plane() -> Self {
        Self {
            key: LabelKey(CONTROL_PLANE_KEY.to_owned()),
            value: LabelValue(String::new()),
            effect: TaintEffect::NoSchedule,
        }
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

impl Word for Taint {
    const FORMAT: &'static WordFormat = &WordFormat {
        name: "taint",
        expected: "`key:Effect` or `key=value:Effect`, where Effect is NoSchedule, PreferNoSchedule or NoExecute",
        pattern: Some("^[^=:]+(=[^=:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$"),
        choices: &[],
    };

    fn parse_word(text: &str) -> Result<Self, WordError> {
        let Some((label, effect)) = text.rsplit_once(':') else {
            return Err(WordError::new(format!("{} has no `:` before its effect", quoted(text))));
        };
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let effect = TaintEffect::parse_word(effect).map_err(|error| WordError {
            suggestion: error.suggestion.map(|effect| format!("{label}:{effect}")),
            reason: error.reason,
        })?;
        Ok(Self { key: LabelKey::parse_word(key)?, value: LabelValue::parse_word(value)?, effect })
    }
}
from_str_by_word!(Taint);

text_word! {
    /// The name of a network interface.
    InterfaceName,
    WordFormat {
        name: "interface name",
        expected: "at most 15 bytes without `/`, `:` or blanks, such as `eth0`",
        pattern: Some("^[^/:\\s]{1,15}$"),
        choices: &[],
    },
    |text| {
        if text.is_empty() || text == "." || text == ".." {
            return Err(WordError::new(format!("{} is no interface name", quoted(text))));
        }
        if text.len() > INTERFACE_NAME_BYTES {
            return Err(WordError::new(format!("{} has {} bytes", quoted(text), text.len())));
        }
        match text.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control()) {
            Some(c) => Err(WordError::new(format!("{} contains `{}`", quoted(text), c.escape_debug()))),
            None => Ok(()),
        }
    }
}

text_word! {
    /// The name of a kernel module.
    ModuleName,
    WordFormat {
        name: "module name",
        expected: "letters, digits, `_` and `-`, such as `wireguard`",
        pattern: Some("^[A-Za-z0-9_-]{1,56}$"),
        choices: &[],
    },
    |text| {
        let fits = (1..=56).contains(&text.len());
        if let Some(stem) = text.strip_suffix(".ko") {
            return Err(WordError::meant(format!("{} is a file name", quoted(text)), stem));
        }
        if fits && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
            Ok(())
        } else {
            Err(WordError::new(format!("{} is no module name", quoted(text))))
        }
    }
}

text_word! {
    /// Parameters of a kernel module, as `modprobe` takes them.
    ModuleParameters,
    WordFormat {
        name: "module parameters",
        expected: "`name=value` pairs with blanks between them, such as `max_loop=8`",
        pattern: None,
        choices: &[],
    },
    |text| match text.split_whitespace().find(|pair| pair.starts_with('=')) {
        Some(pair) => Err(WordError::new(format!("{} has no parameter name", quoted(pair)))),
        None if text.contains(char::is_control) => Err(WordError::new("the parameters contain a control character")),
        None => Ok(()),
    }
}

text_word! {
    /// The name of a sysctl with dots, such as `net.ipv4.ip_forward`.
    SysctlName,
    WordFormat {
        name: "sysctl name",
        expected: "parts with dots between them, such as `net.ipv4.ip_forward`",
        pattern: Some("^[A-Za-z0-9_*-]+([./][A-Za-z0-9_*-]+)+$"),
        choices: &[],
    },
    |text| {
        let part = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | '@'))
        };
        if text.contains('.') && text.split('.').all(part) && !text.starts_with('/') && !text.contains("//") {
            Ok(())
        } else {
            Err(WordError::new(format!("{} is no sysctl name", quoted(text))))
        }
    }
}

text_word! {
    /// The name of a feature option of the Kubernetes components.
    FeatureName,
    WordFormat {
        name: "feature name",
        expected: "a feature gate's name in upper camel case, such as `InPlacePodVerticalScaling`",
        pattern: Some("^[A-Z][A-Za-z0-9]*$"),
        choices: &[],
    },
    |text| {
        let begins_well = text.starts_with(|c: char| c.is_ascii_uppercase());
        if begins_well && text.chars().all(|c| c.is_ascii_alphanumeric()) {
            Ok(())
        } else {
            Err(WordError::new(format!("{} is no feature name", quoted(text))))
        }
    }
}

text_word! {
    /// A registry as it stands in image names, or `_default` for every registry without an own entry.
    RegistryHost,
    WordFormat {
        name: "registry",
        expected: "a registry's host and port as in image names, such as `docker.io` or `registry.local:5000`, \
                   or `_default`",
        pattern: Some("^(_default|[^/\\s]+)$"),
        choices: &[],
    },
    |text| {
        if text == RegistryHost::ANY {
            return Ok(());
        }
        if text.contains("://") {
            let host = text.split("://").nth(1).unwrap_or_default().trim_end_matches('/');
            return Err(WordError::meant(format!("{} is a URL, not a registry name", quoted(text)), host));
        }
        super::net::check_authority(text)
    }
}

impl RegistryHost {
    /// Every registry without an own entry.
    pub const ANY: &str = "_default";
}
