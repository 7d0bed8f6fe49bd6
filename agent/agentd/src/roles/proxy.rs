//! `keelson proxy`: the service proxy alone, with upstream's flags and configuration file.

mod config;
mod fields;
mod flags;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::flags::{self as command_line, Given};
use crate::settings::Settings;
use crate::{host, process};
use config::KubeProxyConfiguration;

const ABOUT: &str = "The service proxy alone, with upstream's flags and its KubeProxyConfiguration file.";

/// The words of the command line; upstream's flags are a table of ours, not of clap's.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Upstream's flags; `--help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "FLAGS")]
    words: Vec<OsString>,
}

pub(crate) fn run(options: Options) -> Result<ExitCode> {
    let words = command_line::words(options.words)?;
    if command_line::wants_help(&words) {
        print!("{}", command_line::help("proxy", ABOUT, flags::FLAGS));
        return Ok(ExitCode::SUCCESS);
    }
    let plan = Plan::read(&words)?;
    process::run(2, |shutdown| async move {
        plan.given.tell();
        for (field, reason) in &plan.without_effect {
            tracing::warn!("{field} changes nothing: {reason}");
        }
        host::set_oom_score(plan.oom_score);
        let client = client::Client::new(plan.connection).context("making a client")?;
        proxy::run(plan.proxy, client, shutdown).await.context("running the service proxy")
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Everything that flags and file say.
struct Plan {
    given: Given,
    without_effect: Vec<(String, &'static str)>,
    oom_score: i32,
    connection: client::Config,
    proxy: proxy::Config,
}

impl Plan {
    fn read(words: &[String]) -> Result<Self> {
        let given = command_line::parse("proxy", flags::FLAGS, words)?;
        let (settings, without_effect) = settings(&given)?.typed::<KubeProxyConfiguration>(&fields::SCHEMA)?;
        let name = settings.node_name()?;
        let proxy = settings.proxy(&name, given.get("healthz-port"))?;
        let connection = settings.connection(given.get("master"))?;
        Ok(Self { given, without_effect, oom_score: settings.oom_score_adj, connection, proxy })
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
        for flag in flags::FLAGS {
            if let command_line::Effect::Field(path) = flag.effect {
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
            let found = Plan::read(&[word.to_owned()]).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(found.starts_with(message), "{word}: {found}");
        }
    }
}
