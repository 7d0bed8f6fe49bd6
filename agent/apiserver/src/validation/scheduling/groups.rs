//! Workloads and PodGroups: pods that are scheduled together.
//!
//! Upstream declares these rules with the types. What did not change is not looked at again, and hardly anything may
//! change; what is switched off was left out before, unless it is there already.

use api::scheduling::v1alpha2::{
    PodGroup, PodGroupResourceClaim, PodGroupResourceClaimStatus, PodGroupSchedulingConstraints,
    PodGroupSchedulingPolicy, PodGroupSpec, PodGroupTemplate, PodGroupTemplateReference, TypedLocalObjectReference,
    Workload,
};

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::conditions::conditions;
use crate::validation::{Change, Context, Errors, Path, checks, names, shown};

const MAX_TEMPLATES: usize = 8;
const MAX_CLAIMS: usize = 4;
const MAX_TOPOLOGY: usize = 1;
const HIGHEST_OF_USERS: i32 = 1_000_000_000;
const MODES: &[&str] = &["Pod", "PodGroup"];
/// No value is shown of what may not change.
const CHANGED: &str = "null: field is immutable";

const SPEC: Path<'static> = Path::root("spec");

pub fn workload(change: &Change<'_, Workload>, errors: &mut Errors) {
    let (new, old) = (&change.new.spec, change.old.map(|old| &old.spec));
    let look = Look::at(old, |old| old.controller_ref == new.controller_ref);
    look.field(&SPEC.child("controllerRef"), errors, |path, errors| {
        if let Some(reference) = &new.controller_ref {
            controller(path, reference, errors);
        }
    });
    let look = Look::at(old, |old| old.pod_group_templates == new.pod_group_templates);
    let (path, list) = (SPEC.child("podGroupTemplates"), &new.pod_group_templates);
    look.list(&path, (list, MAX_TEMPLATES), errors, |path, list, errors| {
        repeated(path, list, errors);
        for (i, each) in list.iter().enumerate() {
            template(&path.index(i), each, change.context, errors);
        }
    });
    if look != Look::Same && list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
}

pub fn pod_group(change: &Change<'_, PodGroup>, errors: &mut Errors) {
    if change.part == Part::Status {
        return status(change, errors);
    }
    let (new, old) = (&change.new.spec, change.old.map(|old| &old.spec));
    let look = Look::at(old, |old| old.pod_group_template_ref == new.pod_group_template_ref);
    look.field(&SPEC.child("podGroupTemplateRef"), errors, |path, errors| {
        if let Some(reference) = &new.pod_group_template_ref {
            template_reference(path, reference, errors);
        }
    });
    group(&SPEC, (&Group::from(new), old.map(Group::from).as_ref()), change.context, errors);
}

/// What becomes of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is new, and looked at.
    New,
    /// It is as it was.
    Same,
    /// It may not be another.
    Changed,
}

impl Look {
    fn at<T>(old: Option<&T>, is_same: impl FnOnce(&T) -> bool) -> Self {
        match old {
            None => Self::New,
            Some(old) if is_same(old) => Self::Same,
            Some(_) => Self::Changed,
        }
    }

    fn field(self, path: &Path<'_>, errors: &mut Errors, whole: impl FnOnce(&Path<'_>, &mut Errors)) {
        match self {
            Self::New => whole(path, errors),
            Self::Same => {}
            Self::Changed => errors.push(FieldError::invalid_omitted(path, CHANGED)),
        }
    }

    /// A field that is there only with a feature.
    fn gated(
        self,
        path: &Path<'_>,
        (is_on, is_set): (bool, bool),
        errors: &mut Errors,
        whole: impl FnOnce(&Path<'_>, &mut Errors),
    ) {
        if is_on {
            self.field(path, errors, whole);
        } else if is_set && self != Self::Same {
            errors.push(FieldError::forbidden(path, ""));
        }
    }

    /// A list of which the length is told, too, if it may not be another.
    fn list<T>(
        self,
        path: &Path<'_>,
        (list, max): (&[T], usize),
        errors: &mut Errors,
        whole: impl FnOnce(&Path<'_>, &[T], &mut Errors),
    ) {
        if self == Self::Changed {
            errors.push(FieldError::invalid_omitted(path, CHANGED));
        }
        if self != Self::Same && list.len() > max {
            errors.push(FieldError::too_many(path, list.len(), max as u64));
        } else if self == Self::New {
            whole(path, list, errors);
        }
    }
}

/// What a template says of its groups, and a group of itself.
struct Group<'a> {
    policy: &'a PodGroupSchedulingPolicy,
    constraints: Option<&'a PodGroupSchedulingConstraints>,
    claims: &'a [PodGroupResourceClaim],
    mode: Option<&'a str>,
    class: &'a str,
    priority: Option<i32>,
}

impl<'a> From<&'a PodGroupSpec> for Group<'a> {
    fn from(spec: &'a PodGroupSpec) -> Self {
        Self {
            policy: &spec.scheduling_policy,
            constraints: spec.scheduling_constraints.as_ref(),
            claims: &spec.resource_claims,
            mode: spec.disruption_mode.as_deref(),
            class: &spec.priority_class_name,
            priority: spec.priority,
        }
    }
}

impl<'a> From<&'a PodGroupTemplate> for Group<'a> {
    fn from(template: &'a PodGroupTemplate) -> Self {
        Self {
            policy: &template.scheduling_policy,
            constraints: template.scheduling_constraints.as_ref(),
            claims: &template.resource_claims,
            mode: template.disruption_mode.as_deref(),
            class: &template.priority_class_name,
            priority: template.priority,
        }
    }
}

fn template(path: &Path<'_>, template: &PodGroupTemplate, context: Context<'_>, errors: &mut Errors) {
    short_name(&path.child("name"), &template.name, errors);
    group(path, (&Group::from(template), None), context, errors);
}

fn group(path: &Path<'_>, (new, old): (&Group<'_>, Option<&Group<'_>>), context: Context<'_>, errors: &mut Errors) {
    let is_on = |gate: &str| context.features.is_on(gate);
    Look::at(old, |old| old.policy == new.policy)
        .field(&path.child("schedulingPolicy"), errors, |path, errors| policy(path, new.policy, errors));
    let gate = (is_on("TopologyAwareWorkloadScheduling"), new.constraints.is_some());
    let look = Look::at(old, |old| old.constraints == new.constraints);
    look.gated(&path.child("schedulingConstraints"), gate, errors, |path, errors| {
        if let Some(constraints) = new.constraints {
            topology(&path.child("topology"), constraints, errors);
        }
    });
    let look = Look::at(old, |old| old.claims == new.claims);
    look.list(&path.child("resourceClaims"), (new.claims, MAX_CLAIMS), errors, claims);
    preemption(path, (new, old), is_on("WorkloadAwarePreemption"), errors);
}

fn preemption(path: &Path<'_>, (new, old): (&Group<'_>, Option<&Group<'_>>), is_on: bool, errors: &mut Errors) {
    let look = Look::at(old, |old| old.mode == new.mode);
    look.gated(&path.child("disruptionMode"), (is_on, new.mode.is_some()), errors, |path, errors| {
        if let Some(mode) = new.mode {
            checks::supported(path, mode, MODES, errors);
        }
    });
    let look = Look::at(old, |old| old.class == new.class);
    look.gated(&path.child("priorityClassName"), (is_on, !new.class.is_empty()), errors, |path, errors| {
        if !new.class.is_empty() {
            long_name(path, new.class, errors);
        }
    });
    let look = Look::at(old, |old| old.priority == new.priority);
    look.gated(&path.child("priority"), (is_on, new.priority.is_some()), errors, |path, errors| {
        if let Some(priority) = new.priority.filter(|priority| *priority > HIGHEST_OF_USERS) {
            let why = format!("must be less than or equal to {HIGHEST_OF_USERS}");
            errors.push(FieldError::invalid(path, priority, why));
        }
    });
}

fn policy(path: &Path<'_>, policy: &PodGroupSchedulingPolicy, errors: &mut Errors) {
    one_member(path, &[("basic", policy.basic.is_some()), ("gang", policy.gang.is_some())], errors);
    let gang = path.child("gang");
    let path = gang.child("minCount");
    match policy.gang.as_ref().map(|gang| gang.min_count) {
        Some(0) => errors.push(FieldError::required(path, "")),
        Some(count) if count < 0 => {
            errors.push(FieldError::invalid(path, count, "must be greater than or equal to 1"));
        }
        Some(_) | None => {}
    }
}

fn topology(path: &Path<'_>, constraints: &PodGroupSchedulingConstraints, errors: &mut Errors) {
    let list = &constraints.topology;
    if list.len() > MAX_TOPOLOGY {
        return errors.push(FieldError::too_many(path, list.len(), MAX_TOPOLOGY as u64));
    }
    for (i, constraint) in list.iter().enumerate() {
        named(&path.index(i).child("key"), &constraint.key, names::qualified, errors);
    }
}

fn claims(path: &Path<'_>, list: &[PodGroupResourceClaim], errors: &mut Errors) {
    repeated(path, list, errors);
    for (i, claim) in list.iter().enumerate() {
        let path = path.index(i);
        let sources = [
            ("resourceClaimName", claim.resource_claim_name.as_deref()),
            ("resourceClaimTemplateName", claim.resource_claim_template_name.as_deref()),
        ];
        one_member(&path, &sources.map(|(field, name)| (field, name.is_some())), errors);
        short_name(&path.child("name"), &claim.name, errors);
        for (field, name) in sources {
            if let Some(name) = name {
                long_name(&path.child(field), name, errors);
            }
        }
    }
}

fn controller(path: &Path<'_>, reference: &TypedLocalObjectReference, errors: &mut Errors) {
    if !reference.api_group.is_empty() {
        long_name(&path.child("apiGroup"), &reference.api_group, errors);
    }
    named(&path.child("kind"), &reference.kind, names::path_segment, errors);
    named(&path.child("name"), &reference.name, names::path_segment, errors);
}

fn template_reference(path: &Path<'_>, reference: &PodGroupTemplateReference, errors: &mut Errors) {
    one_member(path, &[("workload", reference.workload.is_some())], errors);
    let Some(workload) = &reference.workload else { return };
    let path = path.child("workload");
    named(&path.child("workloadName"), &workload.workload_name, names::long_name, errors);
    short_name(&path.child("podGroupTemplateName"), &workload.pod_group_template_name, errors);
}

fn status(change: &Change<'_, PodGroup>, errors: &mut Errors) {
    let path = Path::root("status");
    let (new, old) = (&change.new.status, change.old.map(|old| &old.status));
    conditions(&path.child("conditions"), &new.conditions, errors);
    let (path, list) = (path.child("resourceClaimStatuses"), &new.resource_claim_statuses);
    let claims = &change.new.spec.resource_claims;
    for (i, status) in list.iter().enumerate() {
        if !claims.iter().any(|claim| claim.name == status.name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(path.index(i).child("name"), &status.name, why));
        }
    }
    let before = old.map_or(&[][..], |old| &old.resource_claim_statuses);
    if before == list.as_slice() {
        return;
    }
    if list.len() > MAX_CLAIMS {
        return errors.push(FieldError::too_many(path, list.len(), MAX_CLAIMS as u64));
    }
    repeated(&path, list, errors);
    for (i, status) in list.iter().enumerate() {
        let of_old = before.iter().find(|old| old.name == status.name).map(|old| &old.resource_claim_name);
        if let Some(name) = &status.resource_claim_name
            && of_old != Some(&status.resource_claim_name)
        {
            long_name(&path.index(i).child("resourceClaimName"), name, errors);
        }
    }
}

/// A name that has to be there.
fn named(path: &Path<'_>, name: &str, form: fn(&str) -> names::Complaints, errors: &mut Errors) {
    match name {
        "" => errors.push(FieldError::required(path, "")),
        _ => checks::text(path, name, form(name), errors),
    }
}

fn short_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    named(path, name, names::short_name, errors);
}

fn long_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    checks::text(path, name, names::long_name(name), errors);
}

/// Of some fields one has to be set, and no other.
fn one_member(path: &Path<'_>, members: &[(&str, bool)], errors: &mut Errors) {
    let set: Vec<&str> = members.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    let all: Vec<String> = members.iter().map(|(name, _)| format!("`{name}`")).collect();
    let all = all.join(", ");
    match set.as_slice() {
        [] => errors.push(FieldError::invalid(path, "", format!("must specify one of: {all}"))),
        [_] => {}
        _ => {
            let (set, why) = (format!("{{{}}}", set.join(", ")), format!("must specify exactly one of: {all}"));
            errors.push(FieldError::invalid(path, set, why));
        }
    }
}

/// Items whose name another has before them; they are shown as clients write them.
fn repeated<T: Item>(path: &Path<'_>, list: &[T], errors: &mut Errors) {
    for (i, item) in list.iter().enumerate() {
        if list[..i].iter().any(|earlier| earlier.name() == item.name()) {
            errors.push(FieldError::duplicate(path.index(i), shown::as_written(T::MESSAGE, item)));
        }
    }
}

/// What has a name in a list.
trait Item: prost::Message {
    const MESSAGE: &'static str;
    fn name(&self) -> &str;
}

macro_rules! item {
    ($type:ty, $message:literal) => {
        impl Item for $type {
            const MESSAGE: &'static str = concat!("k8s.io.api.scheduling.v1alpha2.", $message);
            fn name(&self) -> &str {
                &self.name
            }
        }
    };
}

item!(PodGroupTemplate, "PodGroupTemplate");
item!(PodGroupResourceClaim, "PodGroupResourceClaim");
item!(PodGroupResourceClaimStatus, "PodGroupResourceClaimStatus");

#[cfg(test)]
mod tests;
