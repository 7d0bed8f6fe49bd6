//! Flags about encryption at rest.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use encryption::{Encrypted, ResourceOf, Settings};
use lifecycle::Shutdown;
use store::Store;

use super::ROOT;

/// Upstream's flags about encryption at rest.
#[derive(Args)]
pub(crate) struct EncryptionOptions {
    /// Which values are encrypted by what.
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read again when it changes.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    encryption_provider_config_automatic_reload: bool,
}

impl EncryptionOptions {
    /// The store to serve from: with encrypted values where that is asked for.
    pub(crate) async fn wrap(
        &self,
        store: Arc<dyn Store>,
        prefix: &str,
        shutdown: &Shutdown,
    ) -> Result<Arc<dyn Store>> {
        let reloads = self.encryption_provider_config_automatic_reload;
        let Some(path) = self.encryption_provider_config.clone() else {
            if reloads {
                bail!("--encryption-provider-config-automatic-reload must be set with --encryption-provider-config");
            }
            return Ok(store);
        };
        encrypted((store, prefix), Settings { path, reloads }, shutdown).await.context("--encryption-provider-config")
    }
}

/// A store with encrypted values, as a configuration says, of objects under a prefix; its keys are looked after until the shutdown.
pub(crate) async fn encrypted(
    (store, prefix): (Arc<dyn Store>, &str),
    settings: Settings,
    shutdown: &Shutdown,
) -> Result<Arc<dyn Store>, encryption::Error> {
    let encrypted = Arc::new(Encrypted::new(store, settings, resources(prefix)).await?);
    let (running, stop) = (encrypted.clone(), shutdown.clone());
    tokio::spawn(async move { running.run(&stop).await });
    Ok(encrypted)
}

/// Which resource lies under a key.
fn resources(prefix: &str) -> ResourceOf {
    let mut known: HashMap<&'static str, (&'static str, &'static str)> = HashMap::new();
    for kind in api::all_kinds() {
        let place = kind.etcd_prefix.strip_prefix(ROOT).and_then(|below| below.strip_prefix('/'));
        let Some(place) = place else { continue };
        let entry = known.entry(place).or_insert((kind.group, kind.plural));
        // Events have two groups, and are stored as those of the core group.
        if kind.group.is_empty() {
            *entry = (kind.group, kind.plural);
        }
    }
    let prefix = format!("{prefix}/");
    Arc::new(move |key: &str| {
        let below = key.strip_prefix(&prefix)?;
        let mut slashes = below.match_indices('/').map(|(at, _)| at);
        let (first, second) = (slashes.next()?, slashes.next());
        for cut in second.into_iter().chain([first]) {
            if let Some((group, plural)) = known.get(&below[..cut]) {
                return Some(((*group).to_owned(), (*plural).to_owned()));
            }
        }
        let (group, rest) = below.split_once('/')?;
        Some((group.to_owned(), rest.split('/').next()?.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_their_resource() {
        let elsewhere = resources("/blue");
        assert_eq!(elsewhere("/blue/minions/n"), Some((String::new(), "nodes".to_owned())));
        assert_eq!(elsewhere("/registry/minions/n"), None);
        let resource_of = resources("/registry");
        for (key, group, resource) in [
            ("/registry/secrets/a/x", "", "secrets"),
            ("/registry/minions/n", "", "nodes"),
            ("/registry/services/specs/a/x", "", "services"),
            ("/registry/services/endpoints/a/x", "", "endpoints"),
            ("/registry/events/a/x", "", "events"),
            ("/registry/deployments/a/x", "apps", "deployments"),
            ("/registry/apiregistration.k8s.io/apiservices/v1.", "apiregistration.k8s.io", "apiservices"),
            ("/registry/example.com/things/a/x", "example.com", "things"),
        ] {
            assert_eq!(resource_of(key), Some((group.to_owned(), resource.to_owned())), "{key}");
        }
        assert_eq!(resource_of("compact_rev_key"), None);
    }
}
