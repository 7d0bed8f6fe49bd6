//! ResourcePoolStatusRequests: what is asked about pools of devices, and the answer.
//!
//! Upstream declares these rules with the types: what did not change is not looked at again.

use api::dra::v1alpha3::{
    PoolStatus, ResourcePoolStatusRequest, ResourcePoolStatusRequestSpec, ResourcePoolStatusRequestStatus,
};

use super::MAX_POOL_LEN;
use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::conditions::conditions;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const MAX_LIMIT: i32 = 1000;
const MAX_POOLS: usize = 1000;
const MAX_CONDITIONS: usize = 10;
const MAX_ERROR_BYTES: usize = 256;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

pub fn resource_pool_status_request(change: &Change<'_, ResourcePoolStatusRequest>, errors: &mut Errors) {
    let (new, old) = (change.new, change.old);
    match old {
        None => spec(&new.spec, errors),
        Some(old) if new.spec != old.spec => {
            errors.push(FieldError::invalid_omitted(SPEC, "null: field is immutable"));
        }
        Some(_) => {}
    }
    if change.part == Part::Status {
        status(new.status.as_ref(), old.and_then(|old| old.status.as_ref()), errors);
    }
}

fn spec(spec: &ResourcePoolStatusRequestSpec, errors: &mut Errors) {
    driver(&SPEC.child("driver"), &spec.driver, errors);
    if let Some(name) = &spec.pool_name {
        pool_name(&SPEC.child("poolName"), name, errors);
    }
    let path = SPEC.child("limit");
    match spec.limit {
        None => errors.push(FieldError::required(path, "")),
        Some(limit) if limit > MAX_LIMIT => {
            errors.push(FieldError::invalid(path, limit, format!("must be less than or equal to {MAX_LIMIT}")));
        }
        Some(limit) => at_least(&path, Some(limit), 1, errors),
    }
}

fn status(
    new: Option<&ResourcePoolStatusRequestStatus>,
    old: Option<&ResourcePoolStatusRequestStatus>,
    errors: &mut Errors,
) {
    // An answer is final.
    if old.is_some() && new != old {
        let name = "k8s.io.api.resource.v1alpha3.ResourcePoolStatusRequestStatus";
        errors.push(FieldError::invalid(STATUS, shown::optional(name, new), checks::IMMUTABLE));
    }
    let Some(new) = new.filter(|new| Some(*new) != old) else { return };
    if old.is_none() {
        conditions(&STATUS.child("conditions"), &new.conditions, errors);
    }
    if old.is_none_or(|old| old.pool_count != new.pool_count) {
        let path = STATUS.child("poolCount");
        match new.pool_count {
            None => errors.push(FieldError::required(path, "")),
            count => at_least(&path, count, 0, errors),
        }
    }
    if old.is_none_or(|old| old.pools != new.pools) {
        super::items(&STATUS.child("pools"), &new.pools, MAX_POOLS, pool, errors);
    }
    if old.is_none_or(|old| old.conditions != new.conditions) {
        distinct_conditions(new, errors);
    }
}

fn distinct_conditions(status: &ResourcePoolStatusRequestStatus, errors: &mut Errors) {
    let (path, list) = (STATUS.child("conditions"), &status.conditions);
    if list.len() > MAX_CONDITIONS {
        return errors.push(FieldError::too_many(path, list.len(), MAX_CONDITIONS as u64));
    }
    for (i, condition) in list.iter().enumerate() {
        if list[..i].iter().any(|earlier| earlier.r#type == condition.r#type) {
            let value = shown::as_written("k8s.io.apimachinery.pkg.apis.meta.v1.Condition", condition);
            errors.push(FieldError::duplicate(path.index(i), value));
        }
    }
}

fn pool(path: &Path<'_>, pool: &PoolStatus, errors: &mut Errors) {
    driver(&path.child("driver"), &pool.driver, errors);
    let name = path.child("poolName");
    match pool.pool_name.as_str() {
        "" => errors.push(FieldError::required(name, "")),
        text => pool_name(&name, text, errors),
    }
    let generation = path.child("generation");
    match pool.generation {
        0 => errors.push(FieldError::required(generation, "")),
        number => at_least(&generation, Some(number), 0, errors),
    }
    at_least(&path.child("resourceSliceCount"), pool.resource_slice_count, 1, errors);
    let counts = [
        ("totalDevices", pool.total_devices),
        ("allocatedDevices", pool.allocated_devices),
        ("availableDevices", pool.available_devices),
        ("unavailableDevices", pool.unavailable_devices),
    ];
    for (field, count) in counts {
        at_least(&path.child(field), count, 0, errors);
    }
    if let Some(node) = &pool.node_name {
        checks::text(&path.child("nodeName"), node, names::long_name(node), errors);
    }
    if pool.validation_error.as_ref().is_some_and(|why| why.len() > MAX_ERROR_BYTES) {
        errors.push(FieldError::too_long(path.child("validationError"), MAX_ERROR_BYTES));
    }
}

fn driver(path: &Path<'_>, name: &str, errors: &mut Errors) {
    match name {
        "" => errors.push(FieldError::required(path, "")),
        _ => checks::text(path, name, names::long_name_caseless(name), errors),
    }
}

/// Parts of a pool's name, between slashes, in the words of names that upstream declares.
fn pool_name(path: &Path<'_>, name: &str, errors: &mut Errors) {
    if name.len() > MAX_POOL_LEN {
        errors.push(FieldError::too_long(path, MAX_POOL_LEN));
    }
    for (i, part) in name.split('/').enumerate() {
        if part.is_empty() {
            errors.push(FieldError::invalid(path, name, format!("segment {i}: must not be empty")));
            continue;
        }
        for why in names::long_name(part) {
            errors.push(FieldError::invalid(path, part, format!("segment {i}: {why}")));
        }
    }
}

fn at_least(path: &Path<'_>, number: Option<impl Into<i64>>, min: i64, errors: &mut Errors) {
    if let Some(number) = number.map(Into::into).filter(|number| *number < min) {
        errors.push(FieldError::invalid(path, number, format!("must be greater than or equal to {min}")));
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::Part;
    use crate::validation::tests::told;

    fn said(part: Part, new: &str, old: Option<&str>) -> String {
        told("resource.k8s.io/v1alpha3", "ResourcePoolStatusRequest", part, new, old)
    }

    #[test]
    fn pools_are_asked_about_by_name() {
        assert_eq!(said(Part::Main, r#"{"spec":{"driver":"A.b","poolName":"a/b","limit":1}}"#, None), "");
        let expected = "spec.driver: Required value\n\
                        spec.poolName: Invalid value: \"a//b\": segment 1: must not be empty\n\
                        spec.limit: Invalid value: 1001: must be less than or equal to 1000";
        assert_eq!(said(Part::Main, r#"{"spec":{"poolName":"a//b","limit":1001}}"#, None), expected);
        let (new, old) = (r#"{"spec":{"driver":"a","limit":1}}"#, r#"{"spec":{"driver":"b","limit":1}}"#);
        assert_eq!(said(Part::Main, new, Some(old)), "spec: Invalid value: null: field is immutable");
    }

    #[test]
    fn an_answer_is_final() {
        let answer = |status: &str| format!(r#"{{"spec":{{"driver":"a","limit":1}},"status":{status}}}"#);
        let asked = r#"{"spec":{"driver":"a","limit":1}}"#;
        let pools = r#"{"poolCount":1,"pools":[{"driver":"a","poolName":"b","generation":1,"totalDevices":0}]}"#;
        assert_eq!(said(Part::Status, &answer(pools), Some(asked)), "");
        let expected = "status: Invalid value: {\"PoolCount\":-1,\"Pools\":null,\"Conditions\":null}: field is immutable\n\
                        status.poolCount: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(said(Part::Status, &answer(r#"{"poolCount":-1}"#), Some(&answer(pools))), expected);
        let expected = "status.poolCount: Required value\n\
                        status.pools[0].driver: Required value\n\
                        status.pools[0].poolName: Required value\n\
                        status.pools[0].generation: Required value\n\
                        status.pools[0].resourceSliceCount: Invalid value: 0: must be greater than or equal to 1";
        assert_eq!(said(Part::Status, &answer(r#"{"pools":[{"resourceSliceCount":0}]}"#), Some(asked)), expected);
    }
}
