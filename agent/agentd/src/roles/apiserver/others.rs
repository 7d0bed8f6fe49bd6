//! Upstream's flags that are not read here: what each would do is done in one way only, or not at all.
//!
//! A flag may always ask for what is done anyway, which is upstream's default but for few. Another value changes
//! nothing, which is logged, or is refused with the reason, so that nobody believes in a setting that is not there.

use anyhow::{Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// What a value other than the default comes to.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Nothing(&'static str),
    Refused(&'static str),
}

#[derive(Clone, Copy, Debug)]
struct Flag {
    name: &'static str,
    /// What is done anyway.
    default: &'static str,
    effect: Effect,
}

const fn nothing(name: &'static str, default: &'static str, reason: &'static str) -> Flag {
    Flag { name, default, effect: Effect::Nothing(reason) }
}

const fn refused(name: &'static str, default: &'static str, reason: &'static str) -> Flag {
    Flag { name, default, effect: Effect::Refused(reason) }
}

const BEST_ENDPOINT: &str = "aggregated servers and webhooks are dialled at their endpoints";
const GATES: &str = "the feature that it belongs to is off, and cannot be switched on";
const KUBELET_PORTS: &str = "the port is the one in the node's status";
const LOGS: &str = "what is logged is written at once";
const NO_DEBUGGING: &str = "there are no profiles to take";
const NO_METRIC_CHOICE: &str = "metrics are shown as they are";
const ONE_CACHE: &str = "there is one cache, and it holds everything";
const ONE_STORE: &str = "there is one etcd, followed by one watch, and one encoding in it";
const ONE_VERSION: &str = "v1.36 is the only version there is";
const SIGNER: &str = "tokens are signed by --service-account-signing-key-file";
const STATISTICS: &str = "the database is not asked for statistics in a rhythm";
const TUNING: &str = "it is chosen as needed";

/// What is done anyway in place of a flag of the table; empty for others.
pub(super) fn default_of(name: &str) -> &'static str {
    FLAGS.iter().find(|flag| flag.name == name).map_or("", |flag| flag.default)
}

/// The table, by name.
const FLAGS: &[Flag] = &[
    refused("admission-control", "", "use --enable-admission-plugins"),
    refused("aggregator-reject-forwarding-redirect", "true", "aggregated servers must not send clients elsewhere"),
    refused("allow-metric-labels", "", NO_METRIC_CHOICE),
    refused("allow-metric-labels-manifest", "", NO_METRIC_CHOICE),
    refused("allow-privileged", "true", "what pods may do is limited by Pod Security admission"),
    nothing("apiserver-count", "1", "servers are counted by their leases"),
    nothing("contention-profiling", "false", NO_DEBUGGING),
    nothing("coordinated-leadership-lease-duration", "15s", GATES),
    nothing("coordinated-leadership-renew-deadline", "10s", GATES),
    nothing("coordinated-leadership-retry-period", "2s", GATES),
    refused("debug-socket-path", "", NO_DEBUGGING),
    nothing("default-watch-cache-size", "100", ONE_CACHE),
    refused("emulated-version", "", ONE_VERSION),
    refused("emulation-forward-compatible", "false", ONE_VERSION),
    nothing("enable-aggregator-routing", "true", BEST_ENDPOINT),
    refused("enable-garbage-collector", "true", "finalizers are set as the garbage collector needs them"),
    nothing("enable-logs-handler", "false", "files of the machine are not served"),
    nothing("etcd-count-metric-poll-period", "1m0s", STATISTICS),
    nothing("etcd-db-metric-poll-interval", "30s", STATISTICS),
    refused("etcd-servers-overrides", "", ONE_STORE),
    nothing("kubelet-port", "10250", KUBELET_PORTS),
    nothing("kubelet-read-only-port", "10255", KUBELET_PORTS),
    nothing("kubelet-timeout", "5s", "upstream does not look at it either"),
    refused("kubernetes-service-node-port", "0", "the Service kubernetes has a cluster address only"),
    nothing("lease-reuse-duration-seconds", "60", TUNING),
    nothing("log-flush-frequency", "5s", LOGS),
    nothing("log-text-info-buffer-size", "0", LOGS),
    refused("max-connection-bytes-per-sec", "0", "connections are not throttled"),
    refused("min-compatibility-version", "", ONE_VERSION),
    refused("peer-advertise-ip", "", GATES),
    refused("peer-advertise-port", "", GATES),
    refused("peer-ca-file", "", GATES),
    nothing("permit-address-sharing", "true", "addresses are always shared with sockets that were closed a moment ago"),
    nothing("profiling", "true", NO_DEBUGGING),
    refused("runtime-config-emulation-forward-compatible", "false", ONE_VERSION),
    refused("service-account-lookup", "true", "tokens of deleted accounts are never accepted"),
    refused("service-account-signing-endpoint", "", SIGNER),
    refused("show-hidden-metrics-for-version", "", NO_METRIC_CHOICE),
    refused("storage-backend", "etcd3", ONE_STORE),
    refused("storage-media-type", "application/vnd.kubernetes.protobuf", ONE_STORE),
    refused("tls-curve-preferences", "", "X25519, P-256 and P-384"),
    refused("version", "false", "`keelson --version` prints the version"),
    nothing("vmodule", "", "parts of this program have other names; --v, or KEELSON_LOG for parts of it"),
    nothing("watch-cache", "true", ONE_CACHE),
    nothing("watch-cache-sizes", "", ONE_CACHE),
];

/// What was given of these flags.
pub(super) struct Others {
    /// With its last value.
    given: Vec<(&'static Flag, String)>,
}

impl Others {
    /// Logs what changes nothing.
    ///
    /// # Errors
    /// A flag was given that would have to do something.
    pub(super) fn verify(&self) -> Result<()> {
        for (flag, value) in self.given.iter().filter(|(flag, value)| flag.default != value) {
            match flag.effect {
                Effect::Nothing(reason) => tracing::warn!("--{} changes nothing: {reason}", flag.name),
                Effect::Refused(reason) => bail!("--{}={value} is not supported: {reason}", flag.name),
            }
        }
        Ok(())
    }
}

impl Args for Others {
    fn augment_args(command: Command) -> Command {
        let arg = |flag: &'static Flag| {
            let arg = Arg::new(flag.name).long(flag.name).hide(true).action(ArgAction::Append);
            let arg = if flag.name.len() == 1 { arg.short(flag.name.chars().next()) } else { arg };
            match flag.default {
                "true" | "false" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                _ => arg,
            }
        };
        command.args(FLAGS.iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Others {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let last = |flag: &'static Flag| Some((flag, matches.get_many::<String>(flag.name)?.next_back()?.clone()));
        Ok(Self { given: FLAGS.iter().filter_map(last).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(words: &[&str]) -> Result<()> {
        let command = Others::augment_args(Command::new("apiserver").no_binary_name(true));
        Others::from_arg_matches(&command.try_get_matches_from(words)?)?.verify()
    }

    #[test]
    fn defaults_and_tuning_are_taken_and_the_rest_is_refused_with_a_reason() {
        verify(&["--profiling=false", "--kubelet-timeout", "9s", "--watch-cache", "--allow-privileged"]).unwrap();
        let error = verify(&["--peer-ca-file=a"]).unwrap_err().to_string();
        assert_eq!(error, format!("--peer-ca-file=a is not supported: {GATES}"));
        assert!(verify(&["--allow-privileged=false"]).is_err());
        assert!(verify(&["--unheard-of"]).is_err());
    }
}
