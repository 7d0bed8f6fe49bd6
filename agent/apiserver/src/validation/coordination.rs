//! Leases.

use std::cmp::Ordering;

use api::coordination::v1::Lease;
use api::coordination::v1beta1::LeaseCandidate;

use super::{Change, Errors, Path, checks, names, shown};
use crate::status::FieldError;

const SPEC: Path<'static> = Path::root("spec");

pub fn lease(change: &Change<'_, Lease>, errors: &mut Errors) {
    let spec = &change.new.spec;
    if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    checks::non_negative_if_set(&SPEC.child("leaseTransitions"), spec.lease_transitions, errors);
    let strategy = spec.strategy.as_deref();
    if let Some(strategy) = strategy {
        election(&SPEC.child("strategy"), strategy, errors);
    }
    let prefers = spec.preferred_holder.as_ref().is_some_and(|holder| !holder.is_empty());
    if prefers && strategy.is_none_or(str::is_empty) {
        let why = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(SPEC.child("preferredHolder"), why));
    }
}

const OLDEST: &str = "OldestEmulationVersion";

/// How a leader is chosen.
fn election(path: &Path<'_>, strategy: &str, errors: &mut Errors) {
    let path = path.child("strategy");
    if strategy.contains('/') {
        let told = names::qualified(strategy);
        errors.extend(told.into_iter().map(|why| FieldError::invalid(path, shown::word(strategy), why)));
    } else {
        checks::supported(&path, strategy, &[OLDEST], errors);
    }
}

pub fn lease_candidate(change: &Change<'_, LeaseCandidate>, errors: &mut Errors) {
    let spec = &change.new.spec;
    checks::required(&SPEC.child("leaseName"), &spec.lease_name, errors);
    let emulation = version(&SPEC.child("emulationVersion"), &spec.emulation_version, errors);
    let path = SPEC.child("binaryVersion");
    checks::required(&path, &spec.binary_version, errors);
    let binary = version(&path, &spec.binary_version, errors);
    // What cannot be read counts as the oldest there is.
    let both = !spec.binary_version.is_empty() && !spec.emulation_version.is_empty();
    if both && binary.compare(&emulation).is_lt() {
        let why = "must be greater than or equal to `emulationVersion`";
        errors.push(FieldError::invalid(path, &spec.binary_version, why));
    }
    checks::required(&SPEC.child("strategy"), &spec.strategy, errors);
    if spec.strategy == OLDEST && emulation.compare(&Version::default()).is_eq() {
        let why = "must be specified when `strategy` is 'OldestEmulationVersion'";
        errors.push(FieldError::required(SPEC.child("emulationVersion"), why));
    }
    if !spec.strategy.is_empty() {
        election(&SPEC.child("strategy"), &spec.strategy, errors);
    }
    if let Some(old) = change.old {
        let names = (&spec.lease_name, &old.spec.lease_name);
        checks::immutable(&SPEC.child("leaseName"), names, String::clone, errors);
    }
}

/// A semantic version; what follows a plus sign does not count.
#[derive(Default)]
struct Version<'a> {
    numbers: [u64; 3],
    before: Option<&'a str>,
}

fn version<'a>(path: &Path<'_>, text: &'a str, errors: &mut Errors) -> Version<'a> {
    let parsed = Version::parse(text);
    if parsed.is_none() && !text.is_empty() {
        errors.push(FieldError::invalid(path, text, "must be a valid semantic version"));
    }
    parsed.unwrap_or_default()
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let number = |word: &str| {
            let plain = word == "0" || !word.starts_with('0');
            word.parse().ok().filter(|_| plain && word.bytes().all(|b| b.is_ascii_digit()))
        };
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
        let are_words = |words: &str| words.split('.').all(is_word);
        let numbers: Vec<u64> = core.split('.').map(number).collect::<Option<_>>()?;
        let is_fine = build.is_none_or(are_words) && before.is_none_or(are_words);
        is_fine.then_some(Self { numbers: numbers.try_into().ok()?, before })
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before, other.before) {
            (Some(a), Some(b)) => words(a).cmp(words(b)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        })
    }
}

/// What follows a minus sign, as it is compared: numbers come before words.
fn words(text: &str) -> impl Iterator<Item = (bool, u64, &str)> {
    text.split('.').map(|word| word.parse().map_or((true, 0, word), |number| (false, number, "")))
}

#[cfg(test)]
mod tests {
    use super::Version;
    use crate::strategy::Part;
    use crate::validation::tests::told;

    #[test]
    fn candidates_tell_their_versions() {
        let cases = [
            (
                r#"{"leaseName":"a","binaryVersion":"1.36.0","emulationVersion":"1.36.0-rc.1","strategy":"OldestEmulationVersion"}"#,
                "",
            ),
            (
                r#"{"leaseName":"a","binaryVersion":"1.35.0","emulationVersion":"1.36.0","strategy":"a.io/b"}"#,
                "spec.binaryVersion: Invalid value: \"1.35.0\": must be greater than or equal to `emulationVersion`",
            ),
            (
                r#"{"binaryVersion":"1","strategy":"OldestEmulationVersion"}"#,
                "spec.leaseName: Required value\n\
                 spec.binaryVersion: Invalid value: \"1\": must be a valid semantic version\n\
                 spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'",
            ),
        ];
        for (spec, expected) in cases {
            let object = format!(r#"{{"spec":{spec}}}"#);
            assert_eq!(told("coordination.k8s.io/v1beta1", "LeaseCandidate", Part::Main, &object, None), expected);
        }
        assert!(Version::parse("1.2.3-a.1+b").is_some() && Version::parse("01.2.3").is_none());
    }

    #[test]
    fn leases_last() {
        let cases = [
            (r#"{"leaseDurationSeconds":1,"leaseTransitions":0}"#, ""),
            (
                r#"{"leaseDurationSeconds":0,"strategy":"a","preferredHolder":"b"}"#,
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0\n\
                 spec.strategy.strategy: Unsupported value: \"a\": supported values: \"OldestEmulationVersion\"",
            ),
            (
                r#"{"preferredHolder":"b"}"#,
                "spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined",
            ),
        ];
        for (spec, expected) in cases {
            let object = format!(r#"{{"spec":{spec}}}"#);
            assert_eq!(told("coordination.k8s.io/v1", "Lease", Part::Main, &object, None), expected);
        }
    }
}
