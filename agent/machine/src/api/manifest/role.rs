//! Another role for a machine that has one: what that takes, and what it must not lose.
//!
//! A master leaves etcd while it runs, as the others may need its vote for that, and starts again at once; what else is
//! left of the master, the worker does away with. Power may be cut in between: a master that has left and whose manifest
//! is not handed in yet is the same as one that an operator took out, and applying it again goes on.

use std::path::Path;
use std::time::SystemTime;

use manifest::{CaTrust, Manifest};
use pki::{Certificate, Desired, MasterNames};
use stdx::chain;

use super::super::Server;
use super::super::leaving::{self, Member};
use crate::etcd::Etcd;

/// What becomes of the control plane of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It has one, or none, as before.
    None,
    /// It gets one.
    Begins,
    /// It has one no more.
    Ends {
        member: Member,
        /// What of it stays on the disk, for people.
        stays: Option<String>,
    },
}

impl Change {
    /// Looks at what would become of it.
    ///
    /// # Errors
    /// Why it is not to be.
    pub(super) async fn look(
        server: &Server,
        (before, after): (&Manifest, &Manifest),
        is_forced: bool,
    ) -> Result<Self, String> {
        let has_one = |manifest: &Manifest| manifest.machine.role.has_control_plane();
        match (has_one(before), has_one(after)) {
            (false, false) if is_forced => Ok(Self::None),
            (false, false) => may_trust(&server.pki, after).map(|()| Self::None),
            (true, true) => is_of_its_cluster(&server.pki, after).map(|()| Self::None),
            (false, true) => may_begin(&server.pki, after).map(|()| Self::Begins),
            (true, false) => {
                let name = before.machine.hostname.to_string();
                let etcd = server.etcd.as_deref();
                let member = leaving::look(etcd, &name, is_forced).await?;
                let stays = etcd.and_then(Etcd::snapshots_here).map(|found| snapshots_stay(&name, found));
                Ok(Self::Ends { member, stays })
            }
        }
    }

    /// What is done, for people.
    ///
    /// # Errors
    /// When the cluster would be lost and nobody said that this is meant.
    pub(super) fn steps(&self, is_forced: bool) -> Result<Vec<String>, String> {
        const BEGINS: [&str; 3] = [
            "it gets the keys of a master, as its secret gives them",
            "its etcd joins the other masters as a learner, and gets its vote once it has caught up",
            "its Node gets the label of a master, and the taint of its role",
        ];
        const ENDS: [&str; 3] = [
            "the machine starts again as a worker",
            "its Node loses the label and the taint of a master",
            "its keys of the cluster, and etcd's data where others have them, are removed",
        ];
        let in_words = |steps: [&str; 3]| steps.map(str::to_owned);
        Ok(match self {
            Self::None => Vec::new(),
            Self::Begins => in_words(BEGINS).into(),
            Self::Ends { member, stays } => {
                member.step(is_forced)?.into_iter().chain(in_words(ENDS)).chain(stays.clone()).collect()
            }
        })
    }

    /// Whether the machine does not wait for somebody to start it again.
    pub(super) fn starts_again(&self) -> bool {
        matches!(self, Self::Ends { .. })
    }

    /// Leaves etcd, if that is what is to be done.
    ///
    /// # Errors
    /// When the others do not agree, or the disk fails.
    pub(super) async fn leave(self, server: &Server, before: &Manifest, is_forced: bool) -> Result<(), String> {
        let (Self::Ends { member, .. }, Some(etcd)) = (self, server.etcd.as_deref()) else { return Ok(()) };
        if member == Member::Last {
            return etcd.give_up().map_err(|error| chain(&error).to_string());
        }
        leaving::leave(Some(etcd), member, &before.machine.hostname.to_string(), is_forced).await
    }
}

/// Snapshots are all that is left where the others get lost, so nothing but an operator removes them.
fn snapshots_stay(machine: &str, (count, folder): (usize, &Path)) -> String {
    // The manifest allows no other place.
    let what = if folder.starts_with("/state") { "state" } else { "data" };
    let folder = folder.display();
    format!(
        "{count} of its snapshots of etcd stay in {folder}, with every secret of the cluster: `keelson reset {machine} \
         --what {what}` removes them"
    )
}

/// The keys that a master would have.
fn plan(pki: &Path, after: &Manifest) -> Result<(), pki::Error> {
    let desired = Desired::master(&MasterNames::new(after, &[]));
    pki::observe(pki).and_then(|seen| pki::plan(&seen, &desired, SystemTime::now())).map(drop)
}

/// Whether a master stays in its cluster. What else is wrong with its keys is no reason against another manifest.
fn is_of_its_cluster(pki: &Path, after: &Manifest) -> Result<(), String> {
    match plan(pki, after) {
        Err(error @ pki::Error::AuthoritySecret { .. }) => Err(format!(
            "this machine is a master of another cluster than the manifest's: {}; `keelson reset` lets it belong to none",
            chain(&error)
        )),
        Err(error @ (pki::Error::AuthorityTooEarly { .. } | pki::Error::AuthorityInUse { .. })) => {
            Err(chain(&error).to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a worker that has joined still knows its cluster by another manifest, and its cluster it.
fn may_trust(pki: &Path, after: &Manifest) -> Result<(), String> {
    let wanted = match &after.cluster.trust {
        Some(CaTrust::Hashes(hashes)) => hashes.clone(),
        Some(CaTrust::Certificates(pem)) => match Certificate::all_from_pem("cluster.ca", pem.as_str()) {
            Ok(all) => all.iter().map(Certificate::pin).collect(),
            Err(error) => return Err(chain(&error).to_string()),
        },
        None => return Ok(()),
    };
    match pki::observe(pki).and_then(|seen| pki::may_trust(&seen, &wanted)) {
        Err(
            error @ (pki::Error::NothingTrusted { .. }
            | pki::Error::NotYetKnown { .. }
            | pki::Error::NotYetReissued { .. }),
        ) => Err(format!("{}; `--force` does it all the same", chain(&error))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether the keys that a master would have are those of the cluster that the machine belongs to.
fn may_begin(pki: &Path, after: &Manifest) -> Result<(), String> {
    plan(pki, after).map_err(|error| {
        format!(
            "this machine cannot become a master of the cluster that it belongs to: {}; it needs that cluster's \
             `control-plane.secret`, or `keelson reset` to belong to none",
            chain(&error)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [&str; 2] = [
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
    ];

    fn master(secret: &str) -> Manifest {
        let secret = format!("[control-plane]\nsecret = \"{secret}\"\n");
        let text = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n{secret}");
        manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_worker_becomes_a_master_of_its_own_cluster_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etcd")).unwrap();
        let desired = Desired::master(&MasterNames::new(&master(SECRETS[0]), &[]));
        let now = SystemTime::now();
        let plan = pki::plan(&pki::Observed::default(), &desired, now).unwrap();
        pki::apply(folder.path(), &plan, now, &mut pki::os_random).unwrap();
        // What a worker of that cluster has.
        pki::retire(folder.path()).unwrap();
        assert_eq!(may_begin(folder.path(), &master(SECRETS[0])), Ok(()));
        let refused = may_begin(folder.path(), &master(SECRETS[1])).unwrap_err();
        assert!(refused.contains("control-plane.secret"), "{refused}");
    }

    #[test]
    fn a_master_stays_in_its_cluster() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etcd")).unwrap();
        let desired = Desired::master(&MasterNames::new(&master(SECRETS[0]), &[]));
        let now = SystemTime::now();
        let plan = pki::plan(&pki::Observed::default(), &desired, now).unwrap();
        pki::apply(folder.path(), &plan, now, &mut pki::os_random).unwrap();
        assert_eq!(is_of_its_cluster(folder.path(), &master(SECRETS[0])), Ok(()));
        let refused = is_of_its_cluster(folder.path(), &master(SECRETS[1])).unwrap_err();
        assert!(refused.contains("another cluster") && refused.contains("keelson reset"), "{refused}");
        std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
        std::fs::write(folder.path().join("ca.key"), "damaged").unwrap();
        assert_eq!(is_of_its_cluster(folder.path(), &master(SECRETS[0])), Ok(()), "that is another matter");
    }

    #[test]
    fn another_ca_comes_step_by_step() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etcd")).unwrap();
        let both = |issuing: &str, accepted: &str| {
            let secrets = format!("[control-plane]\nsecret = \"{issuing}\"\naccepted-secret = \"{accepted}\"\n");
            let text = format!("version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n{secrets}");
            manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
        };
        let now = SystemTime::now();
        let make = |manifest: &Manifest| {
            let desired = Desired::master(&MasterNames::new(manifest, &[]));
            let plan = pki::plan(&pki::observe(folder.path()).unwrap(), &desired, now).unwrap();
            pki::apply(folder.path(), &plan, now, &mut pki::os_random).unwrap();
        };
        make(&master(SECRETS[0]));
        let (first, second) = (both(SECRETS[0], SECRETS[1]), both(SECRETS[1], SECRETS[0]));
        let early = is_of_its_cluster(folder.path(), &second).unwrap_err();
        assert!(early.contains("let all machines trust it first"), "{early}");
        assert_eq!(is_of_its_cluster(folder.path(), &first), Ok(()));
        make(&first);
        assert_eq!(is_of_its_cluster(folder.path(), &second), Ok(()));
        let in_use = is_of_its_cluster(folder.path(), &master(SECRETS[1])).unwrap_err();
        assert!(in_use.contains("would not be trusted any more"), "{in_use}");

        // A worker, which has the same client certificate.
        pki::retire(folder.path()).unwrap();
        let known = std::fs::read_to_string(folder.path().join("ca.crt")).unwrap();
        let pins: Vec<String> =
            Certificate::all_from_pem("ca", &known).unwrap().iter().map(|one| one.pin().to_string()).collect();
        let worker = |issuing: &str, accepted: Option<&str>| {
            let accepted = accepted.map(|it| format!("accepted-ca-hash = \"{it}\"\n")).unwrap_or_default();
            let text = format!(
                "version = 1\n[machine]\nhostname = \"w1\"\nrole = \"worker\"\n[cluster]\nendpoint = \
                 \"https://10.0.0.1:6443\"\ntoken = \"abcdef.0123456789abcdef\"\nca-hash = \"{issuing}\"\n{accepted}"
            );
            manifest::parse("m.toml", &text).unwrap_or_else(|error| panic!("{error}"))
        };
        assert_eq!(may_trust(folder.path(), &worker(&pins[1], Some(&pins[0]))), Ok(()));
        let refused = may_trust(folder.path(), &worker(&pins[1], None)).unwrap_err();
        assert!(refused.contains("kubelet is still of the CA") && refused.contains("--force"), "{refused}");
        let other = format!("sha256:{}", "ab".repeat(32));
        let refused = may_trust(folder.path(), &worker(&other, None)).unwrap_err();
        assert!(refused.contains(&pins[0]) && refused.contains("its cluster"), "{refused}");
        let mut by_certificates = worker(&pins[0], None);
        by_certificates.cluster.trust = Some(CaTrust::Certificates(known.parse().unwrap()));
        assert_eq!(may_trust(folder.path(), &by_certificates), Ok(()));
    }

    #[test]
    fn what_another_role_takes_is_told() {
        let ends = |member| Change::Ends { member, stays: None };
        let told = ends(Member::Leaves).steps(false).unwrap();
        assert!(told[0].contains("leaves etcd") && told[1].contains("starts again as a worker"), "{told:?}");
        assert!(ends(Member::Last).steps(false).unwrap_err().contains("--force"));
        assert!(ends(Member::Last).steps(true).unwrap()[0].contains("is lost"));
        let stays = Some(snapshots_stay("m1", (2, Path::new("/var/s"))));
        let told = Change::Ends { member: Member::Leaves, stays }.steps(false).unwrap();
        assert!(told[4].contains("2 of its snapshots") && told[4].contains("reset m1 --what data"), "{told:?}");
        assert!(Change::Begins.steps(false).unwrap()[1].contains("learner"));
        assert_eq!(Change::None.steps(false), Ok(Vec::new()));
    }
}
