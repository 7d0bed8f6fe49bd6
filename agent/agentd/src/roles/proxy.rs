//! `keelson proxy`: the service proxy alone, with upstream's flags and configuration file.

mod config;
mod fields;
mod flags;

use std::path::Path;

use anyhow::{Context, Result};

use crate::flags::{Given, Surface, Words};
use crate::settings::Settings;
use crate::{host, process};
use config::KubeProxyConfiguration;

const SURFACE: Surface = Surface {
    role: "proxy",
    about: "The service proxy alone, with upstream's flags and its KubeProxyConfiguration file.",
    tables: &[flags::FLAGS],
};

pub(crate) fn run(words: Words) -> Result<()> {
    let Some(given) = SURFACE.read(words)? else { return Ok(()) };
    let plan = Plan::new(given)?;
    process::run(process::FOR_A_MACHINE, |shutdown| async move {
        plan.given.tell();
        host::set_oom_score(plan.oom_score);
        let client = client::Client::new(plan.connection).context("making a client")?;
        proxy::run(plan.proxy, client, shutdown).await.context("running the service proxy")
    })
}

/// Everything that flags and file say.
struct Plan {
    given: Given,
    oom_score: i32,
    connection: client::Config,
    proxy: proxy::Config,
}

impl Plan {
    fn new(mut given: Given) -> Result<Self> {
        let (settings, without_effect) = settings(&given)?.typed::<KubeProxyConfiguration>(&fields::SCHEMA)?;
        given.add_without_effect(without_effect);
        let name = settings.node_name()?;
        let proxy = settings.proxy(&name, given.get("healthz-port"))?;
        let connection = settings.connection(given.get("master"))?;
        Ok(Self { given, oom_score: settings.oom_score_adj, connection, proxy })
    }
}

/// The file, then the flags: what comes later counts.
fn settings(given: &Given) -> Result<Settings> {
    let mut settings = match given.get("config").filter(|path| !path.is_empty()) {
        Some(path) => Settings::read(&fields::SCHEMA, Path::new(path))?,
        None => Settings::default(),
    };
    for (path, value) in &given.fields {
        settings.set(path, value.clone());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_a_flag_stands_for_is_in_the_table_of_fields() {
        for flag in SURFACE.flags() {
            if let crate::flags::Effect::Field(path) = flag.effect {
                let known = |field: &crate::settings::Field| {
                    path == field.path || path.strip_prefix(field.path).is_some_and(|rest| rest.starts_with('.'))
                };
                assert!(fields::SCHEMA.fields.iter().any(known), "--{}: {path}", flag.name);
            }
        }
    }

    #[test]
    fn other_modes_and_unknown_flags_are_refused() {
        let table = [
            ("--proxy-mode=iptables", "mode: \"iptables\" is not supported, only \"nftables\""),
            ("--cleanup", "--cleanup is not supported"),
            ("--proxymode=nftables", "--proxymode is no flag of proxy."),
            ("--detect-local-mode=NodeCIDR", "detectLocalMode: \"NodeCIDR\" is not supported"),
            ("--cluster-cidr=all", "clusterCIDR: \"all\" is no range"),
            ("--healthz-bind-address=here", "healthzBindAddress: \"here\" is no address"),
            ("--hostname-override=n1", "clientConnection.kubeconfig is needed"),
        ];
        for (word, message) in table {
            let found = SURFACE
                .parse(&[word.to_owned()])
                .and_then(Plan::new)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(found.starts_with(message), "{word}: {found}");
        }
    }
}
