//! Which manifest is in force: a decision over what was offered and what worked last.
//!
//! A manifest whose secrets are not all found is not taken in the place of one that worked. Where there is no such one,
//! or it lacks some itself, the machine goes on with those that it has.

use manifest::Manifest;
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

/// Decides. `last_good` is the text that worked last, if there is one.
pub(crate) fn decide(offer: Option<Offer>, last_good: Option<String>, search: Search<'_>) -> Intake {
    let (lacking, refused) = match offer.map(|offer| examine(offer, search)) {
        Some(Ok(accepted)) if accepted.is_whole() => return Intake::Accepted(Box::new(accepted)),
        Some(Ok(lacking)) => (Some(lacking.clone()), Some(lacking.warnings)),
        Some(Err(diagnostics)) => (None, Some(diagnostics)),
        None => (None, None),
    };
    let remember = |text| examine(Offer { source: "last good manifest".to_owned(), text: Ok(text) }, search);
    match (last_good.map(remember), lacking) {
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
