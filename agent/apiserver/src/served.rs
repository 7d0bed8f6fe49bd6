//! Which of the built-in kinds are served: those of stable versions, unless `--runtime-config` says otherwise.
//!
//! ```text
//!  api/all, api/ga, api/beta, api/alpha ─▶ GROUP/VERSION ─▶ GROUP/VERSION/RESOURCE      the later counts
//! ```
//!
//! A kind that is not served is still known: it may lie in the store, and what was written in it can be told apart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use api::Kind;

use crate::versions;

/// What is known of a group version: its path in this server.
type GroupVersion<'a> = (&'a str, &'a str);

/// The built-in kinds that are served.
#[derive(Clone, Debug)]
pub struct Served(Arc<Rows>);

#[derive(Debug)]
struct Rows {
    /// In the order of discovery.
    kinds: Vec<&'static Kind>,
    by_resource: HashMap<(&'static str, &'static str, &'static str), &'static Kind>,
}

/// Why it cannot be told what is to be served. The texts are upstream's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServedError {
    /// Nothing would be left.
    #[error("invalid runtime-config with only api/all=false")]
    Nothing,
    /// A key that is no group version or resource.
    #[error("runtime-config invalid key {0}")]
    Key(String),
    /// Groups that do not exist.
    #[error("unknown api groups {0}")]
    Groups(String),
    /// A version that the group does not have.
    #[error("group version {0} that has not been registered")]
    Version(String),
    /// A key for many versions with something else than true or false.
    #[error("invalid value {key}={value}")]
    Matcher {
        /// The key.
        key: &'static str,
        /// What was said.
        value: String,
    },
    /// Neither true nor false.
    #[error("invalid value of {key}: {value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Value {
        /// The key.
        key: String,
        /// What was said.
        value: String,
    },
    /// A resource that is named by its kind.
    #[error("invalid key {0}: group/version/resource and resource is always lowercase plural, not {1:?}")]
    Plural(String, String),
    /// Priority and fairness without its objects.
    #[error("--runtime-config={0}=false conflicts with --enable-priority-and-fairness=true")]
    Flow(&'static str),
}

type Result<T> = std::result::Result<T, ServedError>;

impl Default for Served {
    fn default() -> Self {
        Self::new(|kind| kind.by_default)
    }
}

impl Served {
    fn new(is_served: impl Fn(&Kind) -> bool) -> Self {
        let kinds: Vec<&'static Kind> = api::all_kinds().iter().filter(|kind| is_served(kind)).collect();
        let by_resource = kinds.iter().map(|kind| ((kind.group, kind.version, kind.plural), *kind)).collect();
        Self(Arc::new(Rows { kinds, by_resource }))
    }

    /// What is served by these words of `--runtime-config`, with the features that are on.
    ///
    /// # Errors
    /// When a word names nothing that there is, or takes away what is needed; `flow` tells whether priority and
    /// fairness is on.
    pub fn try_new(words: &[String], is_on: impl Fn(&str) -> bool, flow: bool) -> Result<Self> {
        let overrides = Overrides::parse(words);
        overrides.verify(flow)?;
        let enabled = overrides.apply()?;
        let is_on = |kind: &Kind| kind.gate.is_empty() || is_on(kind.gate);
        let is_here = |kind: &Kind| kind.by_default || crate::validation::covers(kind);
        for kind in api::all_kinds().iter().filter(|kind| enabled.contains(kind) && is_on(kind) && !is_here(kind)) {
            tracing::warn!("{} of {} cannot be served: it has no rules here", kind.plural, kind.api_version());
        }
        Ok(Self::new(|kind| enabled.contains(kind) && is_on(kind) && is_here(kind)))
    }

    /// All that can be served.
    #[cfg(test)]
    pub fn everything() -> Self {
        Self::try_new(&["api/all=true".to_owned()], |_| true, true).unwrap()
    }

    /// The rows in the order of discovery.
    #[must_use]
    pub fn kinds(&self) -> &[&'static Kind] {
        &self.0.kinds
    }

    /// The kind behind a resource name.
    #[must_use]
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        // Seen through this type, the keys may live as short as the names that are looked for.
        let rows: &HashMap<(&str, &str, &str), &'static Kind> = &self.0.by_resource;
        rows.get(&(group, version, plural)).copied()
    }

    /// The kind of this name, such as (`apps/v1`, `Deployment`).
    #[must_use]
    pub fn kind_by_name(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        self.0.kinds.iter().copied().find(|row| row.kind == kind && row.is_version(api_version))
    }

    /// Whether anything of the group is served.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.0.kinds.iter().any(|kind| kind.group == group)
    }
}

/// Whether a key is about a version.
type IsMeant = fn(&str) -> bool;

/// Keys for many versions, in the order in which they count.
const MATCHERS: [(&str, IsMeant); 4] = [
    ("api/all", |_| true),
    ("api/ga", is_stable),
    ("api/beta", |v| is_early(v, "beta")),
    ("api/alpha", |v| is_early(v, "alpha")),
];

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn is_stable(version: &str) -> bool {
    version.strip_prefix('v').is_some_and(is_number)
}

fn is_early(version: &str, stage: &str) -> bool {
    let parts = version.strip_prefix('v').and_then(|rest| rest.split_once(stage));
    parts.is_some_and(|(major, minor)| is_number(major) && is_number(minor))
}

/// What was said, by key.
struct Overrides(BTreeMap<String, String>);

impl Overrides {
    fn parse(words: &[String]) -> Self {
        let mut said = BTreeMap::new();
        for word in words.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            said.insert(key.trim().to_owned(), value.trim().to_owned());
        }
        // The core group has many names, and what is said of a part of it is said of all.
        let is_core = |key: &str| matches!(key.strip_prefix("api/").unwrap_or(key).split('/').next(), Some("v1"));
        let (core, mut said): (BTreeMap<_, _>, BTreeMap<_, _>) = said.into_iter().partition(|(key, _)| is_core(key));
        said.extend(core.into_values().map(|value| ("/v1".to_owned(), value)));
        said.remove("api/legacy");
        Self(said)
    }

    /// The keys that are no matchers.
    fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_matcher = |key: &str| MATCHERS.iter().any(|(name, _)| *name == key);
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).filter(move |(key, _)| !is_matcher(key))
    }

    fn verify(&self, flow: bool) -> Result<()> {
        let says = |key: &str| self.0.get(key).map(String::as_str);
        if flow {
            let said = ["flowcontrol.apiserver.k8s.io/v1", "api/ga", "api/all"];
            let first = said.into_iter().find(|key| matches!(says(key), Some("true" | "false")));
            if let Some(key) = first.filter(|key| says(key) == Some("false")) {
                return Err(ServedError::Flow(key));
            }
        }
        if self.0.len() == 1 && says("api/all") == Some("false") {
            return Err(ServedError::Nothing);
        }
        let keys: Vec<&str> = self.named().map(|(key, _)| key).collect();
        if let Some(key) = keys.iter().find(|key| !matches!(key.split('/').count(), 2 | 3)) {
            return Err(ServedError::Key((*key).to_owned()));
        }
        let unknown = keys.iter().map(|key| group_version(key)).filter(|(group, _)| !is_group(group));
        let unknown: BTreeSet<String> = unknown.map(shown).collect();
        if unknown.is_empty() {
            Ok(())
        } else {
            Err(ServedError::Groups(unknown.into_iter().collect::<Vec<_>>().join(",")))
        }
    }

    fn apply(&self) -> Result<Enabled<'_>> {
        let mut enabled = Enabled::default();
        for (key, matches) in MATCHERS {
            let Some(value) = self.0.get(key) else { continue };
            let is_on = match value.as_str() {
                "true" => true,
                "false" => false,
                _ => return Err(ServedError::Matcher { key, value: value.clone() }),
            };
            let hit = versions::known().into_iter().filter(|(_, version)| matches(version));
            enabled.versions.extend(hit.map(|version| (version, is_on)));
        }
        for (key, value) in self.named() {
            let version = group_version(key);
            if !versions::known().contains(&version) {
                return Err(ServedError::Version(shown(version)));
            }
            let is_on =
                parse_bool(value).ok_or_else(|| ServedError::Value { key: key.to_owned(), value: value.to_owned() })?;
            match key.splitn(3, '/').nth(2) {
                None => {
                    enabled.versions.insert(version, is_on);
                }
                Some(plural) if plural.to_lowercase() != plural => {
                    return Err(ServedError::Plural(key.to_owned(), plural.to_owned()));
                }
                Some(plural) => {
                    enabled.resources.insert((version, plural), is_on);
                }
            }
        }
        Ok(enabled)
    }
}

/// What is switched on and off; the rest is as it is by default.
#[derive(Default)]
struct Enabled<'a> {
    versions: HashMap<GroupVersion<'a>, bool>,
    resources: HashMap<(GroupVersion<'a>, &'a str), bool>,
}

impl Enabled<'_> {
    fn contains(&self, kind: &Kind) -> bool {
        let version = (kind.group, kind.version);
        let said = self.resources.get(&(version, kind.plural)).or_else(|| self.versions.get(&version));
        said.copied().unwrap_or(kind.by_default)
    }
}

fn group_version(key: &str) -> GroupVersion<'_> {
    let mut parts = key.split('/');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn shown((group, version): GroupVersion<'_>) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn is_group(group: &str) -> bool {
    versions::known().iter().any(|(known, _)| *known == group)
}

/// As Go reads it; nothing at all is yes.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(words: &str) -> Result<Served> {
        Served::try_new(&[words.to_owned()], |gate| gate == "ClusterTrustBundle", false)
    }

    fn has(words: &str, (group, version, plural): (&str, &str, &str)) -> bool {
        served(words).unwrap().kind(group, version, plural).is_some()
    }

    #[test]
    fn what_is_nearer_to_a_resource_counts() {
        let claims = ("resource.k8s.io", "v1beta2", "resourceclaims");
        assert!(!has("", claims) && has("api/beta=true", claims) && has("resource.k8s.io/v1beta2", claims));
        assert!(!has("api/beta=true,resource.k8s.io/v1beta2=false", claims));
        assert!(!has("api/all=true,api/beta=false", claims));
        assert!(has("resource.k8s.io/v1beta2/resourceclaims=true", claims));
        let classes = ("resource.k8s.io", "v1beta2", "deviceclasses");
        assert!(!has("resource.k8s.io/v1beta2/resourceclaims=true", classes));
        assert!(!has("apps/v1/deployments=false", ("apps", "v1", "deployments")));
        assert!(has("apps/v1/deployments=false", ("apps", "v1", "daemonsets")));
        assert!(!has("v1/pods=false", ("", "v1", "secrets")));
        assert!(!served("api/ga=false,v1=true").unwrap().has_group("apps"));
    }

    #[test]
    fn features_take_kinds_away() {
        assert!(has("api/beta=true", ("certificates.k8s.io", "v1beta1", "clustertrustbundles")));
        assert!(!has("api/beta=true", ("certificates.k8s.io", "v1beta1", "podcertificaterequests")));
    }

    #[test]
    fn what_cannot_be_is_refused_as_upstream_does() {
        let refused = |words: &str| served(words).err().map(|error| error.to_string()).unwrap_or_default();
        for fine in ["v1=false", "/v1=false", "api/legacy=true", "apps/v1beta1=true"] {
            assert_eq!(refused(fine), "");
        }
        assert_eq!(refused("api/all=false"), "invalid runtime-config with only api/all=false");
        assert_eq!(refused("api/all=maybe"), "invalid value api/all=maybe");
        assert_eq!(refused("api/beta"), "invalid value api/beta=");
        assert_eq!(refused("apps/v9=true,foo/v1=true"), "unknown api groups foo/v1");
        assert_eq!(refused("bogus.io/v1=true,another/v2=false"), "unknown api groups another/v2,bogus.io/v1");
        assert_eq!(refused("apps/v9=true"), "group version apps/v9 that has not been registered");
        assert_eq!(refused("apps/v1=true,,x"), "runtime-config invalid key x");
        assert_eq!(
            refused("apps/v1=bla"),
            "invalid value of apps/v1: bla, err: strconv.ParseBool: parsing \"bla\": invalid syntax"
        );
        assert_eq!(
            refused("apps/v1/Deployments=false"),
            "invalid key apps/v1/Deployments: group/version/resource and resource is always lowercase plural, not \"Deployments\""
        );
        let flow = Served::try_new(&["api/ga=false".to_owned()], |_| false, true);
        assert_eq!(flow.err(), Some(ServedError::Flow("api/ga")));
    }
}
