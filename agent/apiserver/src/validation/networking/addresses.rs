//! IPAddresses and ServiceCIDRs.

use api::networking::v1::{IpAddress, ParentReference, ServiceCidr};

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::addresses::{canonical_cidr, parse_cidr_sloppy};
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");

pub fn ip_address(change: &Change<'_, IpAddress>, errors: &mut Errors) {
    let (path, parent) = (SPEC.child("parentRef"), change.new.spec.parent_ref.as_ref());
    match parent {
        Some(parent) => parent_reference(&path, parent, errors),
        None => errors.push(FieldError::required(path, "")),
    }
    if change.old.is_some_and(|old| old.spec.parent_ref.as_ref() != parent) {
        let value = shown::optional("k8s.io.api.networking.v1.ParentReference", parent);
        errors.push(FieldError::invalid(path, value, checks::IMMUTABLE));
    }
}

fn parent_reference(path: &Path<'_>, parent: &ParentReference, errors: &mut Errors) {
    let ParentReference { group, resource, namespace, name } = parent;
    if !group.is_empty() {
        checks::text(&path.child("group"), group, names::dns1123_subdomain(group), errors);
    }
    segment(&path.child("resource"), resource, errors);
    segment(&path.child("name"), name, errors);
    if !namespace.is_empty() {
        checks::text(&path.child("namespace"), namespace, names::path_segment(namespace), errors);
    }
}

/// A text that has to be there and fit into a path.
pub fn segment(path: &Path<'_>, text: &str, errors: &mut Errors) {
    checks::required(path, text, errors);
    if !text.is_empty() {
        checks::text(path, text, names::path_segment(text), errors);
    }
}

pub fn service_cidr(change: &Change<'_, ServiceCidr>, errors: &mut Errors) {
    if change.part == Part::Status {
        return;
    }
    let (new, path) = (&change.new.spec.cidrs, SPEC.child("cidrs"));
    let Some(old) = change.old.map(|old| &old.spec.cidrs) else { return ranges(&path, new, errors) };
    let mut stays = |i: usize| {
        if new[i] != old[i] {
            errors.push(FieldError::invalid(path.index(i), &new[i], checks::IMMUTABLE));
        }
    };
    match (old.len(), new.len()) {
        (before, after) if before == after => (0..after).for_each(stays),
        (1, 2) => {
            stays(0);
            ranges(&path, new, errors);
        }
        _ => errors.push(FieldError::invalid(path, shown::texts(new), checks::IMMUTABLE)),
    }
}

fn ranges(path: &Path<'_>, ranges: &[String], errors: &mut Errors) {
    if ranges.is_empty() {
        return errors.push(FieldError::required(path, "at least one CIDR required"));
    }
    if ranges.len() > 2 {
        let value = serde_json::json!({"CIDRs": ranges});
        return errors.push(FieldError::invalid(path, value, "may only hold up to 2 values"));
    }
    for (i, range) in ranges.iter().enumerate() {
        canonical_cidr(&path.index(i), range, errors);
    }
    if let [one, other] = ranges
        && let (Some((one, _)), Some((other, _))) = (parse_cidr_sloppy(one), parse_cidr_sloppy(other))
        && one.is_ipv4() == other.is_ipv4()
    {
        let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, shown::texts(ranges), why));
    }
}
