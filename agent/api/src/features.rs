//! Feature gates: what upstream's components know, and what somebody set.
//!
//! The table is upstream's. A component that does not do what a gate asks for refuses it: [`Features::unmet`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

/// A feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its name.
    pub name: &'static str,
    /// `ALPHA`, `BETA`, `DEPRECATED`, or `GA`.
    pub stage: &'static str,
    /// Whether it is on unless somebody says otherwise.
    pub by_default: bool,
    /// Whether nobody can say otherwise.
    pub is_locked: bool,
    /// Gates that have to be on where it is.
    depends: &'static str,
    /// Letters of the components whose code asks for it.
    parts: &'static str,
}

/// A component that has gates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The kubelet.
    Kubelet,
    /// The service proxy.
    Proxy,
}

impl Component {
    const fn letter(self) -> char {
        match self {
            Self::ApiServer => 'a',
            Self::ControllerManager => 'c',
            Self::Scheduler => 's',
            Self::Kubelet => 'k',
            Self::Proxy => 'p',
        }
    }
}

/// Gates that set many others.
const ALL: [(&str, &str); 2] = [("AllAlpha", "ALPHA"), ("AllBeta", "BETA")];

static GATES: LazyLock<Vec<Gate>> = LazyLock::new(|| {
    let read = |line: &'static str| {
        let mut cells = line.split('\t');
        let mut next = || cells.next().unwrap_or_default();
        let (name, stage, by_default, is_locked) = (next(), next(), next() == "y", next() == "y");
        Gate { name, stage, by_default, is_locked, depends: next(), parts: next() }
    };
    let all =
        ALL.map(|(name, stage)| Gate { name, stage, by_default: false, is_locked: false, depends: "", parts: "" });
    let mut gates: Vec<Gate> = include_str!("../facts/features.tsv").lines().map(read).chain(all).collect();
    gates.sort_unstable_by_key(|gate| gate.name);
    gates
});

/// Why gates cannot be set so. The texts are upstream's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// A name alone.
    #[error("missing bool value for {0}")]
    NoValue(String),
    /// Neither true nor false.
    #[error("invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax")]
    Value {
        /// The gate.
        name: String,
        /// What was said.
        value: String,
    },
    /// Gates of a component that there is not.
    #[error("component not registered: {0}")]
    Component(String),
    /// A gate that there is not.
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
    /// Gates that cannot be set so, one reason each.
    #[error("{}", joined(.0))]
    Impossible(Vec<String>),
}

fn joined(texts: &[String]) -> String {
    match texts {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// What is on and what is off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Gates that are not as they are by default.
    changed: BTreeMap<&'static str, bool>,
}

impl Features {
    /// Reads `NAME=true,NAME=false` texts; the last word counts.
    ///
    /// # Errors
    /// When a gate is not known, or cannot be set so.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, FeatureError> {
        let mut said = BTreeMap::new();
        for word in texts.into_iter().flat_map(|text| text.split(',')).filter(|word| !word.is_empty()) {
            let (component, word) = word.split_once(':').map_or(("", word), |(component, word)| (component, word));
            if !matches!(component, "" | "kube") {
                return Err(FeatureError::Component(component.to_owned()));
            }
            let (name, value) = word.split_once('=').ok_or_else(|| FeatureError::NoValue(word.trim().to_owned()))?;
            let (name, value) = (name.trim(), value.trim());
            let is_on = parse_bool(value)
                .ok_or_else(|| FeatureError::Value { name: name.to_owned(), value: value.to_owned() })?;
            said.insert(name.to_owned(), is_on);
        }
        Self::of(said)
    }

    /// Of gates by name.
    ///
    /// # Errors
    /// When a gate is not known, or cannot be set so.
    pub fn of(said: BTreeMap<String, bool>) -> Result<Self, FeatureError> {
        let mut set: BTreeMap<&'static str, bool> = BTreeMap::new();
        let mut impossible = Vec::new();
        for (name, is_on) in &said {
            let gate = gate(name).ok_or_else(|| FeatureError::Unknown(name.clone()))?;
            if gate.is_locked && gate.by_default != *is_on {
                let locked = gate.by_default;
                impossible.push(format!("cannot set feature gate {name} to {is_on}, feature is locked to {locked}"));
            }
            set.insert(gate.name, *is_on);
        }
        for (all, stage) in ALL {
            let Some(is_on) = set.get(all).copied() else { continue };
            for gate in GATES.iter().filter(|gate| gate.stage == stage && !gate.is_locked) {
                set.entry(gate.name).or_insert(is_on);
            }
        }
        set.retain(|name, is_on| gate(name).is_some_and(|gate| gate.by_default != *is_on));
        let features = Self { changed: set };
        if impossible.is_empty() {
            impossible = features.lacking();
        }
        if impossible.is_empty() { Ok(features) } else { Err(FeatureError::Impossible(impossible)) }
    }

    /// Gates that are on without others that they need.
    fn lacking(&self) -> Vec<String> {
        let missing = |gate: &Gate| -> Vec<&str> {
            gate.depends.split(',').filter(|name| !name.is_empty() && !self.is_on(name)).collect()
        };
        let on = GATES.iter().filter(|gate| self.is_on(gate.name));
        on.filter(|gate| !missing(gate).is_empty())
            .map(|gate| {
                let missing = missing(gate).join(" ");
                format!("{} is enabled, but depends on features that are disabled: [{missing}]", gate.name)
            })
            .collect()
    }

    /// Whether a feature is on; unknown ones are off.
    #[must_use]
    pub fn is_on(&self, name: &str) -> bool {
        self.changed.get(name).copied().unwrap_or_else(|| gate(name).is_some_and(|gate| gate.by_default))
    }

    /// Gates that are not as they are by default, and what they are.
    pub fn changed(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.changed.iter().map(|(name, is_on)| (*name, *is_on))
    }

    /// Gates that ask a component for something that it does not do; `done` are those that it looks at itself.
    #[must_use]
    pub fn unmet(&self, component: Component, done: &[&str]) -> Vec<String> {
        let done: BTreeSet<&str> = done.iter().copied().collect();
        let asks = |name: &str| gate(name).is_some_and(|gate| gate.parts.contains(component.letter()));
        let unmet = self.changed().filter(|(name, _)| asks(name) && !done.contains(name));
        unmet.map(|(name, is_on)| format!("{name}={is_on}")).collect()
    }
}

/// All gates, by name.
#[must_use]
pub fn gates() -> &'static [Gate] {
    &GATES
}

fn gate(name: &str) -> Option<&'static Gate> {
    GATES.binary_search_by_key(&name, |gate| gate.name).ok().map(|at| &GATES[at])
}

/// As Go reads it.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_set_by_name_and_by_stage() {
        let features = Features::parse(["WatchList=false", "AllAlpha=false,ClusterTrustBundle=true"]).unwrap();
        assert!(!features.is_on("WatchList") && features.is_on("ClusterTrustBundle") && !features.is_on("Nothing"));
        assert!(Features::parse(["AllBeta=true,WatchList=false"]).unwrap().is_on("ClusterTrustBundle"));
        assert!(!Features::parse(["AllBeta=true,WatchList=false"]).unwrap().is_on("WatchList"));
        assert_eq!(Features::parse(["kube:WatchList=true", "ImageVolume=true"]), Ok(Features::default()));
    }

    #[test]
    fn what_cannot_be_is_refused_as_upstream_does() {
        let refused = |text: &str| Features::parse([text]).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(refused("A=true"), "unrecognized feature gate: A");
        assert_eq!(refused("A"), "missing bool value for A");
        assert_eq!(refused("other:A=true"), "component not registered: other");
        assert_eq!(
            refused("WatchList=maybe"),
            "invalid value of WatchList=maybe, err: strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        let locked = "cannot set feature gate ImageVolume to false, feature is locked to true";
        assert_eq!(refused("ImageVolume=false"), locked);
        assert_eq!(
            refused("JobSuccessPolicy=false,ImageVolume=false"),
            format!("[{locked}, cannot set feature gate JobSuccessPolicy to false, feature is locked to true]")
        );
        assert_eq!(
            refused("GangScheduling=true"),
            "GangScheduling is enabled, but depends on features that are disabled: [GenericWorkload]"
        );
    }

    #[test]
    fn a_component_answers_for_what_its_code_asks_for() {
        let features = Features::parse(["WatchList=false,MemoryQoS=true"]).unwrap();
        assert_eq!(features.unmet(Component::ApiServer, &[]), ["WatchList=false"]);
        assert_eq!(features.unmet(Component::Kubelet, &[]), ["MemoryQoS=true"]);
        assert!(features.unmet(Component::ApiServer, &["WatchList"]).is_empty());
    }
}
