//! `keelson controller-manager`: the controllers alone, with upstream's flags.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use controllers::{Config, Signer};
use ipnet::IpNet;

use crate::process;

/// Upstream's flags. A flag that is not here is refused.
#[derive(Args)]
pub(crate) struct Options {
    /// How the API server is reached.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// CA that is published in every namespace.
    #[arg(long)]
    root_ca_file: Option<PathBuf>,
    /// Certificate of the CA that signs requests.
    #[arg(long, requires = "cluster_signing_key_file")]
    cluster_signing_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    cluster_signing_key_file: Option<PathBuf>,
    /// Key that signs the tokens of Secrets that ask for one.
    #[arg(long)]
    service_account_private_key_file: Option<PathBuf>,
    /// Whether nodes get pod ranges.
    #[arg(long, num_args = 0..=1, default_value_t = false, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    allocate_node_cidrs: bool,
    /// Where they come from.
    #[arg(long, value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// Size of a node's range; 24 for IPv4 and 64 for IPv6 without.
    #[arg(long, default_value_t = 0)]
    node_cidr_mask_size: u8,
    /// Whether to lead under a lease.
    #[arg(long, num_args = 0..=1, default_value_t = true, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    leader_elect: bool,
    /// Controllers to run; only `*` is supported, further names that are off by default upstream are ignored with a word.
    #[arg(long, value_delimiter = ',', default_value = "*")]
    controllers: Vec<String>,
    #[command(flatten)]
    without_effect: WithoutEffect,
}

/// Flags of upstream that change nothing here. Each that is given is named in the log.
#[derive(Args)]
struct WithoutEffect {
    /// There is no server to authenticate for.
    #[arg(long)]
    authentication_kubeconfig: Option<PathBuf>,
    /// There is no server to authorize for.
    #[arg(long)]
    authorization_kubeconfig: Option<PathBuf>,
    /// There is no server to authenticate for.
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// There is no server to authenticate for.
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// All controllers act as the user of the kubeconfig.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    use_service_account_credentials: Option<bool>,
    /// No controller needs it.
    #[arg(long)]
    service_cluster_ip_range: Option<String>,
    /// Log detail is set by KEELSON_LOG.
    #[arg(long, short)]
    v: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let config = config(options)?;
    let connection = client::Config::from_kubeconfig(&options.kubeconfig)
        .with_context(|| format!("reading {}", options.kubeconfig.display()))?;
    process::run(2, |shutdown| async move {
        options.without_effect.tell();
        let client = client::Client::new(connection.with_component("controller-manager")).context("making a client")?;
        controllers::run(config, client, shutdown).await.context("running the controllers")
    })
}

fn config(options: &Options) -> Result<Config> {
    if !options.controllers.iter().any(|c| c == "*") {
        bail!("--controllers {}: choosing single controllers is not supported", options.controllers.join(","));
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let signer = match (&options.cluster_signing_cert_file, &options.cluster_signing_key_file) {
        (Some(certificate), Some(key)) => Some(Signer { cert_pem: read(certificate)?, key_pem: read(key)? }),
        _ => None,
    };
    Ok(Config {
        cluster_cidrs: if options.allocate_node_cidrs { options.cluster_cidr.clone() } else { Vec::new() },
        node_mask_v4: options.node_cidr_mask_size,
        node_mask_v6: 0,
        root_ca_pem: options.root_ca_file.as_ref().map(read).transpose()?.unwrap_or_default(),
        signer,
        service_account_key_pem: options.service_account_private_key_file.as_ref().map(read).transpose()?,
        leader_identity: options.leader_elect.then(process::identity),
    })
}

impl WithoutEffect {
    fn tell(&self) {
        let given = [
            ("--authentication-kubeconfig", self.authentication_kubeconfig.is_some()),
            ("--authorization-kubeconfig", self.authorization_kubeconfig.is_some()),
            ("--client-ca-file", self.client_ca_file.is_some()),
            ("--requestheader-client-ca-file", self.requestheader_client_ca_file.is_some()),
            ("--use-service-account-credentials", self.use_service_account_credentials == Some(true)),
            ("--service-cluster-ip-range", self.service_cluster_ip_range.is_some()),
            ("--v", self.v.is_some()),
        ];
        for (flag, _) in given.iter().filter(|(_, is_given)| *is_given) {
            tracing::warn!(flag, "this flag has no effect here");
        }
    }
}
