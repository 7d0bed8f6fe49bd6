//! Which manifest is in force: a decision over what was offered and what worked last.
//!
//! A manifest whose secrets are not all found is not taken in the place of one that worked. Where there is no such one,
//! or it lacks some itself, the machine goes on with those that it has.

use manifest::{CaTrust, ClusterSecret, Manifest, Secret, is_one_step};
use secrets::{Checked, Found, Search};

use crate::sources::Offer;

/// The decision.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Intake {
    /// The offer is good.
    Accepted(Box<Accepted>),
    /// The offer is bad or absent, but one worked before.
    LastGood {
        accepted: Box<Accepted>,
        /// What is wrong with the offer; nothing if there was none.
        diagnostics: Option<String>,
    },
    /// The offer is good, and would make another machine of this one; what worked before stays in force.
    Foreign {
        accepted: Box<Accepted>,
        /// What it would make of it, for people.
        why: String,
    },
    /// There is no usable manifest.
    None {
        /// Why, for people.
        diagnostics: String,
    },
}

/// A manifest in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Accepted {
    pub(crate) manifest: Manifest,
    pub(crate) text: String,
    pub(crate) source: String,
    /// Warnings, and secrets that were not found; empty if there are none.
    pub(crate) warnings: String,
    /// Its secrets that are elsewhere.
    pub(crate) secrets: Vec<Found>,
}

impl Accepted {
    /// The same, with the text of another one beside which nothing but the network is another.
    pub(crate) fn with_network_of(self, mended: Option<&String>) -> Self {
        match mended {
            Some(text) => Self { text: text.clone(), ..self },
            None => self,
        }
    }

    /// Whether all of its secrets were found.
    pub(crate) fn is_whole(&self) -> bool {
        self.lacks_no_more(&[])
    }

    /// Whether it lacks no secret but those that were lacking before.
    pub(crate) fn lacks_no_more(&self, before: &[Found]) -> bool {
        let lacked = |key: &str| before.iter().any(|found| found.key == key && found.outcome.is_err());
        self.secrets.iter().all(|found| found.outcome.is_ok() || lacked(&found.key))
    }
}

/// Decides. `last_good` is the text that worked last, if there is one: what it says of this machine, no source changes.
pub(crate) fn decide(offer: Option<Offer>, last_good: Option<String>, search: Search<'_>) -> Intake {
    let remember = |text| examine(Offer { source: "last good manifest".to_owned(), text: Ok(text) }, search);
    let remembered = last_good.map(remember);
    let (lacking, refused) = match offer.map(|offer| examine(offer, search)) {
        Some(Ok(offered)) => {
            if let Some(Ok(known)) = &remembered
                && let Some(why) = another(&known.manifest, &offered)
            {
                return Intake::Foreign { accepted: Box::new(known.clone()), why };
            }
            if offered.is_whole() {
                return Intake::Accepted(Box::new(offered));
            }
            let warnings = offered.warnings.clone();
            (Some(offered), Some(warnings))
        }
        Some(Err(diagnostics)) => (None, Some(diagnostics)),
        None => (None, None),
    };
    match (remembered, lacking) {
        (Some(Ok(accepted)), _) => Intake::LastGood { accepted: Box::new(accepted), diagnostics: refused },
        (Some(Err(_)) | None, Some(lacking)) => Intake::Accepted(Box::new(lacking)),
        (Some(Err(diagnostics)), None) => {
            // Another version of the agent may be stricter than the one that wrote it.
            let both = refused.into_iter().chain([diagnostics]).collect::<Vec<_>>().join("\n");
            Intake::None { diagnostics: both }
        }
        (None, None) => {
            let nothing = "no manifest was found: not on the kernel's command line, in the firmware, on a disk labelled \
                           KEELSON-CFG or in the image";
            Intake::None { diagnostics: refused.unwrap_or_else(|| nothing.to_owned()) }
        }
    }
}

/// What a manifest would make of a machine that it is not for: what the machine holds of its cluster would be lost.
pub(crate) fn another(known: &Manifest, offered: &Accepted) -> Option<String> {
    other_words(known, &offered.manifest).map(|why| format!("the manifest ({}) {why}", offered.source))
}

fn other_words(known: &Manifest, offered: &Manifest) -> Option<String> {
    let (is_master, makes_master) = (known.machine.role.has_control_plane(), offered.machine.role.has_control_plane());
    if is_master != makes_master {
        let word = |is_master| if is_master { "master" } else { "worker" };
        return Some(format!("is for a {}, and this machine is a {}", word(makes_master), word(is_master)));
    }
    let (own, other) = (&known.machine.hostname, &offered.machine.hostname);
    if is_master && own != other {
        // Two members of etcd would have one name.
        return Some(format!("is for the master {other}, and this one is {own}"));
    }
    // A CA that was made from no secret fits to none. One that was made from one is kept without it, and of a secret that
    // was not found nothing is known.
    let has_other_secret = is_master
        && match (&known.control_plane.secret, &offered.control_plane.secret) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) => {
                secrets_of(known).zip(secrets_of(offered)).is_some_and(|(was, is)| !is_one_step(&was, &is))
            }
        };
    let has_other_ca = match (&known.cluster.trust, &offered.cluster.trust) {
        (Some(CaTrust::Hashes(was)), Some(CaTrust::Hashes(is))) => !is_one_step(was, is),
        (Some(CaTrust::Certificates(was)), Some(CaTrust::Certificates(is))) => {
            was != is && !was.bodies().any(|body| is.bodies().any(|other| other == body))
        }
        _ => false,
    };
    (has_other_secret || has_other_ca).then(|| "is for another cluster than this machine's".to_owned())
}

/// The secrets that a master's keys come from or are trusted by; none if one of them was not found.
fn secrets_of(manifest: &Manifest) -> Option<Vec<&ClusterSecret>> {
    let both = [&manifest.control_plane.secret, &manifest.control_plane.accepted_secret];
    both.into_iter().flatten().map(Secret::known).collect()
}

/// Validates an offer.
pub(crate) fn examine(offer: Offer, search: Search<'_>) -> Result<Accepted, String> {
    let source = offer.source;
    let text = offer.text?;
    let Checked { manifest, diagnostics, secrets } = search.check(&source, &text);
    let words = if diagnostics.is_empty() { String::new() } else { diagnostics.to_string() };
    match manifest {
        Some(manifest) => Ok(Accepted { manifest, text, source, warnings: words, secrets }),
        None => Err(words),
    }
}

#[cfg(test)]
mod bad_manifests;

#[cfg(test)]
mod tests {
    use luks::MachineTpm;
    use sys::FakeSystem;

    use super::*;

    pub(crate) const GOOD: &str =
        "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n";

    fn decide(offer: Option<Offer>, last_good: Option<String>) -> Intake {
        super::decide(offer, last_good, Search::new(&FakeSystem::new(), &MachineTpm))
    }

    fn offer(text: &str) -> Option<Offer> {
        Some(Offer { source: "firmware".into(), text: Ok(text.into()) })
    }

    #[test]
    fn a_good_offer_wins() {
        let Intake::Accepted(accepted) = decide(offer(GOOD), Some("version = 2".into())) else { panic!() };
        assert_eq!((accepted.source.as_str(), accepted.text.as_str()), ("firmware", GOOD));
    }

    #[test]
    fn what_would_make_another_machine_of_this_one_is_not_taken() {
        const MASTER: &str = "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"master\"\n[cluster]\n\
                              endpoint = \"https://10.0.0.1:6443\"\n";
        let worker = |digit: &str| {
            let hash = digit.repeat(64);
            let cluster = format!("token = \"abcdef.0123456789abcdef\"\nca-hash = \"sha256:{hash}\"\n");
            MASTER.replace("master", "worker") + &cluster
        };
        let master = |digit: &str| {
            format!("{MASTER}[control-plane]\nsecret = \"{}\"\n", format!("0123456789abcde{digit}").repeat(4))
        };
        let both = |manifest: String, digit: &str| {
            format!("{manifest}accepted-secret = \"{}\"\n", format!("0123456789abcde{digit}").repeat(4))
        };
        let hashes = |digit: &str, accepted: &str| {
            format!("{}accepted-ca-hash = \"sha256:{}\"\n", worker(digit), accepted.repeat(64))
        };
        let table = [
            (MASTER.to_owned(), worker("a"), Some("is for a worker, and this machine is a master")),
            (worker("a"), master("b"), Some("is for a master, and this machine is a worker")),
            (master("b"), master("c"), Some("is for another cluster")),
            (MASTER.to_owned(), master("c"), Some("is for another cluster")),
            (worker("a"), worker("d"), Some("is for another cluster")),
            (master("b"), master("b").replace("m1", "m2"), Some("is for the master m2, and this one is m1")),
            // A CA takes the place of another one step by step.
            (both(master("b"), "c"), master("c"), Some("is for another cluster")),
            (hashes("a", "d"), worker("d"), Some("is for another cluster")),
            (worker("a"), hashes("d", "a"), Some("is for another cluster")),
            (master("b"), both(master("b"), "c"), None),
            (both(master("b"), "c"), both(master("c"), "b"), None),
            (both(master("c"), "b"), master("c"), None),
            (worker("a"), hashes("a", "d"), None),
            (hashes("a", "d"), hashes("d", "a"), None),
            (hashes("d", "a"), worker("d"), None),
            // Everything else may change.
            (master("b"), MASTER.to_owned(), None),
            (master("b"), master("b").replace("role = \"master\"", "role = \"single\""), None),
            (worker("a"), worker("a").replace("m1", "m2"), None),
        ];
        for (known, offered, wanted) in table {
            match (decide(offer(&offered), Some(known.clone())), wanted) {
                (Intake::Foreign { accepted, why }, Some(wanted)) => {
                    assert!(accepted.text == known && accepted.source == "last good manifest", "{accepted:?}");
                    assert!(why.contains(wanted) && why.contains("firmware"), "{why}");
                }
                (Intake::Accepted(accepted), None) => assert_eq!(accepted.text, offered),
                (intake, _) => panic!("{known}\n{offered}\n{intake:?}"),
            }
        }
    }

    #[test]
    fn a_bad_offer_leaves_the_last_good_manifest_in_force() {
        let Intake::LastGood { accepted, diagnostics } = decide(offer("version = 1\nnope = 1"), Some(GOOD.into()))
        else {
            panic!()
        };
        assert_eq!(accepted.source, "last good manifest");
        assert!(diagnostics.unwrap().contains("nope"));
        let Intake::LastGood { diagnostics, .. } = decide(None, Some(GOOD.into())) else { panic!() };
        assert_eq!(diagnostics, None);
    }

    #[test]
    fn without_any_good_manifest_the_reasons_are_kept() {
        let Intake::None { diagnostics } = decide(offer("x"), Some("y".into())) else { panic!() };
        assert!(diagnostics.contains("firmware") && diagnostics.contains("last good manifest"));
        let Intake::None { diagnostics } = decide(None, None) else { panic!() };
        assert!(diagnostics.contains("KEELSON-CFG"));
    }

    #[test]
    fn a_manifest_without_its_secrets_takes_no_place_of_one_that_worked() {
        let lacking = format!("{GOOD}token = {{ file = \"/state/secrets/token\" }}\n");
        let Intake::LastGood { accepted, diagnostics } = decide(offer(&lacking), Some(GOOD.into())) else { panic!() };
        assert!(accepted.is_whole() && accepted.text == GOOD);
        let diagnostics = diagnostics.unwrap();
        assert!(diagnostics.contains("firmware:7:9") && diagnostics.contains("there is no such file"), "{diagnostics}");
        // Neither does it keep the machine from running where there is no other, or that one lacks it, too.
        for last_good in [None, Some("version = 2".to_owned())] {
            let Intake::Accepted(accepted) = decide(offer(&lacking), last_good) else { panic!() };
            assert!(!accepted.is_whole() && accepted.warnings.contains("cluster.token"), "{}", accepted.warnings);
        }
        let Intake::LastGood { accepted, .. } = decide(offer(&lacking), Some(lacking.clone())) else { panic!() };
        assert_eq!((accepted.is_whole(), accepted.secrets[0].key.as_str()), (false, "cluster.token"));
        let known = FakeSystem::new();
        known.file("/state/secrets/token", "abcdef.0123456789abcdef\n");
        let search = Search::new(&known, &MachineTpm);
        let Intake::Accepted(accepted) = super::decide(offer(&lacking), Some(GOOD.into()), search) else { panic!() };
        assert!(accepted.is_whole() && !accepted.text.contains("0123456789abcdef"));
    }
}
