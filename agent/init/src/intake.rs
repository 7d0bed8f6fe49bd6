//! Which manifest is in force: a decision over what was offered and what worked last.

use manifest::Manifest;

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
    /// Warnings; empty if there are none.
    pub(crate) warnings: String,
}

/// Decides. `last_good` is the text that worked last, if there is one.
pub(crate) fn decide(offer: Option<Offer>, last_good: Option<String>) -> Intake {
    let refused = match offer.map(examine) {
        Some(Ok(accepted)) => return Intake::Accepted(Box::new(accepted)),
        Some(Err(diagnostics)) => Some(diagnostics),
        None => None,
    };
    let remembered = last_good.map(|text| examine(Offer { source: "last good manifest".to_owned(), text: Ok(text) }));
    match remembered {
        Some(Ok(accepted)) => Intake::LastGood { accepted: Box::new(accepted), diagnostics: refused },
        Some(Err(diagnostics)) => {
            // Another version of the agent may be stricter than the one that wrote it.
            let both = refused.into_iter().chain([diagnostics]).collect::<Vec<_>>().join("\n");
            Intake::None { diagnostics: both }
        }
        None => {
            let nothing = "no manifest was found: not on the kernel's command line, in the firmware, on a disk labelled \
                           KEELSON-CFG or in the image";
            Intake::None { diagnostics: refused.unwrap_or_else(|| nothing.to_owned()) }
        }
    }
}

/// Validates an offer.
pub(crate) fn examine(offer: Offer) -> Result<Accepted, String> {
    let source = offer.source;
    let text = offer.text?;
    let (manifest, findings) = manifest::check(&source, &text);
    let words = if findings.is_empty() { String::new() } else { findings.to_string() };
    match manifest {
        Some(manifest) => Ok(Accepted { manifest, text, source, warnings: words }),
        None => Err(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) const GOOD: &str =
        "version = 1\n[machine]\nhostname = \"m1\"\nrole = \"single\"\n[cluster]\nname = \"c\"\n";

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
}
