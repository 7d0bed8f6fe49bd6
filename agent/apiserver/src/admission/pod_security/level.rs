//! What may be demanded of pods: a level, in the words of a release.

use std::borrow::Cow;
use std::fmt;

use crate::nonresource::MINOR;
use crate::status::FieldError;

/// Where labels and annotations of this plugin begin.
pub(super) const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much a pod may do to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "privileged" => Ok(Self::Privileged),
            "baseline" => Ok(Self::Baseline),
            "restricted" => Ok(Self::Restricted),
            _ => Err("must be one of privileged, baseline, restricted"),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// The release whose rules are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// 1.x.
    Minor(i64),
    Latest,
}

impl Version {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let plain = |minor: &&str| *minor == "0" || !minor.starts_with(['0', '+', '-']);
        let minor = text.strip_prefix("v1.").filter(plain).and_then(|minor| minor.parse().ok());
        match (text, minor) {
            ("latest", _) => Ok(Self::Latest),
            (_, Some(minor)) => Ok(Self::Minor(minor)),
            _ => Err("must be \"latest\" or \"v1.x\""),
        }
    }
}

/// A level in the words of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Demand {
    /// The release as metrics tell it: what nobody can know yet is one thing.
    pub(super) fn told_version(self) -> Cow<'static, str> {
        match self.version {
            Version::Latest => "latest".into(),
            Version::Minor(_) if self.level == Level::Privileged => "latest".into(),
            Version::Minor(minor) if minor > MINOR => "future".into(),
            Version::Minor(minor) => format!("v1.{minor}").into(),
        }
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::Minor(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
            Version::Latest => write!(f, "{}:latest", self.level.name()),
        }
    }
}

/// What is demanded, by what happens to a pod that does not meet it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) enforce: Demand,
    pub(super) audit: Demand,
    pub(super) warn: Demand,
}

/// What a mode comes to when its label cannot be read: nobody gets more than the label can have meant, and nobody is
/// told what it cannot have meant.
const MODES: [(&str, Level); 3] =
    [("enforce", Level::Restricted), ("audit", Level::Privileged), ("warn", Level::Privileged)];

impl Policy {
    /// What the labels of a namespace demand, and what is wrong with them.
    pub(super) fn of<'l>(label: impl Fn(&str) -> Option<&'l str>, defaults: &Self) -> (Self, Vec<FieldError>) {
        let mut policy = *defaults;
        let mut errors = Vec::new();
        let mut wrong = |key: &str, text: &str, why: &str| {
            errors.push(FieldError::invalid(format!("metadata.labels[{key}]"), text, why));
        };
        let demands = [&mut policy.enforce, &mut policy.audit, &mut policy.warn];
        for ((mode, unread), demand) in MODES.into_iter().zip(demands) {
            let key = format!("{PREFIX}{mode}");
            if let Some(text) = label(&key) {
                demand.level = Level::parse(text).inspect_err(|why| wrong(&key, text, why)).unwrap_or(unread);
            }
            let key = format!("{key}-version");
            if let Some(text) = label(&key) {
                let version = Version::parse(text).inspect_err(|why| wrong(&key, text, why));
                demand.version = version.unwrap_or(Version::Latest);
            }
        }
        // Who enforces and says nothing of warnings wants to be warned of as much.
        let has = |mode: &str| label(&format!("{PREFIX}{mode}"));
        let is_enforced = has("enforce").is_some_and(|text| Level::parse(text).is_ok());
        if is_enforced && has("warn").is_none() && policy.enforce.level > policy.warn.level {
            policy.warn.level = policy.enforce.level;
            if has("warn-version").is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether it demands nothing at all.
    pub(super) fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|demand| demand.level == Level::Privileged)
    }

    /// Whether pods are judged as by the other one.
    fn is_like(&self, other: &Self) -> bool {
        let same = |a: Demand, b: Demand| a == b || (a.level == Level::Privileged && b.level == Level::Privileged);
        same(self.enforce, other.enforce) && same(self.audit, other.audit) && same(self.warn, other.warn)
    }

    /// What to tell somebody who labels a namespace that is exempt.
    pub(super) fn ignored<'l>(
        &self,
        namespace: &str,
        label: impl Fn(&str) -> Option<&'l str>,
        defaults: &Self,
    ) -> Option<String> {
        if self.is_privileged() || self.is_like(defaults) {
            return None;
        }
        let is_given = |mode: &str| ["", "-version"].iter().any(|end| label(&format!("{PREFIX}{mode}{end}")).is_some());
        let modes = [("enforce", self.enforce), ("audit", self.audit), ("warn", self.warn)];
        let given = modes.iter().filter(|(mode, demand)| demand.level != Level::Privileged && is_given(mode));
        let given: Vec<String> = given.map(|(mode, demand)| format!("{mode}={demand}")).collect();
        let given = given.join(", ");
        Some(format!("namespace {namespace:?} is exempt from Pod Security, and the policy ({given}) will be ignored"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[(&str, &'static str)]) -> (String, usize) {
        let nothing = Demand { level: Level::Privileged, version: Version::Latest };
        let defaults = Policy { enforce: nothing, audit: nothing, warn: nothing };
        let label = |key: &str| labels.iter().find(|(k, _)| format!("{PREFIX}{k}") == key).map(|(_, v)| *v);
        let (policy, errors) = Policy::of(label, &defaults);
        (format!("{} {} {}", policy.enforce, policy.audit, policy.warn), errors.len())
    }

    #[test]
    fn labels_make_a_policy() {
        let plain = "privileged:latest";
        assert_eq!(of(&[]), (format!("{plain} {plain} {plain}"), 0));
        let enforced = of(&[("enforce", "baseline"), ("enforce-version", "v1.20")]);
        assert_eq!(enforced, (format!("baseline:v1.20 {plain} baseline:v1.20"), 0));
        let warned = of(&[("enforce", "baseline"), ("enforce-version", "v1.20"), ("warn", "privileged")]);
        assert_eq!(warned, (format!("baseline:v1.20 {plain} {plain}"), 0));
        // What cannot be read is enforced in full and told nobody else.
        let wrong = of(&[("enforce", "x"), ("audit", "x"), ("warn", "x"), ("warn-version", "v1.01")]);
        assert_eq!(wrong, (format!("restricted:latest {plain} {plain}"), 4));
    }

    #[test]
    fn versions_are_those_of_releases() {
        for text in ["latest", "v1.0", "v1.36", "v1.99"] {
            assert!(Version::parse(text).is_ok(), "{text}");
        }
        for text in ["", "v1", "v1.", "v1.x", "v2.0", "1.2", "v1.01", "v1.-1", "v1.+1", "v1.99999999999999999999"] {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }
}
