//! Flags about the audit log.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use audit::{Batch, Config, Format, LogConfig, Mode, Throttle, Truncation, WebhookConfig};
use clap::{ArgAction, Args};

use super::duration;

/// Megabytes as the flags count them.
const MEGABYTE: u64 = 1 << 20;
/// A day, in which the age of files is given.
const DAY: Duration = Duration::from_secs(86_400);

/// Upstream's flags about the audit log.
#[derive(Args)]
pub(crate) struct AuditOptions {
    /// Which requests are written down; without it none is.
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// File that events are written to; `-` is the standard output.
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days that old files are kept; 0 keeps them for ever.
    #[arg(long, default_value_t = 366)]
    audit_log_maxage: u32,
    /// Number of old files that are kept; 0 keeps all.
    #[arg(long, default_value_t = 100)]
    audit_log_maxbackup: usize,
    /// Largest size of the file in megabytes.
    #[arg(long, default_value_t = 100)]
    audit_log_maxsize: u64,
    /// Whether old files are compressed.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    audit_log_compress: bool,
    /// `json` or `legacy`.
    #[arg(long, default_value = "json")]
    audit_log_format: String,
    /// API version of the events.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_log_version: String,
    /// `batch`, `blocking` or `blocking-strict`.
    #[arg(long, default_value = "blocking")]
    audit_log_mode: String,
    /// Most events that wait, in batch mode.
    #[arg(long, default_value_t = 10_000)]
    audit_log_batch_buffer_size: usize,
    /// Most events of a batch.
    #[arg(long, default_value_t = 1)]
    audit_log_batch_max_size: usize,
    /// How long a batch waits to be full.
    #[arg(long, default_value = "0s", value_parser = duration)]
    audit_log_batch_max_wait: Duration,
    /// Whether the number of batches is bounded.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Batches a second.
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f64,
    /// Batches at once.
    #[arg(long, default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Whether large events lose their objects.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    /// Largest batch in bytes.
    #[arg(long, default_value_t = 10_485_760)]
    audit_log_truncate_max_batch_size: usize,
    /// Largest event in bytes.
    #[arg(long, default_value_t = 102_400)]
    audit_log_truncate_max_event_size: usize,
    /// Kubeconfig of the webhook that events are sent to.
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// Pause before the first repetition.
    #[arg(long, default_value = "10s", value_parser = duration, alias = "audit-webhook-batch-initial-backoff")]
    audit_webhook_initial_backoff: Duration,
    /// API version of the events.
    #[arg(long, default_value = "audit.k8s.io/v1")]
    audit_webhook_version: String,
    /// `batch`, `blocking` or `blocking-strict`.
    #[arg(long, default_value = "batch")]
    audit_webhook_mode: String,
    /// Most events that wait, in batch mode.
    #[arg(long, default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    /// Most events of a batch.
    #[arg(long, default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// How long a batch waits to be full.
    #[arg(long, default_value = "30s", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether the number of batches is bounded.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches a second.
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f64,
    /// Batches at once.
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// Whether large events lose their objects.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    /// Largest batch in bytes.
    #[arg(long, default_value_t = 10_485_760)]
    audit_webhook_truncate_max_batch_size: usize,
    /// Largest event in bytes.
    #[arg(long, default_value_t = 102_400)]
    audit_webhook_truncate_max_event_size: usize,
}

/// The flags of one receiver, log or webhook.
struct Receiver<'a> {
    name: &'static str,
    version: &'a str,
    mode: &'a str,
    batch: Batch,
    throttle: Option<Throttle>,
    truncation: Option<(usize, usize)>,
}

impl Receiver<'_> {
    fn check(self) -> Result<(Mode, Option<Truncation>)> {
        let name = self.name;
        if self.version != "audit.k8s.io/v1" {
            bail!("--audit-{name}-version {:?}: invalid group version, allowed is \"audit.k8s.io/v1\"", self.version);
        }
        let mode = match self.mode {
            "blocking" => Mode::Blocking,
            "blocking-strict" => Mode::BlockingStrict,
            "batch" => Mode::Batch(self.checked_batch()?),
            other => bail!("invalid audit {name} mode {other}, allowed modes are \"batch,blocking,blocking-strict\""),
        };
        let Some((event, batch)) = self.truncation else { return Ok((mode, None)) };
        if event == 0 {
            bail!("invalid audit truncate {name} max event size 0, must be a positive number");
        }
        if batch < event {
            bail!(
                "invalid audit truncate {name} max batch size {batch}, must be greater than max event size ({event})"
            );
        }
        Ok((mode, Some(Truncation { max_event_bytes: event })))
    }

    fn checked_batch(&self) -> Result<Batch> {
        let name = self.name;
        if self.batch.buffer == 0 {
            bail!("invalid audit batch {name} buffer size 0, must be a positive number");
        }
        if self.batch.max_size == 0 {
            bail!("invalid audit batch {name} max batch size 0, must be a positive number");
        }
        if let Some(throttle) = self.throttle {
            if throttle.per_second <= 0.0 {
                bail!("invalid audit batch {name} throttle QPS {}, must be a positive number", throttle.per_second);
            }
            if throttle.burst == 0 {
                bail!("invalid audit batch {name} throttle burst 0, must be a positive number");
            }
        }
        Ok(Batch { throttle: self.throttle, ..self.batch.clone() })
    }
}

impl AuditOptions {
    /// What is written down; nothing without a policy.
    pub(crate) fn config(&self) -> Result<Option<Config>> {
        let log = self.log()?;
        let webhook = self.webhook()?;
        let Some(policy) = self.audit_policy_file.clone() else {
            if log.is_some() || webhook.is_some() {
                tracing::warn!("no --audit-policy-file: nothing is written to the audit log");
            }
            return Ok(None);
        };
        Ok(Some(Config { policy, log, webhook }))
    }

    fn log(&self) -> Result<Option<(LogConfig, Mode, Option<Truncation>)>> {
        let format = match self.audit_log_format.as_str() {
            "json" => Format::Json,
            "legacy" => Format::Legacy,
            other => bail!("invalid audit log format {other}, allowed formats are \"legacy,json\""),
        };
        let (mode, truncation) = Receiver {
            name: "log",
            version: &self.audit_log_version,
            mode: &self.audit_log_mode,
            batch: Batch {
                buffer: self.audit_log_batch_buffer_size,
                max_size: self.audit_log_batch_max_size,
                max_wait: self.audit_log_batch_max_wait,
                throttle: None,
            },
            throttle: self.audit_log_batch_throttle_enable.then_some(Throttle {
                per_second: self.audit_log_batch_throttle_qps,
                burst: self.audit_log_batch_throttle_burst,
            }),
            truncation: self
                .audit_log_truncate_enabled
                .then_some((self.audit_log_truncate_max_event_size, self.audit_log_truncate_max_batch_size)),
        }
        .check()?;
        let Some(path) = self.audit_log_path.clone() else { return Ok(None) };
        // Upstream's logger takes no size for its own default.
        let megabytes = if self.audit_log_maxsize == 0 { 100 } else { self.audit_log_maxsize };
        let config = LogConfig {
            path,
            format,
            max_bytes: megabytes.saturating_mul(MEGABYTE),
            max_age: (self.audit_log_maxage > 0).then(|| DAY * self.audit_log_maxage),
            max_backups: self.audit_log_maxbackup,
            compress: self.audit_log_compress,
        };
        Ok(Some((config, mode, truncation)))
    }

    fn webhook(&self) -> Result<Option<(WebhookConfig, Mode, Option<Truncation>)>> {
        let (mode, truncation) = Receiver {
            name: "webhook",
            version: &self.audit_webhook_version,
            mode: &self.audit_webhook_mode,
            batch: Batch {
                buffer: self.audit_webhook_batch_buffer_size,
                max_size: self.audit_webhook_batch_max_size,
                max_wait: self.audit_webhook_batch_max_wait,
                throttle: None,
            },
            throttle: self.audit_webhook_batch_throttle_enable.then_some(Throttle {
                per_second: self.audit_webhook_batch_throttle_qps,
                burst: self.audit_webhook_batch_throttle_burst,
            }),
            truncation: self
                .audit_webhook_truncate_enabled
                .then_some((self.audit_webhook_truncate_max_event_size, self.audit_webhook_truncate_max_batch_size)),
        }
        .check()?;
        let Some(kubeconfig) = self.audit_webhook_config_file.clone() else { return Ok(None) };
        let config = WebhookConfig { kubeconfig, initial_backoff: self.audit_webhook_initial_backoff };
        Ok(Some((config, mode, truncation)))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        audit: AuditOptions,
    }

    fn config(words: &[&str]) -> Result<Option<Config>> {
        Only::try_parse_from(std::iter::once("x").chain(words.iter().copied()))?.audit.config()
    }

    #[test]
    fn flags_become_settings() {
        assert_eq!(config(&["--audit-log-path=-"]).unwrap(), None);
        let found = config(&["--audit-policy-file=p", "--audit-log-path=a", "--audit-log-maxage=0"]).unwrap().unwrap();
        let (log, mode, truncation) = found.log.unwrap();
        assert_eq!((log.max_bytes, log.max_age, log.max_backups), (100 << 20, None, 100));
        assert_eq!((mode, truncation, found.webhook), (Mode::Blocking, None, None));
        let found = config(&["--audit-policy-file=p", "--audit-webhook-config-file=k"]).unwrap().unwrap();
        let Some((_, Mode::Batch(batch), _)) = found.webhook else { panic!("not in batches") };
        assert_eq!((batch.buffer, batch.max_size), (10_000, 400));
        assert_eq!(batch.throttle, Some(Throttle { per_second: 10.0, burst: 15 }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, message) in [
            (&["--audit-log-format=xml"][..], "invalid audit log format xml, allowed formats are \"legacy,json\""),
            (&["--audit-log-mode=x"], "invalid audit log mode x, allowed modes are \"batch,blocking,blocking-strict\""),
            (
                &["--audit-webhook-batch-buffer-size=0"],
                "invalid audit batch webhook buffer size 0, must be a positive number",
            ),
            (
                &["--audit-log-truncate-enabled", "--audit-log-truncate-max-batch-size=1"],
                "invalid audit truncate log max batch size 1, must be greater than max event size (102400)",
            ),
            (
                &["--audit-log-version=audit.k8s.io/v1beta1"],
                "--audit-log-version \"audit.k8s.io/v1beta1\": invalid group version, allowed is \"audit.k8s.io/v1\"",
            ),
        ] {
            assert_eq!(config(words).unwrap_err().to_string(), message);
        }
    }
}
