//! VolumeAttachments.

use api::storage::v1::{VolumeAttachment, VolumeAttachmentSource, VolumeError};

use crate::status::FieldError;
use crate::strategy::Part;
use crate::validation::core::volume::volume;
use crate::validation::core::volume_source::csi_driver_name;
use crate::validation::{Change, Errors, Path, checks, names, shown};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_METADATA_BYTES: usize = 256 << 10;
const MAX_MESSAGE_LEN: usize = 1024;

pub fn volume_attachment(change: &Change<'_, VolumeAttachment>, errors: &mut Errors) {
    let (spec, status) = (&change.new.spec, &change.new.status);
    csi_driver_name(&SPEC.child("attacher"), &spec.attacher, errors);
    source(&SPEC.child("source"), &spec.source, errors);
    checks::text(&SPEC.child("nodeName"), &spec.node_name, names::dns1123_subdomain(&spec.node_name), errors);
    let size: usize = status.attachment_metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_METADATA_BYTES {
        errors.push(FieldError::too_long(STATUS.child("attachmentMetadata"), MAX_METADATA_BYTES));
    }
    for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
        if let Some(error) = error {
            failure(&STATUS.child(field), error, errors);
        }
    }
    if let Some(name) = &spec.source.persistent_volume_name {
        checks::text(&Path::root("spec.source.persistentVolumeName"), name, names::dns1123_subdomain(name), errors);
    }
    if let Some(old) = change.old.filter(|_| change.part == Part::Main) {
        let shown = |spec: &_| shown::structure("k8s.io.api.storage.v1.VolumeAttachmentSpec", spec);
        checks::immutable(&SPEC, (spec, &old.spec), shown, errors);
    }
}

fn source(path: &Path<'_>, source: &VolumeAttachmentSource, errors: &mut Errors) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    match (&source.inline_volume_spec, &source.persistent_volume_name) {
        (None, None) => errors.push(FieldError::required(path, ONE)),
        (Some(_), Some(_)) => errors.push(FieldError::forbidden(path, ONE)),
        (None, Some(name)) if name.is_empty() => {
            let why = "must specify non empty persistentVolumeName";
            errors.push(FieldError::required(path.child("persistentVolumeName"), why));
        }
        (None, Some(_)) => {}
        (Some(inline), None) => volume(&path.child("inlineVolumeSpec"), inline, None, errors),
    }
}

fn failure(path: &Path<'_>, error: &VolumeError, errors: &mut Errors) {
    if error.message.len() > MAX_MESSAGE_LEN {
        // The bound that is told is another one.
        errors.push(FieldError::too_long(path.child("message"), MAX_METADATA_BYTES));
    }
    if let Some(code) = error.error_code {
        checks::in_range(&path.child("errorCode"), code.into(), (0, i32::MAX.into()), errors);
    }
}
