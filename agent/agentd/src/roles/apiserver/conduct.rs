//! Flags about how the server behaves towards its clients, its store and those who stop it.

use std::time::Duration;

use anyhow::{Result, bail};
use apiserver::{Browsers, Conduct, Stopping};
use clap::{ArgAction, Args};

use super::duration;

/// The highest chance that a request is the last of its connection, as upstream.
const MAX_GOAWAY_CHANCE: f64 = 0.02;

/// Upstream's flags, with upstream's defaults.
#[derive(Args)]
pub(super) struct ConductOptions {
    /// For how long the server serves on, while it says that it is not ready, after it was asked to stop.
    #[arg(long, default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
    /// Whether it then answers new requests by 429 until those in flight are done.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    shutdown_send_retry_after: bool,
    /// In which time watches are ended then, one after the other; all at once if this is zero.
    #[arg(long, default_value = "0s", value_parser = duration)]
    shutdown_watch_termination_grace_period: Duration,
    /// For how long a server that starts is taken for alive.
    #[arg(long, default_value = "0s", value_parser = duration)]
    livez_grace_period: Duration,
    /// Seconds that a watch lasts at least if it does not say how long.
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u32,
    /// How likely clients over HTTP/2 are sent to another connection with a request; at most 0.02.
    #[arg(long, default_value_t = 0.0)]
    goaway_chance: f64,
    /// Patterns of origins whose pages may ask this server.
    #[arg(long, value_delimiter = ',')]
    cors_allowed_origins: Vec<String>,
    /// What browsers are told about TLS: `max-age=SECONDS`, `includeSubDomains`, `preload`.
    #[arg(long, value_delimiter = ',')]
    strict_transport_security_directives: Vec<String>,
    /// Host by which clients elsewhere reach the server.
    #[arg(long, default_value = "")]
    external_hostname: String,
    /// Streams that a client may open on one HTTP/2 connection; 0 for the usual number.
    #[arg(long, default_value_t = 0)]
    http2_max_streams_per_connection: u32,
    /// Whether other processes may listen on the same port.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    permit_port_sharing: bool,
    /// Objects of a collection that are deleted at the same time.
    #[arg(long, default_value_t = 1)]
    delete_collection_workers: u16,
    /// Seconds that pods stay on nodes that are not ready, unless they say more.
    #[arg(long, default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// Seconds that pods stay on nodes that are not reached, unless they say more.
    #[arg(long, default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
    /// Metrics that are not shown, by their names.
    #[arg(long, value_delimiter = ',')]
    disabled_metrics: Vec<String>,
    /// How long etcd may take to answer whether it is well.
    #[arg(long, default_value = "2s", value_parser = duration)]
    etcd_healthcheck_timeout: Duration,
    /// The same, for a server that is to be sent requests.
    #[arg(long, default_value = "2s", value_parser = duration)]
    etcd_readycheck_timeout: Duration,
    /// How long etcd is waited for before its part of the start counts as done.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    storage_initialization_timeout: Duration,
}

impl ConductOptions {
    /// What they say.
    pub(super) fn conduct(&self) -> Result<Conduct> {
        if !(0.0..=MAX_GOAWAY_CHANCE).contains(&self.goaway_chance) {
            bail!("--goaway-chance can not be less than 0 or greater than {MAX_GOAWAY_CHANCE}");
        }
        let usual = Conduct::default();
        let max_streams = match self.http2_max_streams_per_connection {
            0 => usual.max_streams,
            given => given,
        };
        Ok(Conduct {
            stopping: Stopping {
                delay: self.shutdown_delay_duration,
                sends_elsewhere: self.shutdown_send_retry_after,
                watch_grace: self.shutdown_watch_termination_grace_period,
            },
            browsers: Browsers::try_new(&self.cors_allowed_origins, &self.strict_transport_security_directives)?,
            goaway_chance: self.goaway_chance,
            max_streams,
            shares_port: self.permit_port_sharing,
            livez_grace: self.livez_grace_period,
            min_watch: Duration::from_secs(self.min_request_timeout.into()),
            store_health: self.etcd_healthcheck_timeout,
            store_readiness: self.etcd_readycheck_timeout,
            store_start: self.storage_initialization_timeout,
            collection_workers: self.delete_collection_workers.into(),
            toleration_seconds: (
                self.default_not_ready_toleration_seconds,
                self.default_unreachable_toleration_seconds,
            ),
            external_host: self.external_hostname.clone(),
            disabled_metrics: self.disabled_metrics.iter().cloned().collect(),
        })
    }

    /// How much longer than usual an end in order takes.
    pub(super) fn end_later(&self) -> Duration {
        // Clients are sent elsewhere while requests in flight are finished.
        let drain = apiserver::Config::default().drain_timeout;
        let elsewhere = if self.shutdown_send_retry_after { drain } else { Duration::ZERO };
        self.shutdown_delay_duration + self.shutdown_watch_termination_grace_period + elsewhere
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        options: ConductOptions,
    }

    fn conduct(words: &[&str]) -> Result<Conduct> {
        Only::try_parse_from(std::iter::once("x").chain(words.iter().copied()))?.options.conduct()
    }

    #[test]
    fn the_defaults_are_those_of_the_server() {
        assert_eq!(format!("{:?}", conduct(&[]).unwrap()), format!("{:?}", Conduct::default()));
    }

    #[test]
    fn what_is_given_counts_and_what_cannot_be_is_refused() {
        let words = ["--shutdown-delay-duration=70s", "--shutdown-send-retry-after", "--goaway-chance=0.02"];
        let found = conduct(&words).unwrap();
        assert_eq!(found.stopping.delay, Duration::from_secs(70));
        assert!(found.stopping.sends_elsewhere && found.goaway_chance > 0.0);
        let told = conduct(&["--goaway-chance=0.03"]).unwrap_err().to_string();
        assert_eq!(told, "--goaway-chance can not be less than 0 or greater than 0.02");
        for words in [&["--min-request-timeout=-1"][..], &["--cors-allowed-origins=a"], &["--livez-grace-period=-1s"]] {
            assert!(conduct(words).is_err(), "{words:?}");
        }
    }
}
