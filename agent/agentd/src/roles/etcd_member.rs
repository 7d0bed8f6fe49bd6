//! `keelson etcd-member`: becomes etcd, after it was decided what this start of it is.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use etcd::{Access, Config};
use manifest::{BucketPlace, EtcdSnapshots, Manifest, SnapshotStore, StoreAccess, StoreUrl};
use remote::{Access as As, Outbound, S3Key, Trust};

use crate::{node, paths, process};

/// The other masters are asked at once, each with a deadline of its own.
const WITHIN: Duration = Duration::from_secs(120);
/// etcd writes its data for itself alone; its configuration names no secret.
const MODE: u32 = 0o644;

pub(crate) fn run() -> Result<()> {
    crate::logs::Logs::default().start();
    let manifest = node::manifest_in_force()?;
    let address = *node::addresses(&manifest)?.first().context("the machine has no address")?;
    let mut config = config(&manifest, address);
    let access = Access::load(Path::new(paths::PKI)).context("reading the certificates for etcd")?;
    let done = process::ask(WITHIN, async {
        etcd::prepare(&mut config, Path::new(paths::STATE), &access).await.context("preparing the start of etcd")
    })?;
    if let Some(done) = done {
        tracing::warn!("this master's member of etcd {done}");
    }
    let file = Path::new(paths::ETCD_CONFIG);
    pki::write_file(file, config.render().as_bytes(), MODE).context("writing etcd's configuration")?;
    let error = Command::new(paths::ETCD).args(Config::argv(file)).exec();
    bail!("executing {}: {error}", paths::ETCD)
}

/// The configuration of this machine's member, as far as the manifest tells it.
pub(super) fn config(manifest: &Manifest, address: IpAddr) -> Config {
    Config::new(manifest, address, Path::new(paths::STATE))
}

/// What the machine role needs to know of etcd. It reaches the member at any address of this machine.
pub(super) fn master(manifest: &Manifest) -> Result<Option<machine::Master>> {
    if !manifest.machine.role.has_control_plane() {
        return Ok(None);
    }
    let outbound = machine::outbound(manifest).context("`outbound`")?;
    let snapshots = manifest.etcd.snapshots.as_ref();
    let snapshots = snapshots.map(|snapshots| snapshots_of(manifest, snapshots, &outbound)).transpose()?;
    let hostname = &manifest.machine.hostname;
    let named = manifest.etcd.members.iter().find(|member| member.name == *hostname).map(|member| member.address);
    let address = named.or(manifest.kubelet.node_addresses.first().copied());
    let config = config(manifest, Ipv4Addr::LOCALHOST.into());
    Ok(Some(machine::Master { config, state: paths::STATE.into(), address, snapshots, outbound }))
}

fn snapshots_of(manifest: &Manifest, snapshots: &EtcdSnapshots, outbound: &Outbound) -> Result<machine::Snapshots> {
    let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    // One that would be refused is not asked; the status tells why.
    let store = snapshots.store.as_ref().filter(|store| store.access.is_known());
    let kept = store.map(|store| -> Result<_> {
        let bucket = match &store.url {
            StoreUrl::S3 { bucket, .. } => Some(bucket.clone()),
            StoreUrl::Web(_) => None,
        };
        let place =
            place(store, outbound).context("`etcd.snapshots.store`")?.below(&manifest.machine.hostname.to_string());
        Ok(machine::Kept { store: place, bucket, keep: count(store.keep) })
    });
    Ok(machine::Snapshots {
        interval: snapshots.interval.duration(),
        keep: count(snapshots.keep),
        folder: snapshots.folder.as_str().into(),
        kept: kept.transpose()?,
    })
}

/// Where snapshots are kept beside the master's own disk. What the store does not say is as `outbound` has it.
fn place(store: &SnapshotStore, outbound: &Outbound) -> Result<remote::Store> {
    let trust = store.ca.as_ref().map(|ca| Trust::These(ca.as_str().as_bytes().to_vec()));
    match &store.url {
        StoreUrl::S3 { bucket, prefix } => {
            let amazon = || format!("https://s3.{}.amazonaws.com", store.region);
            let endpoint = store.endpoint.as_ref().map_or_else(amazon, ToString::to_string);
            let StoreAccess::User(name, secret) = &store.access else { bail!("an S3 store needs a key") };
            let key = S3Key {
                access_key: name.to_string(),
                secret_key: secret.get()?.as_str().to_owned(),
                region: store.region.to_string(),
            };
            let is_in_path = store.bucket_in == BucketPlace::Path;
            let trust = trust.unwrap_or(outbound.trust(&endpoint.parse()?));
            Ok(remote::Store::s3(&endpoint, (bucket, prefix), is_in_path, outbound.peer(trust, As::S3(key)))?)
        }
        StoreUrl::Web(url) => {
            let url = url.parse()?;
            let known = outbound.web(&url);
            let access = match &store.access {
                StoreAccess::Nobody => Some(known.access),
                StoreAccess::User(name, secret) => As::basic(name.as_str(), secret.get()?.as_str()),
                StoreAccess::Token(token) => As::bearer(token.get()?.as_str()),
            };
            let access = access.context("a secret that no header can hold")?;
            Ok(remote::Store::folder(url, outbound.peer(trust.unwrap_or(known.trust), access)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(store: &str) -> machine::Kept {
        let text = format!(
            "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[etcd.snapshots]\ninterval = \"6h\"\n\
             [etcd.snapshots.store]\n{store}"
        );
        let manifest = manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"));
        master(&manifest).unwrap().unwrap().snapshots.unwrap().kept.unwrap()
    }

    #[test]
    fn a_store_whose_secret_was_not_found_stops_nothing_else() {
        let text = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[etcd.snapshots]\ninterval = \"6h\"\n\
                    [etcd.snapshots.store]\nurl = \"s3://backups\"\naccess-key = \"A\"\n\
                    secret-key = { file = \"/state/secrets/s3\" }\n";
        let manifest = manifest::parse("m.toml", text).unwrap();
        assert!(master(&manifest).unwrap().unwrap().snapshots.unwrap().kept.is_none());
    }

    #[test]
    fn a_store_is_where_the_manifest_says() {
        let key = "access-key = \"A\"\nsecret-key = \"s\"\n";
        let at = |kept: &machine::Kept| kept.store.source("f", 1).url.to_string();
        let amazon =
            kept(&format!("url = \"s3://backups/home\"\nregion = \"eu-central-1\"\nbucket-in = \"host\"\n{key}"));
        assert_eq!(at(&amazon), "https://backups.s3.eu-central-1.amazonaws.com/home/m1/f");
        assert_eq!((amazon.keep, amazon.bucket.as_deref()), (30, Some("backups")));
        let own = kept(&format!("url = \"s3://backups\"\nendpoint = \"https://s3.example.com:9000\"\n{key}"));
        assert_eq!(at(&own), "https://s3.example.com:9000/backups/m1/f");
        let web = kept("url = \"https://files.example.com/etcd/\"\nusername = \"u\"\npassword = \"p\"\nkeep = 2\n");
        assert_eq!((at(&web).as_str(), web.keep), ("https://files.example.com/etcd/m1/f", 2));
        let known = kept(
            "url = \"https://files.example.com/etcd\"\n[outbound.servers.\"files.example.com\"]\nbearer-token = \"t\"\n",
        );
        assert!(matches!(known.store.peer.access, As::Header(_)), "the machine is known there");
    }
}
