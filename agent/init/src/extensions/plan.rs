//! Which of the extensions on STATE are to be used, decided without touching them.

use disk::About;
use install::extension::{Held, HeldError};
use stdx::chain;

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is to be used.
    Use,
    /// Another one of its name is, because of this.
    Spare(String),
    /// It cannot be.
    Skip(Skipped),
}

/// Why one is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) why: String,
    pub(super) fix: String,
}

/// One verdict each. The system has a kernel and a version, and these extensions itself.
pub(super) fn plan(held: &[Held], of_image: &[String], (kernel, version): (&str, &str)) -> Vec<Verdict> {
    let fits = |about: &&About| about.fits(kernel, version).is_ok();
    let usable: Vec<&About> = held.iter().filter_map(Held::about).filter(fits).collect();
    let verdict = |held: &Held| {
        let name = held.name();
        let skip = |why: String, fix| Verdict::Skip(Skipped { why, fix });
        let about = match &held.head {
            Ok(head) => &head.about,
            Err(error) => return skip(chain(error).to_string(), mends(error, &name)),
        };
        if of_image.contains(&name) {
            return skip("the image has an extension of this name".to_owned(), without(&name));
        }
        let others = || usable.iter().filter(|other| other.name == name && **other != about);
        match about.fits(kernel, version) {
            Ok(()) if about.kernel.is_none() && others().any(|other| other.kernel.is_some()) => {
                Verdict::Spare("there is one for this very kernel".to_owned())
            }
            Ok(()) => Verdict::Use,
            Err(misfit) if others().next().is_some() => Verdict::Spare(misfit.to_string()),
            Err(misfit) => {
                let fix = format!("`keelson extension add` one that was made for this system, or {}", without(&name));
                skip(misfit.to_string(), fix)
            }
        }
    };
    held.iter().map(verdict).collect()
}

fn mends(error: &HeldError, name: &str) -> String {
    match error {
        HeldError::Signature(_) => format!(
            "`keelson extension add` one that is signed with the key of this machine's image (`cargo extension \
             --signing-key`), or {}",
            without(name)
        ),
        HeldError::Many => format!("`keelson extension remove {name}`"),
        HeldError::Read(_) | HeldError::Head(_) | HeldError::Name(_) | HeldError::Absent(_) => again(name),
    }
}

/// What helps where a file is damaged.
pub(super) fn again(name: &str) -> String {
    format!("`keelson extension add` it again, or {}", without(name))
}

/// What helps where nothing else does.
pub(super) fn without(name: &str) -> String {
    format!("`keelson extension remove {name}` does without it")
}
