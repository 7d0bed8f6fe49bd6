//! One CA in the place of another one: on masters, on workers, and there and back.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use manifest::{CaHash, Manifest};
use pki::{
    Authority, Certificate, Desired, Error, Key, Leaf, MasterNames, Observed, Usage, apply, may_trust, observe,
    os_random, plan,
};

const OLD: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const NEW: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "2123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const AUTHORITIES: [(&str, &str); 3] =
    [("ca", "kubernetes"), ("front-proxy-ca", "front-proxy-ca"), ("etcd/ca", "etcd-ca")];
/// How many certificates and kubeconfigs a master has.
const ALL: usize = 11 + 4;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn manifest(secret: &str, accepted: Option<&str>) -> Manifest {
    let quoted = |text: &str| if text.starts_with('{') { text.to_owned() } else { format!("{text:?}") };
    let accepted = accepted.map(|it| format!("accepted-secret = {}\n", quoted(it))).unwrap_or_default();
    let text = format!(
        "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"master\"\n[control-plane]\nsecret = {}\n{accepted}",
        quoted(secret)
    );
    manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
}

/// Plans and applies; returns what was done.
fn run(dir: &Path, secret: &str, accepted: Option<&str>) -> Result<Vec<String>, Error> {
    let names = MasterNames::new(&manifest(secret, accepted), &["192.168.77.10".parse().unwrap()]);
    let plan = plan(&observe(dir)?, &Desired::master(&names), now())?;
    apply(dir, &plan, now(), &mut os_random)?;
    Ok(plan.actions.iter().map(ToString::to_string).collect())
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap()
}

fn derived(name: &str, secret: &str) -> Authority {
    let common_name = AUTHORITIES.iter().find(|(known, _)| *known == name).unwrap().1;
    let manifest = manifest(secret, None);
    Authority::derive(common_name, manifest.control_plane.secret.as_ref().unwrap().get().unwrap().bytes()).unwrap()
}

/// Whether a master is as these secrets say: CAs, what they have issued, keys of tokens, kubeconfigs.
fn expect(dir: &Path, issuing: &str, accepted: Option<&str>) {
    for (name, _) in AUTHORITIES {
        let pins: Vec<CaHash> = Certificate::all_from_pem(name, &read(dir, &format!("{name}.crt")))
            .unwrap()
            .iter()
            .map(Certificate::pin)
            .collect();
        let wanted: Vec<CaHash> =
            std::iter::once(issuing).chain(accepted).map(|secret| derived(name, secret).hash()).collect();
        assert_eq!(pins, wanted, "{name}");
        Authority::from_pem(name, &read(dir, &format!("{name}.crt")), &read(dir, &format!("{name}.key"))).unwrap();
    }
    for (leaf, ca) in [
        ("apiserver", "ca"),
        ("admin", "ca"),
        ("kubelet", "ca"),
        ("kubelet-server", "ca"),
        ("front-proxy-client", "front-proxy-ca"),
        ("etcd/peer", "etcd/ca"),
        ("etcd/server", "etcd/ca"),
        ("apiserver-etcd-client", "etcd/ca"),
    ] {
        let certificate = Certificate::from_pem(leaf, &read(dir, &format!("{leaf}.crt"))).unwrap();
        assert!(certificate.is_signed_by(derived(ca, issuing).certificate()), "{leaf}");
    }
    let public = |secret: &str| {
        let manifest = manifest(secret, None);
        let secret = manifest.control_plane.secret.as_ref().unwrap().get().unwrap().bytes();
        Key::derive(secret, "sa").unwrap().public_pem().unwrap()
    };
    let believed: String = std::iter::once(issuing).chain(accepted).map(public).collect();
    assert_eq!(read(dir, "sa.pub"), believed);
    let own = Key::from_pem("sa", &read(dir, "sa.key")).unwrap().public_pem().unwrap();
    assert_eq!(own, public(issuing));
    let admin = read(dir, "admin.conf");
    let encoded = |name: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(read(dir, name))
    };
    assert!(admin.contains(&encoded("ca.crt")) && admin.contains(&encoded("admin.crt")));
}

#[test]
fn one_secret_takes_the_place_of_another_in_three_steps_and_back() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [one.path(), two.path()] {
        run(dir, OLD, None).unwrap();
    }
    let trusted = ["write the trusted CAs ca", "write the trusted CAs front-proxy-ca", "write the trusted CAs etcd/ca"];
    let steps: [(&str, Option<&str>); 4] = [(OLD, None), (OLD, Some(NEW)), (NEW, Some(OLD)), (NEW, None)];
    for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0), (0, 1), (1, 2), (2, 3), (3, 2), (2, 3)] {
        let (secret, accepted) = steps[to];
        let before = read(one.path(), "apiserver.crt");
        for dir in [one.path(), two.path()] {
            let done = run(dir, secret, accepted).unwrap();
            let wanted = if from.min(to) == 1 {
                // Everything is issued anew, and keys of tokens change.
                assert!(
                    done.contains(&"issue the certificate etcd/peer, which is not of its CA".to_owned()),
                    "{done:#?}"
                );
                3 + 1 + ALL
            } else {
                assert_eq!(done[..3], trusted, "nothing is issued anew");
                3 + 1 + 4
            };
            assert_eq!(done.len(), wanted, "{from} to {to}: {done:#?}");
            assert_eq!(run(dir, secret, accepted).unwrap(), Vec::<String>::new(), "{from} to {to}");
            expect(dir, secret, accepted);
        }
        assert_eq!(before == read(one.path(), "apiserver.crt"), from.min(to) != 1);
        for name in ["ca.crt", "ca.key", "etcd/ca.crt", "front-proxy-ca.crt", "sa.key", "sa.pub"] {
            assert_eq!(read(one.path(), name), read(two.path(), name), "masters have the same {name}");
        }
    }
    // A master that comes now has the same at once.
    let three = tempfile::tempdir().unwrap();
    run(three.path(), NEW, Some(OLD)).unwrap();
    expect(three.path(), NEW, Some(OLD));
}

#[test]
fn no_step_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |secret: &str, accepted: Option<&str>| {
        let before = observe(dir.path()).unwrap().0;
        let refused = run(dir.path(), secret, accepted).unwrap_err();
        assert_eq!(observe(dir.path()).unwrap().0, before, "nothing was touched");
        refused
    };
    run(dir.path(), OLD, None).unwrap();
    assert!(matches!(refused(NEW, None), Error::AuthoritySecret { .. }));
    assert!(matches!(refused(OTHER, Some(NEW)), Error::AuthoritySecret { .. }));
    let early = refused(NEW, Some(OLD));
    assert!(
        matches!(early, Error::AuthorityTooEarly { .. }) && early.to_string().contains("accepted-secret"),
        "{early}"
    );
    run(dir.path(), OLD, Some(NEW)).unwrap();
    let in_use = refused(NEW, None);
    assert!(matches!(in_use, Error::AuthorityInUse { .. }) && in_use.to_string().contains("until all"), "{in_use}");
    assert!(matches!(refused(NEW, Some(OTHER)), Error::AuthorityInUse { .. }));
    run(dir.path(), NEW, Some(OLD)).unwrap();
    assert!(matches!(refused(OLD, None), Error::AuthorityInUse { .. }));
}

#[test]
fn a_cut_between_two_files_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), OLD, None).unwrap();
    run(dir.path(), OLD, Some(NEW)).unwrap();
    let mut seen = observe(dir.path()).unwrap();
    run(dir.path(), NEW, Some(OLD)).unwrap();
    let whole = observe(dir.path()).unwrap();
    // Each CA's and the tokens' key is written before what goes with it.
    for name in ["ca.key", "ca.crt", "front-proxy-ca.key", "etcd/ca.key", "etcd/ca.crt", "sa.key"] {
        seen.0.insert(name.to_owned(), whole.0[name].clone());
        // It goes on, or somebody changes his mind.
        for (secret, accepted) in [(NEW, OLD), (OLD, NEW)] {
            let dir = tempfile::tempdir().unwrap();
            put(dir.path(), &seen);
            run(dir.path(), secret, Some(accepted)).unwrap();
            expect(dir.path(), secret, Some(accepted));
        }
    }
}

fn put(dir: &Path, files: &Observed) {
    std::fs::create_dir_all(dir.join("etcd")).unwrap();
    for (name, text) in &files.0 {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_secret_that_was_not_found_takes_no_trust_away() {
    let elsewhere = "{ file = \"/state/secrets/other\" }";
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), OLD, Some(NEW)).unwrap();
    assert_eq!(run(dir.path(), OLD, Some(elsewhere)).unwrap(), Vec::<String>::new());
    expect(dir.path(), OLD, Some(NEW));
    let refused = run(dir.path(), NEW, Some(elsewhere)).unwrap_err();
    assert!(refused.to_string().contains("`control-plane.accepted-secret` is not known"), "{refused}");
    run(dir.path(), NEW, Some(OLD)).unwrap();
    assert_eq!(run(dir.path(), NEW, Some(elsewhere)).unwrap(), Vec::<String>::new());
}

#[test]
fn a_worker_becomes_a_master_of_a_cluster_that_it_trusts() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), OLD, Some(NEW)).unwrap();
    pki::retire(dir.path()).unwrap();
    assert!(matches!(run(dir.path(), OTHER, None), Err(Error::AuthoritySecret { .. })));
    run(dir.path(), NEW, Some(OLD)).unwrap();
    expect(dir.path(), NEW, Some(OLD));
}

#[test]
fn a_worker_goes_one_step_at_a_time() {
    let (old, new, other) = (derived("ca", OLD), derived("ca", NEW), derived("ca", OTHER));
    let issued = |by: &Authority| {
        let leaf = Leaf {
            common_name: "system:node:w1".to_owned(),
            organization: Some("system:nodes".to_owned()),
            sans: std::collections::BTreeSet::new(),
            usages: [Usage::ClientAuth].into(),
            life: Duration::from_secs(3600),
        };
        by.issue(&leaf, &Key::generate(&mut os_random).unwrap(), now(), &mut os_random).unwrap()
    };
    let machine = |trusted: &[&Authority], client: &Authority, serving: &Authority| {
        let mut seen = Observed::default();
        seen.0.insert("ca.crt".to_owned(), trusted.iter().map(|ca| ca.pem()).collect());
        seen.0.insert("kubelet.crt".to_owned(), issued(client));
        seen.0.insert("kubelet-server.crt".to_owned(), issued(serving));
        seen
    };
    let (o, n) = (old.hash(), new.hash());
    // Each step in its order.
    may_trust(&Observed::default(), &[n]).unwrap();
    may_trust(&machine(&[&old], &old, &old), &[o, n]).unwrap();
    may_trust(&machine(&[&old, &new], &old, &old), &[n, o]).unwrap();
    may_trust(&machine(&[&new, &old], &new, &new), &[n]).unwrap();
    // And back.
    may_trust(&machine(&[&new], &new, &new), &[n, o]).unwrap();
    may_trust(&machine(&[&new, &old], &new, &new), &[o, n]).unwrap();
    may_trust(&machine(&[&old, &new], &old, &old), &[o]).unwrap();
    // Not one before the other.
    let refused = |seen: Observed, wanted: &[CaHash]| may_trust(&seen, wanted).unwrap_err();
    assert!(matches!(refused(machine(&[&old], &old, &old), &[n]), Error::NothingTrusted { .. }));
    assert!(matches!(refused(machine(&[&old], &old, &old), &[n, o]), Error::NotYetKnown { ca } if ca == n));
    assert!(matches!(refused(machine(&[&old], &old, &old), &[other.hash()]), Error::NothingTrusted { .. }));
    for (client, serving, name) in [(&old, &new, "kubelet"), (&new, &old, "kubelet-server")] {
        let refused = refused(machine(&[&new, &old], client, serving), &[n]);
        assert!(
            matches!(&refused, Error::NotYetReissued { name: which, ca } if which == name && *ca == o),
            "{refused}"
        );
    }
}
