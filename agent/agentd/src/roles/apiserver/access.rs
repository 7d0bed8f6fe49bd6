//! Flags about who asks and whether they may.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use apiserver::{Authorization, Config, Mode, Oidc, TokenWebhook, WebhookSettings};
use clap::{ArgAction, Args};

use super::duration;

/// Longest that a webhook of the older flags may take.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// Upstream's flags about authentication and authorization, but for certificates and service accounts.
#[derive(Args)]
pub(crate) struct AccessOptions {
    /// File of static tokens.
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Whether bootstrap tokens are accepted.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// Whether requests without credentials are served.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    anonymous_auth: Option<bool>,
    /// Issuers of tokens, and more about authentication.
    #[arg(long)]
    authentication_config: Option<PathBuf>,
    /// Kubeconfig of a server that knows tokens.
    #[arg(long)]
    authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that it is asked with.
    #[arg(long, default_value = "v1beta1")]
    authentication_token_webhook_version: String,
    /// How long its answers count.
    #[arg(long, default_value = "2m0s", value_parser = duration)]
    authentication_token_webhook_cache_ttl: Duration,
    /// Issuer of tokens.
    #[arg(long)]
    oidc_issuer_url: Option<String>,
    /// For whom its tokens have to be meant.
    #[arg(long, default_value = "")]
    oidc_client_id: String,
    /// Authorities of its server; those of the host without.
    #[arg(long)]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name.
    #[arg(long, default_value = "sub")]
    oidc_username_claim: String,
    /// What stands before names; `-` for nothing.
    #[arg(long, default_value = "")]
    oidc_username_prefix: String,
    /// The claim that is the user's groups.
    #[arg(long, default_value = "")]
    oidc_groups_claim: String,
    /// What stands before groups.
    #[arg(long, default_value = "")]
    oidc_groups_prefix: String,
    /// `claim=value` that tokens have to have.
    #[arg(long, value_delimiter = ',')]
    oidc_required_claim: Vec<String>,
    /// What tokens may be signed by.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    oidc_signing_algs: Vec<String>,
    /// `Node`, `RBAC`, `ABAC`, `Webhook`, `AlwaysAllow` and `AlwaysDeny`, in order; `AlwaysAllow` without.
    #[arg(long, value_delimiter = ',')]
    authorization_mode: Vec<String>,
    /// The order, and more about authorization.
    #[arg(long)]
    authorization_config: Option<PathBuf>,
    /// Policies for `ABAC`.
    #[arg(long)]
    authorization_policy_file: Option<PathBuf>,
    /// Kubeconfig of the server for `Webhook`.
    #[arg(long)]
    authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the reviews that it is asked with.
    #[arg(long, default_value = "v1beta1")]
    authorization_webhook_version: String,
    /// How long a yes counts.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a no counts.
    #[arg(long, default_value = "30s", value_parser = duration)]
    authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl AccessOptions {
    /// Fills in what these flags say.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<()> {
        let oidc = self.oidc()?;
        if self.authentication_config.is_some() && oidc.is_some() {
            bail!("authentication-config file and oidc-* flags are mutually exclusive");
        }
        config.token_file.clone_from(&self.token_auth_file);
        config.bootstrap_tokens = self.enable_bootstrap_token_auth;
        config.authentication.clone_from(&self.authentication_config);
        config.oidc = oidc;
        config.token_webhook = self.authentication_token_webhook_config_file.clone().map(|kubeconfig| TokenWebhook {
            kubeconfig,
            version: self.authentication_token_webhook_version.clone(),
            ttl: self.authentication_token_webhook_cache_ttl,
        });
        config.authorization = self.authorization()?;
        (config.anonymous, config.anonymous_is_given) =
            (self.anonymous_auth.unwrap_or(true), self.anonymous_auth.is_some());
        if config.anonymous && allows_everything(&config.authorization) {
            tracing::warn!("requests without credentials are not served, as everybody may do everything");
            config.anonymous = false;
        }
        config.abac_policies.clone_from(&self.authorization_policy_file);
        Ok(())
    }

    fn oidc(&self) -> Result<Option<Oidc>> {
        let Some(issuer) = self.oidc_issuer_url.clone() else {
            if !self.oidc_client_id.is_empty() {
                bail!("oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set");
            }
            return Ok(None);
        };
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("--oidc-ca-file {}", path.display()));
        let pair = |text: &String| {
            let (claim, value) = text
                .split_once('=')
                .with_context(|| format!("--oidc-required-claim {text:?} is not like claim=value"))?;
            Ok((claim.to_owned(), value.to_owned()))
        };
        Ok(Some(Oidc {
            issuer,
            client_id: self.oidc_client_id.clone(),
            ca_pem: self.oidc_ca_file.as_ref().map(read).transpose()?,
            username_claim: self.oidc_username_claim.clone(),
            username_prefix: self.oidc_username_prefix.clone(),
            groups_claim: self.oidc_groups_claim.clone(),
            groups_prefix: self.oidc_groups_prefix.clone(),
            required: self.oidc_required_claim.iter().map(pair).collect::<Result<_>>()?,
            algorithms: self.oidc_signing_algs.clone(),
        }))
    }

    fn authorization(&self) -> Result<Authorization> {
        // One that is empty is none.
        let modes: Vec<&String> = self.authorization_mode.iter().filter(|mode| !mode.is_empty()).collect();
        if let Some(path) = &self.authorization_config {
            if !modes.is_empty() || self.authorization_webhook_config_file.is_some() {
                bail!(
                    "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
                );
            }
            return Ok(Authorization::File(path.clone()));
        }
        let has = |name: &str| modes.iter().any(|mode| *mode == name);
        for (mode, file, is_given, what) in [
            ("ABAC", "--authorization-policy-file", self.authorization_policy_file.is_some(), "policy"),
            (
                "Webhook",
                "--authorization-webhook-config-file",
                self.authorization_webhook_config_file.is_some(),
                "config",
            ),
        ] {
            match (has(mode), is_given) {
                (true, false) => bail!("authorization-mode {mode}'s authorization {what} file not passed"),
                (false, true) => bail!("cannot specify {file} without mode {mode}"),
                (true, true) | (false, false) => {}
            }
        }
        if let Some(twice) = modes.iter().enumerate().find(|(at, mode)| modes[..*at].contains(mode)) {
            bail!("authorization-mode {:?} has mode specified more than once", twice.1);
        }
        if modes.is_empty() {
            return Ok(Authorization::AlwaysAllow);
        }
        Ok(Authorization::Modes(modes.iter().map(|name| self.mode(name)).collect::<Result<_>>()?))
    }

    fn mode(&self, name: &str) -> Result<Mode> {
        Ok(match name {
            "Node" => Mode::Node,
            "RBAC" => Mode::Rbac,
            "ABAC" => Mode::Abac,
            "AlwaysAllow" => Mode::AlwaysAllow,
            "AlwaysDeny" => Mode::AlwaysDeny,
            "Webhook" => {
                // Upstream remembers nothing where the time is zero.
                let ttl = |ttl: Duration| Some(ttl).filter(|ttl| !ttl.is_zero());
                Mode::Webhook(Box::new(WebhookSettings {
                    name: "default".to_owned(),
                    kubeconfig: self.authorization_webhook_config_file.clone().unwrap_or_default(),
                    version: self.authorization_webhook_version.clone(),
                    timeout: WEBHOOK_TIMEOUT,
                    authorized_ttl: ttl(self.authorization_webhook_cache_authorized_ttl),
                    unauthorized_ttl: ttl(self.authorization_webhook_cache_unauthorized_ttl),
                    denies_on_failure: false,
                    conditions: Vec::new(),
                }))
            }
            other => bail!(
                "authorization-mode {other:?} is not a valid mode: ABAC, AlwaysAllow, AlwaysDeny, Node, RBAC or Webhook"
            ),
        })
    }
}

fn allows_everything(authorization: &Authorization) -> bool {
    match authorization {
        Authorization::AlwaysAllow => true,
        Authorization::Modes(modes) => modes.contains(&Mode::AlwaysAllow),
        Authorization::NodeRbac | Authorization::File(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        access: AccessOptions,
    }

    fn config(words: &[&str]) -> Result<Config> {
        let mut config = Config::default();
        Only::try_parse_from(std::iter::once("x").chain(words.iter().copied()))?.access.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn flags_become_settings() {
        let plain = config(&[]).unwrap();
        assert_eq!(
            (plain.authorization, plain.anonymous, plain.bootstrap_tokens),
            (Authorization::AlwaysAllow, false, false)
        );
        let found = config(&["--authorization-mode=Node,RBAC", "--anonymous-auth=false"]).unwrap();
        assert_eq!(found.authorization, Authorization::Modes(vec![Mode::Node, Mode::Rbac]));
        assert!(!found.anonymous && found.anonymous_is_given);
        assert!(config(&["--authorization-mode=RBAC"]).unwrap().anonymous);
        assert!(!config(&["--authorization-mode=RBAC,AlwaysAllow"]).unwrap().anonymous);
        let found = config(&["--authorization-mode=Webhook", "--authorization-webhook-config-file=/k"]).unwrap();
        let Authorization::Modes(modes) = found.authorization else { panic!("no modes") };
        assert!(matches!(&modes[..], [Mode::Webhook(w)] if w.version == "v1beta1" && !w.denies_on_failure));
        let oidc = ["--oidc-issuer-url=https://a", "--oidc-client-id=b", "--oidc-required-claim=c=d,e=f"];
        assert_eq!(config(&oidc).unwrap().oidc.unwrap().required.len(), 2);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for words in [
            &["--authorization-mode=ABAC"][..],
            &["--authorization-policy-file=/a"],
            &["--authorization-mode=Webhook"],
            &["--authorization-mode=RBAC,RBAC"],
            &["--authorization-mode=Magic"],
            &["--authorization-config=/a", "--authorization-mode=RBAC"],
            &["--oidc-client-id=a"],
            &["--oidc-issuer-url=https://a", "--authentication-config=/a"],
            &["--oidc-issuer-url=https://a", "--oidc-required-claim=x"],
        ] {
            assert!(config(words).is_err(), "{words:?}");
        }
    }
}
