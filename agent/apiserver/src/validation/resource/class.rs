//! DeviceClasses.

use api::dra::v1::{DeviceClass, DeviceClassConfiguration};

use super::{MAX_CONFIGURATIONS, configuration, items, selectors};
use crate::status::FieldError;
use crate::validation::{Change, Errors, Path, resources};

const SPEC: Path<'static> = Path::root("spec");

pub fn device_class(change: &Change<'_, DeviceClass>, errors: &mut Errors) {
    let spec = &change.new.spec;
    selectors(&SPEC.child("selectors"), &spec.selectors, errors);
    let stored = change.old.is_some_and(|old| old.spec.config == spec.config);
    let each = |path: &Path<'_>, each: &DeviceClassConfiguration, errors: &mut Errors| {
        configuration(path, &each.device_configuration, stored, errors);
    };
    items(&SPEC.child("config"), &spec.config, MAX_CONFIGURATIONS, each, errors);
    if let Some(name) = spec.extended_resource_name.as_ref().filter(|name| !resources::is_extended(name)) {
        let why = "must be a valid extended resource name";
        errors.push(FieldError::invalid(SPEC.child("extendedResourceName"), name, why));
    }
}
