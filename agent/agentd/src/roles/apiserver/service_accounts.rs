//! Flags about tokens of service accounts.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use apiserver::{Config, TokenRules};
use clap::{ArgAction, Args};

use super::duration;

/// Bounds of the longest life of tokens, as upstream has them.
const LONGEST_LIFE: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(1 << 32));

/// Upstream's flags about tokens of service accounts.
#[derive(Args)]
pub(crate) struct ServiceAccountOptions {
    /// Issuers of tokens: new ones name the first, those of all are accepted.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    service_account_issuer: Vec<String>,
    /// Keys that verify tokens.
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Key that signs them.
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// For whom tokens have to be meant; for the issuers without.
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
    /// The longest life of a token.
    #[arg(long, default_value = "0s", value_parser = duration)]
    service_account_max_token_expiration: Duration,
    /// Whether tokens of pods live longer than they ask for, for those who do not read them anew.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// Where keys are published, if not here.
    #[arg(long, default_value = "")]
    service_account_jwks_uri: String,
}

impl ServiceAccountOptions {
    /// Fills in what these flags say.
    pub(crate) fn apply(&self, config: &mut Config) -> Result<()> {
        let issuers = &self.service_account_issuer;
        for (at, issuer) in issuers.iter().enumerate() {
            if issuer.is_empty() {
                bail!("service-account-issuer should not be an empty string");
            }
            if issuers[..at].contains(issuer) {
                bail!("service-account-issuer {issuer:?} is already specified");
            }
        }
        let longest = self.service_account_max_token_expiration;
        if !longest.is_zero() && !(LONGEST_LIFE.0..=LONGEST_LIFE.1).contains(&longest) {
            bail!("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds");
        }
        let keys = &self.service_account_jwks_uri;
        if !keys.is_empty() && !keys.starts_with("https://") {
            bail!("service-account-jwks-uri requires https scheme, parsed as: {keys}");
        }
        if let Some(first) = issuers.first() {
            config.token_issuer.clone_from(first);
        }
        config.token_rules = TokenRules {
            former_issuers: issuers.iter().skip(1).cloned().collect(),
            audiences: self.api_audiences.clone(),
            max_seconds: Some(longest.as_secs()).filter(|seconds| *seconds > 0).and_then(|s| i64::try_from(s).ok()),
            extends: self.service_account_extend_token_expiration,
            jwks_uri: Some(keys.clone()).filter(|uri| !uri.is_empty()),
        };
        config.token_signing_key.clone_from(&self.service_account_signing_key_file);
        config.token_verify_keys.clone_from(&self.service_account_key_file);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        options: ServiceAccountOptions,
    }

    fn config(words: &[&str]) -> Result<Config> {
        let mut config = Config::default();
        Only::try_parse_from(std::iter::once("x").chain(words.iter().copied()))?.options.apply(&mut config)?;
        Ok(config)
    }

    #[test]
    fn the_first_issuer_signs_and_the_others_are_accepted() {
        let plain = config(&[]).unwrap();
        assert_eq!(plain.token_issuer, "https://kubernetes.default.svc.cluster.local");
        assert_eq!(plain.token_rules, TokenRules::default());
        let words = [
            "--service-account-issuer=https://new",
            "--service-account-issuer=https://old",
            "--api-audiences=a,b",
            "--service-account-max-token-expiration=2h",
            "--service-account-extend-token-expiration=false",
            "--service-account-jwks-uri=https://keys",
        ];
        let found = config(&words).unwrap();
        assert_eq!(found.token_issuer, "https://new");
        let rules = TokenRules {
            former_issuers: vec!["https://old".to_owned()],
            audiences: vec!["a".to_owned(), "b".to_owned()],
            max_seconds: Some(7_200),
            extends: false,
            jwks_uri: Some("https://keys".to_owned()),
        };
        assert_eq!(found.token_rules, rules);
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for (words, why) in [
            (&["--service-account-issuer="][..], "should not be an empty string"),
            (&["--service-account-issuer=a", "--service-account-issuer=a"], "\"a\" is already specified"),
            (&["--service-account-max-token-expiration=5m"], "between 1 hour and 2^32 seconds"),
            (&["--service-account-jwks-uri=http://x"], "requires https scheme"),
        ] {
            let told = config(words).unwrap_err().to_string();
            assert!(told.contains(why), "{words:?}: {told}");
        }
    }
}
