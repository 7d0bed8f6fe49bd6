//! Leases.

use api::coordination::v1::Lease;

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
        let path = SPEC.child("strategy");
        let path = path.child("strategy");
        if strategy.contains('/') {
            let told = names::qualified(strategy);
            errors.extend(told.into_iter().map(|why| FieldError::invalid(path, shown::word(strategy), why)));
        } else {
            checks::supported(&path, strategy, &["OldestEmulationVersion"], errors);
        }
    }
    let prefers = spec.preferred_holder.as_ref().is_some_and(|holder| !holder.is_empty());
    if prefers && strategy.is_none_or(str::is_empty) {
        let why = "may only be specified if `strategy` is defined";
        errors.push(FieldError::forbidden(SPEC.child("preferredHolder"), why));
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

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
