//! The files of a master: made, kept, renewed, repaired.

#![allow(clippy::unwrap_used, missing_docs)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pki::{Action, Certificate, Desired, Error, MasterNames, Reason, San, apply, observe, os_random, plan};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn names(secret: Option<&str>) -> MasterNames {
    names_with(&secret.map(|secret| format!("[control-plane]\nsecret = \"{secret}\"\n")).unwrap_or_default())
}

fn names_with(secret: &str) -> MasterNames {
    let text = format!(
        "version = 1\n[machine]\nhostname = \"master-1\"\nrole = \"master\"\n\
         [cluster]\nendpoint = \"https://api.example.com:6443\"\n\
         virtual-address.address = \"192.168.77.5\"\n{secret}"
    );
    let manifest = manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"));
    MasterNames::new(&manifest, &["192.168.77.10".parse().unwrap()])
}

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Plans and applies; returns what was done.
fn run(dir: &Path, names: &MasterNames, now: SystemTime) -> Result<Vec<String>, Error> {
    let plan = plan(&observe(dir)?, &Desired::master(names), now)?;
    apply(dir, &plan, now, &mut os_random)?;
    Ok(plan.actions.iter().map(ToString::to_string).collect())
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn the_first_start_makes_everything_and_the_second_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let done = run(dir.path(), &names(None), now()).unwrap();
    assert_eq!(done.len(), 3 + 1 + 11 + 4, "{done:#?}");
    assert_eq!(run(dir.path(), &names(None), now()).unwrap(), Vec::<String>::new());
    let server = Certificate::from_pem("apiserver", &read(dir.path(), "apiserver.crt")).unwrap();
    let ca = Certificate::from_pem("ca", &read(dir.path(), "ca.crt")).unwrap();
    assert!(server.is_signed_by(&ca));
    for name in ["kubernetes", "kubernetes.default.svc.cluster.local", "master-1", "api.example.com"] {
        assert!(server.sans.contains(&San::Dns(name.to_owned())), "{name}");
    }
    for address in ["10.96.0.1", "127.0.0.1", "192.168.77.10", "192.168.77.5"] {
        assert!(server.sans.contains(&San::Ip(address.parse().unwrap())), "{address}");
    }
    let mode = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("admin.conf"), mode("ca.crt"), mode("sa.pub")), (0o600, 0o600, 0o644, 0o644));
}

#[test]
fn leaves_are_renewed_in_the_last_third_with_their_kubeconfig() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &names(None), now()).unwrap();
    assert!(run(dir.path(), &names(None), now() + 200 * DAY).unwrap().is_empty());
    let done = run(dir.path(), &names(None), now() + 260 * DAY).unwrap();
    assert_eq!(done.len(), 11 + 4, "{done:#?}");
    assert!(done.contains(&"issue the certificate apiserver, which is near its end".to_owned()));
    assert!(run(dir.path(), &names(None), now() + 260 * DAY).unwrap().is_empty());
    // Also after the machine was off past expiry.
    assert_eq!(run(dir.path(), &names(None), now() + 700 * DAY).unwrap().len(), 11 + 4);
}

#[test]
fn a_new_address_renews_only_what_names_it() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &names(None), now()).unwrap();
    let mut moved = names(None);
    moved.addresses.push("192.168.77.20".parse().unwrap());
    let plan = plan(&observe(dir.path()).unwrap(), &Desired::master(&moved), now()).unwrap();
    let reissued: Vec<(&str, Reason)> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Issue { name, reason, .. } => Some((*name, *reason)),
            _ => None,
        })
        .collect();
    let changed = ["apiserver", "etcd/server", "etcd/peer", "kubelet-server"].map(|name| (name, Reason::NamesChanged));
    assert_eq!(reissued, changed);
    assert_eq!(plan.actions.len(), changed.len());
}

#[test]
fn damage_is_repaired_where_that_is_safe_and_reported_where_not() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &names(None), now()).unwrap();
    std::fs::write(dir.path().join("scheduler.crt"), "x").unwrap();
    std::fs::remove_file(dir.path().join("admin.key")).unwrap();
    let swapped = read(dir.path(), "kubelet.key");
    std::fs::write(dir.path().join("controller-manager.key"), swapped).unwrap();
    std::fs::remove_file(dir.path().join("sa.pub")).unwrap();
    let done = run(dir.path(), &names(None), now()).unwrap();
    assert_eq!(
        done,
        [
            "write the public key sa",
            "issue the certificate admin, which is not there",
            "issue the certificate controller-manager, which is not of its key",
            "issue the certificate scheduler, which is damaged",
            "write admin.conf",
            "write controller-manager.conf",
            "write scheduler.conf",
        ]
    );
    let hash = pki::ca_hash(&read(dir.path(), "ca.crt")).unwrap();
    std::fs::remove_file(dir.path().join("ca.crt")).unwrap();
    run(dir.path(), &names(None), now()).unwrap();
    assert_eq!(pki::ca_hash(&read(dir.path(), "ca.crt")).unwrap(), hash, "the key is kept");
    std::fs::remove_file(dir.path().join("ca.key")).unwrap();
    assert!(matches!(run(dir.path(), &names(None), now()), Err(Error::HalfAuthority { .. })));
}

#[test]
fn masters_with_one_secret_have_the_same_authorities() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(one.path(), &names(Some(SECRET)), now()).unwrap();
    run(two.path(), &names(Some(SECRET)), now() + DAY).unwrap();
    for name in ["ca.crt", "ca.key", "etcd/ca.crt", "front-proxy-ca.crt", "sa.key"] {
        assert_eq!(read(one.path(), name), read(two.path(), name), "{name}");
    }
    assert_ne!(read(one.path(), "apiserver.key"), read(two.path(), "apiserver.key"));
    let other = SECRET.replace('0', "1");
    assert!(matches!(run(one.path(), &names(Some(&other)), now()), Err(Error::AuthoritySecret { .. })));
    std::fs::remove_file(one.path().join("ca.key")).unwrap();
    assert_eq!(run(one.path(), &names(Some(SECRET)), now()).unwrap()[0], "derive the CA ca");
}

#[test]
fn the_example_worker_knows_the_example_master() {
    let example = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
        manifest::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let secret = example("master.toml").control_plane.secret.unwrap();
    let hash = pki::Authority::derive("kubernetes", secret.get().unwrap().bytes()).unwrap().hash();
    assert_eq!(example("worker.toml").cluster.trust, Some(manifest::CaTrust::Hashes(vec![hash])), "the hash is {hash}");
}

#[test]
fn a_secret_that_was_not_found_makes_no_other_cluster_and_stops_none() {
    let elsewhere = || names_with("[control-plane]\nsecret = { file = \"/state/secrets/cluster\" }\n");
    let dir = tempfile::tempdir().unwrap();
    let refused = run(dir.path(), &elsewhere(), now()).unwrap_err();
    assert!(refused.to_string().starts_with("`control-plane.secret` is not known"), "{refused}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
    run(dir.path(), &names(Some(SECRET)), now()).unwrap();
    assert_eq!(run(dir.path(), &elsewhere(), now()).unwrap(), Vec::<String>::new());
}

#[test]
fn a_clock_before_the_authority_is_an_error_not_a_new_authority() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &names(None), now()).unwrap();
    assert!(matches!(run(dir.path(), &names(None), UNIX_EPOCH), Err(Error::AuthorityTime { .. })));
}

#[test]
fn whoever_is_no_master_any_more_keeps_what_a_node_has_and_may_become_one_again() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &names(Some(SECRET)), now()).unwrap();
    let certificate = |name: &str| Certificate::from_pem(name, &read(dir.path(), &format!("{name}.crt"))).unwrap();
    let ca = certificate("ca");
    std::fs::write(dir.path().join("kubelet.pem"), "a worker's").unwrap();
    std::fs::write(dir.path().join("kubelet-pending.key"), "a worker's").unwrap();
    assert!(pki::retire(dir.path()).unwrap() > 20);
    let mut left: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let expected = [
        "ca.crt",
        "etcd",
        "kubelet-pending.key",
        "kubelet-server.crt",
        "kubelet-server.key",
        "kubelet.conf",
        "kubelet.crt",
        "kubelet.key",
        "kubelet.pem",
    ];
    assert_eq!(left, expected);
    assert_eq!(std::fs::read_dir(dir.path().join("etcd")).unwrap().count(), 0);
    assert_eq!(observe(dir.path()).unwrap().of_masters().count(), 0);
    assert_eq!(pki::retire(dir.path()).unwrap(), 0);

    // The same cluster's keys, and the node is still who it was.
    run(dir.path(), &names(Some(SECRET)), now()).unwrap();
    let kubelet = certificate("kubelet");
    assert_eq!(certificate("ca").public_der, ca.public_der);
    assert!(kubelet.is_signed_by(&ca) && kubelet.common_name == "system:node:master-1", "{kubelet:?}");
    // Without the secret nobody gets a CA of another key.
    pki::retire(dir.path()).unwrap();
    let refused = run(dir.path(), &names(None), now()).unwrap_err();
    assert!(matches!(refused, Error::HalfAuthority { .. }), "{refused}");
}
