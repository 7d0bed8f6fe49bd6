//! PodDisruptionBudgets.

use api::IntOrString;
use api::policy::v1::PodDisruptionBudget;

use super::conditions::conditions;
use super::labels::{self, SelectorOptions};
use super::{Change, Errors, Path, checks, names, shown};
use crate::status::FieldError;
use crate::strategy::Part;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

pub fn disruption_budget(change: &Change<'_, PodDisruptionBudget>, errors: &mut Errors) {
    let new = change.new;
    if change.part == Part::Status {
        conditions(&STATUS.child("conditions"), &new.status.conditions, errors);
        let counts = [
            ("disruptionsAllowed", new.status.disruptions_allowed),
            ("currentHealthy", new.status.current_healthy),
            ("desiredHealthy", new.status.desired_healthy),
            ("expectedPods", new.status.expected_pods),
        ];
        counts.iter().for_each(|(field, count)| checks::non_negative(&STATUS.child(field), *count, errors));
        return;
    }
    let spec = &new.spec;
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let value = shown::structure("k8s.io.api.policy.v1.PodDisruptionBudgetSpec", spec);
        errors.push(FieldError::invalid(SPEC, value, "minAvailable and maxUnavailable cannot be both set"));
    }
    for (field, amount) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        if let Some(amount) = amount {
            number_or_percent(&SPEC.child(field), amount, errors);
        }
    }
    if let Some(selector) = &spec.selector {
        let options = SelectorOptions::after(change.old.and_then(|old| old.spec.selector.as_ref()));
        labels::selector(&SPEC.child("selector"), selector, options, errors);
    }
    if let Some(policy) = &spec.unhealthy_pod_eviction_policy {
        let allowed = &["AlwaysAllow", "IfHealthyBudget"];
        checks::supported(&SPEC.child("unhealthyPodEvictionPolicy"), policy, allowed, errors);
    }
}

fn number_or_percent(path: &Path<'_>, amount: &IntOrString, errors: &mut Errors) {
    if amount.r#type == 0 {
        return checks::non_negative(path, amount.int_val, errors);
    }
    let text = &amount.str_val;
    let complaints = names::percent(text);
    if complaints.is_empty() {
        let digits = text.trim_end_matches('%').trim_start_matches('0');
        if digits.len() > 3 || digits.parse::<u32>().is_ok_and(|percent| percent > 100) {
            errors.push(FieldError::invalid(path, shown::word(text), "must not be greater than 100%"));
        }
    } else {
        errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, shown::word(text), why)));
    }
}
