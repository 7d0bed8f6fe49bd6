//! The group of scheduling: PriorityClasses here.

pub(super) mod groups;

use api::scheduling::v1::PriorityClass;

use super::{Change, Errors, Path, checks, shown};
use crate::status::FieldError;

const HIGHEST_OF_USERS: i32 = 1_000_000_000;
const SYSTEM: &str = "system-";
/// Classes of the system: name, value.
const OF_SYSTEM: &[(&str, i32)] =
    &[("system-node-critical", 2 * HIGHEST_OF_USERS + 1_000), ("system-cluster-critical", 2 * HIGHEST_OF_USERS)];

pub fn priority_class(change: &Change<'_, PriorityClass>, errors: &mut Errors) {
    let (new, policy) = (change.new, Path::root("preemptionPolicy"));
    if let Some(old) = change.old {
        if new.value != old.value {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        if new.preemption_policy != old.preemption_policy {
            let value = new.preemption_policy.as_ref().map_or_else(|| shown::optional_text(None), |p| shown::word(p));
            errors.push(FieldError::invalid(policy, value, checks::IMMUTABLE));
        }
        return;
    }
    if new.metadata.name.starts_with(SYSTEM) {
        if let Some(why) = not_of_system(new) {
            let why =
                format!("priority class names with '{SYSTEM}' prefix are reserved for system use only. error: {why}");
            errors.push(FieldError::forbidden(Path::root("metadata").child("name"), why));
        }
    } else if new.value > HIGHEST_OF_USERS {
        let why = format!("maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}");
        errors.push(FieldError::forbidden("value", why));
    }
    if let Some(preemption) = &new.preemption_policy {
        checks::one_of(&policy, preemption, &["PreemptLowerPriority", "Never"], errors);
    }
}

fn not_of_system(class: &PriorityClass) -> Option<String> {
    let name = &class.metadata.name;
    let Some((_, value)) = OF_SYSTEM.iter().find(|(known, _)| known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if class.value != *value {
        return Some(format!("value of {name} PriorityClass must be {value}"));
    }
    class.global_default.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
