//! `keelson controller-manager`: the controllers alone, with upstream's flags.

mod flags;

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use api::features::Component;
use controllers::{Config, Signer};
use ipnet::IpNet;

use super::leading;
use crate::features;
use crate::flags::{Given, Surface, Words};
use crate::process;

const SURFACE: Surface = Surface {
    role: "controller-manager",
    about: "The controllers alone, with upstream's flags.",
    tables: &[leading::FLAGS, flags::FLAGS],
};

/// The controller that upstream has and we have not, by its old name and its new one.
const SIGNER: [&str; 2] = ["bootstrapsigner", "bootstrap-signer-controller"];

pub(crate) fn run(words: Words) -> Result<()> {
    let Some(mut given) = SURFACE.read(words)? else { return Ok(()) };
    features::check(given.all("feature-gates"), Component::ControllerManager)?;
    let config = config(&given)?;
    if given.all("controllers").iter().any(|name| SIGNER.contains(name)) {
        let reason = "cluster-info is not signed; who reads it knows the CA's hash";
        given.add_without_effect(vec![(format!("--controllers={}", SIGNER[0]), reason)]);
    }
    let connection = leading::connection(&given)?;
    process::run(process::FOR_A_CLUSTER, |shutdown| async move {
        given.tell();
        let client = client::Client::new(connection.with_component("controller-manager")).context("making a client")?;
        controllers::run(config, client, shutdown).await.context("running the controllers")
    })
}

fn config(given: &Given) -> Result<Config> {
    check_controllers(&given.all("controllers"))?;
    let read = |path: PathBuf| std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()));
    let file = |flag: &str| given.path(flag).map(read).transpose();
    let signer = match (file("cluster-signing-cert-file")?, file("cluster-signing-key-file")?) {
        (Some(cert_pem), Some(key_pem)) => Some(Signer { cert_pem, key_pem }),
        (None, None) => None,
        _ => bail!("--cluster-signing-cert-file and --cluster-signing-key-file belong together"),
    };
    let (node_mask_v4, node_mask_v6) = masks(given)?;
    Ok(Config {
        cluster_cidrs: if given.switch("allocate-node-cidrs", false) { ranges(given)? } else { Vec::new() },
        node_mask_v4,
        node_mask_v6,
        root_ca_pem: file("root-ca-file")?.unwrap_or_default(),
        signer,
        service_account_key_pem: file("service-account-private-key-file")?,
        leader_identity: leading::identity(given),
    })
}

/// All controllers run or none; those that upstream runs only by name may be named.
fn check_controllers(names: &[&str]) -> Result<()> {
    const CLEANER: [&str; 2] = ["tokencleaner", "token-cleaner-controller"];
    let is_all = names.is_empty() || names.contains(&"*");
    let may_be_named = |name: &str| name == "*" || CLEANER.contains(&name) || SIGNER.contains(&name);
    match names.iter().find(|name| !is_all || !may_be_named(name)) {
        Some(name) => bail!("--controllers: {name:?}: choosing single controllers is not supported"),
        None => Ok(()),
    }
}

fn ranges(given: &Given) -> Result<Vec<IpNet>> {
    let range = |text: &str| text.trim().parse().with_context(|| format!("--cluster-cidr: {text:?} is no range"));
    given.all("cluster-cidr").into_iter().map(range).collect()
}

/// Prefix lengths of nodes' IPv4 and IPv6 ranges; 0 leaves them at the default. The flag without a family is for
/// clusters that have one.
fn masks(given: &Given) -> Result<(u8, u8)> {
    let mask = |flag: &str, limit: u8| {
        let Some(text) = given.get(flag) else { return Ok(None) };
        let mask: u8 = text.parse().with_context(|| format!("--{flag}: {text:?} is no prefix length"))?;
        ensure!(mask <= limit, "--{flag}: {mask} is no prefix length");
        Ok(Some(mask))
    };
    let either = mask("node-cidr-mask-size", 128)?;
    let own = (mask("node-cidr-mask-size-ipv4", 32)?, mask("node-cidr-mask-size-ipv6", 128)?);
    if either.is_some() && (own.0.is_some() || own.1.is_some()) {
        bail!("--node-cidr-mask-size cannot be combined with the flags of one address family");
    }
    let ranges = ranges(given)?;
    let (has_v4, has_v6) =
        (ranges.iter().any(|range| range.addr().is_ipv4()), ranges.iter().any(|range| range.addr().is_ipv6()));
    ensure!(
        either.is_none() || !(has_v4 && has_v6),
        "--node-cidr-mask-size: of two address families each needs a flag of its own, such as \
         --node-cidr-mask-size-ipv4"
    );
    ensure!(has_v6 || either.is_none_or(|mask| mask <= 32), "--node-cidr-mask-size: too long for IPv4");
    let v4 = own.0.or(either.filter(|_| !has_v6));
    let v6 = own.1.or(either.filter(|_| has_v6));
    Ok((v4.unwrap_or_default(), v6.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Result<Given> {
        SURFACE.parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn flags_of_both_tables_are_read() {
        let words = ["--allocate-node-cidrs", "--cluster-cidr=10.0.0.0/8,fd00::/48", "--node-cidr-mask-size-ipv4=26"];
        let config = config(&given(&words).unwrap()).unwrap();
        assert_eq!((config.cluster_cidrs.len(), config.node_mask_v4, config.node_mask_v6), (2, 26, 0));
        assert!(config.leader_identity.is_some());
        let alone = given(&["--leader-elect=false", "--cluster-cidr=fd00::/48", "--node-cidr-mask-size=80"]).unwrap();
        let config = super::config(&alone).unwrap();
        assert_eq!((config.cluster_cidrs.len(), config.node_mask_v4, config.node_mask_v6), (0, 0, 80));
        assert_eq!(config.leader_identity, None);
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        let table: &[(&[&str], &str)] = &[
            (&["--controllers=*,-job"], "--controllers: \"-job\": choosing single controllers is not supported"),
            (&["--controllers=job"], "--controllers: \"job\": choosing single controllers is not supported"),
            (&["--cluster-signing-key-file=/dev/null"], "--cluster-signing-cert-file and"),
            (&["--cluster-cidr=10.0.0.0/8,fd00::/48", "--node-cidr-mask-size=24"], "--node-cidr-mask-size: of two"),
            (&["--cloud-provider=aws"], "--cloud-provider is not supported: clouds have"),
            (&["--leader-elect-lease-duration=5s"], "--leader-elect-lease-duration is not supported"),
        ];
        for (words, message) in table {
            let found = given(words).and_then(|given| config(&given)).err().map(|error| error.to_string());
            assert!(found.as_ref().is_some_and(|found| found.starts_with(message)), "{words:?}: {found:?}");
        }
        config(&given(&["--controllers=*,bootstrapsigner,tokencleaner"]).unwrap()).unwrap();
    }

    #[test]
    fn no_flag_stands_in_two_tables() {
        let mut names: Vec<&str> = SURFACE.flags().map(|flag| flag.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
