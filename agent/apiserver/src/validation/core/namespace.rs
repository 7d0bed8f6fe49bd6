//! Namespaces.

use api::core::v1::Namespace;

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");

pub fn namespace(change: &Change<'_, Namespace>, errors: &mut Errors) {
    let new = change.new;
    let list = SPEC.child("finalizers");
    match change.part {
        Part::Status => phase(new, errors),
        Part::Finalize => {
            for (i, name) in new.spec.finalizers.iter().enumerate() {
                finalizer(&list.index(i), name, errors);
            }
        }
        _ if change.old.is_none() => new.spec.finalizers.iter().for_each(|name| finalizer(&list, name, errors)),
        _ => {}
    }
}

fn phase(namespace: &Namespace, errors: &mut Errors) {
    let (wanted, when) = match namespace.metadata.deletion_timestamp {
        None => ("Active", "empty"),
        Some(_) => ("Terminating", "not empty"),
    };
    let phase = &namespace.status.phase;
    if phase != wanted {
        let why = format!("may only be '{wanted}' if `deletionTimestamp` is {when}");
        errors.push(FieldError::invalid(Path::root("status").child("Phase"), shown::word(phase), why));
    }
}

fn finalizer(path: &Path<'_>, name: &str, errors: &mut Errors) {
    checks::text(path, name, names::qualified(name), errors);
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, why));
    }
}
