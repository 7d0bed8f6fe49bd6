//! What containers and Pods ask for and are limited to.

use std::collections::BTreeMap;

use api::Quantity;
use api::core::v1::{Container, PodSpec, ResourceClaim, ResourceRequirements};
use api::quantity::Amount;

use super::container::Scope;
use super::{is_sidecar, is_windows};
use crate::status::FieldError;
use crate::validation::resources::{self, Amounts};
use crate::validation::{Errors, Path, checks, names, shown};

/// How a name is looked at.
type NameCheck = fn(&Path<'_>, &str, &mut Errors);

const OF_PODS: [&str; 3] = ["cpu", "hugepages-", "memory"];

/// The resources of a container.
pub(super) fn of_container(path: &Path<'_>, own: &ResourceRequirements, scope: Scope<'_>, errors: &mut Errors) {
    amounts(path, own, (resources::container_resource_name, scope.options.partial_huge_pages), errors);
    claims(&path.child("claims"), &own.claims, scope.spec, errors);
}

/// What a Pod takes besides its containers.
pub(in crate::validation) fn overhead(path: &Path<'_>, overhead: &Amounts, partial_pages: bool, errors: &mut Errors) {
    if !overhead.is_empty() {
        let own = ResourceRequirements { limits: overhead.clone(), ..ResourceRequirements::default() };
        amounts(path, &own, (resources::container_resource_name, partial_pages), errors);
    }
}

/// The resources of a Pod as a whole.
pub(super) fn of_pod(path: &Path<'_>, scope: Scope<'_>, errors: &mut Errors) {
    let Some(own) = &scope.spec.resources else { return };
    let path = path.child("resources");
    if is_windows(scope.spec) {
        errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
        return;
    }
    if !own.claims.is_empty() || path.child("claims").is_blank() {
        errors.push(FieldError::forbidden(path.child("claims"), "claims may not be set for Resources at pod-level"));
    }
    amounts(&path, own, (pod_resource_name, scope.options.partial_huge_pages), errors);
    claims(&path.child("claims"), &own.claims, scope.spec, errors);
    whole(&path, own, scope.spec, errors);
}

fn pod_resource_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let told = errors.len();
    resources::resource_name(path, name, errors);
    if errors.len() == told && !matches!(name, "cpu" | "memory") && !resources::is_huge_pages(name) {
        errors.push(FieldError::not_supported(path, shown::word(name), &OF_PODS));
    }
}

fn amounts(path: &Path<'_>, own: &ResourceRequirements, (name_of, partial): (NameCheck, bool), errors: &mut Errors) {
    let one = |path: &Path<'_>, name: &str, quantity: &Quantity, errors: &mut Errors| {
        name_of(path, name, errors);
        resources::quantity_value(path, name, quantity, errors);
    };
    let pages = |path: &Path<'_>, name: &str, quantity: &Quantity, errors: &mut Errors| {
        if !partial {
            resources::huge_pages_fit(path, name, quantity, errors);
        }
    };
    let list = path.child("limits");
    for (name, quantity) in &own.limits {
        one(&list.key(name), name, quantity, errors);
        pages(&list.key(name), name, quantity, errors);
    }
    let list = path.child("requests");
    for (name, quantity) in &own.requests {
        one(&list.key(name), name, quantity, errors);
        within_limit(path, name, (quantity, own.limits.get(name)), errors);
        pages(&list.key(name), name, quantity, errors);
    }
    let mut all = own.limits.keys().chain(own.requests.keys());
    if all.clone().any(|n| resources::is_huge_pages(n)) && !all.any(|n| matches!(n.as_str(), "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

fn within_limit(path: &Path<'_>, name: &str, (quantity, limit): (&Quantity, Option<&Quantity>), errors: &mut Errors) {
    let exact = !resources::may_overcommit(name);
    let Some(limit) = limit else {
        if exact {
            let why = "Limit must be set for non overcommitable resources";
            errors.push(FieldError::required(path.child("limits"), why));
        }
        return;
    };
    let (asked, most) = (checks::amount(quantity), checks::amount(limit));
    let relation = if exact && !asked.minus(&most).is_zero() {
        "equal to"
    } else if asked > most {
        "less than or equal to"
    } else {
        return;
    };
    let why = format!("must be {relation} {name} limit of {}", limit.string);
    errors.push(FieldError::invalid(path.child("requests"), &quantity.string, why));
}

/// Claims of devices, which the Pod has to have.
fn claims(path: &Path<'_>, claims: &[ResourceClaim], spec: &PodSpec, errors: &mut Errors) {
    for (i, ResourceClaim { name, request }) in claims.iter().enumerate() {
        let path = path.index(i);
        if name.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        claim_once(&path, (name, request), claims.get(..i).unwrap_or_default(), errors);
        let mut known: Vec<&str> =
            spec.resource_claims.iter().map(|c| c.name.as_str()).filter(|n| !n.is_empty()).collect();
        if !known.contains(&name.as_str()) {
            known.sort_unstable();
            known.dedup();
            let list = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let why = format!("must be one of the names in pod.spec.resourceClaims{list}");
            errors.push(FieldError::not_found_because(path, name, why));
        }
    }
}

/// A claim is used as a whole or by its requests, each once.
fn claim_once(path: &Path<'_>, (name, request): (&str, &str), earlier: &[ResourceClaim], errors: &mut Errors) {
    if earlier.iter().any(|c| c.name == name && c.request.is_empty()) {
        errors.push(FieldError::duplicate(path, name));
        return;
    }
    if !request.is_empty() {
        checks::text(&path.child("request"), request, names::dns1123_label(request), errors);
    }
    let same = || earlier.iter().filter(|c| c.name == name);
    if request.is_empty() {
        let mut requests: Vec<&str> = same().map(|c| c.request.as_str()).collect();
        requests.sort_unstable();
        requests.dedup();
        errors.extend(requests.iter().map(|_| FieldError::duplicate(path, name)));
    } else if same().any(|c| c.request == request) {
        errors.push(FieldError::duplicate(path, format!("{name}/{request}")));
    }
}

/// What the Pod has as a whole is enough for its containers.
fn whole(path: &Path<'_>, own: &ResourceRequirements, spec: &PodSpec, errors: &mut Errors) {
    let list = path.child("requests");
    for (name, needed) in of_all_containers(spec, |r| &r.requests) {
        if let Some(given) = own.requests.get(&name).filter(|given| needed > checks::amount(given)) {
            let sum = needed.canonical();
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(list.key(&name), &given.string, why));
        }
    }
    let list = path.child("limits");
    for (name, needed) in of_all_containers(spec, |r| &r.limits) {
        let given = own.limits.get(&name).filter(|given| needed > checks::amount(given));
        if let Some(given) = given.filter(|_| resources::is_huge_pages(&name)) {
            let sum = needed.canonical();
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.push(FieldError::invalid(list.key(&name), &given.string, why));
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (name, limit) in &container.resources.limits {
            if let Some(most) = own.limits.get(name).filter(|most| checks::amount(limit) > checks::amount(most)) {
                let at = path.child("containers");
                let why = format!("must be less than or equal to pod limits of {}", most.string);
                errors.push(FieldError::invalid(at.index(i).key(name).child("limits"), &limit.string, why));
            }
        }
    }
}

/// What all containers need at the time when they need most.
fn of_all_containers(spec: &PodSpec, amounts: impl Fn(&ResourceRequirements) -> &Amounts) -> BTreeMap<String, Amount> {
    type Sums = BTreeMap<String, Amount>;
    let add = |sums: &mut Sums, container: &Container| {
        for (name, quantity) in amounts(&container.resources) {
            let amount = checks::amount(quantity);
            sums.entry(name.clone()).and_modify(|sum| *sum = sum.plus(&amount)).or_insert(amount);
        }
    };
    let most = |into: &mut Sums, other: Sums| {
        for (name, amount) in other {
            let kept = into.entry(name).or_insert(amount);
            if amount > *kept {
                *kept = amount;
            }
        }
    };
    let (mut running, mut sidecars, mut starting) = (Sums::new(), Sums::new(), Sums::new());
    for container in &spec.containers {
        add(&mut running, container);
    }
    for container in &spec.init_containers {
        if is_sidecar(container) {
            add(&mut running, container);
            add(&mut sidecars, container);
            most(&mut starting, sidecars.clone());
        } else {
            let mut now = sidecars.clone();
            add(&mut now, container);
            most(&mut starting, now);
        }
    }
    most(&mut running, starting);
    running
}

/// Whether a container has a part of a huge page.
pub(super) fn has_partial_huge_pages(spec: &PodSpec) -> bool {
    let mut errors = Errors::new();
    for container in spec.containers.iter().chain(&spec.init_containers) {
        for (name, quantity) in container.resources.limits.iter().chain(&container.resources.requests) {
            resources::huge_pages_fit(&Path::root(""), name, quantity, &mut errors);
        }
    }
    !errors.is_empty()
}
