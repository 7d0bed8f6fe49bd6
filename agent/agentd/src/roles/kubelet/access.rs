//! How the kubelet reaches the API server and which certificate its server shows.
//!
//! With a kubeconfig alone nothing is asked of the cluster. Where certificates are to be kept fresh
//! (`rotateCertificates`, `serverTLSBootstrap`), or where there is only a kubeconfig to begin with
//! (`--bootstrap-kubeconfig`), the join handshake gets them; its files lie in the folder of certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use client::{Client, Identity};
use join::{Join, Pair, Trust};
use kubelet::ServingCertificate;
use lifecycle::{Shutdown, Tasks};
use manifest::JoinToken;
use tokio::sync::watch;

use super::{Plan, serving};
use crate::roles::node;

const CLUSTER: &str = "default-cluster";
const SECRET_MODE: u32 = 0o600;

/// What the kubelet works with.
pub(super) struct Access {
    pub(super) client: Client,
    pub(super) serving: watch::Receiver<ServingCertificate>,
}

impl Access {
    /// `None` where a shutdown came first.
    pub(super) async fn get(plan: &Plan, tasks: &Tasks, shutdown: &Shutdown) -> Result<Option<Self>> {
        let kubeconfig = plan.given.path("kubeconfig");
        let bootstrap = plan.given.path("bootstrap-kubeconfig");
        let known = match &kubeconfig {
            Some(path) if path.exists() => Some(load(path)?),
            Some(_) if bootstrap.is_some() => None,
            Some(path) => {
                bail!("{} does not exist, and there is no --bootstrap-kubeconfig to get it with", path.display())
            }
            None => bail!("--kubeconfig is needed: a kubelet without an API server is not supported"),
        };
        let (begin, token) = match (&known, &bootstrap) {
            (Some(known), _) => (known.clone(), None),
            (None, Some(path)) => {
                let begin = load(path)?;
                let token = bootstrap_token(path, &begin.identity)?;
                (begin, Some(token))
            }
            (None, None) => bail!("--kubeconfig is needed"),
        };
        let given = pair(&begin.identity);
        let keeps_fresh = plan.settings.rotate_certificates || plan.settings.server_tls_bootstrap;
        let keeps_fresh = keeps_fresh && (given.is_some() || plan.settings.server_tls_bootstrap);
        if known.is_some() && !keeps_fresh {
            let client = Client::new(begin).context("making a client")?;
            return Ok(Some(Self { client, serving: fixed(serving::of_files(plan)?) }));
        }
        let config = join_config(plan, &begin, token)?;
        match given {
            Some(given) => join::adopt(&config, &given).context("keeping the client certificate")?,
            None if config.token.is_none() => {
                bail!(
                    "serverTLSBootstrap needs a client certificate or --bootstrap-kubeconfig, not a token in --kubeconfig"
                )
            }
            None => {}
        }
        Self::join(plan, config, kubeconfig.filter(|_| known.is_none()), (tasks, shutdown)).await
    }

    async fn join(
        plan: &Plan,
        config: join::Config,
        write_to: Option<PathBuf>,
        (tasks, shutdown): (&Tasks, &Shutdown),
    ) -> Result<Option<Self>> {
        let (server, issued, folder) = (config.server.clone(), config.wants_serving, config.dir.clone());
        let (join, mut certificates) = Join::new(config);
        tasks.spawn("join", join.run(shutdown.clone()));
        let identity = tokio::select! {
            () = shutdown.wait() => return Ok(None),
            identity = certificates.joined() => identity.context("joining was given up")?,
        };
        if let Some(path) = write_to {
            // The file refers to the certificate's own files, so that it stays right when those are renewed.
            let text = std::fs::read(folder.join("kubelet.conf")).context("reading the new kubeconfig")?;
            pki::write_file(&path, &text, SECRET_MODE).context("writing the kubeconfig")?;
        }
        let client = node::client(&server, &identity.ca_pem, &identity.client, "kubelet")?;
        let (shown, of_node) = node::Shown::new(&identity);
        tasks.spawn("certificates", node::follow(certificates, client.clone(), shown, shutdown.clone()));
        let serving = if issued { of_node.serving } else { fixed(serving::of_files(plan)?) };
        Ok(Some(Self { client, serving }))
    }
}

fn join_config(plan: &Plan, begin: &client::Config, token: Option<JoinToken>) -> Result<join::Config> {
    let Some(ca) = &begin.ca_pem else {
        bail!("the kubeconfig has no certificate-authority, so no server can be trusted")
    };
    Ok(join::Config {
        server: begin.server.to_string().trim_end_matches('/').to_owned(),
        cluster: CLUSTER.to_owned(),
        trust: Trust::Authority {
            pem: String::from_utf8(ca.clone()).context("the kubeconfig's authority is no text")?,
            is_issuing_first: false,
        },
        token,
        node: plan.kubelet.node_name.clone(),
        addresses: plan.kubelet.node_ips.clone(),
        wants_serving: plan.settings.server_tls_bootstrap,
        dir: plan.cert_dir().join("join"),
    })
}

fn load(path: &Path) -> Result<client::Config> {
    let config = client::Config::from_kubeconfig(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(config.with_component("kubelet"))
}

fn bootstrap_token(path: &Path, identity: &Identity) -> Result<JoinToken> {
    let text = match identity {
        Identity::Token(token) => token.clone(),
        Identity::TokenFile(file) => {
            std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?.trim().to_owned()
        }
        Identity::Anonymous | Identity::Certificate { .. } => bail!("{} has no bootstrap token", path.display()),
    };
    text.parse().map_err(|error| anyhow::anyhow!("the token in {}: {error}", path.display()))
}

fn pair(identity: &Identity) -> Option<Pair> {
    let Identity::Certificate { cert_pem, key_pem } = identity else { return None };
    let text = |pem: &[u8]| String::from_utf8(pem.to_vec()).ok();
    Some(Pair { cert_pem: text(cert_pem)?, key_pem: text(key_pem)? })
}

/// What stays; a receiver without a sender keeps its value.
pub(super) fn fixed<T>(value: T) -> watch::Receiver<T> {
    watch::channel(value).1
}
