//! The configuration: which providers encrypt which resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stdx::document::{Document, Invalid, Node};

use crate::cipher::Cipher;
use crate::envelope::Envelope;
use crate::plugin::Plugin;
use crate::provider::{Provider, Providers};

const AES_SIZES: &[usize] = &[16, 24, 32];
const SECRETBOX_SIZES: &[usize] = &[32];
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

/// A resource by group and plural name; `*` stands for all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Plural name.
    pub resource: String,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It says what it must not say.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// A rule would never be reached.
    #[error("resource {resource:?} is masked by earlier rule {by:?}")]
    Masked {
        /// The rule's resource.
        resource: String,
        /// The earlier one.
        by: String,
    },
    /// The older way to speak with plugins.
    #[error("KMSv1 is deprecated and is not supported here: give the provider {0:?} \"apiVersion: v2\"")]
    KmsV1(String),
}

/// A configuration in force.
#[derive(Default)]
pub struct Configuration {
    rules: BTreeMap<Resource, Providers>,
    pub(crate) envelopes: Vec<Arc<Envelope>>,
}

impl Resource {
    fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }

    fn all_of(group: &str) -> Self {
        Self { group: group.to_owned(), resource: "*".to_owned() }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() && self.resource != "*" {
            return f.write_str(&self.resource);
        }
        write!(f, "{}.{}", self.resource, self.group)
    }
}

impl Configuration {
    /// Reads a configuration. Plugins are not asked yet.
    ///
    /// # Errors
    /// When it cannot be used; everything wrong with it is told at once.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let document = Document::parse(text, &["apiserver.config.k8s.io/v1"], "EncryptionConfiguration")?;
        let root = document.root().only(&["apiVersion", "kind", "resources"]);
        let entries = root.list("resources");
        if entries.is_empty() {
            root.field("resources").require("at least one resources is required");
        }
        let mut reading = Reading::default();
        let rules: Vec<(Vec<Resource>, Providers)> = entries.into_iter().map(|node| reading.rule(node)).collect();
        document.finish_strictly()?;
        if let Some(name) = reading.v1.into_iter().next() {
            return Err(ConfigError::KmsV1(name));
        }
        let mut found = Self { rules: BTreeMap::new(), envelopes: reading.envelopes };
        for (resources, providers) in rules {
            for resource in resources {
                for by in [Resource::all_of(&resource.group), Resource::all_of("*")] {
                    if found.rules.contains_key(&by) {
                        return Err(ConfigError::Masked { resource: resource.to_string(), by: by.to_string() });
                    }
                }
                found.rules.entry(resource).or_default().0.extend(providers.0.iter().cloned());
            }
        }
        Ok(found)
    }

    /// The providers of a resource; none where its values lie as they are.
    #[must_use]
    pub fn providers(&self, group: &str, resource: &str) -> Option<&Providers> {
        let exact = Resource { group: group.to_owned(), resource: resource.to_owned() };
        let rules = &self.rules;
        let found = rules.get(&exact).or_else(|| rules.get(&Resource::all_of(group)));
        found.or_else(|| rules.get(&Resource::all_of("*")))
    }
}

#[derive(Default)]
struct Reading {
    envelopes: Vec<Arc<Envelope>>,
    kms_names: BTreeSet<String>,
    v1: Vec<String>,
}

impl Reading {
    fn rule(&mut self, node: Node<'_>) -> (Vec<Resource>, Providers) {
        let node = node.only(&["resources", "providers"]);
        let resources = resources(&node);
        let list = node.list("providers");
        if list.is_empty() {
            let field = node.field("providers");
            field.require(&format!("at least one {} is required", field.path()));
        }
        let providers = list.into_iter().filter_map(|provider| self.provider(provider)).map(Arc::new);
        (resources, Providers(providers.collect()))
    }

    fn provider(&mut self, node: Node<'_>) -> Option<Provider> {
        let names = ["aesgcm", "aescbc", "secretbox", "identity", "kms"];
        let node = node.only(&names);
        // `identity: {}` is there though there is nothing in it.
        let given: Vec<&str> = names.into_iter().filter(|name| node.field(name).is_there()).collect();
        match given.as_slice() {
            [] => node.invalid(
                "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity",
            ),
            [_] => {}
            _ => node.note(
                "more than one provider specified in a single element, should split into different list elements",
            ),
        }
        let keyed = |prefix: &str, what, keys| Provider::Keys { prefix: prefix.to_owned(), what, keys };
        match *given.first()? {
            "identity" => {
                let _looked_at = node.field("identity").only(&[]);
                Some(Provider::Identity)
            }
            "aesgcm" => Some(keyed("k8s:enc:aesgcm:v1:", "AES", keys(&node.field("aesgcm"), AES_SIZES, Cipher::gcm))),
            "aescbc" => Some(keyed("k8s:enc:aescbc:v1:", "AES", keys(&node.field("aescbc"), AES_SIZES, Cipher::cbc))),
            "secretbox" => {
                let keys = keys(&node.field("secretbox"), SECRETBOX_SIZES, Cipher::secretbox);
                Some(keyed("k8s:enc:secretbox:v1:", "Secretbox", keys))
            }
            _ => self.kms(node.field("kms")),
        }
    }

    fn kms(&mut self, node: Node<'_>) -> Option<Provider> {
        let node = node.only(&["apiVersion", "name", "cachesize", "endpoint", "timeout"]);
        let name = node.text("name");
        let version = node.text("apiVersion");
        if name.is_empty() {
            node.field("name").require("name is a mandatory field for a provider");
        }
        if !matches!(version.as_str(), "" | "v1" | "v2") {
            let text = "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported";
            node.field("apiVersion").invalid(text);
        }
        if version == "v2" {
            if name.contains(':') {
                node.field("name").invalid(&format!("invalid KMS provider name {name}, must not contain ':'"));
            }
            if node.field("cachesize").is_there() {
                node.field("cachesize").invalid("cachesize is not supported in v2");
            }
        }
        if !self.kms_names.insert(name.clone()) {
            node.field("name").invalid(&format!("duplicate KMS provider name {name}, names must be unique"));
        }
        let timeout = timeout(&node);
        let endpoint = node.text("endpoint");
        let path = match endpoint.split_once("://").or_else(|| endpoint.split_once(':')) {
            Some(("unix", path)) if !path.is_empty() => path.to_owned(),
            _ if endpoint.is_empty() => {
                node.field("endpoint").invalid("endpoint is a mandatory field for a kms");
                return None;
            }
            other => {
                let scheme = other.map_or("", |(scheme, _)| scheme);
                let text = format!("unsupported scheme {scheme:?} for KMS provider, only unix is supported");
                node.field("endpoint").invalid(&text);
                return None;
            }
        };
        if version != "v2" {
            self.v1.push(name);
            return None;
        }
        let envelope = Arc::new(Envelope::new(name.clone(), Plugin::new(&path, timeout)));
        self.envelopes.push(envelope.clone());
        Some(Provider::Kms { prefix: format!("k8s:enc:kms:v2:{name}:"), envelope })
    }
}

fn timeout(node: &Node<'_>) -> Duration {
    let field = node.field("timeout");
    if !field.is_there() {
        return DEFAULT_TIMEOUT;
    }
    let nanos = api::time::parse_duration(field.as_text()).and_then(|nanos| u64::try_from(nanos).ok());
    match nanos {
        Some(nanos) if nanos > 0 => Duration::from_nanos(nanos),
        _ => {
            field.invalid("timeout should be a positive value");
            DEFAULT_TIMEOUT
        }
    }
}

fn keys(node: &Node<'_>, sizes: &[usize], cipher: fn(&[u8]) -> Option<Cipher>) -> Vec<(String, Cipher)> {
    let node = node.clone().only(&["keys"]);
    let list = node.list("keys");
    if list.is_empty() {
        node.field("keys").require("at least one keys is required");
    }
    list.into_iter().filter_map(|key| read_key(key, sizes, cipher)).collect()
}

fn read_key(node: Node<'_>, sizes: &[usize], cipher: fn(&[u8]) -> Option<Cipher>) -> Option<(String, Cipher)> {
    let node = node.only(&["name", "secret"]);
    let (name, secret) = (node.text("name"), node.field("secret"));
    if name.is_empty() {
        node.field("name").require("name is a mandatory field for a key");
    }
    // What is wrong with a secret is told without it.
    let invalid = |why: &str| secret.note(format!("Invalid value: \"REDACTED\": {why}"));
    if secret.as_text().is_empty() {
        secret.require("secret is a mandatory field for a key");
        return None;
    }
    let Ok(bytes) = STANDARD.decode(secret.as_text()) else {
        invalid("secrets must be base64 encoded");
        return None;
    };
    let found = cipher(&bytes);
    if found.is_none() {
        let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        let len = bytes.len();
        invalid(&format!("secret is not of the expected length, got {len}, expected one of [{}]", sizes.join(" ")));
    }
    Some((name, found?))
}

fn resources(node: &Node<'_>) -> Vec<Resource> {
    let items = node.list("resources");
    let field = node.field("resources");
    if items.is_empty() {
        field.require(&format!("at least one {} is required", field.path()));
    }
    let parsed: Vec<Resource> = items.iter().map(|item| Resource::parse(item.as_text())).collect();
    let pairs = || {
        let others = |at: usize| parsed.iter().enumerate().filter(move |(other, _)| *other != at);
        parsed.iter().enumerate().flat_map(move |(at, one)| others(at).map(move |(_, other)| (one, other)))
    };
    if pairs().any(|(one, other)| one == other) {
        field.invalid("the same resource cannot be specified multiple times");
    }
    let is_all = |r: &Resource| r.group == "*" && r.resource == "*";
    let overlaps = |one: &Resource, other: &Resource| {
        one != other && (is_all(one) || one.group == other.group && (one.resource == "*" || other.resource == "*"))
    };
    if pairs().any(|(one, other)| overlaps(one, other)) {
        field.invalid(
            "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they \
             will be masked",
        );
    }
    for (item, resource) in items.iter().zip(&parsed) {
        if let Some(why) = unfit(item.as_text(), resource) {
            item.invalid(why);
        }
    }
    parsed
}

/// Why values of such a resource cannot be encrypted.
fn unfit(text: &str, resource: &Resource) -> Option<&'static str> {
    if text.to_lowercase() != text {
        return Some("resource name should not contain capital letters");
    }
    match (resource.group.as_str(), resource.resource.as_str()) {
        _ if text == "*" => {
            Some("use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources")
        }
        (_, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") if resource.group.is_empty() => {
            Some("resources which do not have REST API/s cannot be encrypted")
        }
        ("events.k8s.io", _) => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the \
             config file",
        ),
        ("extensions", _) => Some("'extensions' group has been removed and cannot be used for encryption"),
        ("*", name) if name != "*" => Some("encrypting the same resource across groups is not supported"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(resources: &str) -> Result<Configuration, ConfigError> {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        Configuration::parse(&format!("{head}{resources}"))
    }

    #[test]
    fn the_nearest_rule_counts() {
        let found = parse(
            "- {resources: [secrets, '*.apps'], providers: [{identity: {}}]}\n\
             - {resources: ['*.'], providers: [{identity: {}}, {identity: {}}]}\n\
             - {resources: ['*.*'], providers: [{identity: {}}, {identity: {}}, {identity: {}}]}\n",
        )
        .unwrap();
        let count = |group, resource| found.providers(group, resource).map_or(0, |p| p.0.len());
        let counts = [count("", "secrets"), count("apps", "x"), count("", "pods"), count("a.b", "things")];
        assert_eq!(counts, [1, 1, 2, 3]);
        assert!(parse("- {resources: [secrets], providers: [{identity: {}}]}\n").unwrap().providers("", "x").is_none());
    }

    #[test]
    fn what_is_wrong_is_told_by_its_path() {
        let one = |provider: &str| {
            let text = format!("- {{resources: [secrets], providers: [{provider}]}}\n");
            parse(&text).err().unwrap().to_string()
        };
        let of = |resources: &str| {
            parse(&format!("- {{resources: [{resources}], providers: [{{identity: {{}}}}]}}\n"))
                .err()
                .unwrap()
                .to_string()
        };
        let at = "resources[0].providers[0]";
        for (provider, message) in [
            ("{aescbc: {keys: []}}", format!("{at}.aescbc.keys: Required value: at least one keys is required")),
            (
                "{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}",
                format!(
                    "{at}.aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got \
                     5, expected one of [16 24 32]"
                ),
            ),
            (
                "{secretbox: {keys: [{name: a, secret: '?'}]}}",
                format!("{at}.secretbox.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded"),
            ),
            (
                "{kms: {apiVersion: v2, name: a, endpoint: 'tcp://x'}}",
                format!(
                    "{at}.kms.endpoint: Invalid value: \"tcp://x\": unsupported scheme \"tcp\" for KMS provider, only \
                     unix is supported"
                ),
            ),
            ("{other: {}}", format!("unknown field \"{at}.other\"")),
        ] {
            let told = one(provider);
            assert!(told.contains(&message), "{told}");
        }
        assert!(one("{kms: {name: a, endpoint: 'unix:///a'}}").starts_with("KMSv1 is deprecated"));
        assert!(of("secrets, '*.'").contains("overlapping"));
        assert!(of("Secrets").contains("capital"));
        assert!(of("'*'").contains("use '*.'"));
        assert!(of("events.events.k8s.io").contains("stored using the 'events' API group"));
        let masked =
            "- {resources: ['*.*'], providers: [{identity: {}}]}\n- {resources: [pods], providers: [{identity: {}}]}\n";
        assert_eq!(parse(masked).err().unwrap().to_string(), "resource \"pods\" is masked by earlier rule \"*.*\"");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z*.:{}\\[\\], -]{0,100}") {
            let _either_way = parse(&format!("- {text}\n")).is_ok();
        }
    }
}
