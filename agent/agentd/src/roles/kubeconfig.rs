//! `keelson kubeconfig`: a kubeconfig with a role at the machine API, made from the secret in a master's manifest.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;
use machine_api::Role;
use manifest::ClusterSecret;
use pki::{Authority, Identity, Key, Leaf, Usage};

/// Options of the kubeconfig.
#[derive(Args)]
pub(crate) struct Options {
    /// The manifest of a master, with `control-plane.secret`.
    #[arg(long)]
    manifest: PathBuf,
    /// Days that the certificate in it is valid.
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// What its owner may do at the machine API. Only administrators may do something at the API server, too.
    #[arg(long, value_parser = role, default_value = Role::Admin.as_str())]
    role: Role,
}

fn role(text: &str) -> Result<Role, String> {
    let names = || Role::ALL.map(Role::as_str).join(", ");
    Role::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| format!("roles are {}", names()))
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = options.manifest.display().to_string();
    let text = std::fs::read_to_string(&options.manifest).with_context(|| format!("reading {name}"))?;
    let manifest = manifest::parse(&name, &text).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    let Some(secret) = &manifest.control_plane.secret else {
        bail!(
            "{name} has no control-plane.secret; the master keeps its kubeconfig in {}/admin.conf",
            crate::paths::PKI
        );
    };
    let secret = secret.get()?;
    let Some(endpoint) = &manifest.cluster.endpoint else { bail!("{name} has no cluster.endpoint") };
    let derive =
        |secret: &ClusterSecret| Authority::derive("kubernetes", secret.bytes()).context("deriving the cluster's CA");
    let authority = derive(secret)?;
    let accepted = manifest.control_plane.accepted_secret.as_ref().map(manifest::Secret::get).transpose()?;
    let accepted = accepted.map(derive).transpose()?;
    let trusted = accepted.iter().fold(authority.pem().to_owned(), |all, accepted| all + accepted.pem());
    let random: pki::Random<'_> = &mut pki::os_random;
    let key = Key::generate(random).context("making a key")?;
    let user = format!("kubernetes-{}", options.role.as_str());
    let leaf = Leaf {
        common_name: user.clone(),
        organization: Some(options.role.group().to_owned()),
        sans: std::collections::BTreeSet::new(),
        usages: [Usage::DigitalSignature, Usage::ClientAuth].into(),
        life: Duration::from_secs(options.days * 24 * 3600),
    };
    let random: pki::Random<'_> = &mut pki::os_random;
    let cert_pem = authority.issue(&leaf, &key, SystemTime::now(), random).context("issuing a certificate")?;
    let key_pem = key.to_pem().context("writing the key")?;
    let identity = Identity::Certificate { cert_pem: &cert_pem, key_pem: &key_pem };
    let cluster = manifest.cluster.name.to_string();
    print!("{}", pki::kubeconfig(&cluster, &endpoint.to_string(), &trusted, &user, identity));
    Ok(())
}
