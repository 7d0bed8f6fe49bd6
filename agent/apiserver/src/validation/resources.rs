//! Names of resources, such as `cpu`, and amounts of them.

use std::collections::BTreeMap;

use api::Quantity;

use super::{Errors, Path, checks, names, shown};
use crate::status::FieldError;

/// An amount of each resource.
pub type Amounts = BTreeMap<String, Quantity>;

const HUGE_PAGES: &str = "hugepages-";
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What can be counted, in whole numbers only.
const COUNTED: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const OF_QUOTAS: &[&str] = &[
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const NOT_WHOLE: &str = "must be an integer";

#[must_use]
pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

fn is_quota_huge_pages(name: &str) -> bool {
    is_huge_pages(name) || name.starts_with("requests.hugepages-")
}

/// Whether it is a resource that Kubernetes itself knows.
#[must_use]
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether it is a resource that others define.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    if is_native(name) || name.starts_with("requests.") {
        return false;
    }
    // In quotas it would have a prefix.
    let (prefix, rest) = name.split_once('/').unwrap_or(("", name));
    names::qualified(rest).is_empty()
        && !rest.contains('/')
        && prefix.len() + "requests.".len() <= 253
        && names::is_subdomain(prefix)
}

/// Whether a container may be given more of it than it asked for.
#[must_use]
pub fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

fn is_integer(name: &str) -> bool {
    COUNTED.contains(&name) || is_extended(name)
}

/// Whether quotas know the resource without a prefix.
#[must_use]
pub fn is_of_quotas(name: &str) -> bool {
    COMPUTE.contains(&name) || COUNTED.contains(&name) || OF_QUOTAS.contains(&name) || is_quota_huge_pages(name)
}

fn is_standard(name: &str) -> bool {
    is_of_quotas(name) || name == "storage"
}

/// The name of any resource.
pub fn resource_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    let complaints = names::qualified(name);
    if !complaints.is_empty() {
        errors.extend(complaints.into_iter().map(|why| FieldError::invalid(path, shown::word(name), why)));
    } else if !name.contains('/') && !is_standard(name) {
        let why = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, shown::word(name), why));
    }
}

/// The name of a resource that a container can have.
pub fn container_resource_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    resource_name(path, name, errors);
    let why = if !name.contains('/') {
        (!COMPUTE.contains(&name) && !is_huge_pages(name)).then_some("must be a standard resource for containers")
    } else {
        (!is_native(name) && !is_extended(name)).then_some("doesn't follow extended resource name standard")
    };
    errors.extend(why.map(|why| FieldError::invalid(path, shown::word(name), why)));
}

/// The name of a resource that a quota can limit.
pub fn quota_resource_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    resource_name(path, name, errors);
    if !name.contains('/') && !is_of_quotas(name) {
        errors.push(FieldError::invalid(path, shown::word(name), "must be a standard resource for quota"));
    }
}

/// The amount of a resource.
pub fn quantity_value(path: &Path<'_>, name: &str, quantity: &Quantity, errors: &mut Errors) {
    checks::non_negative_quantity(path, quantity, errors);
    if is_integer(name) && checks::amount(quantity).milli() % 1000 != 0 {
        errors.push(FieldError::invalid(path, &quantity.string, NOT_WHOLE));
    }
}

/// An amount that is none of less than nothing.
pub fn basic(path: &Path<'_>, quantity: &Quantity, errors: &mut Errors) {
    let value = checks::amount(quantity).value();
    if value < 0 {
        errors.push(FieldError::invalid(path, value, "must be a valid resource quantity"));
    }
}

/// Huge pages come as a whole.
pub fn huge_pages_fit(path: &Path<'_>, name: &str, quantity: &Quantity, errors: &mut Errors) {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else { return };
    let size = api::quantity::Amount::parse(size).ok().filter(|size| !size.is_negative() && !size.is_zero());
    let fits = size.is_some_and(|size| {
        size.milli() % 1000 == 0 && checks::amount(quantity).value().checked_rem(size.value()) == Some(0)
    });
    if !fits {
        let why = format!("{} is not positive integer multiple of {name}", quantity.string);
        errors.push(FieldError::invalid(path, &quantity.string, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_their_names() {
        type Check = fn(&Path<'_>, &str, &mut Errors);
        let cases: [(Check, &str, usize); 9] = [
            (resource_name, "cpu", 0),
            (resource_name, "a", 1),
            (resource_name, "", 2),
            (container_resource_name, "hugepages-2Mi", 0),
            (container_resource_name, "pods", 1),
            (container_resource_name, "requests.a.b/c", 1),
            (container_resource_name, "a.b/c", 0),
            (quota_resource_name, "storage", 1),
            (quota_resource_name, "count/pods", 0),
        ];
        for (check, name, told) in cases {
            let mut errors = Errors::new();
            check(&Path::root("f"), name, &mut errors);
            assert_eq!(errors.len(), told, "{name}: {errors:?}");
        }
    }
}
