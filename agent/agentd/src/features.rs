//! Feature gates of the components.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use api::features::{Component, Features};
use serde_json::{Map, Value};

/// Gates about clients and logs: whatever they say, what a component does is the same.
const INSIDE: &[&str] = &[
    "AtomicFIFO",
    "ClientsAllowCARotation",
    "ClientsAllowCBOR",
    "ClientsAllowTLSCacheGC",
    "ClientsPreferCBOR",
    "ContextualLogging",
    "InOrderInformersBatchProcess",
    "InformerResourceVersion",
    "LoggingAlphaOptions",
    "LoggingBetaOptions",
    "UnlockWhileProcessingFIFO",
    "WatchListClient",
];

/// Reads the words of `--feature-gates` of a component that switches nothing.
pub(crate) fn check<'t>(words: impl IntoIterator<Item = &'t str>, component: Component) -> Result<()> {
    let features = Features::parse(words).context("--feature-gates")?;
    refuse(&features.unmet(component, INSIDE))
}

/// Checks the gates of a configuration file.
pub(crate) fn check_map(gates: &Map<String, Value>, component: Component) -> Result<()> {
    let mut said = BTreeMap::new();
    for (name, value) in gates {
        // Flags give texts.
        let is_on = match value {
            Value::Bool(is_on) => Some(*is_on),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        let Some(is_on) = is_on else { bail!("featureGates.{name}: {value} is neither true nor false") };
        said.insert(name.clone(), is_on);
    }
    refuse(&Features::of(said)?.unmet(component, INSIDE))
}

/// Refuses gates that ask for what is not done.
pub(crate) fn refuse(unmet: &[String]) -> Result<()> {
    if unmet.is_empty() {
        return Ok(());
    }
    bail!("feature gates {} are not supported: what they switch is done here as by default", unmet.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_taken_where_nothing_would_change() {
        check(["MemoryQoS=true,ImageVolume=true", "ClientsPreferCBOR=true"], Component::Scheduler).unwrap();
        assert!(check(["SchedulerAsyncPreemption=false"], Component::Scheduler).is_err());
        assert!(check(["Nothing=true"], Component::Scheduler).is_err());
    }
}
